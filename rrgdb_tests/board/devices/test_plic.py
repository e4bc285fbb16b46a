"""The PLIC, against QEMU's and against the specification."""

from __future__ import annotations

from random import Random

import pytest

from rrgdb.board.devices.intc.plic import Plic
from rrgdb_tests.board.devices.qtest import SEED, Accesses, Bus, Exchange, Scenario, check
from rrgdb_tests.board.fakes import FakeMachine

BASE = 0xC000000
PLIC = "/machine/unattached/device[2]"
CLAIMS = (BASE + 0x200004, BASE + 0x201004)
OUTPUTS = {0: "seip", 1: "meip"}
"""QEMU's numbers of the outputs"""
FEW = (1, 2, 10, 11, 31, 32, 33, 63, 64, 94, 95)


def addresses(random: Random) -> list[int]:
    """Registers, mostly; their neighbours and what lies between them."""
    known = [
        4 * random.choice((0, *FEW, 96, 97)),
        0x1000 + 4 * random.randrange(5),
        0x2000 + 0x80 * random.randrange(3) + 4 * random.randrange(4),
        0x200000 + 0x1000 * random.randrange(3) + 4 * random.choice((0, 0, 1, 1, 2)),
    ]
    return [BASE + random.choice(known) for _ in range(8)] + [BASE + random.choice(known) + random.randrange(4)]


def accesses(random: Random) -> Accesses:
    for _ in range(4000):
        address = random.choice(addresses(random))
        match random.randrange(10):
            case 0 | 1:
                yield f"set_irq_in {PLIC} unnamed-gpio-in {random.choice(FEW)} {random.randrange(2)}"
            case 2 | 3:
                yield f"read{random.choice('lllllbw' if address % 4 else 'lllllbwq')} {address:#x}"
            case 4 | 5:
                value = random.choice((0, 1, random.randrange(8), random.getrandbits(32), 0xFFFFFFFF))
                yield f"write{random.choice('lllllbw')} {address:#x} {value:#x}"
            case 6:
                yield f"writel {BASE + 4 * random.choice(FEW):#x} {random.randrange(10):#x}"
            case 7:
                where = BASE + 0x2000 + 0x80 * random.randrange(2) + 4 * random.randrange(3)
                yield f"writel {where:#x} {random.getrandbits(32) | random.getrandbits(32):#x}"
            case 8:
                yield f"readl {random.choice(CLAIMS):#x}"
            case 9:
                yield f"writel {random.choice(CLAIMS):#x} {random.choice((*FEW, 96, 1 << 31)):#x}"
        if random.randrange(20) == 0:
            number = yield f"readl {CLAIMS[0]:#x}"
            yield f"writel {CLAIMS[0]:#x} {number:#x}"
            yield f"writel {BASE + 0x200000 + 0x1000 * random.randrange(2):#x} {random.randrange(3):#x}"


SCENARIOS = (Scenario("plic", "qemu-system-riscv64", ("-M", "virt", "-bios", "none"), accesses, intercept=PLIC),)


def compare(exchanges: list[Exchange]) -> None:
    machine = FakeMachine()
    bus = Bus(machine, {BASE: Plic("plic", machine)})
    check(exchanges, bus, lambda: {number for number, name in OUTPUTS.items() if machine.inputs[name]})


def test_as_qemu() -> None:
    exchanges = SCENARIOS[0].recorded()
    assert len(exchanges) > 4000
    compare(exchanges)


@pytest.mark.qemu
@pytest.mark.skipif(not SCENARIOS[0].is_there, reason="qemu-system-riscv64 is not installed")
def test_as_the_qemu_that_is_here() -> None:
    compare(SCENARIOS[0].ask(SEED + 1))
