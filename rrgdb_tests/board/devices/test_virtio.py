"""Virtio devices with interrupts, of both versions: disk, random bytes, console; and drivers that break the rules."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrgdb.board.devices.virtio import blk
from rrgdb.board.devices.virtio.blk import VirtioBlk
from rrgdb.board.devices.virtio.console import VirtioConsole
from rrgdb.board.devices.virtio.disk import IO_ERROR, OK, UNSUPPORTED, Request, geometry
from rrgdb.board.devices.virtio.mmio import VirtioDevice
from rrgdb.board.devices.virtio.plugs import other_device
from rrgdb.board.devices.virtio.rng import VirtioRng
from rrgdb.board.devices.virtio.slots import DenseVirtioMmio, VirtioMmio
from rrgdb_tests.board.fakes import FakeDisk, FakeMachine

BASE, SIZE, LINE, PAGE = 0x1000, 0x40000, 8, 4096
RINGS, BUFFERS = 0x2000, 0x20000
"""RINGS: 8 KiB for each queue"""
NEXT, WRITE, INDIRECT = 1, 2, 4
ENTRIES = 8
SECTORS = 16
VERSION_1, INDIRECT_DESC, EVENT_IDX, MULTIPORT = 1 << 32, 1 << 28, 1 << 29, 2
STATUS, ISR, ACK, NOTIFY = 0x70, 0x60, 0x64, 0x50
READY, NEEDS_RESET = 15, 64


class Driver:
    """Of one device; ``machine.ram`` is its memory."""

    def __init__(self, device: VirtioDevice, machine: FakeMachine) -> None:
        self.device, self.machine = device, machine
        self.added = [0] * 4

    def register(self, offset: int) -> int:
        return self.device.read(offset, 4)

    def set(self, offset: int, value: int) -> None:
        self.device.write(offset, 4, value)

    def set_up(self, features: int = VERSION_1 | INDIRECT_DESC, queues: int = 1) -> None:
        legacy = self.device.legacy
        for status in (0, 1, 3):
            self.set(STATUS, status)
        for half in (0, 1):
            self.set(0x24, half)
            self.set(0x20, features >> 32 * half & 0xFFFFFFFF)
        if not legacy:
            self.set(STATUS, 11)
        for number in range(queues):
            self.set(0x30, number)
            self.set(0x38, ENTRIES)
            self.machine.write_physical(self.desc(number), bytes(2 * PAGE))
            if legacy:
                self.set(0x28, PAGE)
                self.set(0x3C, PAGE)
                self.set(0x40, self.desc(number) // PAGE)
            else:
                for offset, address in (
                    (0x80, self.desc(number)),
                    (0x90, self.avail(number)),
                    (0xA0, self.used_ring(number)),
                ):
                    self.set(offset, address)
                self.set(0x44, 1)
        self.set(STATUS, 7 if legacy else READY)
        self.added = [0] * 4

    def desc(self, queue: int) -> int:
        return RINGS + 2 * PAGE * queue

    def avail(self, queue: int) -> int:
        return self.desc(queue) + 16 * ENTRIES

    def used_ring(self, queue: int) -> int:
        return self.desc(queue) + PAGE

    def put(self, address: int, data: bytes) -> None:
        self.machine.write_physical(address, data)

    def get(self, address: int, length: int) -> bytes:
        return self.machine.read_physical(address, length)

    def describe(self, at: int, address: int, length: int, flags: int, following: int = 0) -> None:
        self.put(at, struct.pack("<QIHH", address, length, flags, following))

    def offer(self, queue: int, pieces: Sequence[tuple[int, int, int]], *, flags: int = 0) -> int:
        """Make a chain of (address, length, flags) available; returns its head."""
        head = (self.added[queue] * len(pieces)) % ENTRIES if len(pieces) <= 2 else 0
        for number, (address, length, of) in enumerate(pieces):
            more = NEXT if number < len(pieces) - 1 else 0
            self.describe(self.desc(queue) + 16 * (head + number), address, length, of | more, head + number + 1)
        self.put(self.avail(queue) + 4 + 2 * (self.added[queue] % ENTRIES), struct.pack("<H", head))
        self.added[queue] += 1
        self.put(self.avail(queue), struct.pack("<HH", flags, self.added[queue] & 0xFFFF))
        return head

    def used(self, queue: int = 0) -> int:
        return int.from_bytes(self.get(self.used_ring(queue) + 2, 2), "little")

    def last_used(self, queue: int = 0) -> tuple[int, int]:
        """Head and bytes written."""
        at = self.used_ring(queue) + 4 + 8 * ((self.used(queue) - 1) % ENTRIES)
        head, written = struct.unpack("<II", self.get(at, 8))
        return head, written

    @property
    def raised(self) -> bool:
        return self.machine.levels[LINE]

    @property
    def needs_reset(self) -> bool:
        return bool(self.register(STATUS) & NEEDS_RESET)


class DiskDriver(Driver):
    def __init__(self, *, legacy: bool = False, readonly: bool = False) -> None:
        machine = FakeMachine(base=BASE, size=SIZE, line=1)
        self.disk = FakeDisk(Random(1).randbytes(512 * SECTORS), "root", readonly=readonly)
        self.blk = VirtioBlk(machine, self.disk, LINE, legacy=legacy)
        super().__init__(self.blk, machine)

    def ask(self, kind: int, sector: int = 0, out: Sequence[bytes] = (), into: Sequence[int] = ()) -> int:
        """Make a request available, with its status behind what is read, and notify. Returns the chain's head."""
        at, pieces = BUFFERS, []
        for data in (struct.pack("<IIQ", kind, 0, sector), *out):
            self.put(at, data)
            pieces.append((at, len(data), 0))
            at += len(data)
        self.first = at
        for length in (*into, 1):
            pieces.append((at, length, WRITE))
            at += length
        self.status_at = at - 1
        self.put(self.status_at, b"\xff")
        head = self.offer(0, pieces)
        self.set(NOTIFY, 0)
        return head

    def request(
        self, kind: int, sector: int = 0, out: Sequence[bytes] = (), into: Sequence[int] = ()
    ) -> tuple[int, bytes]:
        """Status and what was read."""
        before = self.used()
        head = self.ask(kind, sector, out, into)
        assert self.used() == before + 1 & 0xFFFF
        assert self.last_used() == (head, sum(into) + 1)
        return self.get(self.status_at, 1)[0], self.get(self.first, self.status_at - self.first)


