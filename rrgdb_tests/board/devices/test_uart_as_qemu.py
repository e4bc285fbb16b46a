"""16550 and PL011 with interrupt lines, against QEMU's."""

from __future__ import annotations

from random import Random

import pytest

from rrgdb.board.devices.uart.ns16550 import InterruptingNs16550
from rrgdb.board.devices.uart.pl011 import InterruptingPl011
from rrgdb_tests.board.devices.qtest import SIZES, Accesses, Bus, Exchange, Scenario, asked_again, check, many_recorded
from rrgdb_tests.board.fakes import FakeMachine

NS16550, PL011 = 0x10000000, 0x9000000
PLIC = "/machine/unattached/device[2]"
GIC = "/machine/unattached/device[1]"
LOOP = 0x10
PL011_WORDS = (*range(0, 0x4C, 4), 0x80, 0xFDC, *range(0xFE0, 0x1000, 4))


def _input(random: Random) -> str:
    return f"input {random.randbytes(random.choice((1, 1, 2, 3, 9, 20))).hex()}"


def ns16550(random: Random) -> Accesses:
    """All registers; nothing comes while in loopback, where QEMU's receives and ours does not."""
    looped = False
    yield f"writeb {NS16550 + 2:#x} 0xc1"
    for _ in range(2500):
        register = random.choice((0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 5, 6, 7))
        size = random.choice("bbbbbwl")
        if random.randrange(8) == 0 and not looped:
            yield _input(random)
        elif random.randrange(2):
            yield f"read{size if register % 4 == 0 else 'b'} {NS16550 + register:#x}"
        else:
            value = random.getrandbits(8)
            if register == 3:
                value &= 0x7F if random.randrange(4) else 0xFF
            elif register == 4:
                if random.randrange(8):
                    value &= ~LOOP
                if value & LOOP and not looped:
                    # What waits on the line would come in as well.
                    yield f"writeb {NS16550 + 3:#x} 3"
                    while ((yield f"readb {NS16550 + 5:#x}") or 0) & 1:
                        yield f"readb {NS16550:#x}"
                looped = bool(value & LOOP)
            yield f"write{size if register % 4 == 0 else 'b'} {NS16550 + register:#x} {value:#x}"


def pl011(random: Random) -> Accesses:
    for _ in range(2500):
        offset = random.choice(PL011_WORDS[: 0x4C // 4] if random.randrange(8) else PL011_WORDS)
        size = random.choice("llllbw")
        within = {"l": 0, "w": random.choice((0, 2)), "b": random.randrange(4)}[size]
        address = PL011 + offset + within
        match random.randrange(8):
            case 0:
                yield _input(random)
            case 1 | 2:
                yield f"readl {PL011 + random.choice((0x00, 0x00, 0x18, 0x3C)):#x}"
            case 3 | 4 | 5:
                yield f"read{size} {address:#x}"
            case _:
                value = random.choice((random.getrandbits(32), random.getrandbits(11), 0x10, 0x30, 0))
                yield f"write{size} {address:#x} {value & ((1 << 8 * SIZES[size]) - 1):#x}"


SCENARIOS = (
    Scenario(
        "ns16550",
        "qemu-system-riscv64",
        ("-M", "virt", "-bios", "none", "-serial", "chardev:input"),
        ns16550,
        intercept_in=PLIC,
        settle=(f"readb {NS16550 + 7:#x}",) * 20,
    ),
    Scenario(
        "pl011",
        "qemu-system-aarch64",
        ("-M", "virt", "-cpu", "cortex-a57", "-serial", "chardev:input"),
        pl011,
        intercept_in=GIC,
        settle=(f"readl {PL011 + 0xFE0:#x}",) * 20,
    ),
)
LINES = {"ns16550": 10, "pl011": 1}
"""QEMU's numbers of the inputs"""


def compare(scenario: Scenario, exchanges: list[Exchange]) -> None:
    line = LINES[scenario.name]
    machine = FakeMachine(line=line)
    wide = scenario.name == "pl011"
    device = (InterruptingPl011 if wide else InterruptingNs16550)("serial0", machine)
    bus = Bus(machine, {PL011 if wide else NS16550: device})
    check(exchanges, bus, lambda: {line} if machine.levels[line] else set())


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_as_qemu(scenario: Scenario) -> None:
    compare(scenario, many_recorded(scenario))


@pytest.mark.qemu
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_as_the_qemu_that_is_here(scenario: Scenario) -> None:
    compare(scenario, asked_again(scenario))
