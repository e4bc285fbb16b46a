"""The GICv2: as QEMU's answers, and what its registers mean."""

from __future__ import annotations

from random import Random

import pytest

from rrgdb.board.devices.intc.gic import Gic
from rrgdb.board.devices.intc.gic_registers import CPU_INTERFACE, GIC_PPI, INTERRUPTS, LINES, SPIS
from rrgdb_tests.board.devices.qtest import Accesses, Bus, Exchange, Scenario, asked_again, check
from rrgdb_tests.board.fakes import FakeMachine

D, C = 0x08000000, 0x08010000
GIC, CPU = "/machine/unattached/device[1]", "/machine/unattached/device[0]"
INPUTS = {0: "irq", 1: "fiq"}
"""QEMU's numbers of the CPU's inputs"""
QEMU_PPIS = SPIS + 16
"""QEMU's number of the input of PPI 0: it leaves room for SGIs"""
SPI_LINES = (0, 1, 2, 7, 8, 16, 47, 48, 253, 255)
"""few, so that they meet"""
WORDS = (0, 4, 8, 0x20)
"""offsets of the words of bitmaps that hold those"""


def _byte_offsets() -> list[int]:
    """Priorities of some interrupts of each kind."""
    return [0, 1, 2, 3, 15, 16, 27, 30, 31, *(32 + line for line in SPI_LINES)]


def _distributor(random: Random) -> str:
    """A read or a write of a register that is there, of any size."""
    size, letter = random.choice(((1, "b"), (2, "w"), (4, "l"), (4, "l"), (4, "l")))
    mask = (1 << 8 * size) - 1
    kind = random.randrange(12)
    value = random.choice((random.getrandbits(32), random.getrandbits(32) & random.getrandbits(32), 0xFFFFFFFF))
    match kind:
        case 0:
            offset = random.choice((0, 0, 0, 4, 8, 0xC, 0x40, 0x7C))
            value |= random.choice((1, 2, 3, 3))
        case 1 | 2 | 3 | 4 | 5 | 6:
            base = random.choice((0x80, 0x100, 0x100, 0x180, 0x200, 0x280, 0x300, 0x380, 0x380))
            offset = base + random.choice(WORDS) + random.choice((0, 0, 0, 1, 2, 3))
        case 7:
            offset = 0x400 + random.choice(_byte_offsets())
            value &= random.choice((0xF0F0F0F0, 0xE0E0E0E0, 0xFFFFFFFF))
        case 8:
            offset = 0xC00 + random.choice((0, 4, 8, 9, 12, 20, 0x40))
        case 9:
            # A pending SGI without a source ends QEMU once it is acknowledged.
            offset = random.choice((0xF10, 0xF20)) + random.randrange(16)
            value |= 0x01010101 << random.randrange(8)
        case 10:
            return f"writel {D + 0xF00:#x} {random.getrandbits(26) & ~0xFFF0 | random.choice((0, 1 << 16)):#x}"
        case _:
            offset = random.choice((random.randrange(0x1000), 0xFD0 + random.randrange(0x30), 0x800, 0x820))
            return f"read{letter} {D + (offset & -size):#x}"
    offset &= -size
    if random.random() < 0.35:
        return f"read{letter} {D + offset:#x}"
    return f"write{letter} {D + offset:#x} {value & mask:#x}"


def _cpu_interface(random: Random) -> str:
    letter = random.choice("llllllbw")
    mask = {"b": 0xFF, "w": 0xFFFF, "l": 0xFFFFFFFF}[letter]
    match random.randrange(16):
        case 0:
            value = random.choice((0xFFFFFFFF, 3, 7, 0xF, 0x1F, 0x203, random.getrandbits(32)))
            return f"write{letter} {C:#x} {value & mask:#x}"
        case 1:
            return f"write{letter} {C + 4:#x} {random.choice((0xFF, 0xF0, random.getrandbits(8))):#x}"
        case 2:
            return f"write{letter} {C + random.choice((8, 0x1C)):#x} {random.getrandbits(8):#x}"
        case 3 | 4 | 5:
            return f"read{letter} {C + random.choice((0, 4, 8, 0x14, 0x14, 0x18, 0x18, 0x1C, 0xFC)):#x}"
        case 6:
            return f"read{letter} {C + random.randrange(0, 0x100, 4):#x}"
        case 7:
            offset = random.choice((0xD0, 0xE0)) + random.randrange(0, 16, 4)
            return f"read{letter} {C + offset:#x}"
        case 8 if random.random() < 0.2:
            offset = random.choice((0xD0, 0xE0)) + random.randrange(0, 16, 4)
            return f"write{letter} {C + offset:#x} {random.choice((0, 0, 1 << random.randrange(32))) & mask:#x}"
        case _:
            return f"readl {C + 0xC:#x}"


