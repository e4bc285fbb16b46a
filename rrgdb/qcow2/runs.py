"""Free runs of clusters below the end of the image, sorted and merged."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
import numpy.typing as npt


def split_runs(values: npt.NDArray[np.int64], step: int = 1) -> list[tuple[int, int]]:
    """(index, count) of the runs in ``values`` in which each element is its predecessor plus ``step``."""
    if len(values) < 2:
        return [(0, 1)] * len(values)
    cuts = np.flatnonzero(np.diff(values) != step) + 1
    starts = [0, *cuts.tolist()]
    ends = [*starts[1:], len(values)]
    return [(start, end - start) for start, end in zip(starts, ends, strict=True)]


class FreeRuns:
    """First-fit over runs."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._lengths: list[int] = []
        self._largest = 0  # no run is longer than this

    def __iter__(self) -> object:
        return iter(zip(self._starts, self._lengths, strict=True))

    def add(self, clusters: npt.NDArray[np.int64]) -> None:
        """Free ``clusters`` (sorted, distinct, not free yet)."""
        for index, count in split_runs(clusters):
            self._add(int(clusters[index]), count)

    def _add(self, start: int, length: int) -> None:
        starts, lengths = self._starts, self._lengths
        i = bisect_left(starts, start)
        if i < len(starts) and start + length == starts[i]:
            length += lengths.pop(i)
            starts.pop(i)
        if i and starts[i - 1] + lengths[i - 1] == start:
            i -= 1
            lengths[i] += length
        else:
            starts.insert(i, start)
            lengths.insert(i, length)
        self._largest = max(self._largest, lengths[i])

    def take(self, length: int) -> int | None:
        """The start of ``length`` contiguous clusters, or None."""
        if length > self._largest:
            return None
        for i, have in enumerate(self._lengths):
            if have >= length:
                return self._cut(i, length)
        self._largest = max(self._lengths, default=0)
        return None

    def take_some(self, most: int, least: int) -> tuple[int, int] | None:
        """(start, length) of a run with at least ``least`` clusters, of which at most ``most`` are taken."""
        if least > self._largest:
            return None
        for i, have in enumerate(self._lengths):
            if have >= least:
                length = min(have, most)
                return self._cut(i, length), length
        self._largest = max(self._lengths, default=0)
        return None

    def _cut(self, i: int, length: int) -> int:
        start = self._starts[i]
        if self._lengths[i] == length:
            del self._starts[i], self._lengths[i]
        else:
            self._starts[i] += length
            self._lengths[i] -= length
        return start
