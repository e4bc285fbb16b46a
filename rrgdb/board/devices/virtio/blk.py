"""A disk (virtio 1.2, section 5.2, "Block Device"; behaviour where it is open: QEMU's ``virtio-blk-device``).

Requests are done as they are notified, in order, and take no virtual time. A disk is part of the guest's state: what is
written is nobody else's, and replay computes it again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol

from rrgdb.board.device import Machine
from rrgdb.board.devices.state import Field
from rrgdb.board.devices.virtio.mmio import VirtioDevice
from rrgdb.board.devices.virtio.queue import MAX_SIZE, Piece, QueueError

SECTOR = 512
MAX_TRANSFER = 256 << 20
"""bytes that one notification may ask for: no instruction of the guest takes much longer than a second"""
MAX_ZEROES = 32768
"""sectors that one request may fill with zeros"""
_AT_ONCE = 1 << 20
_READ_ONLY, _BLOCK_SIZE, _SEGMENTS, _FLUSH, _DISCARD, _ZEROES = (1 << bit for bit in (5, 6, 2, 9, 13, 14))
OK, IO_ERROR, UNSUPPORTED = 0, 1, 2
_ID_BYTES = 20
_HEADER = struct.Struct("<IIQ")
_RANGE = struct.Struct("<QII")
_UNMAP = 1
_CONFIG = struct.Struct("<QIIHBBIBBHIBBHIIIIIB3x")
_MASK = (1 << 64) - 1


class Request:
    """Types of requests."""

    IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13


class Disk(Protocol):
    """The content of a disk of ``size`` bytes, a multiple of 512."""

    name: str
    size: int
    readonly: bool

    def read(self, offset: int, length: int) -> bytes: ...
    def write(self, offset: int, data: bytes) -> int:
        """Returns by how much the digest of the content has changed, modulo 2^64."""


class _Failure(Exception):
    """The request ends with ``status``."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class VirtioBlk(VirtioDevice):
    """One disk. ``content`` is the digest of what stands on it, 0 for what stood there at first."""

    DEVICE_ID = 2
    FIELDS: ClassVar[tuple[Field, ...]] = (*VirtioDevice.FIELDS, Field("content", 64))

    content: int

    def __init__(self, machine: Machine, disk: Disk) -> None:
        self.disk = disk
        self._left = 0
        super().__init__(disk.name, machine)

    def features(self) -> int:
        common = _SEGMENTS | _BLOCK_SIZE | _FLUSH
        return common | (_READ_ONLY if self.disk.readonly else _DISCARD | _ZEROES)

    def config(self) -> bytes:
        zeroes = 0 if self.disk.readonly else MAX_ZEROES
        return _CONFIG.pack(
            self.disk.size // SECTOR,  # capacity
            0,  # size_max
            MAX_SIZE - 2,  # seg_max: besides header and status
            *(0, 0, 0),  # geometry
            SECTOR,  # blk_size
            *(0, 0, 0, 0),  # topology
            *(0, 0, 1),  # writeback, unused, num_queues
            *(zeroes, min(zeroes, 1), 1),  # discard
            *(zeroes, min(zeroes, 1), 0),  # write zeroes
        )

    def restart(self) -> None:
        content = self.content
        super().restart()
        self.content = content

    def begin(self) -> None:
        self._left = MAX_TRANSFER

    def serve(self, readable: Sequence[Piece], writable: Sequence[Piece]) -> int:
        # Header and status may be parts of larger buffers, or be spread over several.
        header, out = _split(readable, _HEADER.size)
        room = sum(piece.length for piece in writable)
        if sum(piece.length for piece in header) < _HEADER.size or not room:
            raise QueueError("a request without its header or its status")
        into, status = _split(writable, room - 1)
        self._left -= room + sum(piece.length for piece in out)
        if self._left < 0:
            raise QueueError(f"more than {MAX_TRANSFER} bytes in one notification")
        kind, _, sector = _HEADER.unpack(b"".join(map(self._load, header)))
        try:
            self._perform(kind, sector, out, into)
            result = OK
        except _Failure as failure:
            result = failure.status
        self.machine.write_physical(status[0].address, bytes([result]))
        return room

    def _perform(self, kind: int, sector: int, out: Sequence[Piece], into: Sequence[Piece]) -> None:
        match kind:
            case Request.IN:
                for piece, offset in self._placed(sector, into):
                    self.machine.write_physical(piece.address, self.disk.read(offset, piece.length))
            case Request.OUT:
                if self.disk.readonly:
                    raise _Failure(IO_ERROR)
                for piece, offset in self._placed(sector, out):
                    self._write(offset, self._load(piece))
            case Request.FLUSH:
                pass
            case Request.GET_ID:
                self._tell(into, self.name.encode()[:_ID_BYTES].ljust(_ID_BYTES, b"\0"))
            case Request.DISCARD | Request.WRITE_ZEROES if not self.disk.readonly:
                self._zero(kind, out)
            case _:
                raise _Failure(UNSUPPORTED)

    def _placed(self, sector: int, pieces: Sequence[Piece]) -> Iterator[tuple[Piece, int]]:
        """Pieces of at most a MiB and their offsets on the disk; all of them are known to be there."""
        length = sum(piece.length for piece in pieces)
        self._require_there(sector, length)
        offset = sector * SECTOR
        for address, rest in pieces:
            for at in range(0, rest, _AT_ONCE):
                part = Piece(address + at, min(_AT_ONCE, rest - at))
                yield part, offset
                offset += part.length

    def _require_there(self, sector: int, length: int) -> None:
        if length % SECTOR or sector * SECTOR + length > self.disk.size:
            raise _Failure(IO_ERROR)

    def _zero(self, kind: int, out: Sequence[Piece]) -> None:
        """Discarded sectors keep what they hold, as in QEMU without ``discard=unmap``."""
        if sum(piece.length for piece in out) != _RANGE.size:
            raise _Failure(UNSUPPORTED)
        sector, count, flags = _RANGE.unpack(b"".join(map(self._load, out)))
        if flags & ~(_UNMAP if kind == Request.WRITE_ZEROES else 0):
            raise _Failure(UNSUPPORTED)
        if count > MAX_ZEROES:
            raise _Failure(IO_ERROR)
        self._require_there(sector, count * SECTOR)
        if kind == Request.WRITE_ZEROES:
            self._left -= count * SECTOR
            if self._left < 0:
                raise QueueError(f"more than {MAX_TRANSFER} bytes in one notification")
            self._write(sector * SECTOR, bytes(count * SECTOR))

    def _write(self, offset: int, data: bytes) -> None:
        self.content = self.content + self.disk.write(offset, data) & _MASK

    def _tell(self, into: Sequence[Piece], data: bytes) -> None:
        for address, length in into:
            self.machine.write_physical(address, data[:length])
            data = data[length:]
            if not data:
                break

    def _load(self, piece: Piece) -> bytes:
        return self.machine.read_physical(*piece)


def _split(pieces: Sequence[Piece], length: int) -> tuple[list[Piece], list[Piece]]:
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
