"""The ``rrgdb`` command, and ``python -m rrgdb``.

What it needs takes a good part of a second to import. So nothing is imported here before that can fail, or be
interrupted, in one line.
"""

import os
import signal
import sys
from itertools import takewhile

_INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Entry point: see ``rrgdb.cli.main.main``."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # and not ignored
        # Not by an exception: it could come up inside of another import, and be taken for that one's failure.
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    try:
        from rrgdb.cli.main import main as command_line  # noqa: PLC0415 - see above

        if handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, handler)
        command_line()
    except ImportError as error:
        # Of rrgdb itself, before the verb: behind it are the guest's arguments as well.
        if "--debug" in takewhile(lambda word: word.startswith("-"), sys.argv[1:]):
            raise
        print(f"rrgdb: {' '.join(str(error).split())[:400]}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
