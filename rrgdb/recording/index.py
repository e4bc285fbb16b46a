"""The index: what each span of history executed and wrote, so that a search passes over what cannot stop it.

Nothing in here is needed: without it, or with a damaged one, searches replay more. Layout, version 1.1; all integers
are little-endian, sizes in bytes, positions in instructions.

File header, 32 bytes: as the event log's (``rrgdb.recording.log``), with the magic "RRGDBIDX".

Entries follow without gaps, each a header of 56 bytes and ``stored length`` bytes of payload::

    0   4  magic "RRIX"
    4   4  sequence number: 0, 1, 2 …
    8   8  begin: the first position of the span
    16  8  end: the position behind it
    24  8  log: the XXH3-64 of the event log's chunk whose horizon is ``end``; what does not fit the log is passed over
    32  4  number of ranges of code, at most 2**19
    36  4  number of ranges of pages, at most 2**19
    40  4  stored length, at most 16 MiB and 64 KiB
    44  4  0
    48  8  XXH3-64 of bytes 0-47 and the payload, seeded with that of the entry before; for the first one with the file
           header's CRC

The payload is one zstd frame that states its content size. Its content are two lists of numbers below 2**64, code and
pages: first and last of each range, ascending, each number less the one before it in its list. The 8 bytes of all these
differences stand byte by byte: first the lowest byte of each, then the next, and so on. Since version 1.1 the number
2**52 among the pages says that the registers changed by which the guest translates addresses, in all address spaces.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import xxhash
import zstandard

from rrgdb.errors import Error
from rrgdb.recording.files import open_regular

MAJOR, MINOR = 1, 1
MAX_RANGES = 1 << 19
MAX_STORED = (16 << 20) + (64 << 10)
MAX_FILE = 256 << 20
"""bytes of an index that are read; what is behind is as if it were not there"""

_FILE_MAGIC = b"RRGDBIDX"
_FILE_HEADER = struct.Struct("<8sHH16sI")
_MAGIC = b"RRIX"
_HEADER = struct.Struct("<4sIQQQIIIIQ")
_SUM_AT = 48
_TELLS_REGIME = 1
"""minor version since when the index tells of the registers of translation"""

Ranges = npt.NDArray[np.uint64]


class IndexFileError(Error):
    """The index cannot be read or written: one line."""


class Entry(NamedTuple):
    """One span, packed. ``log``: checksum of the log's chunk that ends at ``end``, 0 if none does."""

    begin: int
    end: int
    log: int
    code_ranges: int
    page_ranges: int
    stored: bytes

    @classmethod
    def pack(cls, begin: int, end: int, log: int, code: Ranges, pages: Ranges) -> Entry | None:
        """``code``, ``pages``: shape (n, 2), first and last of ascending ranges. None if there are too many."""
        if len(code) > MAX_RANGES or len(pages) > MAX_RANGES:
            return None
        steps = [np.diff(part.ravel(), prepend=np.uint64(0)) for part in (code, pages)]
        raw = np.concatenate(steps).astype("<u8").view(np.uint8).reshape(-1, 8).T.tobytes()
        stored = zstandard.ZstdCompressor(level=3).compress(raw)
        return cls(begin, end, log, len(code), len(pages), stored)

    def unpack(self) -> tuple[Ranges, Ranges]:
        """Code and pages; ValueError if the payload is not what the counts promise."""
        length = 16 * (self.code_ranges + self.page_ranges)
        try:
            # zstandard trusts the size in the frame over max_output_size, so look at it first.
            if zstandard.frame_content_size(self.stored) != length:
                raise ValueError(f"expected a zstd frame of {length} bytes")
            unpacker = zstandard.ZstdDecompressor(max_window_size=16 << 20)
            raw = unpacker.decompress(self.stored, max_output_size=length, allow_extra_data=False) if length else b""
        except zstandard.ZstdError as error:
            raise ValueError("expected a valid zstd frame") from error
        planes = np.frombuffer(raw, dtype=np.uint8).reshape(8, -1)
        steps = np.ascontiguousarray(planes.T).view("<u8").ravel().astype(np.uint64)
        return _ranges(steps[: 2 * self.code_ranges]), _ranges(steps[2 * self.code_ranges :])


def _ranges(steps: npt.NDArray[np.uint64]) -> Ranges:
    flat = np.cumsum(steps, dtype=np.uint64)
    if np.any(flat[1:] < flat[:-1]):
        raise ValueError("expected ranges in order")
    return flat.reshape(-1, 2)