@pytest.fixture(params=[False, True], ids=["version 2", "legacy"])
def driver(request: pytest.FixtureRequest) -> DiskDriver:
    driver = DiskDriver(legacy=request.param)
    driver.set_up()
    return driver


def test_a_disk_is_read_and_written_and_says_so(driver: DiskDriver) -> None:
    assert driver.request(Request.IN, 2, into=[512, 512]) == (OK, bytes(driver.disk.held[1024:2048]))
    assert (driver.register(ISR), driver.raised) == (1, True)
    driver.set(ACK, 1)
    assert (driver.register(ISR), driver.raised) == (0, False)
    before = sum(driver.disk.held)
    assert driver.request(Request.OUT, 3, out=[bytes(512)])[0] == OK
    assert driver.disk.held[1536:2048] == bytes(512)
    assert driver.blk.content == (sum(driver.disk.held) - before) % 2**64
    assert driver.raised


def test_a_reset_lowers_the_line_and_keeps_the_digest(driver: DiskDriver) -> None:
    driver.request(Request.OUT, 0, out=[bytes(512)])
    content = driver.blk.content
    driver.set(STATUS, 0)
    assert (driver.raised, driver.register(STATUS), driver.blk.content) == (False, 0, content)
    driver.set_up()
    driver.request(Request.FLUSH)
    driver.blk.reset()
    assert (driver.raised, driver.blk.content) == (False, content)


@pytest.mark.parametrize(
    ("kind", "out", "into", "status"),
    [
        (5, (), (), OK),
        (9, (), (20,), OK),
        (2, (), (), IO_ERROR),
        (3, (bytes(16),), (), IO_ERROR),
        (2, (bytes(16),), (8, 8), UNSUPPORTED),
        (10, (bytes(16),), (), UNSUPPORTED),
        (12, (bytes(16),), (), UNSUPPORTED),
        (11, (bytes(17),), (), UNSUPPORTED),
        (7, (), (), UNSUPPORTED),
        (99, (), (), UNSUPPORTED),
    ],
)
@pytest.mark.parametrize("barrier", [0, 1 << 31])
def test_types_with_a_direction_and_a_barrier(
    driver: DiskDriver, kind: int, out: tuple[bytes, ...], into: tuple[int, ...], status: int, barrier: int
) -> None:
    assert driver.request(kind | barrier, out=out, into=into)[0] == status
    assert not driver.needs_reset


