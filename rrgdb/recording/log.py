"""The event log: everything that entered a guest, with the icount at which it entered.

Layout, version 1.0; all integers are little-endian, sizes in bytes, icounts in instructions.

File header, 32 bytes::

    0   8  magic "RRGDBLOG"
    8   2  major version (1): another major version is refused
    10  2  minor version (0): a newer one may hold event kinds that an older reader refuses
    12 16  recording id
    28  4  CRC-32 (zlib) of bytes 0-27

Chunks follow without gaps, each a header of 52 bytes and ``stored length`` bytes of payload::

    0   4  magic "RRCH"
    4   4  sequence number: 0, 1, 2 …
    8   8  first: icount of the first event; the horizon if there is none
    16  8  horizon: the log is complete up to and including this position
    24  4  number of events; 0 is legal, such a chunk only moves the horizon
    28  4  raw length of the payload, at most 16 MiB
    32  4  stored length: at most the raw length; with the header at least 1/32 of it
    36  4  codec: 0 raw (both lengths are equal), 1 one zstd frame that states its content size
    40  4  CRC-32 of bytes 0-39, started with the file header's CRC
    44  8  XXH3-64 of bytes 0-43 and the stored payload, seeded with the previous chunk's XXH3-64; for the first
           chunk with the file header's CRC: a chunk that is dropped, moved or from another recording does not fit

``first`` is at least the previous chunk's horizon, and events stand in the order of their icounts. The raw payload is a
sequence of events; a varint is unsigned LEB128 in its shortest form, below 2**64::

    varint  icount minus that of the event before it (0 for the chunk's first event)
    byte    source index; if it is the number of sources seen so far in the file (at most 254), a definition follows:
            one byte length (1-64) and the name in UTF-8
    byte    kind: 0 answer, 1 input, 2 digest, 3 end (the last event of the log)
    varint  length, at most 1 MiB
    bytes   payload

A chunk is one write, so a writer killed at any instant leaves whole chunks and at most one torn tail: the reader keeps
the whole ones. A damaged chunk with a valid chunk header anywhere behind it is corruption.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from array import array
from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import NamedTuple, Self

import xxhash
import zstandard

from rrgdb.errors import Error
from rrgdb.recording.events import (
    CHRONOLOGY,
    MAX_ICOUNT,
    MAX_PAYLOAD,
    MAX_SOURCES,
    MIN_EVENT,
    ChunkEncoder,
    Event,
    EventKind,
    EventList,
    check_source_name,
    decode_chunk,
    new_lists,
)
from rrgdb.recording.files import open_regular, write_all

__all__ = ["Event", "EventKind", "EventList", "EventLog", "LogError"]

MAJOR, MINOR = 1, 0
MAX_RAW = 16 << 20
MAX_RATIO = 32
"""bounds what a small hostile file can make of itself in memory"""

_FILE_MAGIC = b"RRGDBLOG"
_FILE_HEADER = struct.Struct("<8sHH16sI")
_CHUNK_MAGIC = b"RRCH"
_CHUNK_HEADER = struct.Struct("<4sIQQIIIIIQ")
_CRC_AT, _SUM_AT = 40, 44
_RAW, _ZSTD = 0, 1
_SCAN = 1 << 20


class LogError(Error):
    """The event log cannot be read or written: one line with file, offset and what was expected."""


class _Chunk(NamedTuple):
    sequence: int
    first: int
    horizon: int
    events: int
    raw_length: int
    stored_length: int
    codec: int
    checksum: int


def _checksum(header: bytes, stored: bytes, previous: int) -> int:
    return xxhash.xxh3_64_intdigest(header[:_SUM_AT] + stored, previous)


def _reason(error: OSError) -> str:
    return "disk full" if error.errno == errno.ENOSPC else error.strerror or str(error)


def _max_raw(stored_length: int) -> int:
    return (_CHUNK_HEADER.size + stored_length) * MAX_RATIO


class EventLog:
    """An open event log. ``answers``, ``inputs`` and ``digests`` hold the events in order, those not written yet
    included; ``horizon`` is that of the last chunk on disk. One thread uses it."""

    def __init__(self, path: Path, fd: int, recording_id: bytes, header_crc: int, writable: bool) -> None:
        self.path = path
        self.recording_id = recording_id
        self.writable = writable
        self.horizon = 0
        self.truncated_bytes = 0
        self.size = _FILE_HEADER.size
        self._fd = fd
        self._header_crc = header_crc
        self._checksum = header_crc
        self._horizons = array("Q")
        self._checksums = array("Q")
        self._sequence = 0
        self._broken = False
        self._synced = 0
        self._names: list[str] = []
        self._lists = new_lists(self._names)
        self._end: Event | None = None
        self._written = dict.fromkeys(EventKind, 0)
        self._interned: dict[str, int] = {}

    @classmethod
    def create(cls, path: Path, recording_id: bytes) -> Self:
        """A new log; LogError if the file exists or cannot be written. ``recording_id``: 16 bytes."""
        if len(recording_id) != 16:
            raise ValueError(f"expected a recording id of 16 bytes, got {len(recording_id)}")
        head = _FILE_HEADER.pack(_FILE_MAGIC, MAJOR, MINOR, recording_id, 0)[:-4]
        crc = zlib.crc32(head)
        try:
            fd = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        except OSError as error:
            raise LogError(f"{path}: cannot create the event log: {error.strerror}") from error
        log = cls(path, fd, recording_id, crc, True)
        log.size = 0
        try:
            log._write(head + crc.to_bytes(4, "little"))
        except LogError:
            os.close(fd)
            raise
        return log

    @classmethod
    def open(cls, path: Path, recording_id: bytes | None = None, *, writable: bool = False) -> Self:
        """Open and read a log; a torn tail is left out, and cut off if ``writable``. LogError if it is no event log, of
        a newer version, of another recording (``recording_id``) or damaged."""
        try:
            fd = open_regular(path, os.O_RDWR | os.O_APPEND if writable else os.O_RDONLY)
        except OSError as error:
            raise LogError(f"{path}: cannot open the event log: {error.strerror}") from error
        try:
            log = cls(path, fd, *cls._read_file_header(path, fd, recording_id, writable), writable)
            log._read_chunks()
            if writable and log.truncated_bytes:
                os.ftruncate(fd, log.size)
        except OSError as error:
            os.close(fd)
            raise LogError(f"{path}: cannot read the event log: {error.strerror}") from error
        except BaseException:
            os.close(fd)
            raise
        return log

    # Events

    @property
    def answers(self) -> EventList:
        return self._lists[EventKind.ANSWER]

    @property
    def inputs(self) -> EventList:
        return self._lists[EventKind.INPUT]

    @property
    def digests(self) -> EventList:
        return self._lists[EventKind.DIGEST]

    @property
    def end(self) -> Event | None:
        """How the guest ended, if it did."""
        if self._end is None and (ends := self._lists[EventKind.END]):
            self._end = ends[0]
        return self._end

    @property
    def last(self) -> int:
        """Last position of history."""
        return self.horizon if self.end is None else self.end.icount

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(self._names)

    def checksums_at(self, icount: int) -> list[int]:
        """Those of the chunks on disk that end at this position: each tells all of the log up to there."""
        first, last = (bisect(self._horizons, icount) for bisect in (bisect_left, bisect_right))
        return list(self._checksums[first:last])

    @property
    def pending(self) -> bool:
        """Whether events wait for ``close_chunk``."""
        return any(len(events) > self._written[kind] for kind, events in self._lists.items())

    def append(self, event: Event) -> None:
        """Add an event; it is written by ``close_chunk``.

        ValueError if the icount is below the horizon or below that of the last event of its kind, if the guest has
        ended, or if the source or the payload is too long; LogError if there are 255 other sources already."""
        icount, kind, source, payload = event
        events = self._lists[kind]
        floor = max(self.horizon, events.last_icount)
        if not floor <= icount <= MAX_ICOUNT:
            raise ValueError(f"expected an icount of at least {floor}, got {icount}")
        if len(payload) > MAX_PAYLOAD:
            raise ValueError(f"expected a payload of at most {MAX_PAYLOAD} bytes, got {len(payload)}")
        if self._lists[EventKind.END]:
            raise ValueError("expected no event behind the end of the guest")
        if source not in self._names:
            check_source_name(source)
            if len(self._names) == MAX_SOURCES:
                raise LogError(f"{self.path}: source {source!r} is one more than the {MAX_SOURCES} that fit")
            self._names.append(source)
        events.append(icount, self._names.index(source), payload)

    def drop_pending(self, answers: int, inputs: int) -> None:
        """Keep only the first ``answers`` answers and ``inputs`` inputs; ValueError if others are written already."""
        for kind, keep in ((EventKind.ANSWER, answers), (EventKind.INPUT, inputs)):
            if not self._written[kind] <= keep <= len(self._lists[kind]):
                raise ValueError(f"expected to keep {self._written[kind]} events or more, got {keep}")
        self.answers.truncate(answers)
        self.inputs.truncate(inputs)

    def close_chunk(self, horizon: int) -> int:
        """Write all pending events and move the horizon; returns the number of bytes written.

        ValueError if an event lies behind ``horizon`` or the horizon would go down; LogError if writing fails: events
        that are not on disk are still pending then, and earlier chunks are whole."""
        waiting = [event for kind, events in self._lists.items() for event in events[self._written[kind] :]]
        if len({event.kind for event in waiting}) > 1:
            waiting.sort(key=lambda event: (event.icount, CHRONOLOGY[event.kind]))
        floor = max(self.horizon, waiting[-1].icount if waiting else 0)
        if not floor <= horizon <= MAX_ICOUNT:
            raise ValueError(f"expected a horizon of at least {floor}, got {horizon}")
        size = self.size
        encoder = ChunkEncoder(self._interned, MAX_RAW)
        for event in waiting:
            if not encoder.add(event):
                self._write_chunk(encoder, encoder.last)
                encoder = ChunkEncoder(self._interned, MAX_RAW)
                encoder.add(event)
        self._write_chunk(encoder, horizon)
        return self.size - size

    def sync(self) -> None:
        """Force what is written to the disk (fsync). LogError says up to where it is safe."""
        horizon = self.horizon
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise LogError(
                f"{self.path}: {_reason(error)}: the recording is safe up to icount {self._synced} only"
            ) from error
        self._synced = horizon

    def close(self) -> None:
        """Sync and close; idempotent. Events that no ``close_chunk`` wrote are lost."""
        if self._fd < 0:
            return
        try:
            if self.writable:
                self.sync()
        finally:
            os.close(self._fd)
            self._fd = -1

    # Writing

    def _write_chunk(self, encoder: ChunkEncoder, horizon: int) -> None:
        raw = bytes(encoder.raw)
        stored, codec = raw, _RAW
        if raw:
            packed = zstandard.ZstdCompressor(level=3).compress(raw)
            if len(packed) < len(raw) <= _max_raw(len(packed)):
                stored, codec = packed, _ZSTD
        fields = (encoder.first if raw else horizon, horizon, encoder.count, len(raw), len(stored), codec)
        header = _CHUNK_HEADER.pack(_CHUNK_MAGIC, self._sequence, *fields, 0, 0)[:_CRC_AT]
        header += zlib.crc32(header, self._header_crc).to_bytes(4, "little")
        checksum = _checksum(header, stored, self._checksum)
        self._write(header + checksum.to_bytes(8, "little") + stored)
        self._chain(horizon, checksum)
        self._interned = encoder.sources
        for kind, count in encoder.counts.items():
            self._written[kind] += count

    def _chain(self, horizon: int, checksum: int) -> None:
        self._checksum = checksum
        self._sequence += 1
        self.horizon = horizon
        self._horizons.append(horizon)
        self._checksums.append(checksum)

    def _write(self, data: bytes) -> None:
        """Append all of ``data`` or nothing."""
        if not self.writable:
            raise LogError(f"{self.path}: opened for reading only")
        if self._broken:
            raise LogError(f"{self.path}: an earlier write failed: the recording ends at icount {self.horizon}")
        try:
            write_all(self._fd, data)
        except OSError as error:
            try:
                os.ftruncate(self._fd, self.size)
            except OSError:
                # The tail stays torn, which a reader copes with; a chunk behind it would be out of its reach.
                self._broken = True
            raise LogError(f"{self.path}: {_reason(error)}: the recording ends at icount {self.horizon}") from error
        self.size += len(data)

    # Reading

    @staticmethod
    def _read_file_header(path: Path, fd: int, recording_id: bytes | None, writable: bool) -> tuple[bytes, int]:
        data = os.pread(fd, _FILE_HEADER.size, 0)
        if data[:8] != _FILE_MAGIC or len(data) != _FILE_HEADER.size:
            raise LogError(f"{path}: offset 0: expected the header of an rrgdb event log")
        _, major, minor, found_id, crc = _FILE_HEADER.unpack(data)
        if major != MAJOR or (writable and minor > MINOR):
            raise LogError(f"{path}: offset 8: expected log version {MAJOR}.{MINOR}, got {major}.{minor}")
        if crc != zlib.crc32(data[:-4]):
            raise LogError(f"{path}: offset 28: expected the header's checksum: the file is damaged")
        if recording_id is not None and found_id != recording_id:
            raise LogError(f"{path}: offset 12: expected recording {recording_id.hex()}, got {found_id.hex()}")
        return found_id, crc

    def _read_chunks(self) -> None:
        end = os.fstat(self._fd).st_size
        window, start = b"", self.size
        unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_RAW)
        while self.size < end:
            at = self.size - start
            if len(window) - at < _CHUNK_HEADER.size:
                window, start, at = os.pread(self._fd, _SCAN, self.size), self.size, 0
            chunk = self._parse_header(window, at)
            if chunk is None:
                problem = "expected a chunk header"
            elif self.size + _CHUNK_HEADER.size + chunk.stored_length > end:
                problem = f"expected {chunk.stored_length} bytes of payload"
            else:
                self._check_header(chunk)
                if len(window) - at < (needed := _CHUNK_HEADER.size + chunk.stored_length):
                    window, start, at = os.pread(self._fd, max(needed, _SCAN), self.size), self.size, 0
                problem = self._read_chunk(chunk, window, at, unpacker)
            if problem:
                behind = self._find_chunk(self.size + 1, end)
                if behind is not None:
                    raise self._damaged(f"{problem}; the log goes on at offset {behind}")
                self.truncated_bytes = end - self.size
                break
        self._interned = {name: index for index, name in enumerate(self._names)}
        self._written = {kind: len(events) for kind, events in self._lists.items()}

    def _check_header(self, chunk: _Chunk) -> None:
        if chunk.sequence != self._sequence:
            raise self._damaged(f"expected chunk number {self._sequence}, got {chunk.sequence}")
        if chunk.raw_length > MAX_RAW or not self._lengths_fit(chunk):
            raise self._damaged(f"expected lengths that fit, got {chunk.raw_length} raw, {chunk.stored_length} stored")

    def _read_chunk(self, chunk: _Chunk, window: bytes, at: int, unpacker: zstandard.ZstdDecompressor) -> str:
        """Take in the whole chunk at ``self.size``, which is at ``at`` in ``window``; returns what is wrong if it may
        be a torn tail."""
        payload = at + _CHUNK_HEADER.size
        stored = window[payload : payload + chunk.stored_length]
        if _checksum(window[at : at + _SUM_AT], stored, self._checksum) != chunk.checksum:
            return "expected the chunk's checksum"
        if not self.horizon <= chunk.first <= chunk.horizon or chunk.events * MIN_EVENT > chunk.raw_length:
            raise self._damaged(f"expected icounts from {self.horizon} on and a count that fits")
        try:
            raw = stored if chunk.codec == _RAW else self._unpack(chunk, stored, unpacker)
            decode_chunk(raw, chunk.events, (chunk.first, chunk.horizon), self._names, self._lists)
        except ValueError as error:
            raise self._damaged(str(error)) from error
        self._chain(chunk.horizon, chunk.checksum)
        self.size += _CHUNK_HEADER.size + chunk.stored_length
        return ""

    @staticmethod
    def _lengths_fit(chunk: _Chunk) -> bool:
        if chunk.codec == _RAW:
            return chunk.raw_length == chunk.stored_length
        return chunk.codec == _ZSTD and chunk.stored_length < chunk.raw_length <= _max_raw(chunk.stored_length)

    @staticmethod
    def _unpack(chunk: _Chunk, stored: bytes, unpacker: zstandard.ZstdDecompressor) -> bytes:
        try:
            # zstandard trusts the size in the frame over max_output_size, so look at it first.
            if zstandard.frame_content_size(stored) != chunk.raw_length:
                raise ValueError(f"expected a zstd frame of {chunk.raw_length} bytes")
            return unpacker.decompress(stored, max_output_size=chunk.raw_length, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ValueError("expected a valid zstd frame") from error

    def _parse_header(self, data: bytes, at: int) -> _Chunk | None:
        """The chunk header at ``at`` in ``data`` if it is whole and its CRC is right."""
        if len(data) - at < _CHUNK_HEADER.size:
            return None
        magic, *fields, crc, checksum = _CHUNK_HEADER.unpack_from(data, at)
        if magic != _CHUNK_MAGIC or zlib.crc32(data[at : at + _CRC_AT], self._header_crc) != crc:
            return None
        return _Chunk._make((*fields, checksum))

    def _find_chunk(self, offset: int, end: int) -> int | None:
        """Offset of the first valid chunk header at or behind ``offset``."""
        while (offset := self._data_at(offset, end)) < end:
            window = os.pread(self._fd, _SCAN, offset)
            at = window.find(_CHUNK_MAGIC)
            while at >= 0:
                if self._parse_header(os.pread(self._fd, _CHUNK_HEADER.size, offset + at), 0) is not None:
                    return offset + at
                at = window.find(_CHUNK_MAGIC, at + 1)
            if len(window) < _SCAN:
                return None
            offset += _SCAN - len(_CHUNK_MAGIC) + 1
        return None

    def _data_at(self, offset: int, end: int) -> int:
        """Offset of the first byte at or behind ``offset`` that is not in a hole of the file: a hole may be huge."""
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return end
            return offset  # such a file system knows of no holes

    def _damaged(self, what: str) -> LogError:
        return LogError(f"{self.path}: offset {self.size}: {what}")
