"""The NVIC of mps2-an385, and SysTick while time stands still, against QEMU's."""

from __future__ import annotations

from random import Random

import pytest

from rrgdb.arch.armv7m_exceptions import CCR_STKALIGN
from rrgdb.arch.armv7m_nvic import ENABLED_AT_RESET
from rrgdb.board.devices.intc.nvic import Mps2Nvic
from rrgdb_tests.board.devices.qtest import Accesses, Bus, Exchange, Scenario, asked_again, check
from rrgdb_tests.board.fakes import FakeMachine

BASE = 0xE000E000
IRQ_BITS = tuple(start + at for start in (0x100, 0x180, 0x200, 0x280, 0x300) for at in (0, 4, 8, 0x3C))
SYSTEM = (0x004, *range(0xD00, 0xD50, 4), *range(0xD90, 0xDC0, 4), 0xF00, *range(0xFD0, 0x1000, 4))
SYSTICK = (0x010, 0x014, 0x018, 0x01C)
PRIORITIES = (*range(0x400, 0x420), 0x5EC, *range(0xD18, 0xD24))
AIRCR = 0xD0C


def accesses(random: Random) -> Accesses:
    for _ in range(3000):
        offset = random.choice(random.choice((IRQ_BITS, SYSTEM, SYSTICK, PRIORITIES)))
        letter = random.choice("lllwb") if offset in (*IRQ_BITS, *PRIORITIES) else "l"
        size = {"b": 1, "w": 2, "l": 4}[letter]
        offset &= -size
        if random.randrange(3) == 0:
            yield f"read{letter} {BASE + offset:#x}"
            continue
        value = random.choice((0, 1, 1 << random.randrange(32), random.getrandbits(32), 0xFFFFFFFF))
        if offset == AIRCR:
            # No reset.
            value = random.choice((0x05FA0000, 0x05FB0000)) | random.randrange(8) << 8
        yield f"write{letter} {BASE + offset:#x} {value & (1 << 8 * size) - 1:#x}"
        yield f"readl {BASE + random.choice((*IRQ_BITS, *SYSTEM, *SYSTICK)):#x}"


SCENARIOS = (Scenario("nvic", "qemu-system-arm", ("-M", "mps2-an385"), accesses),)


def agree(exchanges: list[Exchange]) -> None:
    machine = FakeMachine()
    machine.cpu.registers |= {"nvic_enabled": ENABLED_AT_RESET, "ccr": CCR_STKALIGN}
    check(exchanges, Bus(machine, {BASE: Mps2Nvic("nvic", machine)}))


def test_it_answers_as_qemu_did() -> None:
    exchanges = SCENARIOS[0].recorded()
    assert len(exchanges) >= 4000
    agree(exchanges)


@pytest.mark.qemu
def test_it_answers_as_the_qemu_that_is_here() -> None:
    agree(asked_again(SCENARIOS[0]))
