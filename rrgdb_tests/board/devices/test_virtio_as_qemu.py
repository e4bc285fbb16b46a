"""Virtio slots and disks, of both versions, against QEMU's."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from random import Random

import pytest

from rrgdb.board.devices.virtio.blk import VirtioBlk
from rrgdb.board.devices.virtio.slots import VirtioMmio
from rrgdb_tests.board.devices.qtest import Accesses, Bus, Exchange, Scenario, asked_again, check, many_recorded
from rrgdb_tests.board.fakes import FakeDisk, FakeMachine

SLOTS, SLOT, LINE = 0x10001000, 7, 8
"""the slot of QEMU's first device, and its line"""
BASE = SLOTS + 0x1000 * SLOT
RAM, RAM_BYTES = 0x80000000, 0x40000
PLIC = "/machine/unattached/device[2]"
SECTORS = 2048
RINGS, HEADERS, DATA, TABLE = RAM, RAM + 0x8000, RAM + 0x10000, RAM + 0xC000
NEXT, WRITE, INDIRECT = 1, 2, 4
EVENT_IDX, CONFIG_WCE, FLUSH, NOTIFY_ON_EMPTY = 1 << 29, 1 << 11, 1 << 9, 1 << 24
MAX_ZEROES_AT = 0x130
"""here this has a lower limit than QEMU"""


