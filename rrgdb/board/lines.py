"""Interrupt lines of a board: their levels, and who hears of them."""

from __future__ import annotations

import struct
from collections.abc import Callable

MAX_LINES = 2048


class Lines:
    """Lines 0 to ``count`` - 1, all low at first."""

    def __init__(self, count: int) -> None:
        if not 0 <= count <= MAX_LINES:
            raise ValueError(f"{count} interrupt lines, expected at most {MAX_LINES}")
        self.count = count
        self._high: set[int] = set()
        self._receiver: Callable[[int, bool], None] | None = None
        self._repeated = False

    def attach(self, receiver: Callable[[int, bool], None], *, repeated: bool = False) -> None:
        """``receiver(line, level)`` hears of each change of a level, and if ``repeated``, of each line that is raised
        while it is high. ValueError if somebody does already."""
        if self._receiver is not None:
            raise ValueError("the interrupt lines have a receiver already")
        self._receiver, self._repeated = receiver, repeated

    def set(self, line: int, level: bool) -> None:
        """ValueError for a line that is not there."""
        if not 0 <= line < self.count:
            raise ValueError(f"interrupt line {line}, expected one below {self.count}")
        if level == (line in self._high) and not (level and self._repeated):
            return
        (self._high.add if level else self._high.discard)(line)
        if self._receiver is not None:
            self._receiver(line, level)

    @property
    def high(self) -> list[int]:
        """The lines that are high, ascending."""
        return sorted(self._high)

    @property
    def raised(self) -> bool:
        """Whether any line is high."""
        return bool(self._high)

    def is_high(self, line: int) -> bool:
        return line in self._high

    def reset(self) -> None:
        """All are low, and nobody hears of it."""
        self._high.clear()

    def save(self) -> bytes:
        """The lines that are high, ascending, u16 each."""
        return struct.pack(f"<{len(self._high)}H", *sorted(self._high))

    def load(self, state: bytes) -> None:
        """ValueError, with nothing changed, on bytes that ``save`` of this board cannot have returned. Nobody hears of
        it: what the receiver knows is in its own state."""
        if len(state) % 2 or len(state) > 2 * self.count:
            raise ValueError(
                f"interrupt lines: state of {len(state)} bytes, expected 2 for each of {self.count} at most"
            )
        lines = struct.unpack(f"<{len(state) // 2}H", state)
        if list(lines) != sorted(set(lines)) or any(line >= self.count for line in lines):
            raise ValueError(f"interrupt lines: expected numbers below {self.count}, ascending")
        self._high = set(lines)
