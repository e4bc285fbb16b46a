"""How far a long operation is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

Progress = Callable[[int, int], None]
"""Is told, again and again, the bytes of the disk that are done, and all of them. What it raises ends the operation."""

_INTERVAL = 0.1  # seconds


def silent(_done: int, _total: int) -> None:
    """For ``Progress``: tell nobody."""


class Meter:
    """For ``Progress``: a line on a terminal, as that of ``qemu-img -p``."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._told = 0.0
        self._open = False

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told >= _INTERVAL or done >= total:
            self._told, self._open = now, True
            self._out.write(f"    ({100 * done / total if total else 100:.2f}/100%)\r")
            self._out.flush()

    def end(self) -> None:
        """Leave the line, if there is one."""
        if self._open:
            self._out.write("\n")
            self._out.flush()
