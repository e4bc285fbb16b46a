"""Disks and the requests to them (virtio 1.2, section 5.2, "Block Device"), whatever board they are on."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Protocol

from rrgdb.board.devices.virtio.queue import Piece

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
