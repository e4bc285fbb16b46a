"""Slots for virtio devices on a board (virtio 1.2, section 4.2, "Virtio Over MMIO", version 2; as QEMU's
``virtio-mmio`` with ``force-legacy=false``).

A slot without a device has device id 0, and no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rrgdb.board.device import Device, Machine
from rrgdb.board.devices.state import Field, StatefulDevice
from rrgdb.board.devices.virtio.queue import MAX_SIZE, Piece, QueueError, Rings

MAGIC = 0x74726976
VERSION = 2
VENDOR = 0x554D4551
"""QEMU's"""
CONFIG = 0x100
IDENTITY = {0x000: MAGIC, 0x004: VERSION, 0x00C: VENDOR}
VERSION_1 = 1 << 32
INDIRECT_DESC = 1 << 28
DRIVER_OK, FEATURES_OK, NEEDS_RESET = 4, 8, 64
USED_BUFFER, CONFIG_CHANGED = 1, 2
_SHARED_MEMORY = (0x0B0, 0x0B4, 0x0B8, 0x0BC)
_ADDRESSES = {
    0x080: ("desc", 0),
    0x084: ("desc", 32),
    0x090: ("avail", 0),
    0x094: ("avail", 32),
    0x0A0: ("used", 0),
    0x0A4: ("used", 32),
}


class VirtioDevice(StatefulDevice):
    """What all virtio devices have in common: the registers of a slot, and one queue.

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

    def serve(self, readable: Sequence[Piece], writable: Sequence[Piece]) -> int:
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
        rings = Rings(self.machine, self.queue_num, self.desc, self.avail, self.used)
        try:
            rings.check()
            self.begin()
            served = rings.waiting(self.taken)
            for _ in range(served):
                chain = rings.take(self.taken)
                self.taken = self.taken + 1 & 0xFFFF
                written = self.serve(chain.readable, chain.writable)
                rings.give_back(self.returned, chain.head, written)
                self.returned = self.returned + 1 & 0xFFFF
            if served and rings.wants_interrupts:
                self.interrupt_status |= USED_BUFFER
        except QueueError:
            self.status |= NEEDS_RESET
            self.interrupt_status |= CONFIG_CHANGED


class VirtioMmio:
    """Slots for virtio devices, at this distance from each other in bytes."""

    STRIDE: ClassVar[int] = 0x1000

    def __init__(self, name: str, machine: Machine) -> None:
        self.name = name
        self._slots: dict[int, Device] = {}

    def plug(self, slot: int, device: Device) -> None:
        self._slots[slot] = device

    def reset(self) -> None:
        """Slots have no state."""

    def read(self, offset: int, size: int) -> int:
        slot, register = divmod(offset, self.STRIDE)
        device = self._slots.get(slot)
        if device is not None:
            return device.read(register, size)
        return IDENTITY.get(register, 0) if size == 4 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        slot, register = divmod(offset, self.STRIDE)
        device = self._slots.get(slot)
        if device is not None:
            device.write(register, size, value)

    def save(self) -> bytes:
        return b""

    def load(self, state: bytes) -> None:
        if state:
            raise ValueError(f"{self.name}: state of {len(state)} bytes, expected none")


class DenseVirtioMmio(VirtioMmio):
    """Slots for virtio devices, as close as they can be."""

    STRIDE = 0x200