def test_the_name_ends_behind_its_nul(driver: DiskDriver) -> None:
    driver.put(BUFFERS, b"\xee" * 64)
    assert driver.request(Request.GET_ID, into=[20])[1][:5] == b"root\0"
    assert driver.get(driver.first + 5, 15) == b"\xee" * 15


@pytest.mark.parametrize("kind", [Request.DISCARD, Request.WRITE_ZEROES])
def test_a_range_too_short_breaks_the_device(driver: DiskDriver, kind: int) -> None:
    driver.ask(kind, out=[bytes(8)])
    assert driver.used() == 0
    assert driver.needs_reset == (not driver.device.legacy)
    assert driver.register(ISR) == (0 if driver.device.legacy else 3)
    generation = driver.register(0xFC)
    assert generation == (0 if driver.device.legacy else 1)
    raised = driver.raised
    driver.set(ACK, 3)
    assert driver.raised == raised, "of a broken device the line stays"
    driver.ask(Request.FLUSH)
    assert driver.used() == 0
    driver.set_up()
    assert (driver.raised, driver.request(Request.FLUSH)[0]) == (False, OK)


def test_zeroes_and_limits(driver: DiskDriver) -> None:
    before = bytes(driver.disk.held)
    assert driver.request(Request.DISCARD, out=[struct.pack("<QII", 1, 2, 0)])[0] == OK
    assert driver.request(Request.DISCARD, out=[struct.pack("<QII", 1, 2, 1)])[0] == UNSUPPORTED
    assert driver.disk.held == before
    assert driver.request(Request.WRITE_ZEROES, out=[struct.pack("<QII", 1, 2, 1)])[0] == OK
    assert driver.disk.held == before[:512] + bytes(1024) + before[1536:]
    assert driver.request(Request.WRITE_ZEROES, out=[struct.pack("<QII", 0, blk.MAX_ZEROES + 1, 0)])[0] == IO_ERROR


def test_a_read_only_disk_is_not_written() -> None:
    driver = DiskDriver(readonly=True)
    driver.set_up()
    assert driver.register(0x10) & 1 << 5
    assert driver.request(Request.OUT, 0, out=[bytes(512)])[0] == IO_ERROR
    assert driver.request(Request.WRITE_ZEROES, out=[struct.pack("<QII", 1, 2, 0)])[0] == IO_ERROR


def test_one_notification_moves_so_much_and_no_more(driver: DiskDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blk, "MAX_TRANSFER", 600)
    assert driver.request(Request.IN, 0, into=[512])[0] == OK
    driver.ask(Request.IN, 0, into=[512, 512])
    assert (driver.used(), bool(driver.blk.broken)) == (1, True)


def test_geometry() -> None:
    assert geometry(2048) == (2, 16, 63)
    assert geometry(1 << 21) == (2080, 16, 63)
    assert geometry(1 << 40) == (16383, 16, 63)


@pytest.mark.parametrize(("event", "raises"), [(0, [1]), (1, [1, 2]), (2, [1, 3]), (9, [1])])
def test_event_idx_says_when_to_interrupt(event: int, raises: list[int]) -> None:
    """The first one is told of in any case, as nothing is known of before."""
    driver = DiskDriver()
    driver.set_up(VERSION_1 | EVENT_IDX)
    driver.put(driver.avail(0) + 4 + 2 * ENTRIES, struct.pack("<H", event))
    raised = []
    for number in range(1, 5):
        driver.request(Request.FLUSH)
        if driver.raised:
            raised.append(number)
        driver.set(ACK, 1)
    assert raised == raises
    assert driver.get(driver.used_ring(0) + 4 + 8 * ENTRIES, 2) == b"\x04\0", "notify of the next one"


