"""``python -m rrgdb``."""

from rrgdb.cli import main

main()
