"""Event logs for tests: strategies, and files put together by hand."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash
from hypothesis import strategies as st

from rrgdb.recording.log import Event, EventKind, EventLog

RECORDING = bytes(range(16))
RAW, ZSTD = 0, 1

Chunk = tuple[list[Event], int]
"""events and horizon"""


@contextmanager
def opened(path: Path, recording_id: bytes | None = RECORDING, *, writable: bool = False) -> Iterator[EventLog]:
    log = EventLog.open(path, recording_id, writable=writable)
    try:
        yield log
    finally:
        log.close()


def write_log(path: Path, chunks: list[Chunk]) -> list[int]:
    """Write a log; returns its sizes: after the header and after each chunk."""
    path.unlink(missing_ok=True)
    log = EventLog.create(path, RECORDING)
    sizes = [log.size]
    for events, horizon in chunks:
        for event in events:
            log.append(event)
        log.close_chunk(horizon)
        sizes.append(log.size)
    log.close()
    return sizes


def all_events(log: EventLog) -> list[list[Event]]:
    """The events by kind."""
    return [list(log.answers), list(log.inputs), list(log.digests), [log.end] if log.end else []]


def expected_events(chunks: list[Chunk]) -> list[list[Event]]:
    return [[event for events, _ in chunks for event in events if event.kind == kind] for kind in EventKind]


names = st.one_of(st.sampled_from(["rtc", "uart0", "debugger"]), st.text(min_size=1, max_size=16))
payloads = st.one_of(
    st.binary(max_size=40), st.builds(lambda byte, count: byte * count, st.binary(max_size=3), st.integers(0, 3000))
)


@st.composite
def chunk_lists(draw: st.DrawFn, max_chunks: int = 5) -> list[Chunk]:
    """Chunks as a recording may write them."""
    icount = 0
    chunks: list[Chunk] = []
    kinds = st.sampled_from([EventKind.ANSWER, EventKind.INPUT, EventKind.DIGEST])
    deltas = st.one_of(st.integers(0, 3), st.integers(0, 1 << 40))
    for _ in range(draw(st.integers(0, max_chunks))):
        events = []
        for _ in range(draw(st.integers(0, 6))):
            icount += draw(deltas)
            events.append(Event(icount, draw(kinds), draw(names), draw(payloads)))
        icount += draw(deltas)
        chunks.append((events, icount))
    if chunks and draw(st.booleans()):
        chunks[-1][0].append(Event(icount, EventKind.END, "guest", draw(payloads)))
    return chunks


class HandMade:
    """A log file with right checksums, whatever is in it."""

    def __init__(self, *, major: int = 1, minor: int = 0, magic: bytes = b"RRGDBLOG") -> None:
        head = struct.pack("<8sHH16s", magic, major, minor, RECORDING)
        self.crc = zlib.crc32(head)
        self.data = head + self.crc.to_bytes(4, "little")
        self.sum = self.crc
        self.sequence = 0

    def add(
        self,
        stored: bytes,
        *,
        count: int,
        first: int = 0,
        horizon: int = 100,
        raw_length: int | None = None,
        codec: int = RAW,
        sequence: int | None = None,
    ) -> HandMade:
        raw_length = len(stored) if raw_length is None else raw_length
        sequence = self.sequence if sequence is None else sequence
        header = struct.pack("<4sIQQIIII", b"RRCH", sequence, first, horizon, count, raw_length, len(stored), codec)
        header += zlib.crc32(header, self.crc).to_bytes(4, "little")
        self.sum = xxhash.xxh3_64_intdigest(header + stored, seed=self.sum)
        self.data += header + self.sum.to_bytes(8, "little") + stored
        self.sequence += 1
        return self
