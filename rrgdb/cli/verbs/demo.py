"""``rrgdb demo``."""

from __future__ import annotations

import sys

from rrgdb.demo import run_demo


def demo(serve: bool) -> None:
    sys.exit(run_demo(serve=serve))
