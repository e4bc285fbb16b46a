"""Split virtqueues (virtio 1.2, section 2.7), as the device sees them; what is done about broken ones is as in QEMU's
``virtio.c``.

Everything in a queue is the guest's to write: what a chain may be is checked before anything of it is done.
"""

from __future__ import annotations

import struct
from typing import ClassVar, NamedTuple

from rrgdb.arch.cpu import MemoryFault
from rrgdb.board.device import Machine
from rrgdb.board.devices.state import Field, Stateful

MAX_SIZE = 1024
"""entries of a queue, and descriptors of a chain, indirect ones included (QEMU's limit)"""
NOTIFY_ON_EMPTY, INDIRECT_DESC, EVENT_IDX = 1 << 24, 1 << 28, 1 << 29
_DESCRIPTOR = struct.Struct("<QIHH")
NEXT, WRITE, INDIRECT = 1, 2, 4
_NO_INTERRUPT = _NO_NOTIFY = 1
_WRAP, _HALF = 0xFFFF, 0x8000
_ADDRESS = (1 << 64) - 1
_LEGACY_ALIGN = 4096
"""of the used ring, until a driver of version 1 says otherwise"""


class QueueError(Exception):
    """The guest broke the rules of the queue: the device needs a reset. One line."""


class Piece(NamedTuple):
    """``length`` bytes of guest-physical RAM, at least one."""

    address: int
    length: int


class Chain(NamedTuple):
    """One buffer: what the device reads, and what it writes, in order. All of it is in RAM. ``indirect``: it takes one
    descriptor of the queue."""

    head: int
    readable: list[Piece]
    writable: list[Piece]
    indirect: bool = False


