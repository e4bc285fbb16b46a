"""Virtio disks of boards without interrupts: registers, requests, and drivers that break the rules."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrgdb.board.devices.virtio import earlier
from rrgdb.board.devices.virtio.disk import IO_ERROR, OK, UNSUPPORTED, Request
from rrgdb.board.devices.virtio.earlier import EarlierDenseVirtioMmio, EarlierVirtioBlk, EarlierVirtioMmio
from rrgdb.board.devices.virtio.queue import MAX_SIZE
from rrgdb_tests.board.fakes import FakeDisk, FakeMachine

BASE, SIZE = 0x1000, 0x40000
DESC, AVAIL, USED, BUFFERS = 0x1000, 0x2000, 0x3000, 0x5000
NEXT, WRITE, INDIRECT = 1, 2, 4
ENTRIES = 8
SECTORS = 16
READY = 1 | 2 | 8 | 4
NEEDS_RESET = 64
VERSION_1 = 1 << 32


class Driver:
    """A driver of one disk; ``machine.ram`` is its memory."""

    def __init__(self, *, readonly: bool = False, entries: int = ENTRIES) -> None:
        self.machine = FakeMachine(base=BASE, size=SIZE, line=None)
        self.disk = FakeDisk(Random(1).randbytes(512 * SECTORS), "root", readonly=readonly)
        self.device = EarlierVirtioBlk(self.machine, self.disk)
        self.entries = entries
        self.added = 0

    def register(self, offset: int) -> int:
        return self.device.read(offset, 4)

    def set(self, offset: int, value: int) -> None:
        self.device.write(offset, 4, value)

    def set_up(
        self, features: int = VERSION_1 | 1 << 28, desc: int = DESC, avail: int = AVAIL, used: int = USED
    ) -> None:
        self.set(0x70, 0)
        self.set(0x70, 1)
        self.set(0x70, 3)
        for half in (0, 1):
            self.set(0x24, half)
            self.set(0x20, features >> 32 * half & 0xFFFFFFFF)
        self.set(0x70, 11)
        self.set(0x30, 0)
        self.set(0x38, self.entries)
        for offset, address in ((0x80, desc), (0x90, avail), (0xA0, used)):
            self.set(offset, address & 0xFFFFFFFF)
            self.set(offset + 4, address >> 32)
        self.set(0x44, 1)
        self.set(0x70, 15)
        self.added = 0

    def put(self, address: int, data: bytes) -> None:
        self.machine.write_physical(address, data)

    def get(self, address: int, length: int) -> bytes:
        return self.machine.read_physical(address, length)

    def describe(
        self, index: int, address: int, length: int, flags: int, following: int = 0, table: int = DESC
    ) -> None:
        self.put(table + 16 * index, struct.pack("<QIHH", address, length, flags, following))

    def offer(self, head: int, flags: int = 0) -> None:
        self.put(AVAIL + 4 + 2 * (self.added % self.entries), struct.pack("<H", head))
        self.added += 1
        self.put(AVAIL, struct.pack("<HH", flags, self.added & 0xFFFF))

    def notify(self) -> None:
        self.set(0x50, 0)

    def request(
        self, kind: int, sector: int = 0, out: Sequence[bytes] = (), into: Sequence[int] = (), *, indirect: bool = False
    ) -> tuple[int, bytes]:
        """Status and what was read; buffers as these pieces."""
        at, pieces = BUFFERS, []
        for data in (struct.pack("<IIQ", kind, 0, sector), *out):
            self.put(at, data)
            pieces.append((at, len(data), 0))
            at += len(data)
        first = at
        for length in (*into, 1):
            pieces.append((at, length, WRITE))
            at += length
        self.put(at - 1, b"\xff")
        table = 0x4000 if indirect else DESC
        for i, (address, length, flags) in enumerate(pieces):
            last = i == len(pieces) - 1
            self.describe(i, address, length, flags | (0 if last else NEXT), i + 1, table)
        if indirect:
            self.describe(0, table, 16 * len(pieces), INDIRECT)
        before = self.used()
        self.offer(0)
        self.notify()
        assert self.used() == (before + 1) & 0xFFFF
        entry = USED + 4 + 8 * (before % self.entries)
        assert struct.unpack("<II", self.get(entry, 8)) == (0, sum(into) + 1)
        return self.get(at - 1, 1)[0], self.get(first, at - 1 - first)

    def used(self) -> int:
        return int.from_bytes(self.get(USED + 2, 2), "little")

    @property
    def broken(self) -> bool:
        return bool(self.register(0x70) & NEEDS_RESET)


@pytest.fixture
def driver() -> Driver:
    driver = Driver()
    driver.set_up()
    return driver


def test_identity_and_configuration() -> None:
    driver = Driver()
    assert [driver.register(offset) for offset in (0, 4, 8, 0xC)] == [0x74726976, 2, 2, 0x554D4551]
    assert driver.register(0x34) == MAX_SIZE
    assert driver.register(0x100) == SECTORS
    assert driver.device.read(0x114, 4) == 512
    assert driver.device.read(0x120, 1) == 0
    assert driver.device.read(0x122, 2) == 1
    assert driver.device.read(0x13C, 4) == 0
    driver.set(0x30, 1)
    assert driver.register(0x34) == 0


def test_other_sizes_than_a_word_reach_the_configuration_alone(driver: Driver) -> None:
    assert driver.device.read(0, 1) == 0
    driver.device.write(0x70, 1, 0)
    assert driver.register(0x70) == READY


@pytest.mark.parametrize(
    ("features", "accepted"), [(VERSION_1, True), (0, False), (VERSION_1 | 1, False), (VERSION_1 | 1 << 50, False)]
)
def test_features_must_be_version_1_and_offered(features: int, accepted: bool) -> None:
    driver = Driver()
    driver.set_up(features)
    assert bool(driver.register(0x70) & 8) == accepted


def test_a_read_only_disk_offers_that_and_no_discard() -> None:
    for readonly in (False, True):
        driver = Driver(readonly=readonly)
        offered = driver.register(0x10)
        assert bool(offered & 1 << 5) == readonly
        assert bool(offered & 1 << 13) == bool(offered & 1 << 14) == (not readonly)


@pytest.mark.parametrize("indirect", [False, True])
@pytest.mark.parametrize("split", [[1024], [512, 512], [1, 1000, 23]])
def test_reads_and_writes(driver: Driver, split: list[int], indirect: bool) -> None:
    status, data = driver.request(Request.IN, 2, into=split, indirect=indirect)
    assert (status, data) == (OK, bytes(driver.disk.held[1024:2048]))
    new = Random(2).randbytes(1024)
    pieces, at = [], 0
    for length in split:
        pieces.append(new[at : at + length])
        at += length
    before = sum(driver.disk.held)
    assert driver.request(Request.OUT, 3, out=pieces, indirect=indirect)[0] == OK
    assert driver.disk.held[1536:2560] == new
    assert driver.device.content == (sum(driver.disk.held) - before) % 2**64
    assert driver.request(Request.IN, 3, into=[1024])[1] == new
    assert driver.register(0x60) == 1
    driver.set(0x64, 1)
    assert driver.register(0x60) == 0


def test_header_and_data_in_one_buffer(driver: Driver) -> None:
    data = bytes(range(256)) * 2
    driver.put(BUFFERS, struct.pack("<IIQ", Request.OUT, 0, 1) + data)
    driver.describe(3, BUFFERS, 16 + 512, NEXT, 5)
    driver.describe(5, BUFFERS + 0x1000, 1, WRITE)
    driver.offer(3)
    driver.notify()
    assert driver.disk.held[512:1024] == data


def test_the_driver_may_ask_for_no_interrupts(driver: Driver) -> None:
    driver.put(BUFFERS, struct.pack("<IIQ", Request.FLUSH, 0, 0))
    driver.describe(0, BUFFERS, 16, NEXT, 1)
    driver.describe(1, BUFFERS + 16, 1, WRITE)
    driver.offer(0, flags=1)
    driver.notify()
    assert (driver.used(), driver.register(0x60)) == (1, 0)


def test_flush_and_name(driver: Driver) -> None:
    assert driver.request(Request.FLUSH)[0] == OK
    assert driver.request(Request.GET_ID, into=[20]) == (OK, b"root".ljust(20, b"\0"))
    assert driver.request(Request.GET_ID, into=[2, 9]) == (OK, b"root".ljust(11, b"\0"))


def test_zeroes_and_discard(driver: Driver) -> None:
    before = bytes(driver.disk.held)
    assert driver.request(Request.DISCARD, out=[struct.pack("<QII", 1, 2, 0)])[0] == OK
    assert driver.disk.held == before
    assert driver.request(Request.WRITE_ZEROES, out=[struct.pack("<QII", 1, 2, 1)])[0] == OK
    assert driver.disk.held == before[:512] + bytes(1024) + before[1536:]
    assert driver.device.content == -sum(before[512:1536]) % 2**64


@pytest.mark.parametrize(
    ("kind", "sector", "out", "into", "status"),
    [
        (Request.IN, SECTORS, (), (512,), IO_ERROR),
        (Request.IN, SECTORS - 1, (), (1024,), IO_ERROR),
        (Request.IN, 2**64 - 1, (), (512,), IO_ERROR),
        (Request.IN, 0, (), (511,), IO_ERROR),
        (Request.OUT, SECTORS, (bytes(512),), (), IO_ERROR),
        (Request.OUT, 2**63, (bytes(512),), (), IO_ERROR),
        (Request.OUT, 0, (bytes(100),), (), IO_ERROR),
        (Request.DISCARD, 0, (bytes(15),), (), UNSUPPORTED),
        (Request.WRITE_ZEROES, 0, (struct.pack("<QII", SECTORS, 1, 0),), (), IO_ERROR),
        (Request.WRITE_ZEROES, 0, (struct.pack("<QII", 0, 32769, 0),), (), IO_ERROR),
        (Request.WRITE_ZEROES, 0, (struct.pack("<QII", 0, 1, 2),), (), UNSUPPORTED),
        (Request.DISCARD, 0, (struct.pack("<QII", 0, 1, 1),), (), UNSUPPORTED),
        (7, 0, (), (512,), UNSUPPORTED),
    ],
)
def test_requests_that_fail(
    driver: Driver, kind: int, sector: int, out: tuple[bytes, ...], into: tuple[int, ...], status: int
) -> None:
    before = bytes(driver.disk.held)
    assert driver.request(kind, sector, out, into)[0] == status
    assert driver.disk.held == before
    assert not driver.broken


def test_a_read_only_disk_is_not_written() -> None:
    driver = Driver(readonly=True)
    driver.set_up()
    assert driver.request(Request.OUT, 0, out=[bytes(512)])[0] == IO_ERROR
    assert driver.request(Request.WRITE_ZEROES, out=[struct.pack("<QII", 0, 1, 0)])[0] == UNSUPPORTED
    assert driver.request(Request.IN, 0, into=[512]) == (OK, bytes(driver.disk.held[:512]))


def test_more_requests_than_a_ring_has_entries(driver: Driver) -> None:
    for turn in range(3 * ENTRIES):
        assert driver.request(Request.IN, turn % SECTORS, into=[512])[0] == OK


def test_a_reset_keeps_the_digest_of_the_content(driver: Driver) -> None:
    driver.request(Request.OUT, 0, out=[bytes(512)])
    content = driver.device.content
    assert content
    driver.set(0x70, 0)
    assert (driver.register(0x70), driver.register(0x44), driver.device.content) == (0, 0, content)


@pytest.mark.parametrize("name", [EarlierVirtioMmio, EarlierDenseVirtioMmio])
def test_slots(name: type[EarlierVirtioMmio]) -> None:
    driver = Driver()
    slots = name("virtio", driver.machine)
    slots.plug(2, driver.device)
    assert [slots.read(slot * name.STRIDE + 8, 4) for slot in range(4)] == [0, 0, 2, 0]
    assert [slots.read(slot * name.STRIDE, 4) for slot in range(4)] == [0x74726976] * 4
    slots.write(2 * name.STRIDE + 0x70, 4, 1)
    slots.write(name.STRIDE + 0x70, 4, 1)
    assert driver.register(0x70) == 1
    assert slots.read(name.STRIDE + 0x70, 4) == 0


# -- drivers that break the rules


def _long_chain(driver: Driver) -> None:
    for i in range(ENTRIES):
        driver.describe(i, BUFFERS, 16, NEXT, (i + 1) % ENTRIES)


BREAKS = {
    "a loop": _long_chain,
    "an index outside": lambda d: d.describe(0, BUFFERS, 16, NEXT, ENTRIES),
    "outside RAM": lambda d: d.describe(0, BASE + SIZE - 8, 16, 0),
    "over the end of addresses": lambda d: d.describe(0, 2**64 - 8, 16, 0),
    "4 GiB": lambda d: d.describe(0, BASE, 2**32 - 1, WRITE),
    "empty": lambda d: d.describe(0, BUFFERS, 0, 0),
    "no header": lambda d: d.describe(0, BUFFERS, 1, WRITE),
    "no status": lambda d: d.describe(0, BUFFERS, 16, 0),
    "an indirect table outside RAM": lambda d: d.describe(0, 0, 16, INDIRECT),
    "an indirect table of an odd size": lambda d: d.describe(0, BUFFERS, 17, INDIRECT),
    "an indirect table that goes on": lambda d: d.describe(0, BUFFERS, 16, INDIRECT | NEXT, 1),
    "an indirect table in itself": lambda d: (
        d.describe(0, 0x4000, 32, INDIRECT),
        d.describe(0, 0x4000, 32, INDIRECT, 0, 0x4000),
    ),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_chain_needs_a_reset(driver: Driver, how: str) -> None:
    BREAKS[how](driver)
    driver.offer(0)
    driver.notify()
    assert driver.broken
    assert driver.used() == 0
    assert driver.register(0x60) == 2
    driver.put(DESC, bytes(16))
    driver.notify()
    driver.set(0x70, 15)
    assert driver.broken
    driver.set_up()
    driver.put(AVAIL, bytes(4))
    assert driver.request(Request.FLUSH)[0] == OK


def test_to_be_read_behind_to_be_written(driver: Driver) -> None:
    driver.describe(0, BUFFERS, 16, NEXT | WRITE, 1)
    driver.describe(1, BUFFERS, 16, 0)
    driver.offer(0)
    driver.notify()
    assert driver.broken


@pytest.mark.parametrize("entries", [0, 3, 6, 2048, 2**32 - 1])
def test_a_queue_of_a_wrong_size(entries: int) -> None:
    driver = Driver(entries=entries)
    driver.set_up()
    driver.notify()
    assert driver.broken


def test_more_chains_than_entries(driver: Driver) -> None:
    driver.put(AVAIL, struct.pack("<HH", 0, ENTRIES + 1))
    driver.notify()
    assert driver.broken


@pytest.mark.parametrize("which", ["desc", "avail", "used"])
def test_a_queue_outside_ram(which: str) -> None:
    driver = Driver()
    driver.set_up(**{which: 2**64 - 2})
    driver.put(AVAIL, struct.pack("<HHH", 0, 1, 0))
    driver.describe(0, BUFFERS, 16, NEXT, 1)
    driver.describe(1, BUFFERS + 16, 1, WRITE)
    driver.notify()
    assert driver.broken


def test_one_notification_moves_so_much_and_no_more(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earlier, "MAX_TRANSFER", 1200)
    assert driver.request(Request.IN, 0, into=[512])[0] == OK
    driver.describe(0, BUFFERS, 16, NEXT, 1)
    driver.describe(1, BUFFERS + 16, 513, WRITE)
    for _ in range(3):
        driver.offer(0)
    driver.notify()
    assert driver.broken
    assert driver.used() == 3


def test_nothing_is_done_before_the_driver_is_ready(driver: Driver) -> None:
    driver.put(AVAIL, struct.pack("<HH", 0, 1))
    driver.set(0x70, 11)
    driver.notify()
    driver.set(0x70, 15)
    driver.set(0x44, 0)
    driver.notify()
    driver.set(0x50, 1)
    assert (driver.used(), driver.broken) == (0, False)


WORDS = st.one_of(st.integers(0, 2**64 - 1), st.integers(BASE - 16, BASE + SIZE + 16), st.integers(0, 40))
DESCRIPTORS = st.tuples(
    WORDS,
    st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 600), st.sampled_from([16, 512, 1, 48])),
    st.one_of(st.integers(0, 7), st.integers(0, 0xFFFF)),
    st.one_of(st.integers(0, ENTRIES), st.integers(0, 0xFFFF)),
)


@settings(max_examples=300, deadline=None)
@given(
    table=st.lists(DESCRIPTORS, min_size=ENTRIES, max_size=ENTRIES),
    indirect=st.lists(DESCRIPTORS, min_size=3, max_size=3),
    ring=st.lists(st.integers(0, ENTRIES), min_size=ENTRIES, max_size=ENTRIES),
    header=st.tuples(st.integers(0, 14), st.just(0), st.one_of(st.integers(0, SECTORS), st.integers(0, 2**64 - 1))),
    counts=st.lists(st.integers(0, ENTRIES + 1), min_size=1, max_size=4),
    places=st.sampled_from([(DESC, AVAIL, USED), (DESC, DESC, DESC), (BUFFERS, BUFFERS + 8, BUFFERS + 16)]),
)
def test_any_queue_is_served_or_refused(
    table: list[tuple[int, int, int, int]],
    indirect: list[tuple[int, int, int, int]],
    ring: list[int],
    header: tuple[int, int, int],
    counts: list[int],
    places: tuple[int, int, int],
) -> None:
    """Whatever a driver writes: nothing is raised, the disk keeps its size, and the state saves and loads."""
    driver = Driver()
    driver.set_up(VERSION_1 | 1 << 28, *places)
    for at in (0, 16, 32):
        driver.put(BASE + SIZE - 64 + at, struct.pack("<IIQ", *header))
    driver.put(BUFFERS, struct.pack("<IIQ", *header))
    for i, descriptor in enumerate(table):
        driver.describe(i, *descriptor, table=places[0])
    for i, descriptor in enumerate(indirect):
        driver.describe(i, *descriptor, table=0x4000)
    driver.put(places[1] + 4, struct.pack(f"<{ENTRIES}H", *ring))
    index = 0
    for count in counts:
        index += count
        driver.put(places[1] + 2, struct.pack("<H", index & 0xFFFF))
        driver.notify()
        state = driver.device.save()
        driver.device.load(state)
        assert driver.device.save() == state
        assert len(driver.disk.held) == 512 * SECTORS
    driver.set(0x70, 0)
    assert driver.register(0x70) == 0