class Ram:
    """The machine's RAM on a bus."""

    name = "ram"

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine

    def reset(self) -> None: ...
    def save(self) -> bytes:
        return b""

    def load(self, state: bytes) -> None: ...
    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(self.machine.read_physical(RAM + offset, size), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        self.machine.write_physical(RAM + offset, value.to_bytes(size, "little"))


class NullDisk(FakeDisk):
    """QEMU's ``null-co``: zeros, whatever is written."""

    def write(self, offset: int, data: bytes) -> int:
        return 0


def put(address: int, data: bytes) -> list[str]:
    padded = data.ljust(-(-len(data) // 4) * 4, b"\0")
    words = enumerate(struct.iter_unpack("<I", padded))
    return [f"writel {address + 4 * number:#x} {word:#x}" for number, (word,) in words]


def set_register(register: int, value: int) -> str:
    return f"writel {BASE + register:#x} {value & 0xFFFFFFFF:#x}"


class Driver:
    """A driver with odd ideas."""

    def __init__(self, random: Random, *, legacy: bool) -> None:
        self.random = random
        self.legacy = legacy
        self.size = 8
        self.added = self.notified = self.used_at = self.avail_at = 0
        self.events = False

    def set_up(self) -> list[str]:
        """From reset to DRIVER_OK, mostly."""
        random = self.random
        self.added = self.notified = 0
        self.size = random.choice((4, 8, 8, 16, 3))
        features = random.getrandbits(32) if random.randrange(4) else 0xFFFFFFFF
        if random.randrange(2):
            features &= ~NOTIFY_ON_EMPTY
        commands = [f"writel {at:#x} 0" for at in range(RINGS, RINGS + 0x2000, 4)] if random.randrange(4) == 0 else []
        commands += [
            set_register(0x70, 0),
            set_register(0x70, 1),
            set_register(0x70, 3),
            set_register(0x24, 0),
            set_register(0x20, features),
        ]
        version_1 = not self.legacy and bool(random.randrange(8))
        if not self.legacy:
            commands += [set_register(0x24, 1), set_register(0x20, int(version_1)), set_register(0x70, 11)]
        self.events = bool(features & EVENT_IDX)
        commands += [set_register(0x30, 0), set_register(0x38, self.size)]
        self.avail_at = RINGS + 16 * self.size
        if self.legacy:
            align = random.choice((4, 64, 4096))
            commands += [set_register(0x28, 4096), set_register(0x3C, align), set_register(0x40, RINGS >> 12)]
            end = self.avail_at + 4 + 2 * self.size
            self.used_at = -(-end // align) * align
        else:
            self.used_at = RINGS + 0x1000
            for register, address in ((0x80, RINGS), (0x90, self.avail_at), (0xA0, self.used_at)):
                commands += [set_register(register, address), set_register(register + 4, 0)]
            commands.append(set_register(0x44, 1))
        # The indices that the rings begin with.
        commands += [f"writel {self.avail_at:#x} 0", f"writel {self.used_at:#x} 0"]
        if random.randrange(8):
            commands.append(set_register(0x70, 15 if not self.legacy else 7))
        return commands

    def request(self) -> list[str]:
        """One request in the queue, and what is asked of it afterwards; not notified yet."""
        random = self.random
        kind = random.choice((0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 11, 12, 13, 13, 99))
        kind |= random.choice((0, 0, 0, 1 << 31))
        sector = random.choice((0, 1, random.randrange(SECTORS + 4), SECTORS - 1, SECTORS, 1 << 63))
        commands = put(HEADERS, struct.pack("<IIQ", kind, 0, sector))
        out = random.choice(([], [512], [100], [16], [16], [16], [8], [300, 212], [1024, 4]))
        flags = random.choice((0, 0, 1, 2))
        commands += put(DATA, struct.pack("<QII", random.randrange(SECTORS), random.choice((1, 2, 9, 3000)), flags))
        into = random.choice(([], [512], [20], [4], [512, 512], [100], [3, 509], [16, 8]))
        pieces = [(HEADERS, 16 if random.randrange(30) else 15, 0)]
        at = DATA
        for length in out:
            pieces.append((at, length, 0))
            at += length
        at = DATA + 0x1000
        for length in (*into, 1):
            pieces.append((at, length, WRITE))
            commands.append(f"writel {at & ~3:#x} 0xeeeeeeee")
            at += length
        indirect = len(pieces) > self.size or random.randrange(3) == 0
        table = TABLE if indirect else RINGS
        for number, (address, length, of) in enumerate(pieces):
            last = number == len(pieces) - 1
            commands += put(
                table + 16 * number,
                struct.pack("<QIHH", address, length, of if last else of | NEXT, 0 if last else number + 1),
            )
        if indirect:
            commands += put(RINGS, struct.pack("<QIHH", TABLE, 16 * len(pieces), INDIRECT, 0))
        slot = self.avail_at + 4 + 2 * (self.added % self.size)
        commands.append(f"writew {slot:#x} 0")
        self.added += 1
        commands.append(f"writew {self.avail_at:#x} {random.randrange(2):#x}")
        if self.events:
            event = self.added + random.choice((-3, -2, -1, 0, 1, 5, 100)) & 0xFFFF
            commands.append(f"writew {self.avail_at + 4 + 2 * self.size:#x} {event:#x}")
        commands.append(f"writew {self.avail_at + 2:#x} {self.added & 0xFFFF:#x}")
        return commands

    def look(self) -> list[str]:
        at = DATA + 0x1000
        places = [self.used_at + at for at in range(0, 8 + 8 * self.size, 4)] + [at, at + 20, at + 512, at + 1024]
        return [f"readl {BASE + 0x60:#x}", f"readl {BASE + 0x70:#x}", *(f"readl {place & ~3:#x}" for place in places)]


def each(commands: Iterable[str]) -> Accesses:
    """Answers are sent to what yields commands: a plain iterator takes none."""
    for command in commands:  # noqa: UP028
        yield command


def _register(random: Random, *, legacy: bool) -> str:
    """Any register that does not move the queue."""
    moves = {0x20, 0x28, 0x38, 0x3C, 0x40, 0x44, 0x50, 0x70, 0x80, 0x84, 0x90, 0x94, 0xA0, 0xA4}
    register = random.choice((*range(0, 0x110, 4), *range(0x100, 0x144), 0x1FC, 0x60, 0x70, 0x120))
    size = random.choice("lllllbw") if register % 4 == 0 else "b" if register % 2 else "w"
    written = {"l": 4, "w": 2, "b": 1}[size]
    if random.randrange(3):
        if register < MAX_ZEROES_AT + 4 and register + written > MAX_ZEROES_AT:
            register = 0
        return f"read{size} {BASE + register:#x}"
    if register in moves and written == 4:
        register = random.choice((0x14, 0x24, 0x30, 0x64, 0x120))
    value = random.choice((0, 1, 2, 3, 5, random.getrandbits(32))) & ((1 << 8 * written) - 1)
    return f"write{size} {BASE + register:#x} {value:#x}"


def _accesses(random: Random, *, legacy: bool) -> Accesses:
    driver = Driver(random, legacy=legacy)
    for at in range(RINGS, RINGS + 0x2000, 4):
        yield f"writel {at:#x} 0"
    for slot in (0, 3):
        for register in (0, 4, 8, 0xC, 0x70):
            yield f"read{random.choice('lwb')} {SLOTS + 0x1000 * slot + register:#x}"
    for register in (*range(0, 0x100, 4), *range(0x100, MAX_ZEROES_AT, 4), *range(MAX_ZEROES_AT + 4, 0x148)):
        yield f"read{'b' if register % 4 else 'l'} {BASE + register:#x}"
    for _ in range(40):
        yield from each(driver.set_up())
        yield f"readl {BASE + 0x70:#x}"
        for _ in range(random.randrange(6)):
            for _ in range(random.choice((1, 1, 1, 2, 3))):
                yield from each(driver.request())
                if random.randrange(4) or driver.added - driver.notified == driver.size:
                    driver.notified = driver.added
                    yield set_register(0x50, 0)
                    yield from each(driver.look())
                yield from each(set_register(0x64, random.choice((0, 1, 3))) for _ in range(random.randrange(2)))
            for _ in range(random.randrange(8)):
                yield _register(random, legacy=legacy)
            yield set_register(0x30, 0)


def modern(random: Random) -> Accesses:
    return _accesses(random, legacy=False)


def legacy(random: Random) -> Accesses:
    return _accesses(random, legacy=True)


_NULL = ("-blockdev", f"driver=null-co,read-zeroes=on,size={512 * SECTORS},node-name=d")
_DEVICE = ("-device", "virtio-blk-device,drive=d,serial=root")
_MACHINE = ("-M", "virt", "-bios", "none", *_NULL, *_DEVICE)
SETTLE = (f"readl {BASE + 0xC:#x}",) * 2
SCENARIOS = (
    Scenario(
        "virtio-blk",
        "qemu-system-riscv64",
        (*_MACHINE, "-global", "virtio-mmio.force-legacy=false"),
        modern,
        intercept_in=PLIC,
        settle=SETTLE,
    ),
    Scenario("virtio-blk-legacy", "qemu-system-riscv64", _MACHINE, legacy, intercept_in=PLIC, settle=SETTLE),
)


def compare(scenario: Scenario, exchanges: list[Exchange]) -> None:
    machine = FakeMachine(base=RAM, size=RAM_BYTES, line=1)
    slots = VirtioMmio("virtio", machine)
    disk = NullDisk(bytes(512 * SECTORS), "root")
    slots.plug(SLOT, VirtioBlk(machine, disk, LINE, legacy="legacy" in scenario.name))
    bus = Bus(machine, {SLOTS: slots, RAM: Ram(machine)})
    check(exchanges, bus, lambda: {LINE} if machine.levels[LINE] else set())


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_as_qemu(scenario: Scenario) -> None:
    compare(scenario, many_recorded(scenario))


@pytest.mark.qemu
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_as_the_qemu_that_is_here(scenario: Scenario) -> None:
    compare(scenario, asked_again(scenario))
