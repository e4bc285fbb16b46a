"""``python -m rrgdb.qcow2``."""

import sys

from .cli import main

sys.exit(main())
