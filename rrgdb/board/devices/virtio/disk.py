"""Disks and the requests to them (virtio 1.2, section 5.2, "Block Device"), whatever board they are on."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Protocol

from rrgdb.board.device import Machine
from rrgdb.board.devices.virtio.queue import Chain, Piece, QueueError

SECTOR = 512
MAX_TRANSFER = 256 << 20
"""bytes that one notification may ask for: no instruction of the guest takes much longer than a second"""
MAX_ZEROES = 32768
"""sectors that one request may fill with zeros"""
AT_ONCE = 1 << 20
"""bytes that are read or written in one piece"""
SEGMENTS, GEOMETRY, READ_ONLY, BLOCK_SIZE, SCSI = 1 << 2, 1 << 4, 1 << 5, 1 << 6, 1 << 7
FLUSH, TOPOLOGY, CONFIG_WCE, DISCARD, ZEROES = 1 << 9, 1 << 10, 1 << 11, 1 << 13, 1 << 14
"""features"""
OK, IO_ERROR, UNSUPPORTED = 0, 1, 2
ID_BYTES = 20
HEADER = struct.Struct("<IIQ")
RANGE = struct.Struct("<QII")
UNMAP = 1
CONFIG_SPACE = struct.Struct("<QIIHBBIBBHIBBHIIIIIB3x")
_CYLINDERS, _HEADS, _TRACK = 16383, 16, 63
DIGEST_MASK = (1 << 64) - 1


class Request:
    """Types of requests."""

    IN, OUT, SCSI, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 2, 4, 8, 11, 13


class Disk(Protocol):
    """The content of a disk of ``size`` bytes, a multiple of 512."""

    name: str
    size: int
    readonly: bool

    def read(self, offset: int, length: int) -> bytes: ...
    def write(self, offset: int, data: bytes) -> int:
        """Returns by how much the digest of the content has changed, modulo 2^64."""


class Failure(Exception):
    """The request ends with ``status``."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


def split(pieces: Sequence[Piece], length: int) -> tuple[list[Piece], list[Piece]]:
    """The first ``length`` bytes of these pieces, and the rest."""
    first: list[Piece] = []
    rest: list[Piece] = []
    for address, size in pieces:
        head = min(size, length)
        if head:
            first.append(Piece(address, head))
        if head < size:
            rest.append(Piece(address + head, size - head))
        length -= head
    return first, rest


def geometry(sectors: int) -> tuple[int, int, int]:
    """Cylinders, heads, and sectors of a track, as QEMU takes them for a disk without a partition table."""
    return min(max(sectors // (_HEADS * _TRACK), 2), _CYLINDERS), _HEADS, _TRACK


class DiskRequests:
    """What is alike in the requests to a disk, whichever device they come to. ``content`` is the digest of what stands
    on the disk, 0 for what stood there at first."""

    machine: Machine
    disk: Disk
    content: int
    _left: int
    """bytes that the notification at hand may still ask for"""

    def _perform(self, kind: int, sector: int, chain: Chain, out: Sequence[Piece], into: Sequence[Piece]) -> None:
        """``out`` and ``into``: what lies between header and status. Raises ``Failure``, ``QueueError``."""
        raise NotImplementedError

    def _request(self, chain: Chain) -> int:
        """Do what a chain asks for; returns the bytes written. Raises ``QueueError``."""
        # Header and status may be parts of larger buffers, or be spread over several.
        header, out = split(chain.readable, HEADER.size)
        room = sum(piece.length for piece in chain.writable)
        if sum(piece.length for piece in header) < HEADER.size or not room:
            raise QueueError("a request without its header or its status")
        into, status = split(chain.writable, room - 1)
        self._spend(room + sum(piece.length for piece in out))
        kind, _, sector = HEADER.unpack(b"".join(map(self._load, header)))
        try:
            self._perform(kind, sector, chain, out, into)
            result = OK
        except Failure as failure:
            result = failure.status
        self.machine.write_physical(status[0].address, bytes([result]))
        return room

    def _spend(self, length: int) -> None:
        self._left -= length
        if self._left < 0:
            raise QueueError(f"more than {MAX_TRANSFER} bytes in one notification")

    def _placed(self, sector: int, pieces: Sequence[Piece]) -> Iterator[tuple[Piece, int]]:
        """Pieces of at most a MiB and their offsets on the disk; all of them are known to be there."""
        length = sum(piece.length for piece in pieces)
        self._require_there(sector, length)
        offset = sector * SECTOR
        for address, rest in pieces:
            for at in range(0, rest, AT_ONCE):
                part = Piece(address + at, min(AT_ONCE, rest - at))
                yield part, offset
                offset += part.length

    def _require_there(self, sector: int, length: int) -> None:
        if length % SECTOR or sector * SECTOR + length > self.disk.size:
            raise Failure(IO_ERROR)

    def _fill_with_zeros(self, sector: int, count: int) -> None:
        self._spend(count * SECTOR)
        self._write(sector * SECTOR, bytes(count * SECTOR))

    def _write(self, offset: int, data: bytes) -> None:
        self.content = self.content + self.disk.write(offset, data) & DIGEST_MASK

    def _tell(self, into: Sequence[Piece], data: bytes) -> None:
        for address, length in into:
            self.machine.write_physical(address, data[:length])
            data = data[length:]
            if not data:
                break

    def _load(self, piece: Piece) -> bytes:
        return self.machine.read_physical(*piece)
