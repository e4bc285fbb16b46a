"""What virtio devices on a board have in common (virtio 1.2, section 4.2, "Virtio Over MMIO"; as QEMU's
``virtio-mmio``)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import ClassVar

from rrgdb.board.device import Machine
from rrgdb.board.devices.state import Buffer, Field, StatefulDevice
from rrgdb.board.devices.virtio.queue import (
    EVENT_IDX,
    INDIRECT_DESC,
    MAX_SIZE,
    NOTIFY_ON_EMPTY,
    Chain,
    QueueError,
    Virtqueue,
)

MAGIC = 0x74726976
VENDOR = 0x554D4551
"""QEMU's"""
CONFIG = 0x100
SLOT_BYTES = 0x200
ANY_LAYOUT, VERSION_1, RING_RESET = 1 << 27, 1 << 32, 1 << 40
DRIVER_OK, FEATURES_OK, NEEDS_RESET = 4, 8, 64
USED_BUFFER, CONFIG_CHANGED = 1, 2
MAX_QUEUES = 1024
_SHARED_MEMORY_LENGTH = (0x0B0, 0x0B4)
_WORD = 0xFFFFFFFF
_ADDRESSES = {
    0x080: ("next_desc", 0),
    0x084: ("next_desc", 32),
    0x090: ("next_avail", 0),
    0x094: ("next_avail", 32),
    0x0A0: ("next_used", 0),
    0x0A4: ("next_used", 32),
}
_OF_VERSION_1, _OF_VERSION_2 = (0x028, 0x03C, 0x040), (0x044, *_ADDRESSES)
_LENGTH, _NUMBER = struct.Struct("<I"), struct.Struct("<H")


