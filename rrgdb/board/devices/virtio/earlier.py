"""Virtio slots and disks of boards that raise no interrupts, kept as they were for recordings that were made with them.

The registers are those of version 2, and there is one queue. Chains are refused that QEMU would take, and so are
requests whose type has a direction bit or a barrier bit that the standard does not give it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rrgdb.board.device import Machine
from rrgdb.board.devices.state import Field, StatefulDevice
from rrgdb.board.devices.virtio.disk import (
    BLOCK_SIZE,
    CONFIG_SPACE,
    DISCARD,
    FLUSH,
    ID_BYTES,
    IO_ERROR,
    MAX_TRANSFER,
    MAX_ZEROES,
    RANGE,
    READ_ONLY,
    SECTOR,
    SEGMENTS,
    UNMAP,
    UNSUPPORTED,
    ZEROES,
    Disk,
    DiskRequests,
    Failure,
    Request,
)
from rrgdb.board.devices.virtio.mmio import (
    CONFIG,
    CONFIG_CHANGED,
    DRIVER_OK,
    FEATURES_OK,
    MAGIC,
    NEEDS_RESET,
    USED_BUFFER,
    VENDOR,
    VERSION_1,
)
from rrgdb.board.devices.virtio.queue import (
    INDIRECT,
    INDIRECT_DESC,
    MAX_SIZE,
    NEXT,
    WRITE,
    Chain,
    Piece,
    QueueError,
    Rings,
)
from rrgdb.board.devices.virtio.slots import DenseVirtioMmio, VirtioMmio

_SHARED_MEMORY = (0x0B0, 0x0B4, 0x0B8, 0x0BC)
IDENTITY = {0x000: MAGIC, 0x004: 2, 0x00C: VENDOR}
_ADDRESSES = {
    0x080: ("desc", 0),
    0x084: ("desc", 32),
    0x090: ("avail", 0),
    0x094: ("avail", 32),
    0x0A0: ("used", 0),
    0x0A4: ("used", 32),
}


class EarlierRings(Rings):
    """A queue has a power of two of entries; an indirect table may be the last of a chain, and is refused within
    another one."""

    def check_size(self) -> None:
        """QueueError if it cannot be a queue."""
        if not 0 < self.size <= MAX_SIZE or self.size & (self.size - 1):
            raise QueueError(f"a queue of {self.size} entries, expected a power of two up to {MAX_SIZE}")

    def chain(self, head: int) -> Chain:
        chain = Chain(head, [], [])
        table, size, index = self.descriptors, self.size, head
        seen = 0
        while True:
            if index >= size:
                raise QueueError(f"descriptor {index} of {size}")
            seen += 1
            if seen > MAX_SIZE:
                raise QueueError(f"a chain of more than {MAX_SIZE} descriptors")
            address, length, flags, following = self._descriptor(table, index)
            if flags & INDIRECT:
                # Only as the last of a chain in the queue's own table.
                if table != self.descriptors or flags & NEXT or not length or length % 16:
                    raise QueueError(f"an indirect table of {length} bytes with flags {flags:#x}")
                table, size, index = address, length // 16, 0
                continue
            self._add(chain, Piece(address, length), bool(flags & WRITE))
            if not flags & NEXT:
                return chain
            index = following


class EarlierVirtioDevice(StatefulDevice):
    """The registers of a slot, and one queue.

    Buffers are handled between instructions, behind the one that notified, and all at once. ``interrupt_status`` is
    what an interrupt line would follow. A driver that breaks the rules finds DEVICE_NEEDS_RESET.
    """

    DEVICE_ID: ClassVar[int]
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("status", 8),
        Field("interrupt_status", 8, mask=USED_BUFFER | CONFIG_CHANGED),
        Field("device_features_sel", 32),
        Field("driver_features_sel", 32),
        Field("driver_features", 64),
        Field("queue_sel", 32),
        Field("queue_num", 32),
        Field("queue_ready", 8, mask=1),
        Field("desc", 64),
        Field("avail", 64),
        Field("used", 64),
        Field("taken", 16),
        Field("returned", 16),
    )

    status: int
    interrupt_status: int
    device_features_sel: int
    driver_features_sel: int
    driver_features: int
    queue_sel: int
    queue_num: int
    queue_ready: int
    desc: int
    avail: int
    used: int
    taken: int
    returned: int

    def features(self) -> int:
        """What the device offers, besides version 1 and indirect descriptors."""
        raise NotImplementedError

    def config(self) -> bytes:
        """The configuration space."""
        raise NotImplementedError

    def serve(self, chain: Chain) -> int:
        """Do what a chain asks for; returns the bytes written. Raises QueueError."""
        raise NotImplementedError

    def begin(self) -> None:
        """A notification is about to be served."""

    @property
    def offered(self) -> int:
        return self.features() | VERSION_1 | INDIRECT_DESC

    def read(self, offset: int, size: int) -> int:
        if offset >= CONFIG:
            return int.from_bytes(self.config()[offset - CONFIG : offset - CONFIG + size], "little")
        if size != 4:
            return 0
        chosen = self.queue_sel == 0
        match offset:
            case 0x008:
                return self.DEVICE_ID
            case 0x010:
                return self.offered >> 32 * self.device_features_sel & 0xFFFFFFFF if self.device_features_sel < 2 else 0
            case 0x034:
                return MAX_SIZE if chosen else 0
            case 0x044:
                return self.queue_ready if chosen else 0
            case 0x060:
                return self.interrupt_status
            case 0x070:
                return self.status
            case _ if offset in _SHARED_MEMORY:
                return 0xFFFFFFFF
        return IDENTITY.get(offset, 0)

    def write(self, offset: int, size: int, value: int) -> None:
        if size != 4:
            return
        match offset:
            case 0x014:
                self.device_features_sel = value
            case 0x020:
                self._accept(value)
            case 0x024:
                self.driver_features_sel = value
            case 0x030:
                self.queue_sel = value
            case 0x050:
                if value == 0:
                    self.machine.after_instruction(self._notified)
            case 0x064:
                self.interrupt_status &= ~value
            case 0x070:
                self._set_status(value & 0xFF)
            case _ if self.queue_sel == 0:
                self._set_up_queue(offset, value)

    def _accept(self, value: int) -> None:
        if self.driver_features_sel < 2 and not self.status & FEATURES_OK:
            shift = 32 * self.driver_features_sel
            self.driver_features = self.driver_features & ~(0xFFFFFFFF << shift) | value << shift

    def _set_status(self, value: int) -> None:
        if not value:
            self.restart()
            return
        if value & FEATURES_OK and (self.driver_features & ~self.offered or not self.driver_features & VERSION_1):
            value &= ~FEATURES_OK
        self.status = value | self.status & NEEDS_RESET

    def restart(self) -> None:
        """The driver has asked for a reset."""
        self.reset()

    def _set_up_queue(self, offset: int, value: int) -> None:
        if offset == 0x044:
            if value & 1 and not self.queue_ready:
                self.taken = self.returned = 0
            self.queue_ready = value & 1
        elif not self.queue_ready:
            if offset == 0x038:
                self.queue_num = value
            elif offset in _ADDRESSES:
                name, shift = _ADDRESSES[offset]
                setattr(self, name, getattr(self, name) & ~(0xFFFFFFFF << shift) | value << shift)

    def _notified(self) -> None:
        if not self.queue_ready or self.status & (DRIVER_OK | NEEDS_RESET) != DRIVER_OK:
            return
        rings = EarlierRings(self.machine, self.queue_num, self.desc, self.avail, self.used)
        try:
            rings.check_size()
            self.begin()
            served = rings.waiting(self.taken)
            for _ in range(served):
                chain = rings.chain(rings.head(self.taken))
                self.taken = self.taken + 1 & 0xFFFF
                written = self.serve(chain)
                rings.give_back(self.returned, chain.head, written)
                self.returned = self.returned + 1 & 0xFFFF
            if served and rings.wants_interrupts:
                self.interrupt_status |= USED_BUFFER
        except QueueError:
            self.status |= NEEDS_RESET
            self.interrupt_status |= CONFIG_CHANGED


class EarlierVirtioMmio(VirtioMmio):
    """All bytes up to the next slot are the device's, and an empty slot has no registers but those of four bytes."""

    def read(self, offset: int, size: int) -> int:
        slot, register = divmod(offset, self.STRIDE)
        device = self.slots.get(slot)
        if device is not None:
            return device.read(register, size)
        return IDENTITY.get(register, 0) if size == 4 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        slot, register = divmod(offset, self.STRIDE)
        if slot in self.slots:
            self.slots[slot].write(register, size, value)


