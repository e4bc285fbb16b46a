"""Virtio's source of random bytes and its console, of both versions, against QEMU's."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from random import Random

import pytest

from rrgdb.board.device import Device
from rrgdb.board.devices.virtio.console import VirtioConsole
from rrgdb.board.devices.virtio.rng import VirtioRng
from rrgdb.board.devices.virtio.slots import VirtioMmio
from rrgdb_tests.board.devices.qtest import Accesses, Bus, Exchange, Scenario, asked_again, check, many_recorded
from rrgdb_tests.board.devices.test_virtio_as_qemu import (
    BASE,
    LINE,
    NEXT,
    PLIC,
    RAM,
    RAM_BYTES,
    SLOT,
    SLOTS,
    WRITE,
    Ram,
    each,
    put,
    set_register,
)
from rrgdb_tests.board.fakes import FakeMachine

SIZE = 8
QUEUE_BYTES = 0x2000
USED = 0x1000
"""behind the descriptors, as driver of version 1 has it"""
FIRST = RAM + 0x1000
DATA = RAM + 0x20000
MULTIPORT, VERSION_1 = 1 << 1, 1 << 32
OPENING = ((0, 0, 1), (0, 3, 1), (0, 6, 1))
"""(port, event, value) of the messages by which a driver comes to an open port"""


class Driver:
    """A driver with odd ideas that notifies of all that it offers."""

    def __init__(self, random: Random, *, legacy: bool, queues: int) -> None:
        self.random = random
        self.legacy = legacy
        self.added = [0] * queues

    def set_up(self, features: int) -> Iterable[str]:
        yield from (set_register(0x70, 0), set_register(0x70, 3))
        for at in range(FIRST, FIRST + QUEUE_BYTES * len(self.added), QUEUE_BYTES):
            yield from (f"writel {at + offset:#x} 0" for offset in (*range(128, 156, 4), *range(USED, USED + 72, 4)))
        self.added = [0] * len(self.added)
        for half in range(1 if self.legacy else 2):
            yield from (set_register(0x24, half), set_register(0x20, features >> 32 * half & 0xFFFFFFFF))
        yield set_register(0x28, 4096) if self.legacy else set_register(0x70, 11)
        for queue in range(len(self.added)):
            at = FIRST + QUEUE_BYTES * queue
            yield from (set_register(0x30, queue), set_register(0x38, SIZE))
            if self.legacy:
                yield from (set_register(0x3C, 4096), set_register(0x40, at >> 12))
                continue
            for register, address in ((0x80, at), (0x90, at + 16 * SIZE), (0xA0, at + USED)):
                yield from (set_register(register, address), set_register(register + 4, 0))
            yield set_register(0x44, 1)
        if self.random.randrange(8):
            yield set_register(0x70, 7 if self.legacy else 15)

    def offer(self, queue: int, pieces: list[tuple[int, int, int]]) -> Iterable[str]:
        """Pieces are (address, bytes, flags). Now and then a buffer begins nowhere."""
        at, random = FIRST + QUEUE_BYTES * queue, self.random
        for number, (address, length, flags) in enumerate(pieces):
            more = NEXT if number < len(pieces) - 1 else 0
            yield from put(at + 16 * number, struct.pack("<QIHH", address, length, flags | more, number + 1))
        yield f"writew {at + 132 + 2 * (self.added[queue] % SIZE):#x} {random.choice((0,) * 60 + (SIZE,)):#x}"
        self.added[queue] += 1
        yield f"writew {at + 128:#x} {random.choice((0, 0, 0, 1)):#x}"
        event = self.added[queue] + random.choice((-2, -1, 0, 5)) & 0xFFFF
        yield f"writew {at + 132 + 2 * SIZE:#x} {event:#x}"
        yield f"writew {at + 130:#x} {self.added[queue] & 0xFFFF:#x}"
        yield set_register(0x50, queue)

    def look(self, queue: int) -> Iterable[str]:
        used = FIRST + QUEUE_BYTES * queue + USED
        yield from (f"readl {BASE + 0x60:#x}", f"readl {BASE + 0x70:#x}")
        yield from (f"readl {at:#x}" for at in range(used, used + 8 + 8 * SIZE, 4))
        if self.random.randrange(2):
            yield set_register(0x64, 3)


def _features(random: Random, *, legacy: bool) -> int:
    return random.choice((0, random.getrandbits(32), 0xFFFFFFFF)) | (0 if legacy else VERSION_1)


def _random_bytes(random: Random, *, legacy: bool) -> Accesses:
    """What is drawn is nobody's to compare: how much there is of it is."""
    driver = Driver(random, legacy=legacy, queues=1)
    for register in range(0, 0x110, 4):
        yield f"readl {BASE + register:#x}"
    for _ in range(25):
        yield from each(driver.set_up(_features(random, legacy=legacy)))
        for _ in range(random.randrange(8)):
            lengths = random.choice(([], [16], [100, 3], [4000], [1, 1, 1]))
            readable = random.choice(([], [], [24])) if lengths else [8]
            pieces = [(DATA, length, 0) for length in readable]
            pieces += [(DATA + 0x1000 * n, length, WRITE) for n, length in enumerate(lengths)]
            yield from each(driver.offer(0, pieces))
            yield from each(driver.look(0))