def test_the_driver_may_ask_for_no_interrupts(driver: DiskDriver) -> None:
    driver.put(BUFFERS, struct.pack("<IIQ", Request.FLUSH, 0, 0))
    driver.offer(0, [(BUFFERS, 16, 0), (BUFFERS + 16, 1, WRITE)], flags=1)
    driver.set(NOTIFY, 0)
    assert (driver.used(), driver.register(ISR), driver.raised) == (1, 0, False)


def test_version_1_registers() -> None:
    driver = DiskDriver(legacy=True)
    assert [driver.register(offset) for offset in (0, 4, 8, 0xC)] == [0x74726976, 1, 2, 0x554D4551]
    driver.set(0x14, 1)
    assert driver.register(0x10) == 0
    driver.set_up()
    assert driver.register(0x40) == RINGS // PAGE
    assert driver.register(0x44) == 0
    driver.set(0x28, 2 * PAGE)
    assert driver.register(0x40) == RINGS // PAGE // 2
    driver.set(0x40, 0)
    assert (driver.register(0x40), driver.register(STATUS)) == (0, 0)


@pytest.mark.parametrize("legacy", [False, True])
def test_the_user_hears_once_of_the_other_version(legacy: bool) -> None:
    driver = DiskDriver(legacy=legacy)
    driver.set_up()
    assert driver.machine.notices == []
    for _ in range(2):
        driver.set(0x44 if legacy else 0x40, 1)
    told = set(driver.machine.notices)
    drives, has, switch = (2, 1, "off") if legacy else (1, 2, "on")
    assert told == {
        f"virtio device root: the guest drives version {drives} of the registers, and its slot has version {has}: "
        f"-global virtio-mmio.force-legacy={switch}"
    }


@pytest.mark.parametrize("kind", [VirtioMmio, DenseVirtioMmio])
def test_slots(kind: type[VirtioMmio]) -> None:
    machine = FakeMachine(line=1)
    slots = kind("virtio", machine)
    assert [slots.read(3 * kind.STRIDE + at, 4) for at in (0, 4, 8, 0xC)] == [0x74726976, 1, 0, 0x554D4551]
    assert slots.read(0, 1) == 0x76, "QEMU answers narrow reads of an empty slot"
    for legacy in (False, True):
        slots.plug(1 + legacy, VirtioRng(f"rng{legacy:d}", machine, 2 + legacy, legacy=legacy))
        assert slots.read(4, 4) == (1 if legacy else 2)
    slots.write(2 * kind.STRIDE + STATUS, 4, 1)
    assert [slots.read(slot * kind.STRIDE + STATUS, 4) for slot in range(4)] == [0, 0, 1, 0]


def test_a_board_without_interrupts_has_disks_only() -> None:
    with pytest.raises(ValueError, match="no virtio device rng"):
        other_device("rng", 0, FakeMachine(line=None), None, legacy=False)


# -- random bytes


def test_random_bytes_fill_buffers() -> None:
    machine = FakeMachine(base=BASE, size=SIZE, line=1)
    driver = Driver(VirtioRng("rng0", machine, LINE), machine)
    driver.set_up()
    driver.offer(0, [(BUFFERS, 10, WRITE), (BUFFERS + 16, 5000, WRITE)])
    driver.set(NOTIFY, 0)
    assert machine.host.asked == ["rng0", "rng0"]
    assert (driver.used(), driver.last_used()[1], driver.raised) == (1, 4096, True)
    assert any(driver.get(BUFFERS, 10))
    assert any(driver.get(BUFFERS + 16, 4086))
    assert not any(driver.get(BUFFERS + 16 + 4086, 10))


def test_random_bytes_wait_for_the_driver() -> None:
    machine = FakeMachine(base=BASE, size=SIZE, line=1)
    driver = Driver(VirtioRng("rng0", machine, LINE), machine)
    driver.set_up()
    driver.set(STATUS, 11)
    driver.offer(0, [(BUFFERS, 8, WRITE)])
    driver.set(NOTIFY, 0)
    assert driver.used() == 0
    driver.set(STATUS, READY)
    assert driver.used() == 1


# -- console

MESSAGE = struct.Struct("<IHH")