def accesses(random: Random, count: int = 2500) -> Accesses:
    """The machine's own devices lower their lines once; then lines, registers, and interrupts that are taken."""
    taken: list[int] = []
    for setup in (
        f"{C:#x} 3",
        f"{C + 4:#x} 0xff",
        f"{D:#x} 3",
        *(f"{D + 0x100 + word:#x} 0xffffffff" for word in WORDS),
    ):
        yield f"writel {setup}"
    for _ in range(count):
        chance = random.random()
        if chance < 0.2:
            line = random.choice((*SPI_LINES, *(QEMU_PPIS + n for n in (0, 5, 11, 14, 15))))
            yield f"set_irq_in {GIC} unnamed-gpio-in {line} {random.randrange(2)}"
        elif chance < 0.55:
            yield _distributor(random)
        elif chance < 0.75 and taken:
            number = taken.pop() if random.random() < 0.9 else random.choice((1023, 300, 33, random.randrange(1024)))
            yield f"writel {C + random.choice((0x10, 0x10, 0x10, 0x10, 0x1000)):#x} {number:#x}"
        else:
            command = _cpu_interface(random)
            value = yield command
            if command == f"readl {C + 0xC:#x}" and value is not None and value & 0x3FF < 1020:
                taken.append(value)


SCENARIOS = (Scenario("gic", "qemu-system-aarch64", ("-M", "virt,gic-version=2"), accesses, intercept_in=CPU),)


class _Machine(FakeMachine):
    """Lines have QEMU's numbers."""

    def irq(self, line: int, level: bool) -> None:
        super().irq(line if line < SPIS else GIC_PPI + line - QEMU_PPIS, level)


def agree(exchanges: list[Exchange]) -> None:
    machine = _Machine()
    bus = Bus(machine, {D: Gic("gic", machine)})
    check(exchanges, bus, lambda: {number for number, name in INPUTS.items() if machine.inputs.get(name)})


def test_it_answers_as_qemu_did() -> None:
    exchanges = SCENARIOS[0].recorded()
    assert {number for exchange in exchanges for number, _ in exchange.lines} == set(INPUTS)
    agree(exchanges)


