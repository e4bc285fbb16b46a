"""The CLINT: as QEMU's answers, and its timer."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrgdb.arch.riscv_interrupts import TIME_AHEAD
from rrgdb.board.devices.clock.clint import Clint, SilentClint
from rrgdb_tests.board.devices.qtest import Accesses, Bus, Exchange, Scenario, asked_again, check
from rrgdb_tests.board.fakes import FakeMachine

BASE = 0x02000000
TIMER = "/machine/unattached/device[1]"
MSIP, MTIMECMP, MTIME = 0, 0x4000, 0xBFF8
NEVER = (1 << 64) - 1
TICK_NS = 100


def accesses(random: Random) -> Accesses:
    """Time stands still but for writes of mtime, so that mtip follows writes alone. Whole registers and halves: QEMU
    makes nothing of smaller parts."""
    yield f"writeq {BASE + MTIMECMP:#x} {NEVER:#x}"
    for _ in range(1500):
        register = BASE + random.choice((MSIP, MTIMECMP, MTIMECMP, MTIME, MTIME, MTIMECMP + 8, MTIME - 8))
        value = random.choice((0, 1, 2, random.getrandbits(4), random.getrandbits(32), 0xFFFFFFFF))
        if register == BASE + MSIP:
            letter, at = "l", random.choice((0, 0, 4))
        else:
            letter = random.choice("llq")
            at = random.choice((0, 4)) if letter == "l" else 0
        if letter == "q":
            value |= random.choice((0, 0, 1, 0xFFFFFFFF, random.getrandbits(32))) << 32
        if random.randrange(2):
            yield f"read{letter} {register + at:#x}"
        else:
            yield f"write{letter} {register + at:#x} {value:#x}"


SCENARIOS = (Scenario("clint", "qemu-system-riscv64", ("-M", "virt", "-bios", "none"), accesses, intercept=TIMER),)


def agree(exchanges: list[Exchange]) -> None:
    machine = FakeMachine()
    bus = Bus(machine, {BASE: Clint("clint", machine)})
    check(exchanges, bus, lambda: {0} if machine.inputs["mtip"] else set())


def test_it_answers_as_qemu_did() -> None:
    exchanges = SCENARIOS[0].recorded()
    assert {line for exchange in exchanges for line in exchange.lines} == {(0, 0), (0, 1)}
    agree(exchanges)


@pytest.mark.qemu
def test_it_answers_as_the_qemu_that_is_here() -> None:
    agree(asked_again(SCENARIOS[0]))


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


def put(clint: Clint, register: int, value: int) -> None:
    """As a store of 8 bytes comes."""
    clint.write(register, 4, value & 0xFFFFFFFF)
    clint.write(register + 4, 4, value >> 32)


def pass_to(machine: FakeMachine, ns: int) -> None:
    machine.now_ns = ns
    machine.timers.run_out(ns, lambda: False)


def test_mtip_is_high_at_power_on_and_falls_by_a_later_mtimecmp(machine: FakeMachine) -> None:
    clint = Clint("clint", machine)
    assert machine.inputs == {"msip": False, "mtip": True}
    put(clint, MTIMECMP, 5)
    assert not machine.inputs["mtip"]
    put(clint, MTIMECMP, 0)
    assert machine.inputs["mtip"]


def test_msip_is_an_input_of_the_cpu(machine: FakeMachine) -> None:
    clint = Clint("clint", machine)
    clint.write(MSIP, 4, 0xFFFFFFFF)
    assert machine.inputs["msip"]
    clint.write(MSIP, 4, 2)
    assert not machine.inputs["msip"]


@given(st.integers(0, 10**6), st.integers(0, 10**4), st.integers(1, 10**4))
def test_mtip_rises_as_many_ticks_after_the_write_as_were_left(start: int, now: int, left: int) -> None:
    machine = FakeMachine()
    clint = Clint("clint", machine)
    machine.now_ns = start
    put(clint, MTIME, now)
    put(clint, MTIMECMP, now + left)
    pass_to(machine, start + left * TICK_NS - 1)
    assert not machine.inputs["mtip"]
    pass_to(machine, start + left * TICK_NS)
    assert machine.inputs["mtip"]
    assert clint.mtime == now + left


@pytest.mark.parametrize("mtimecmp", [NEVER, 1 << 63, (1 << 63) // TICK_NS + 1])
def test_what_lies_too_far_ahead_never_comes(machine: FakeMachine, mtimecmp: int) -> None:
    clint = Clint("clint", machine)
    put(clint, MTIMECMP, 7)
    put(clint, MTIMECMP, mtimecmp)
    assert not machine.timers.save()
    assert not machine.inputs["mtip"]


def test_a_write_of_mtime_moves_the_timer_and_the_time_csr(machine: FakeMachine) -> None:
    clint = Clint("clint", machine)
    put(clint, MTIMECMP, 1000)
    machine.now_ns = 250
    put(clint, MTIME, 990)
    assert machine.cpu.read(TIME_AHEAD) == 988
    pass_to(machine, 1249)
    assert not machine.inputs["mtip"]
    pass_to(machine, 1250)
    assert machine.inputs["mtip"]
    put(clint, MTIME, 0)
    assert not machine.inputs["mtip"]


def test_mtime_is_0_at_a_reset(machine: FakeMachine) -> None:
    clint = Clint("clint", machine)
    put(clint, MTIMECMP, 1000)
    clint.write(MSIP, 4, 1)
    machine.now_ns = 12345
    clint.reset()
    assert (clint.mtime, clint.mtimecmp, clint.msip) == (0, 0, 0)
    assert machine.inputs == {"msip": False, "mtip": True}
    assert not machine.timers.save()


def test_the_clint_of_earlier_boards_has_no_interrupts(machine: FakeMachine) -> None:
    clint = SilentClint("clint", machine)
    clint.write(MSIP, 4, 1)
    clint.write(MTIMECMP, 4, 9)
    assert machine.inputs == {}
    assert not machine.timers.save()