class ConsoleDriver(Driver):
    def __init__(self, features: int) -> None:
        machine = FakeMachine(base=BASE, size=SIZE, line=1)
        super().__init__(VirtioConsole("console0", machine, LINE), machine)
        self.set_up(VERSION_1 | features, queues=4)

    def type(self, text: bytes) -> None:
        self.machine.host.sinks["console0"](text)
        self.machine.timers.run_out(self.machine.now_ns, lambda: False)

    def give(self, queue: int, length: int, at: int = BUFFERS) -> None:
        self.offer(queue, [(at, length, WRITE)])
        self.set(NOTIFY, queue)

    def send(self, queue: int, data: bytes) -> None:
        self.put(BUFFERS + 0x8000, data)
        self.offer(queue, [(BUFFERS + 0x8000, len(data), 0)])
        self.set(NOTIFY, queue)


def test_console_without_ports() -> None:
    driver = ConsoleDriver(0)
    driver.send(1, b"hello")
    assert driver.machine.host.text == b"hello"
    driver.give(0, 4)
    assert driver.used(0) == 0
    driver.type(b"typed")
    assert (driver.used(0), driver.last_used(0)[1], driver.get(BUFFERS, 4), driver.raised) == (1, 4, b"type", True)
    driver.give(0, 4)
    assert (driver.used(0), driver.last_used(0)[1], driver.get(BUFFERS, 1)) == (2, 1, b"d")


def test_console_with_ports() -> None:
    driver = ConsoleDriver(MULTIPORT)
    for number in range(3):
        driver.give(2, 8, BUFFERS + 0x100 * number)
    driver.send(3, MESSAGE.pack(0, 0, 1))
    assert MESSAGE.unpack(driver.get(BUFFERS, 8)) == (0, 1, 1)
    driver.send(3, MESSAGE.pack(0, 3, 1))
    assert MESSAGE.unpack(driver.get(BUFFERS + 0x100, 8)) == (0, 4, 1)
    assert MESSAGE.unpack(driver.get(BUFFERS + 0x200, 8)) == (0, 6, 1)
    assert (driver.used(2), driver.last_used(2)[1], driver.used(3)) == (3, 8, 2)
    driver.give(0, 16)
    driver.type(b"early")
    assert driver.used(0) == 0, "the port is not open"
    driver.send(3, MESSAGE.pack(0, 6, 1))
    assert (driver.used(0), driver.get(BUFFERS, 5)) == (1, b"early")
    driver.send(3, MESSAGE.pack(5, 6, 0))
    driver.send(3, b"short")
    driver.give(0, 16)
    driver.type(b"on")
    assert driver.used(0) == 2
    driver.set(STATUS, 11)
    driver.set(STATUS, READY)
    driver.give(0, 16)
    driver.type(b"off")
    assert driver.used(0) == 2, "a driver that begins anew opens it anew"


def test_console_configuration_and_emergency_write() -> None:
    driver = ConsoleDriver(MULTIPORT)
    assert driver.register(0x10) & 6 == 6
    assert (driver.register(0x104), driver.register(0x108), driver.register(0x10C)) == (31, 0, 0xFFFFFFFF)
    driver.set(0x108, 0x141)
    driver.device.write(0x108, 1, 0x42)
    driver.set(0x104, 7)
    driver.set(0x108, 0)
    assert driver.machine.host.text == b"AB"
    driver.set(0x30, 63)
    assert driver.register(0x34) == 1024
    driver.set(0x30, 64)
    assert driver.register(0x34) == 0


def test_console_keeps_what_is_typed_in_its_state() -> None:
    driver = ConsoleDriver(0)
    driver.type(b"kept")
    state, timers = driver.device.save(), driver.machine.timers.save()
    driver.give(0, 16)
    assert driver.get(BUFFERS, 4) == b"kept"
    driver.put(BUFFERS, bytes(4))
    driver.put(driver.used_ring(0), bytes(PAGE))
    driver.device.load(state)
    driver.machine.timers.load(timers)
    driver.set(NOTIFY, 0)
    assert driver.get(BUFFERS, 4) == b"kept"


# -- state


