"""A disk (virtio 1.2, section 5.2, "Block Device"; behaviour where it is open: QEMU's ``virtio-blk-device``).

Requests are done as they are notified, in order, and take no virtual time. A disk is part of the guest's state: what is
written is nobody else's, and replay computes it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rrgdb.board.device import Machine
from rrgdb.board.devices.state import Field
from rrgdb.board.devices.virtio.disk import (
    BLOCK_SIZE,
    CONFIG_SPACE,
    CONFIG_WCE,
    DISCARD,
    FLUSH,
    GEOMETRY,
    ID_BYTES,
    IO_ERROR,
    MAX_TRANSFER,
    MAX_ZEROES,
    RANGE,
    READ_ONLY,
    SCSI,
    SECTOR,
    SEGMENTS,
    TOPOLOGY,
    UNMAP,
    UNSUPPORTED,
    ZEROES,
    Disk,
    DiskRequests,
    Failure,
    Request,
    geometry,
)
from rrgdb.board.devices.virtio.mmio import CONFIG, DRIVER_OK, VirtioDevice
from rrgdb.board.devices.virtio.queue import EVENT_IDX, Chain, Piece, QueueError

ENTRIES = 256
MAX_DISCARD = 0x3FFFFF
"""sectors"""
WCE_AT = 0x20
CONFIG_BYTES = 57
"""up to the last field of what is offered"""
_DIRECTION, _BARRIER = 1, 1 << 31
_SCSI_FAILED = 255
_SCSI_PIECES = (2, 3)
"""to be read and to be written, that a SCSI command has at least"""


class VirtioBlk(DiskRequests, VirtioDevice):
    """One disk. ``content`` is the digest of what stands on it, 0 for what stood there at first. ``wce``: the driver
    has the write cache on; ``written_wce``: what stands in the configuration space for it since that was last read or
    written.

    Besides QEMU, the name of the disk is its serial number, and one request may fill no more than ``MAX_ZEROES``
    sectors with zeros."""

    DEVICE_ID = 2
    QUEUES = (ENTRIES,)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        *VirtioDevice.FIELDS,
        Field("content", 64),
        Field("wce", 8, reset=1, mask=1),
        Field("written_wce", 8),
    )

    content: int
    wce: int
    written_wce: int

    def __init__(self, machine: Machine, disk: Disk, line: int, *, legacy: bool = False) -> None:
        self.disk = disk
        self.content = 0
        self._left = 0
        super().__init__(disk.name, machine, line, legacy=legacy)

    def features(self) -> int:
        common = SEGMENTS | GEOMETRY | BLOCK_SIZE | FLUSH | TOPOLOGY | CONFIG_WCE | DISCARD | ZEROES
        return common | (READ_ONLY if self.disk.readonly else 0) | (SCSI if self.legacy else 0)

    def config(self) -> bytes:
        space = CONFIG_SPACE.pack(
            self.disk.size // SECTOR,  # capacity
            0,  # size_max
            ENTRIES - 2,  # seg_max: besides header and status
            *geometry(self.disk.size // SECTOR),
            SECTOR,  # blk_size
            *(0, 0, 0, 0),  # topology
            *(self.wce, 0, 1),  # writeback, unused, num_queues
            *(MAX_DISCARD, 1, 1),  # discard
            *(MAX_ZEROES, 1, 1),  # write zeroes
        )
        return space[:CONFIG_BYTES]

    def read(self, offset: int, size: int) -> int:
        value = super().read(offset, size)
        if self._is_config(offset, size):
            self.written_wce = self.wce
        return value

    def _is_config(self, offset: int, size: int) -> bool:
        return offset >= CONFIG and offset + size <= CONFIG + CONFIG_BYTES

    def configure(self, offset: int, data: bytes) -> None:
        if offset <= WCE_AT < offset + len(data):
            self.written_wce = data[WCE_AT - offset]
        self.wce = int(bool(self.written_wce))

    def status_changes(self, status: int) -> None:
        if status & DRIVER_OK and not self.has(CONFIG_WCE):
            self.wce = int(self.has(FLUSH))

    def restart(self) -> None:
        super().restart()
        self.wce = 1

    def reset(self) -> None:
        content = self.content
        super().reset()
        self.content = content

    def serve(self, index: int) -> None:
        self._left = MAX_TRANSFER
        queue = self.queues[index]
        try:
            while queue.waiting():
                chain = queue.take()
                self.give_back(index, chain, self._request(chain))
                self.tell(index)
        finally:
            queue.ask_for_notifications(self.has(EVENT_IDX))

    def _perform(self, kind: int, sector: int, chain: Chain, out: Sequence[Piece], into: Sequence[Piece]) -> None:
        """The lowest bit of ``kind`` is the direction, which matters where it makes another request of it."""
        kind &= ~_BARRIER
        match kind:
            case Request.IN:
                for piece, offset in self._placed(sector, into):
                    self.machine.write_physical(piece.address, self.disk.read(offset, piece.length))
            case Request.OUT:
                pieces = self._placed(sector, out)
                for piece, offset in pieces:
                    if self.disk.readonly:
                        raise Failure(IO_ERROR)
                    self._write(offset, self._load(piece))
            case Request.DISCARD | Request.WRITE_ZEROES:
                self._zero(kind, out)
            case _ if kind & ~_DIRECTION == Request.FLUSH:
                pass
            case _ if kind & ~_DIRECTION == Request.GET_ID:
                self._tell(into, (self.name.encode() + b"\0")[:ID_BYTES])
            case _ if kind & ~_DIRECTION == Request.SCSI:
                self._refuse_scsi(chain)
            case _:
                raise Failure(UNSUPPORTED)

    def _zero(self, kind: int, out: Sequence[Piece]) -> None:
        """Discarded sectors keep what they hold, as in QEMU without ``discard=unmap``."""
        length = sum(piece.length for piece in out)
        if length > RANGE.size:
            raise Failure(UNSUPPORTED)
        if length < RANGE.size:
            raise QueueError("a range that is too short")
        sector, count, flags = RANGE.unpack(b"".join(map(self._load, out)))
        if count > (MAX_ZEROES if kind == Request.WRITE_ZEROES else MAX_DISCARD):
            raise Failure(IO_ERROR)
        self._require_there(sector, count * SECTOR)
        if flags & ~(UNMAP if kind == Request.WRITE_ZEROES else 0):
            raise Failure(UNSUPPORTED)
        if self.disk.readonly:
            raise Failure(IO_ERROR)
        if kind == Request.WRITE_ZEROES:
            self._fill_with_zeros(sector, count)

    def _refuse_scsi(self, chain: Chain) -> None:
        """Commands for SCSI disks come to a disk that is none: its answer stands before the status."""
        readable, writable = _SCSI_PIECES
        if len(chain.readable) < readable or len(chain.writable) < writable:
            raise Failure(IO_ERROR)
        answer = chain.writable[-2]
        self._tell([answer], _SCSI_FAILED.to_bytes(4, "little"))
        raise Failure(UNSUPPORTED)