class EarlierDenseVirtioMmio(EarlierVirtioMmio, DenseVirtioMmio):
    """The same, as close as they can be."""


class EarlierVirtioBlk(DiskRequests, EarlierVirtioDevice):
    """One disk. ``content`` is the digest of what stands on it, 0 for what stood there at first."""

    DEVICE_ID = 2
    FIELDS: ClassVar[tuple[Field, ...]] = (*EarlierVirtioDevice.FIELDS, Field("content", 64))

    content: int

    def __init__(self, machine: Machine, disk: Disk) -> None:
        self.disk = disk
        self._left = 0
        super().__init__(disk.name, machine)

    def features(self) -> int:
        common = SEGMENTS | BLOCK_SIZE | FLUSH
        return common | (READ_ONLY if self.disk.readonly else DISCARD | ZEROES)

    def config(self) -> bytes:
        zeroes = 0 if self.disk.readonly else MAX_ZEROES
        return CONFIG_SPACE.pack(
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

    def serve(self, chain: Chain) -> int:
        return self._request(chain)

    def _perform(self, kind: int, sector: int, chain: Chain, out: Sequence[Piece], into: Sequence[Piece]) -> None:
        match kind:
            case Request.IN:
                for piece, offset in self._placed(sector, into):
                    self.machine.write_physical(piece.address, self.disk.read(offset, piece.length))
            case Request.OUT:
                if self.disk.readonly:
                    raise Failure(IO_ERROR)
                for piece, offset in self._placed(sector, out):
                    self._write(offset, self._load(piece))
            case Request.FLUSH:
                pass
            case Request.GET_ID:
                self._tell(into, self.name.encode()[:ID_BYTES].ljust(ID_BYTES, b"\0"))
            case Request.DISCARD | Request.WRITE_ZEROES if not self.disk.readonly:
                self._zero(kind, out)
            case _:
                raise Failure(UNSUPPORTED)

    def _zero(self, kind: int, out: Sequence[Piece]) -> None:
        """Discarded sectors keep what they hold, as in QEMU without ``discard=unmap``."""
        if sum(piece.length for piece in out) != RANGE.size:
            raise Failure(UNSUPPORTED)
        sector, count, flags = RANGE.unpack(b"".join(map(self._load, out)))
        if flags & ~(UNMAP if kind == Request.WRITE_ZEROES else 0):
            raise Failure(UNSUPPORTED)
        if count > MAX_ZEROES:
            raise Failure(IO_ERROR)
        self._require_there(sector, count * SECTOR)
        if kind == Request.WRITE_ZEROES:
            self._fill_with_zeros(sector, count)