def test_a_state_with_queues_that_cannot_be_is_refused() -> None:
    machine = FakeMachine(base=BASE, size=SIZE, line=1)
    driver = Driver(VirtioConsole("console0", machine, LINE), machine)
    fresh = driver.device.save()
    driver.set_up(VERSION_1, queues=2)
    state = driver.device.save()
    begin = 4 + int.from_bytes(state[:4], "little")
    record = (len(state) - begin) // 2
    first, second = state[begin : begin + record], state[begin + record :]
    for bad in (second + first, first + first, b"\x40\0" + first[2:], b"\1\0" + driver.device.queues[9].at_reset):
        with pytest.raises(ValueError, match="console0: "):
            driver.device.load(state[:begin] + bad)
        assert driver.device.save() == state
    for number in (0, 2000):
        with pytest.raises(ValueError, match="console0 queue 0"):
            driver.device.load(state[:begin] + first[:2] + struct.pack("<H", number) + first[4:])
    driver.device.load(fresh)
    assert driver.device.save() == fresh


WORDS = st.one_of(st.integers(0, 2**64 - 1), st.integers(BASE - 16, BASE + SIZE + 16), st.integers(0, 40))
DESCRIPTORS = st.tuples(
    WORDS,
    st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 600), st.sampled_from([16, 512, 1, 48])),
    st.one_of(st.integers(0, 7), st.integers(0, 0xFFFF)),
    st.one_of(st.integers(0, ENTRIES), st.integers(0, 0xFFFF)),
)


@settings(max_examples=300, deadline=None)
@given(
    which=st.sampled_from(["disk", "legacy disk", "rng", "console"]),
    features=st.integers(0, 2**33 - 1),
    table=st.lists(DESCRIPTORS, min_size=ENTRIES, max_size=ENTRIES),
    indirect=st.lists(DESCRIPTORS, min_size=3, max_size=3),
    ring=st.lists(st.integers(0, ENTRIES), min_size=ENTRIES, max_size=ENTRIES),
    header=st.tuples(st.integers(0, 14), st.just(0), st.one_of(st.integers(0, SECTORS), st.integers(0, 2**64 - 1))),
    counts=st.lists(st.integers(0, ENTRIES + 1), min_size=1, max_size=4),
    moved=st.sampled_from([None, BASE + SIZE - 32, BASE + SIZE - 200, 2**40, 2**64 - 8]),
)
def test_any_queue_is_served_or_refused(
    which: str,
    features: int,
    table: list[tuple[int, int, int, int]],
    indirect: list[tuple[int, int, int, int]],
    ring: list[int],
    header: tuple[int, int, int],
    counts: list[int],
    moved: int | None,
) -> None:
    """Whatever a driver writes: nothing is raised, the disk keeps its size, and the state saves and loads."""
    driver: Driver
    if "disk" in which:
        driver = DiskDriver(legacy="legacy" in which)
    else:
        machine = FakeMachine(base=BASE, size=SIZE, line=1)
        driver = Driver((VirtioRng if which == "rng" else VirtioConsole)("dev", machine, LINE), machine)
    driver.set_up(features, queues=4 if which == "console" else 1)
    for queue in range(4 if which == "console" else 1):
        driver.put(BUFFERS, struct.pack("<IIQ", *header))
        for i, descriptor in enumerate(table):
            driver.describe(driver.desc(queue) + 16 * i, *descriptor)
        for i, descriptor in enumerate(indirect):
            driver.describe(BUFFERS + 0x100 + 16 * i, *descriptor)
        driver.put(driver.avail(queue) + 4, struct.pack(f"<{ENTRIES}H", *ring))
        index = 0
        for turn, count in enumerate(counts):
            if turn == 2 and moved is not None:
                driver.set(0x90, moved & 0xFFFFFFFF)
                driver.set(0x94, moved >> 32)
                driver.set(0x44, 1)
            index += count
            driver.put(driver.avail(queue) + 2, struct.pack("<H", index & 0xFFFF))
            for sink in driver.machine.host.sinks.values():
                sink(b"typed")
            driver.machine.timers.run_out(driver.machine.now_ns, lambda: False)
            driver.set(NOTIFY, queue)
            state = driver.device.save()
            driver.device.load(state)
            assert driver.device.save() == state
    driver.set(STATUS, 0)
    assert driver.register(STATUS) == 0