class VirtioDevice(StatefulDevice):
    """What all virtio devices have in common: the registers of a slot, and queues.

    Buffers are handled between instructions, behind the one that notified, and all at once. ``line``: the interrupt
    line of its slot. ``legacy``: its registers are those of version 1. A driver that breaks the rules finds
    DEVICE_NEEDS_RESET, if it drives version 2, and the device is ``broken`` until it is reset.

    State: the length (u32) of what the tables give, and that; then each queue that is not as at reset: its number
    (u16), and its own table.
    """

    DEVICE_ID: ClassVar[int]
    QUEUES: ClassVar[tuple[int, ...]]
    """entries of each queue at reset"""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("status", 8),
        Field("interrupt_status", 8, mask=USED_BUFFER | CONFIG_CHANGED),
        Field("device_features_sel", 8, mask=1),
        Field("driver_features_sel", 8, mask=1),
        Field("driver_features", 64),
        Field("next_features", 64),
        Field("page_shift", 8, mask=0x1F),
        Field("queue_sel", 16, mask=MAX_QUEUES - 1),
        Field("broken", 8, mask=1),
        Field("generation", 32),
    )
    BUFFERS: ClassVar[tuple[Buffer, ...]] = (Buffer("ready", MAX_QUEUES // 8),)

    status: int
    interrupt_status: int
    device_features_sel: int
    driver_features_sel: int
    driver_features: int
    next_features: int
    page_shift: int
    queue_sel: int
    broken: int
    generation: int
    ready: bytearray

    def __init__(self, name: str, machine: Machine, line: int, *, legacy: bool = False) -> None:
        self.line = line
        self.legacy = legacy
        self.queues = [Virtqueue(f"{name} queue {n}", machine, size) for n, size in enumerate(self.QUEUES)]
        super().__init__(name, machine)

    # -- what a device is

    def features(self) -> int:
        """What the device offers, besides what all do."""
        return 0

    def config(self) -> bytes:
        """The configuration space."""
        return b""

    def configure(self, offset: int, data: bytes) -> None:
        """The driver has written these bytes of the configuration space."""

    def serve(self, index: int) -> None:
        """The driver has notified this queue, which is there. Raises QueueError."""
        raise NotImplementedError

    def status_changes(self, status: int) -> None:
        """The driver has written this status."""

    # -- registers

    @property
    def offered(self) -> int:
        common = self.features() | EVENT_IDX | INDIRECT_DESC | NOTIFY_ON_EMPTY
        return common if self.legacy else common | VERSION_1 | RING_RESET

    def has(self, feature: int) -> bool:
        """The driver has accepted it."""
        return bool(self.driver_features & feature)

    @property
    def _queue(self) -> Virtqueue | None:
        return self.queues[self.queue_sel] if self.queue_sel < len(self.queues) else None

    def read(self, offset: int, size: int) -> int:
        if offset >= CONFIG:
            at, config = offset - CONFIG, self.config()
            beyond = at + size > len(config)
            return (1 << 8 * size) - 1 if beyond else int.from_bytes(config[at : at + size], "little")
        if size != 4:
            return 0
        queue = self._queue
        match offset:
            case 0x000:
                return MAGIC
            case 0x004:
                return 1 if self.legacy else 2
            case 0x008:
                return self.DEVICE_ID
            case 0x00C:
                return VENDOR
            case 0x010:
                offered = self.offered if self.legacy else self.offered & ~(NOTIFY_ON_EMPTY | ANY_LAYOUT)
                return offered >> 32 * self.device_features_sel & _WORD
            case 0x034:
                return MAX_SIZE if queue else 0
            case 0x040 if self.legacy:
                return queue.desc >> self.page_shift & _WORD if queue else 0
            case 0x044 if not self.legacy:
                return self.ready[self.queue_sel >> 3] >> (self.queue_sel & 7) & 1
            case 0x060:
                return self.interrupt_status
            case 0x070:
                return self.status
            case 0x0FC if not self.legacy:
                return self.generation
            case _ if offset in _SHARED_MEMORY_LENGTH:
                return _WORD
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if offset >= CONFIG:
            if offset - CONFIG + size <= len(self.config()):
                self.configure(offset - CONFIG, value.to_bytes(size, "little"))
            return
        if size != 4:
            return
        match offset:
            case 0x014:
                self.device_features_sel = int(bool(value))
            case 0x020:
                self._accept(value)
            case 0x024:
                self.driver_features_sel = int(bool(value))
            case 0x030:
                if value < MAX_QUEUES:
                    self.queue_sel = value
            case 0x050:
                if value < len(self.queues):
                    self.machine.after_instruction(lambda: self._notified(value))
            case 0x064:
                self.interrupt_status &= ~value
                self._update()
            case 0x070:
                self._set_status(value & 0xFF)
            case _:
                self._tell_of_the_other_version(offset)
                (self._place_legacy if self.legacy else self._place)(offset, value)

    def _tell_of_the_other_version(self, offset: int) -> None:
        if offset in (_OF_VERSION_2 if self.legacy else _OF_VERSION_1):
            has, drives, switch = (1, 2, "off") if self.legacy else (2, 1, "on")
            self.machine.notice(
                f"virtio device {self.name}: the guest drives version {drives} of the registers, and its slot has "
                f"version {has}: -global virtio-mmio.force-legacy={switch}"
            )

    def _accept(self, value: int) -> None:
        if not self.legacy:
            shift = 32 * self.driver_features_sel
            self.next_features = self.next_features & ~(_WORD << shift) | value << shift
        elif not self.driver_features_sel:
            self._negotiate(value)

    def _negotiate(self, features: int) -> None:
        if not self.status & FEATURES_OK:
            self.driver_features = features & self.offered

    def _set_status(self, value: int) -> None:
        if not self.legacy and value & FEATURES_OK:
            self._negotiate(self.next_features)
        self.status = value
        self.status_changes(value)
        if not value:
            self.restart()

    def restart(self) -> None:
        """The driver has asked for a reset. What it has written of features and queues to come stays."""
        self.broken = self.driver_features = self.queue_sel = self.status = self.interrupt_status = 0
        self.ready = bytearray(MAX_QUEUES // 8)
        for queue in self.queues:
            queue.restart()
        self._update()

    def reset(self) -> None:
        super().reset()
        self.ready = bytearray(MAX_QUEUES // 8)
        for queue in self.queues:
            queue.reset()
        self._update()

    def _place_legacy(self, offset: int, value: int) -> None:
        queue = self._queue
        match offset:
            case 0x028:
                shift = (value & -value).bit_length() - 1
                self.page_shift = max(shift, 0)
            case 0x040 if not value:
                self.restart()
            case 0x038 if queue:
                queue.resize(value)
                self._locate(queue, queue.desc)
            case 0x03C if queue and value:
                queue.align = value
                self._locate(queue, queue.desc)
            case 0x040 if queue:
                self._locate(queue, value << self.page_shift)

    def _place(self, offset: int, value: int) -> None:
        queue = self._queue
        if offset == 0x044:
            mask = 1 << (self.queue_sel & 7)
            at = self.queue_sel >> 3
            self.ready[at] = self.ready[at] | mask if value else self.ready[at] & ~mask
            if value and queue:
                self._locate(queue, None)
        elif offset == 0x038 and queue:
            queue.resize(value)
            queue.next_num = value
        elif offset in _ADDRESSES and queue:
            name, shift = _ADDRESSES[offset]
            setattr(queue, name, getattr(queue, name) & ~(_WORD << shift) | value << shift)

    def _locate(self, queue: Virtqueue, desc: int | None) -> None:
        """The queue is where the driver says: version 1's is given by its descriptors."""
        try:
            if desc is None:
                queue.place(self.has(EVENT_IDX))
            else:
                queue.place_legacy(desc, self.has(EVENT_IDX))
        except QueueError:
            self.fail()

    # -- queues

    def _notified(self, index: int) -> None:
        if not self.queues[index].desc or self.broken:
            return
        try:
            self.serve(index)
        except QueueError:
            self.fail()

    def serve_all(self, index: int, request: Callable[[Chain], None]) -> None:
        """Do what waits in a queue, of which the device writes nothing, and tell of all at once: even of nothing, and
        of what is broken, as QEMU does. Raises QueueError."""
        queue = self.queues[index]
        try:
            while queue.waiting():
                chain = queue.take(tell=self.has(EVENT_IDX))
                request(chain)
                self.give_back(index, chain, 0)
        except QueueError:
            self.fail()
        self.tell(index)

    def give_back(self, index: int, chain: Chain, written: int) -> None:
        """The device is done with it and has written so many bytes. Raises QueueError."""
        self.queues[index].give_back(chain.head, written)

    def tell(self, index: int) -> None:
        """Interrupt the driver, if it wants that, for what has been given back. Raises QueueError."""
        if self.queues[index].wants_interrupt(self.driver_features, broken=bool(self.broken)):
            self.interrupt_status |= USED_BUFFER
            self._update()

    def fail(self) -> None:
        """The driver has broken the rules."""
        if self.has(VERSION_1):
            self.status |= NEEDS_RESET
            if self.status & DRIVER_OK:
                self.interrupt_status |= USED_BUFFER | CONFIG_CHANGED
                self.generation = self.generation + 1 & _WORD
                self._update()
        self.broken = 1

    def _update(self) -> None:
        """The line of a broken device stays as it is."""
        if not self.broken:
            self.machine.irq(self.line, bool(self.interrupt_status))

    # -- state

    def check(self, values: dict[str, int], buffers: dict[str, bytes]) -> None:
        if len(buffers["ready"]) != MAX_QUEUES // 8:
            raise ValueError(f"{self.name}: ready has {len(buffers['ready'])} bytes, expected {MAX_QUEUES // 8}")

    def save(self) -> bytes:
        own = super().save()
        parts = [_LENGTH.pack(len(own)), own]
        for index, queue in enumerate(self.queues):
            state = queue.save()
            if state != queue.at_reset:
                parts += (_NUMBER.pack(index), state)
        return b"".join(parts)

    def load(self, state: bytes) -> None:
        begin = _LENGTH.size + (_LENGTH.unpack_from(state)[0] if len(state) >= _LENGTH.size else 0)
        record = _NUMBER.size + len(self.queues[0].at_reset)
        if not _LENGTH.size <= begin <= len(state) or (len(state) - begin) % record:
            raise ValueError(f"{self.name}: state of {len(state)} bytes, expected its length and {record} for a queue")
        loaded = [queue.another() for queue in self.queues]
        last = -1
        for at in range(begin, len(state), record):
            (index,) = _NUMBER.unpack_from(state, at)
            if not last < index < len(loaded):
                raise ValueError(f"{self.name}: queue {index}, expected them ascending, and below {len(loaded)}")
            loaded[index].load(state[at + _NUMBER.size : at + record])
            if state[at + _NUMBER.size : at + record] == loaded[index].at_reset:
                raise ValueError(f"{self.name}: queue {index} is as at reset, expected none of those")
            last = index
        super().load(state[_LENGTH.size : begin])
        self.queues = loaded