def _head(minor: int, recording_id: bytes) -> bytes:
    head = _FILE_HEADER.pack(_FILE_MAGIC, MAJOR, minor, recording_id, 0)[:-4]
    return head + zlib.crc32(head).to_bytes(4, "little")


class IndexFile:
    """An open index; ``entries`` are those on disk, in the order in which they were written. One thread uses it."""

    def __init__(self, path: Path, fd: int, header_crc: int, writable: bool) -> None:
        self.path = path
        self.entries: list[Entry] = []
        self.size = _FILE_HEADER.size
        self.writable = writable
        self.tells_regime = True
        """whether a span without the number 2**52 is one without such a change"""
        self._fd = fd
        self._checksum = header_crc

    @classmethod
    def open(cls, path: Path, recording_id: bytes, *, writable: bool = False) -> Self:
        """Read an index up to the first thing that is wrong. ``writable``: create it if need be, cut off what is not
        in order, and begin anew where it is of another recording or no index at all.

        IndexFileError if there is none that can be read, or written if that is wanted."""
        try:
            fd = open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT if writable else os.O_RDONLY)
        except OSError as error:
            raise IndexFileError(f"{path}: cannot open the index: {error.strerror}") from error
        try:
            return cls._opened(path, fd, recording_id, writable)
        except OSError as error:
            os.close(fd)
            raise IndexFileError(f"{path}: cannot read the index: {error.strerror}") from error
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def _opened(cls, path: Path, fd: int, recording_id: bytes, writable: bool) -> Self:
        heads = [_head(minor, recording_id) for minor in range(MINOR + 1)]
        head = heads[MINOR]
        found = os.pread(fd, len(head), 0)
        index = cls(path, fd, zlib.crc32((found if found in heads else head)[:-4]), writable)
        if found in heads:
            index.tells_regime = heads.index(found) >= _TELLS_REGIME
            index._read()
            if writable and index.size < os.fstat(fd).st_size:
                os.ftruncate(fd, index.size)
        elif found[:8] == _FILE_MAGIC and not head.startswith(found[:10]):
            raise IndexFileError(f"{path}: expected index version {MAJOR}")
        elif not writable:
            raise IndexFileError(f"{path}: expected the header of this recording's index")
        else:
            os.ftruncate(fd, 0)
            index.size = 0
            index._write(head)
        return index

    def _read(self) -> None:
        with open(os.dup(self._fd), "rb") as file:
            file.seek(self.size)
            while self.size < MAX_FILE:
                header = file.read(_HEADER.size)
                if len(header) < _HEADER.size:
                    return
                magic, sequence, begin, end, log, code, pages, stored, zero, checksum = _HEADER.unpack(header)
                if magic != _MAGIC or sequence != len(self.entries) or zero or begin >= end:
                    return
                if code > MAX_RANGES or pages > MAX_RANGES or stored > MAX_STORED:
                    return
                payload = file.read(stored)
                if len(payload) < stored or self._sum(header[:_SUM_AT], payload) != checksum:
                    return
                self._checksum = checksum
                self.entries.append(Entry(begin, end, log, code, pages, payload))
                self.size += len(header) + stored

    def _sum(self, header: bytes, payload: bytes) -> int:
        hasher = xxhash.xxh3_64(header, seed=self._checksum)
        hasher.update(payload)
        return hasher.intdigest()

    def append(self, entry: Entry) -> None:
        """Write one more entry. IndexFileError if that fails; the file is for reading only from then on."""
        fields = (entry.begin, entry.end, entry.log, entry.code_ranges, entry.page_ranges, len(entry.stored), 0)
        header = _HEADER.pack(_MAGIC, len(self.entries), *fields, 0)[:_SUM_AT]
        checksum = self._sum(header, entry.stored)
        self._write(header + checksum.to_bytes(8, "little") + entry.stored)
        self._checksum = checksum
        self.entries.append(entry)

    def _write(self, data: bytes) -> None:
        try:
            if os.write(self._fd, data) != len(data):
                raise OSError(0, "disk full")
        except OSError as error:
            # A torn entry stays behind what is whole: nothing must follow it.
            self.writable = False
            raise IndexFileError(f"{self.path}: cannot write the index: {error.strerror}") from error
        self.size += len(data)

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
