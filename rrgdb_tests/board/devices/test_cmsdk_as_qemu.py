"""The timers and the UART of the Cortex-M System Design Kit against QEMU's, while time stands still."""

from __future__ import annotations

from random import Random

import pytest

from rrgdb.board.device import Device
from rrgdb.board.devices.clock.cmsdk import CmsdkTimer, CmsdkWatchdog
from rrgdb.board.devices.clock.cmsdk_dual import CmsdkDualTimer
from rrgdb.board.devices.uart.cmsdk import CmsdkUart
from rrgdb_tests.board.devices.qtest import Accesses, Bus, Exchange, Scenario, asked_again, check
from rrgdb_tests.board.fakes import FakeMachine

TIMER, DUAL, UART, WATCHDOG = 0x40000000, 0x40002000, 0x40004000, 0x40008000
UNLOCK = 0x1ACCE551
REGISTERS = {
    TIMER: (0x0, 0x4, 0x8, 0xC, 0x10, 0xFD0, 0xFE0, 0xFFC),
    DUAL: (*range(0, 0x40, 4), 0xF00, 0xF04, 0xFD0, 0xFE0, 0xFFC),
    UART: (0x0, 0x4, 0x8, 0xC, 0x10, 0xFD0, 0xFE0, 0xFFC),
    WATCHDOG: (0x0, 0x4, 0x8, 0xC, 0x10, 0x14, 0xC00, 0xF00, 0xFD0, 0xFE0, 0xFFC),
}


def accesses(random: Random) -> Accesses:
    for _ in range(4000):
        base = random.choice(list(REGISTERS))
        offset = random.choice(REGISTERS[base])
        if random.randrange(3) == 0:
            yield f"readl {base + offset:#x}"
            continue
        value = random.choice((0, 1, 2, 3, random.getrandbits(8), random.getrandbits(16), random.getrandbits(32)))
        if base == WATCHDOG and offset == 0xC00:
            value = random.choice((UNLOCK, UNLOCK, value))
        yield f"writel {base + offset:#x} {value:#x}"
        yield f"readl {base + random.choice(REGISTERS[base]):#x}"


SCENARIOS = (Scenario("cmsdk", "qemu-system-arm", ("-M", "mps2-an385", "-icount", "shift=0"), accesses),)


def agree(exchanges: list[Exchange]) -> None:
    machine = FakeMachine()
    devices: dict[int, Device] = {
        TIMER: CmsdkTimer("timer0", machine),
        DUAL: CmsdkDualTimer("dualtimer", machine),
        UART: CmsdkUart("serial0", machine),
        WATCHDOG: CmsdkWatchdog("watchdog", machine),
    }
    check(exchanges, Bus(machine, devices))


def test_they_answer_as_qemu_did() -> None:
    exchanges = SCENARIOS[0].recorded()
    assert len(exchanges) >= 4000
    agree(exchanges)


@pytest.mark.qemu
def test_they_answer_as_the_qemu_that_is_here() -> None:
    agree(asked_again(SCENARIOS[0]))
