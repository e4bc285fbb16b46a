"""Events: what the event log holds, in memory and as the payload of a chunk (layout: ``rrgdb.recording.log``)."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple, TypeAlias, overload

from rrgdb.recording import _events

MAX_SOURCES = 255
MAX_SOURCE_NAME = 64
"""bytes of UTF-8"""
MAX_PAYLOAD = 1 << 20
"""bytes of one event"""
MAX_ICOUNT = (1 << 64) - 1
Columns: TypeAlias = tuple[bytes, bytes, bytes, bytes]
"""icounts (u64), sources (u8), ends of the payloads (u64), payloads: of events of one kind, in the host's byte order"""
MIN_EVENT = 4
"""bytes that the shortest event takes: delta, source, kind, length"""


class EventKind(IntEnum):
    """ANSWER: synchronous, icount is the number of the executing instruction. INPUT: asynchronous, delivered before
    instruction ``icount``. DIGEST: the state digest at position ``icount``. END: how the guest ended; nothing
    follows it."""

    ANSWER = 0
    INPUT = 1
    DIGEST = 2
    END = 3

    __hash__ = int.__hash__  # an enumeration's own is ten times as slow


CHRONOLOGY = {EventKind.INPUT: 0, EventKind.DIGEST: 1, EventKind.ANSWER: 2, EventKind.END: 3}
"""Order of events of the same icount: a position n is the state after all inputs at n; then instruction n executes."""


class Event(NamedTuple):
    """One event; ``icount`` in instructions, ``source`` 1-64 bytes of UTF-8, ``payload`` at most 1 MiB."""

    icount: int
    kind: EventKind
    source: str
    payload: bytes


class EventList(Sequence[Event]):
    """Events of one kind in order, kept in columns (17 bytes an event plus its payload)."""

    __slots__ = ("_ends", "_icounts", "_kind", "_names", "_payloads", "_sources")

    def __init__(self, kind: EventKind, names: list[str]) -> None:
        self._kind = kind
        self._names = names
        self._icounts = array("Q")
        self._sources = array("B")
        self._ends = array("Q")
        self._payloads = bytearray()

    def __len__(self) -> int:
        return len(self._icounts)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        if isinstance(index, slice):
            return self._slice(index)
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError("event index out of range")
        start = self._ends[index - 1] if index else 0
        payload = bytes(self._payloads[start : self._ends[index]])
        return Event(self._icounts[index], self._kind, self._names[self._sources[index]], payload)

    def _slice(self, wanted: slice) -> list[Event]:
        icounts, sources, kind, names = self._icounts[wanted], self._sources[wanted], self._kind, self._names
        payloads: list[bytes] = []
        for index in range(*wanted.indices(len(self))):
            start = self._ends[index - 1] if index else 0
            payloads.append(bytes(self._payloads[start : self._ends[index]]))
        return [Event(i, kind, names[s], p) for i, s, p in zip(icounts, sources, payloads, strict=True)]

    def __iter__(self) -> Iterator[Event]:
        for index in range(len(self)):
            yield self[index]

    def icount(self, index: int) -> int:
        """The icount of one event; IndexError as for a list."""
        return self._icounts[index]

    @property
    def last_icount(self) -> int:
        """That of the last one; 0 if there is none."""
        return self._icounts[-1] if self._icounts else 0

    def index_at(self, icount: int) -> int:
        """Index of the first event at or after ``icount``; ``len(self)`` if there is none."""
        return bisect_left(self._icounts, icount)

    def by_source(self) -> dict[str, int]:
        """How many there are of each source."""
        sources = self._sources.tobytes()
        counts = {name: sources.count(bytes((index,))) for index, name in enumerate(self._names)}
        return {name: count for name, count in counts.items() if count}

    def append(self, icount: int, source: int, payload: bytes) -> None:
        """For the log alone; ``source`` is the index into the names."""
        self._icounts.append(icount)
        self._sources.append(source)
        self._payloads += payload
        self._ends.append(len(self._payloads))

    def extend(self, columns: Columns) -> None:
        """For the log alone: append events whose ``ends`` count on from ``payload_bytes``."""
        icounts, sources, ends, payloads = columns
        self._icounts.frombytes(icounts)
        self._sources.frombytes(sources)
        self._ends.frombytes(ends)
        self._payloads += payloads

    @property
    def payload_bytes(self) -> int:
        """Bytes of all payloads."""
        return len(self._payloads)

    def truncate(self, length: int) -> None:
        """For the log alone: keep the first ``length`` events."""
        del self._payloads[self._ends[length - 1] if length else 0 :]
        del self._icounts[length:], self._sources[length:], self._ends[length:]


def new_lists(names: list[str]) -> dict[EventKind, EventList]:
    """One for each kind, in the order of their numbers."""
    return {kind: EventList(kind, names) for kind in EventKind}


def encode_varint(value: int) -> bytes:
    """Unsigned LEB128 of a value below 2**64: 1 to 10 bytes."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def check_source_name(source: str) -> bytes:
    """The name as UTF-8; ValueError unless it has 1 to 64 bytes."""
    name = source.encode()
    if not 0 < len(name) <= MAX_SOURCE_NAME:
        raise ValueError(f"expected a source name of 1 to {MAX_SOURCE_NAME} bytes, got {len(name)}")
    return name


class ChunkEncoder:
    """Builds the raw payload of one chunk; ``interned`` are the sources that earlier chunks defined."""

    def __init__(self, interned: Mapping[str, int], max_raw: int) -> None:
        self.raw = bytearray()
        self.sources = dict(interned)
        self.counts = dict.fromkeys(EventKind, 0)
        self.first = self.last = 0
        self._max_raw = max_raw

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    def add(self, event: Event) -> bool:
        """Add the next event (its icount is at least the last one's); False if it does not fit."""
        icount, kind, source, payload = event
        known = self.sources.get(source)
        delta, length = icount - self.last if self.raw else 0, len(payload)
        if known is not None and delta < 0x80 and length < 0x80:
            head = bytes((delta, known, kind, length))
        else:
            head = encode_varint(delta) + bytes((len(self.sources) if known is None else known,))
            if known is None:
                name = check_source_name(source)
                head += bytes((len(name),)) + name
            head += bytes((kind,)) + encode_varint(length)
        if len(self.raw) + len(head) + length > self._max_raw:
            return False
        if not self.raw:
            self.first = icount
        self.raw += head
        self.raw += payload
        if known is None:
            self.sources[source] = len(self.sources)
        self.counts[kind] += 1
        self.last = icount
        return True


def decode_chunk(
    raw: bytes, count: int, span: tuple[int, int], names: list[str], lists: Mapping[EventKind, EventList]
) -> None:
    """Append the events of one chunk to ``lists`` (see ``new_lists``) and its new sources to ``names``; ValueError says
    what is wrong.

    ``span``: the icount of the first event and the horizon."""
    of_kinds = tuple(lists.values())
    bases = tuple([events.payload_bytes for events in of_kinds])
    columns, defined = _events.decode(raw, count, *span, len(names), bool(of_kinds[EventKind.END]), bases)
    if defined:
        _define(defined, names)
    for events, column in zip(of_kinds, columns, strict=True):
        if column[0]:
            events.extend(column)


def _define(defined: list[bytes], names: list[str]) -> None:
    for name in defined:
        try:
            text = name.decode()
        except UnicodeDecodeError:
            raise ValueError("expected a source name in UTF-8") from None
        if text in names:
            raise ValueError(f"source {text!r} is defined twice")
        names.append(text)
