"""In which RAM pages snapshots differ, as far as it was asked or is known from taking them."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

_MOST_NUMBERS = 2 << 20
"""page numbers that are remembered: 16 MiB"""


class Differences:
    """Answers to "which pages may differ between these two", by the ids of snapshots, whose contents never change.
    What was not asked for the longest time goes first."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], npt.NDArray[np.int64]] = OrderedDict()
        self._count = 0

    def get(self, a: str, b: str) -> npt.NDArray[np.int64] | None:
        """The pages, ascending, in whatever order the two are given; None if it is not known."""
        pair = (a, b) if a < b else (b, a)
        numbers = self._known.get(pair)
        if numbers is not None:
            self._known.move_to_end(pair)
        return numbers

    def put(self, a: str, b: str, numbers: npt.NDArray[np.int64]) -> None:
        """Nobody changes ``numbers`` any more."""
        numbers.flags.writeable = False
        pair = (a, b) if a < b else (b, a)
        self._count += len(numbers) - len(self._known.pop(pair, ()))
        self._known[pair] = numbers
        while self._count > _MOST_NUMBERS:
            self._count -= len(self._known.popitem(last=False)[1])
