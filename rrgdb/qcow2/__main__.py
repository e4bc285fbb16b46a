"""``python -m rrgdb.qcow2``."""

import sys

try:
    from .cli import main

    status = main()
except KeyboardInterrupt:  # before ``main`` can see it
    print("qcow2: interrupted", file=sys.stderr)
    status = 1
sys.exit(status)