class Rings(NamedTuple):
    """Where the guest has put a queue of ``size`` entries (guest-physical addresses)."""

    machine: Machine
    size: int
    descriptors: int
    available: int
    used: int

    def waiting(self, taken: int) -> int:
        """How many chains wait when ``taken`` (modulo 65536) have been taken."""
        count = self.offered - taken & _WRAP
        if count > self.size:
            raise QueueError(f"{count} chains wait in a queue of {self.size}")
        return count

    @property
    def offered(self) -> int:
        """How many chains (modulo 65536) the driver has made available."""
        return int.from_bytes(self._read(self.available + 2, 2), "little")

    def head(self, number: int) -> int:
        """Of chain ``number`` (modulo 65536) since the queue was set up."""
        head = int.from_bytes(self._read(self.available + 4 + 2 * (number % self.size), 2), "little")
        self._expect(head, self.size)
        return head

    def give_back(self, number: int, head: int, written: int) -> None:
        """Chain ``head`` is the used one of this ``number`` (modulo 65536); the device has written so many bytes."""
        self._write(self.used + 4 + 8 * (number % self.size), struct.pack("<II", head, written & 0xFFFFFFFF))
        self._write(self.used + 2, struct.pack("<H", number + 1 & _WRAP))

    @property
    def wants_interrupts(self) -> bool:
        return not self._read(self.available, 2)[0] & _NO_INTERRUPT

    @property
    def used_event(self) -> int:
        """With ``EVENT_IDX``: the driver wants an interrupt when this one is used."""
        return int.from_bytes(self._read(self.available + 4 + 2 * self.size, 2), "little")

    def ask_for_notifications(self, events: bool) -> None:
        """Of whatever is made available from now on."""
        if events:
            self.set_available_event(self.offered)
            return
        flags = int.from_bytes(self._read(self.used, 2), "little")
        self._write(self.used, struct.pack("<H", flags & ~_NO_NOTIFY))

    def set_available_event(self, number: int) -> None:
        """With ``EVENT_IDX``: the device wants a notification when this one is made available."""
        self._write(self.used + 4 + 8 * self.size, struct.pack("<H", number & _WRAP))

    def check(self, events: bool) -> None:
        """QueueError if a ring begins in RAM and goes beyond its end."""
        more = 2 if events else 0
        for what, start, length in (
            ("descriptors", self.descriptors, 16 * self.size),
            ("available", self.available, 4 + 2 * self.size + more),
            ("used", self.used, 4 + 8 * self.size + more),
        ):
            if self._is_ram(start, 1) and not self._is_ram(start, length):
                raise QueueError(f"a queue whose {what} ring goes beyond RAM")

    def _is_ram(self, address: int, length: int) -> bool:
        try:
            self.machine.check_physical(address & _ADDRESS, length)
        except MemoryFault:
            return False
        return True

    def chain(self, head: int) -> Chain:
        """The buffer that begins with this descriptor. An indirect table stands at the head of a chain, and is all of
        it; elsewhere its flag says nothing."""
        chain = Chain(head, [], [])
        table, size = self.descriptors, self.size
        found = self._descriptor(table, head)
        address, length, flags, following = found
        if flags & INDIRECT:
            if not length or length % _DESCRIPTOR.size:
                raise QueueError(f"an indirect table of {length} bytes")
            chain = chain._replace(indirect=True)
            table, size = address, length // _DESCRIPTOR.size
            found = self._descriptor(table, 0)
        for _ in range(min(size, MAX_SIZE)):
            address, length, flags, following = found
            self._add(chain, Piece(address, length), bool(flags & WRITE))
            if not flags & NEXT:
                return chain
            self._expect(following, size)
            found = self._descriptor(table, following)
        raise QueueError(f"a chain of more than {min(size, MAX_SIZE)} descriptors")

    def _expect(self, index: int, size: int) -> None:
        if index >= size:
            raise QueueError(f"descriptor {index} of {size}")

    def _descriptor(self, table: int, index: int) -> tuple[int, int, int, int]:
        """Address, length, flags, next."""
        found: tuple[int, int, int, int] = _DESCRIPTOR.unpack(self._read(table + _DESCRIPTOR.size * index, 16))
        return found

    def _add(self, chain: Chain, piece: Piece, writable: bool) -> None:
        if not piece.length:
            raise QueueError("a buffer of 0 bytes")
        if chain.writable and not writable:
            raise QueueError("a buffer to be read behind one to be written")
        try:
            self.machine.check_physical(*piece)
        except MemoryFault as e:
            raise QueueError(f"a buffer outside RAM: {e}") from None
        (chain.writable if writable else chain.readable).append(piece)

    def _read(self, address: int, length: int) -> bytes:
        try:
            return self.machine.read_physical(address & _ADDRESS, length)
        except MemoryFault as e:
            raise QueueError(f"a queue outside RAM: {e}") from None

    def _write(self, address: int, data: bytes) -> None:
        try:
            self.machine.write_physical(address & _ADDRESS, data)
        except MemoryFault as e:
            raise QueueError(f"a queue outside RAM: {e}") from None


