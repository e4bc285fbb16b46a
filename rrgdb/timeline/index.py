"""The index of history: footprints of the spans that were executed, for searches to pass over.

A span ends where a state digest was recorded; one that ends elsewhere, because the guest was taken elsewhere, is kept
in memory and joined with what follows it. History that nobody has noted yet is noted when it is replayed.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from rrgdb.engine.base import REGIME, Engine, Ranges, ranges
from rrgdb.recording.index import Entry, IndexFile, IndexFileError
from rrgdb.recording.log import EventLog

_UNPACKED = 32 << 20
"""bytes of unpacked entries that are kept"""


class Lack(NamedTuple):
    """What was replayed from ``begin`` to ``end`` beyond what the index says: ranges of code and of pages. Footprints
    may hold too much, so nothing of it need have happened."""

    begin: int
    end: int
    code: Ranges
    pages: Ranges


class Index:
    """Footprints of spans that do not overlap. ``open_file``: the file they come from and go to, opened when it is
    needed first; IndexFileError from it: in memory alone."""

    def __init__(self, engine: Engine, log: EventLog, open_file: Callable[[], IndexFile]) -> None:
        self._engine = engine
        self._log = log
        self._file: IndexFile | None = None
        self._open: Callable[[], IndexFile] | None = open_file
        self._spans: list[Entry] = []
        self._unpacked: OrderedDict[int, tuple[Entry, Ranges, Ranges]] = OrderedDict()
        self._unpacked_bytes = 0
        self.on_note: Callable[[Entry], None] = lambda _entry: None
        """told of each span that is noted"""
        self.on_lack: Callable[[Lack], None] | None = None
        """told where what is replayed is not in the index, to verify that"""
        engine.forget_footprint()

    def _load(self) -> None:
        if self._open is None:
            return
        open_file, self._open = self._open, None
        try:
            self._file = open_file()
        except IndexFileError:
            return
        for entry in self._file.entries:
            if entry.log in self._log.checksums_at(entry.end):
                self._insert(entry)

    def _is_edge(self, icount: int) -> bool:
        """Whether a span that is kept on disk may begin or end there."""
        digests = self._log.digests
        i = digests.index_at(icount)
        return icount == 0 or (i < len(digests) and digests.icount(i) == icount)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Begin and end of every span, ascending."""
        self._load()
        return [(entry.begin, entry.end) for entry in self._spans]

    # -- noting ----------------------------------------------------------------------------------

    def note(self) -> None:
        """The guest stands in history, or at its present: what it came from is known from here on."""
        self._load()
        begin, end = self._engine.footprint_begin, self._engine.icount
        if begin >= end:
            return
        if self._covers(begin, end):
            if self.on_lack is not None:
                self._compare(begin, end, self.on_lack)
            self._engine.forget_footprint()
            return
        footprint = self._engine.take_footprint()
        if footprint is None:
            return
        code, pages = footprint.code, footprint.pages
        before = self._span_ending_at(begin)
        if before is not None and not self._is_edge(begin):
            unpacked = self._unpack(before)
            if unpacked is not None:
                begin = before.begin
                code, pages = _union(code, unpacked[0]), _union(pages, unpacked[1])
        checksums = self._log.checksums_at(end)
        entry = Entry.pack(begin, end, checksums[-1] if checksums else 0, code, pages)
        if entry is not None:
            self.on_note(entry)
            self._keep(entry)

    def _compare(self, begin: int, end: int, told: Callable[[Lack], None]) -> None:
        footprint = self._engine.take_footprint()
        at, known = end, list[tuple[Ranges, Ranges]]()
        while footprint is not None and at > begin and (span := self._span_over(at)) is not None:
            unpacked = self._unpack(span)
            if unpacked is None:
                return
            known.append(unpacked)
            at = span.begin
        if footprint is None or not known:
            return
        code, pages = (_union(*(side[i] for side in known)) for i in range(2))
        lack = Lack(begin, end, _beyond(footprint.code, code), _beyond(footprint.pages, pages))
        if len(lack.code) or len(lack.pages):
            told(lack)

    def learn(self, entries: Iterable[Entry]) -> None:
        """Take in what others have noted of the same history."""
        self._load()
        for entry in entries:
            if not self._covers(entry.begin, entry.end):
                self._keep(entry)

    def _keep(self, entry: Entry) -> None:
        if not self._insert(entry):
            return
        whole = entry.log and self._is_edge(entry.begin) and self._is_edge(entry.end)
        if whole and self._file is not None and self._file.writable:
            with suppress(IndexFileError):
                self._file.append(entry)

    def _covers(self, begin: int, end: int) -> bool:
        while (span := self._span_over(end)) is not None:
            if span.begin <= begin:
                return True
            end = span.begin
        return False

    def _span_over(self, end: int) -> Entry | None:
        """The span that holds the instruction before position ``end``."""
        i = bisect.bisect_left(self._spans, end, key=lambda e: e.end)
        return self._spans[i] if i < len(self._spans) and self._spans[i].begin < end else None

    def _span_ending_at(self, icount: int) -> Entry | None:
        span = self._span_over(icount)
        return span if span is not None and span.end == icount else None

    def _insert(self, entry: Entry) -> bool:
        """Keep an entry unless it overlaps others that are not a part of it."""
        first = bisect.bisect_right(self._spans, entry.begin, key=lambda e: e.end)
        last = bisect.bisect_left(self._spans, entry.end, key=lambda e: e.begin)
        inside = self._spans[first:last]
        if inside and (inside[0].begin < entry.begin or inside[-1].end > entry.end):
            return False
        self._spans[first:last] = [entry]
        return True

    # -- asking ----------------------------------------------------------------------------------

    def clear_since(self, end: int, floor: int, addresses: Iterable[int], pages: Iterable[int]) -> int:
        """The earliest position, not before ``floor``, from which to ``end`` no pc was one of ``addresses`` and nothing
        wrote to these ``pages``, as far as that is known."""
        wanted = self._asked(addresses, pages)
        while wanted and end > floor and (span := self._clear_span(end, wanted)) is not None:
            end = span.begin
        return max(end, floor)

    def clear_until(self, begin: int, ceiling: int, addresses: Iterable[int], pages: Iterable[int]) -> int:
        """The latest position, not behind ``ceiling``, up to which from ``begin`` the same holds."""
        wanted = self._asked(addresses, pages)
        while wanted and begin < ceiling and (span := self._clear_span(begin + 1, wanted)) is not None:
            begin = span.end
        return min(begin, ceiling)

    def _asked(self, *numbers: Iterable[int]) -> list[Ranges]:
        """Empty: the index cannot tell."""
        self._load()
        asked = [np.array(sorted(set(some)), dtype=np.uint64) for some in numbers]
        told = self._file is None or self._file.tells_regime
        return asked if told or REGIME not in asked[1] else []

    def span_end(self, icount: int) -> int | None:
        """Where the span ends that holds the instruction at a position; None if it is not known."""
        self._load()
        span = self._span_over(icount + 1)
        return None if span is None else span.end

    def _clear_span(self, end: int, wanted: Sequence[Ranges]) -> Entry | None:
        """The span that holds the instruction before position ``end``, if nothing of what is ``wanted`` was in it."""
        self._load()
        span = self._span_over(end)
        unpacked = None if span is None else self._unpack(span)
        if unpacked is None or any(_meets(held, asked) for held, asked in zip(unpacked, wanted, strict=True)):
            return None
        return span

    def _unpack(self, entry: Entry) -> tuple[Ranges, Ranges] | None:
        """Code and pages; an entry that turns out to be damaged is forgotten."""
        key = id(entry)
        known = self._unpacked.get(key)
        if known is not None:
            self._unpacked.move_to_end(key)
            return known[1:]
        try:
            code, pages = entry.unpack()
        except ValueError:
            self._spans.remove(entry)
            return None
        self._unpacked[key] = (entry, code, pages)
        self._unpacked_bytes += code.nbytes + pages.nbytes
        while self._unpacked_bytes > _UNPACKED and len(self._unpacked) > 1:
            _, (_, old_code, old_pages) = self._unpacked.popitem(last=False)
            self._unpacked_bytes -= old_code.nbytes + old_pages.nbytes
        return code, pages

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _union(*parts: Ranges) -> Ranges:
    together = np.concatenate(parts)
    return ranges(together[:, 0], together[:, 1])


def _beyond(some: Ranges, others: Ranges) -> Ranges:
    """The numbers of ``some`` that are not in ``others``; both are ascending and do not overlap or touch."""
    found: list[tuple[int, int]] = []
    for begin, last in some.tolist():
        first = begin
        i = int(np.searchsorted(others[:, 1], np.uint64(first)))
        while i < len(others) and first <= last and int(others[i, 0]) <= last:
            if first < int(others[i, 0]):
                found.append((first, int(others[i, 0]) - 1))
            first = int(others[i, 1]) + 1
            i += 1
        if first <= last:
            found.append((first, last))
    return np.array(found, dtype=np.uint64).reshape(-1, 2)


def _meets(held: Ranges, asked: Ranges) -> bool:
    """Whether any of the numbers ``asked`` lies in a range of ``held``."""
    if not len(held) or not len(asked):
        return False
    i = np.searchsorted(held[:, 0], asked, side="right")
    return bool(np.any((i > 0) & (asked <= held[np.maximum(i, 1) - 1, 1])))
