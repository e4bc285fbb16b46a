"""The PLIC, against QEMU's and against the specification."""

from __future__ import annotations

from random import Random

import pytest

from rrgdb.board.devices.intc.plic import Plic
from rrgdb.board.devices.uart.ns16550 import InterruptingNs16550
from rrgdb_tests.board.devices.qtest import Accesses, Bus, Exchange, Scenario, asked_again, check
from rrgdb_tests.board.fakes import FakeMachine

BASE = 0xC000000
UART, UART_SOURCE = 0x10000000, 10
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


def accesses_with_uart(random: Random) -> Accesses:
    """A UART drives source 10: when it does so again, while the line is high already, is what matters."""
    yield f"writel {BASE + 4 * UART_SOURCE:#x} 1"
    yield f"writel {BASE + 0x2000:#x} {1 << UART_SOURCE:#x}"
    for _ in range(3000):
        match random.randrange(8):
            case 0:
                yield f"input {random.randbytes(random.choice((1, 1, 2, 5))).hex()}"
            case 1:
                yield f"writeb {UART + 1:#x} {random.choice((0, 1, 2, 3, 7)):#x}"
            case 2:
                yield f"writeb {UART + random.choice((0, 0, 2, 3, 7)):#x} {random.choice((0x01, 0x41, 0x83)):#x}"
            case 3 | 4:
                yield f"readb {UART + random.choice((0, 0, 1, 2, 3, 5, 6)):#x}"
            case 5:
                yield f"readl {BASE + 0x1000:#x}"
            case 6:
                yield f"readl {CLAIMS[0]:#x}"
            case 7:
                yield f"writel {CLAIMS[0]:#x} {UART_SOURCE:#x}"


QEMU = "qemu-system-riscv64"
ALONE = ("-M", "virt", "-bios", "none")
SCENARIOS = (
    Scenario("plic", QEMU, ALONE, accesses, intercept=PLIC),
    Scenario(
        "plic-uart",
        QEMU,
        (*ALONE, "-serial", "chardev:input"),
        accesses_with_uart,
        intercept=PLIC,
        settle=(f"readb {UART + 7:#x}",) * 20,
    ),
)


def compare(exchanges: list[Exchange]) -> None:
    machine = FakeMachine(line=UART_SOURCE)
    bus = Bus(machine, {BASE: Plic("plic", machine), UART: InterruptingNs16550("serial0", machine)})
    check(exchanges, bus, lambda: {number for number, name in OUTPUTS.items() if machine.inputs[name]})


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_as_qemu(scenario: Scenario) -> None:
    exchanges = scenario.recorded()
    assert {(1, 0), (1, 1)} <= {line for exchange in exchanges for line in exchange.lines}
    compare(exchanges)


@pytest.mark.qemu
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_as_the_qemu_that_is_here(scenario: Scenario) -> None:
    compare(asked_again(scenario))


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture
def plic(machine: FakeMachine) -> Plic:
    """Source 10 is enabled for machine mode."""
    plic = Plic("plic", machine)
    plic.write(4 * 10, 4, 1)
    plic.write(0x2000, 4, 1 << 10)
    return plic


def test_a_line_that_stays_high_is_told_of_once(machine: FakeMachine, plic: Plic) -> None:
    machine.irq(10, True)
    assert (machine.inputs["meip"], machine.inputs["seip"]) == (True, False)
    assert plic.read(0x200004, 4) == 10
    assert not machine.inputs["meip"]
    plic.write(0x200004, 4, 10)
    assert (plic.read(0x1000, 4), plic.read(0x200004, 4)) == (0, 0)


def test_a_device_that_raises_its_line_again_is_heard_after_completion(machine: FakeMachine, plic: Plic) -> None:
    machine.irq(10, True)
    assert plic.read(0x200004, 4) == 10
    machine.irq(10, True)
    assert (plic.read(0x1000, 4), machine.inputs["meip"]) == (1 << 10, False)
    plic.write(0x200004, 4, 10)
    assert machine.inputs["meip"]


def test_reset_lowers_both_inputs(machine: FakeMachine, plic: Plic) -> None:
    machine.irq(10, True)
    plic.reset()
    assert not any(machine.inputs.values())
    assert plic.save() == Plic("plic", FakeMachine()).save()


@pytest.mark.parametrize(
    ("buffer", "at", "value"), [("priorities", 5, 8), ("priorities", 0, 1), ("thresholds", 1, 255)]
)
def test_hostile_state(plic: Plic, buffer: str, at: int, value: int) -> None:
    getattr(plic, buffer)[at] = value
    with pytest.raises(ValueError, match="plic: a priority or threshold"):
        Plic("plic", FakeMachine()).load(plic.save())


def test_sizes_of_a_state_are_bounded(plic: Plic) -> None:
    plic.pending.pop()
    with pytest.raises(ValueError, match="plic: pending has 11 bytes, expected 12"):
        Plic("plic", FakeMachine()).load(plic.save())