@pytest.mark.qemu
def test_it_answers_as_the_qemu_that_is_here() -> None:
    agree(asked_again(SCENARIOS[0]))


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture
def gic(machine: FakeMachine) -> Gic:
    """Both parts on, all interrupts of group 0 enabled, at priority 0x80."""
    gic = Gic("gic", machine)
    for offset in range(0, INTERRUPTS // 8, 4):
        gic.write(0x100 + offset, 4, 0xFFFFFFFF)
    for offset in range(0, INTERRUPTS, 4):
        gic.write(0x400 + offset, 4, 0x80808080)
    for offset, value in ((0, 3), (CPU_INTERFACE, 3), (CPU_INTERFACE + 4, 0xFF)):
        gic.write(offset, 4, value)
    return gic


def acknowledge(gic: Gic) -> int:
    return gic.read(CPU_INTERFACE + 0xC, 4)


def complete(gic: Gic, number: int) -> None:
    gic.write(CPU_INTERFACE + 0x10, 4, number)


def test_a_level_comes_again_until_it_falls(gic: Gic, machine: FakeMachine) -> None:
    machine.irq(1, True)
    assert machine.inputs == {"irq": True}
    assert acknowledge(gic) == 33
    assert not machine.inputs["irq"]
    complete(gic, 33)
    assert machine.inputs["irq"]
    machine.irq(1, False)
    assert not machine.inputs["irq"]
    assert acknowledge(gic) == 1023


def test_an_edge_comes_once_and_is_not_lost(gic: Gic, machine: FakeMachine) -> None:
    gic.write(0xC08, 4, 0b1000)
    machine.irq(1, True)
    machine.irq(1, False)
    assert acknowledge(gic) == 33
    machine.irq(1, True)
    complete(gic, 33)
    assert acknowledge(gic) == 33
    complete(gic, 33)
    assert acknowledge(gic) == 1023


def test_the_more_urgent_one_interrupts_the_other(gic: Gic, machine: FakeMachine) -> None:
    gic.write(0x400 + 34, 1, 0x40)
    machine.irq(1, True)
    assert acknowledge(gic) == 33
    machine.irq(3, True)
    assert not machine.inputs["irq"], "the same priority waits"
    machine.irq(2, True)
    assert machine.inputs["irq"]
    assert acknowledge(gic) == 34
    assert gic.read(CPU_INTERFACE + 0x14, 4) == 0x40
    machine.irq(1, False)
    machine.irq(2, False)
    complete(gic, 34)
    assert gic.read(CPU_INTERFACE + 0x14, 4) == 0x80
    complete(gic, 33)
    assert acknowledge(gic) == 35


@pytest.mark.parametrize("number", [16, 27, 30, 31])
def test_a_ppi_has_a_line_beyond_the_spis(gic: Gic, machine: FakeMachine, number: int) -> None:
    machine.irq(GIC_PPI + number - 16, True)
    assert acknowledge(gic) == number


@pytest.mark.parametrize("line", [-1, SPIS, GIC_PPI - 1, LINES])
def test_other_lines_are_not_there(gic: Gic, line: int) -> None:
    with pytest.raises(ValueError, match="gic: no interrupt line"):
        gic.set_line(line, True)


def test_a_software_interrupt_names_its_sender(gic: Gic, machine: FakeMachine) -> None:
    gic.write(0xF00, 4, 2 << 24 | 5)
    gic.write(0xF25, 1, 4)
    assert gic.read(0x200, 4) == 1 << 5
    assert acknowledge(gic) == 5
    complete(gic, 5)
    assert acknowledge(gic) == 2 << 10 | 5
    complete(gic, 2 << 10 | 5)
    assert acknowledge(gic) == 1023
    assert not machine.inputs["irq"]


def test_a_software_interrupt_of_nobody_can_be_taken(gic: Gic) -> None:
    gic.write(0xF24, 1, 0)
    assert acknowledge(gic) == 4
    complete(gic, 4)
    assert acknowledge(gic) == 1023


def test_a_wrong_end_drops_the_priority_and_leaves_the_interrupt_active(gic: Gic, machine: FakeMachine) -> None:
    machine.irq(1, True)
    assert acknowledge(gic) == 33
    for number in (34, 33):
        complete(gic, number)
        assert gic.read(CPU_INTERFACE + 0x14, 4) == 0xFF
        assert gic.read(0x304, 4) == 2
        assert gic.read(CPU_INTERFACE + 0x18, 4) == 1023


def test_priority_drop_and_deactivation_can_be_separate(gic: Gic, machine: FakeMachine) -> None:
    gic.write(CPU_INTERFACE, 4, 0x203)
    machine.irq(1, True)
    machine.irq(2, True)
    assert acknowledge(gic) == 33
    complete(gic, 33)
    assert acknowledge(gic) == 34
    gic.write(CPU_INTERFACE + 0x1000, 4, 33)
    complete(gic, 34)
    assert acknowledge(gic) == 33


def test_group_0_can_be_fiq(gic: Gic, machine: FakeMachine) -> None:
    gic.write(CPU_INTERFACE, 4, 0xB)
    gic.write(0x84, 4, 1 << 2)
    machine.irq(1, True)
    assert machine.inputs == {"fiq": True}
    machine.irq(1, False)
    machine.irq(2, True)
    assert machine.inputs == {"irq": True, "fiq": False}
    assert acknowledge(gic) == 1022
    gic.write(CPU_INTERFACE, 4, 0xF)
    assert acknowledge(gic) == 34


def damage(gic: Gic, name: str, at: int, value: int) -> bytes:
    getattr(gic, name)[at] = value
    return gic.save()


@pytest.mark.parametrize(
    ("name", "at", "value"), [("enabled", 0, 0xFE), ("edge", 1, 0x7F), ("level", 1, 1), ("sgi_sources", 3, 1)]
)
def test_states_that_cannot_be_are_refused(gic: Gic, name: str, at: int, value: int) -> None:
    state = damage(Gic("gic", FakeMachine()), name, at, value)
    with pytest.raises(ValueError, match="gic: "):
        gic.load(state)