class Virtqueue(Stateful):
    """A queue of a device: where it is, how far both sides are. ``size``: entries at reset.

    ``next_…`` is what a driver of version 2 has written, and what holds once it says that the queue is ready."""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("num", 16),
        Field("align", 32, reset=_LEGACY_ALIGN),
        Field("desc", 64),
        Field("avail", 64),
        Field("used", 64),
        Field("taken", 16),
        Field("returned", 16),
        Field("told", 16),
        Field("has_told", 8, mask=1),
        Field("next_num", 32),
        Field("next_desc", 64),
        Field("next_avail", 64),
        Field("next_used", 64),
    )

    num: int
    align: int
    desc: int
    avail: int
    used: int
    taken: int
    returned: int
    told: int
    has_told: int
    next_num: int
    next_desc: int
    next_avail: int
    next_used: int

    def __init__(self, name: str, machine: Machine, size: int) -> None:
        self.machine = machine
        self.size = size
        super().__init__(name)
        self.at_reset = self.save()

    def another(self) -> Virtqueue:
        """The same as at reset."""
        return Virtqueue(self.name, self.machine, self.size)

    def reset(self) -> None:
        super().reset()
        self.num = self.size

    def restart(self) -> None:
        """The driver has reset the device: what the transport keeps stays."""
        self.num = self.size
        self.desc = self.avail = self.used = self.taken = self.returned = self.told = self.has_told = 0

    def check(self, values: dict[str, int], buffers: dict[str, bytes]) -> None:
        if not 0 < values["num"] <= MAX_SIZE or not values["align"]:
            raise ValueError(f"{self.name}: a queue of {values['num']} entries, aligned to {values['align']}")

    @property
    def rings(self) -> Rings:
        return Rings(self.machine, self.num, self.desc, self.avail, self.used)

    @property
    def is_ready(self) -> bool:
        """The driver has said where it is."""
        return bool(self.avail)

    def resize(self, num: int) -> None:
        """Sizes that no queue can have are not heard."""
        if 0 < num <= MAX_SIZE:
            self.num = num

    def place(self, events: bool) -> None:
        """The queue is where ``next_…`` says. QueueError."""
        self.resize(self.next_num)
        self.desc, self.avail, self.used = self.next_desc, self.next_avail, self.next_used
        self._check(events)

    def place_legacy(self, desc: int, events: bool) -> None:
        """Virtio 1.2, section 2.7.2: the rings follow the descriptors at ``desc``. QueueError."""
        self.desc = desc & _ADDRESS
        if self.desc:
            self.avail = self.desc + 16 * self.num & _ADDRESS
            end = self.avail + 4 + 2 * self.num
            self.used = -(-end // self.align) * self.align & _ADDRESS
            self._check(events)

    def _check(self, events: bool) -> None:
        if self.desc:
            self.rings.check(events)

    def waiting(self) -> int:
        """How many chains wait. QueueError."""
        return self.rings.waiting(self.taken) if self.is_ready else 0

    def take(self, *, tell: bool = False) -> Chain:
        """The next one of those that wait. ``tell``: with ``EVENT_IDX``, the driver shall notify of the one behind it.
        QueueError."""
        number, self.taken = self.taken, self.taken + 1 & _WRAP
        head = self.rings.head(number)
        if tell:
            self.rings.set_available_event(self.taken)
        return self.rings.chain(head)

    def room(self, most: int) -> int:
        """Bytes that the device may write in all that waits, as far as ``most``. QueueError, also if what it looked at
        has more descriptors than the queue: some are in two buffers, then."""
        room = descriptors = 0
        for number in range(self.taken, self.taken + self.waiting()):
            chain = self.rings.chain(self.rings.head(number & _WRAP))
            room += sum(piece.length for piece in chain.writable)
            descriptors += 1 if chain.indirect else len(chain.readable) + len(chain.writable)
            if descriptors > self.num:
                raise QueueError(f"{descriptors} descriptors wait in a queue of {self.num}")
            if room >= most:
                return most
        return room

    def ask_for_notifications(self, events: bool) -> None:
        """Of whatever is made available from now on. QueueError."""
        if self.is_ready:
            self.rings.ask_for_notifications(events)

    def give_back(self, head: int, written: int) -> None:
        """The device is done with it. QueueError."""
        self.rings.give_back(self.returned, head, written)
        self.returned = self.returned + 1 & _WRAP
        if not 0 < (self.returned - self.told & _WRAP) < _HALF:
            # So long ago that it says nothing any more.
            self.has_told = 0

    def wants_interrupt(self, features: int, *, broken: bool) -> bool:
        """Whether the driver, that has accepted these ``features``, wants to hear of what has been given back, or that
        there was nothing. What waits in the queue of a ``broken`` device is not seen. QueueError."""
        if features & NOTIFY_ON_EMPTY and (broken or not self.waiting()):
            return True
        if not features & EVENT_IDX:
            return self.rings.wants_interrupts
        before, had_told = self.told, self.has_told
        self.told, self.has_told = self.returned, 1
        passed = (self.returned - self.rings.used_event - 1 & _WRAP) < (self.returned - before & _WRAP)
        return not had_told or passed
