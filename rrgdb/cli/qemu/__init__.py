"""QEMU's command line, as ``rrgdb run`` and ``rrgdb record`` take it: ``table`` says what becomes of each option,
``translate`` turns an argument list into one of rrgdb's own options, ``boot`` reads what their values say."""