def _console(random: Random, *, legacy: bool) -> Accesses:
    driver = Driver(random, legacy=legacy, queues=6)
    for register in range(0, 0x110, 4):
        yield f"readl {BASE + register:#x}"
    for _ in range(25):
        features = _features(random, legacy=legacy)
        yield from each(driver.set_up(features))
        opening = list(OPENING) if features & MULTIPORT and random.randrange(4) else []
        for _ in range(random.randrange(4, 16)):
            queue = random.choice((0, 0, 0, 1, 2, 2, 3, 3, 4, 5))
            match queue:
                case 0 | 2 | 4:
                    lengths = random.choice(([8], [8], [1], [3, 8], [40]))
                    pieces = [(DATA + 0x100 * n, length, WRITE) for n, length in enumerate(lengths)]
                case 3:
                    message = opening.pop(0) if opening else (random.randrange(3), random.randrange(9), 1)
                    yield from each(put(DATA + 0x4000, struct.pack("<IHH", *message)))
                    pieces = [(DATA + 0x4000, random.choice((8, 8, 8, 12, 5)), 0)]
                case _:
                    pieces = [(DATA + 0x4000, random.choice((1, 8)), 0)]
            yield from each(driver.offer(queue, pieces))
            if random.randrange(3) == 0:
                yield f"input {random.randbytes(random.choice((1, 2, 9, 30))).hex()}"
            yield from each(driver.look(queue))
            yield from each(driver.look(0))
            yield from each(f"readl {DATA + 0x100 * n + at:#x}" for n in range(2) for at in range(0, 12, 4))
            if random.randrange(8) == 0:
                # Of the configuration space: an emergency write.
                yield f"write{random.choice('bl')} {BASE + 0x108:#x} {random.randrange(128):#x}"
            yield f"readl {BASE + random.randrange(0x100, 0x110, 4):#x}"


RNG = ("-object", "rng-builtin,id=r", "-device", "virtio-rng-device,rng=r")
WAITS = ("-device", "loader,addr=0x80000000,data=0xffdff06f10500073,data-len=8")
"""WFI for ever: QEMU's devices for random bytes do nothing while the machine is stopped"""
CONSOLE = ("-device", "virtio-serial-device", "-device", "virtconsole,chardev=input")
SETTLE = (f"readl {BASE + 0xC:#x}",) * 4
DEVICES = {"rng": (RNG, _random_bytes), "console": (CONSOLE, _console)}


def _scenario(what: str, version: str) -> Scenario:
    options, accesses = DEVICES[what]
    legacy = version == "-legacy"
    switch = () if legacy else ("-global", "virtio-mmio.force-legacy=false")
    return Scenario(
        f"virtio-{what}{version}",
        "qemu-system-riscv64",
        ("-M", "virt", "-bios", "none", *WAITS, *options, *switch),
        lambda random: accesses(random, legacy=legacy),
        intercept_in=PLIC,
        settle=SETTLE,
        awake=True,
    )


SCENARIOS = tuple(_scenario(what, version) for what in DEVICES for version in ("", "-legacy"))


class Awake(Bus):
    """Time stands still; what is due is done behind each command."""

    def do(self, command: str) -> int | None:
        value = super().do(command)
        self.machine.timers.run_out(self.machine.now_ns, lambda: False)
        return value


def _at_notifications(exchanges: list[Exchange]) -> Iterable[Exchange]:
    """QEMU's console, while input waits, looks for buffers all the time: what comes of one, comes with the notification
    that is next."""
    early: dict[int, int] = {}
    for exchange in exchanges:
        verb, address, *_ = exchange.command.split()
        if verb == "writew" and int(address, 0) % QUEUE_BYTES == (FIRST + 130) % QUEUE_BYTES:
            early |= dict(exchange.lines)
            yield replace(exchange, lines=())
        else:
            yield replace(exchange, lines=tuple((early | dict(exchange.lines)).items()))
            early = {}


def compare(scenario: Scenario, exchanges: list[Exchange]) -> None:
    machine = FakeMachine(base=RAM, size=RAM_BYTES, line=1)
    slots = VirtioMmio("virtio", machine)
    kind, legacy = VirtioRng if "rng" in scenario.name else VirtioConsole, "legacy" in scenario.name
    slots.plug(SLOT, kind("dev", machine, LINE, legacy=legacy))
    devices: dict[int, Device] = {SLOTS: slots, RAM: Ram(machine)}
    check(_at_notifications(exchanges), Awake(machine, devices), lambda: {LINE} if machine.levels[LINE] else set())


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_as_qemu(scenario: Scenario) -> None:
    compare(scenario, many_recorded(scenario))


@pytest.mark.qemu
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_as_the_qemu_that_is_here(scenario: Scenario) -> None:
    compare(scenario, asked_again(scenario))
