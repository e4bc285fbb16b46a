"""The PL031: as QEMU's answers, and its alarm."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest

from rrgdb.board.devices.clock.pl031 import Pl031
from rrgdb_tests.board.devices.qtest import Accesses, Bus, Exchange, Scenario, asked_again, check
from rrgdb_tests.board.fakes import FakeHost, FakeMachine

SECOND = 10**9
BASE = 0x09010000
GIC = "/machine/unattached/device[1]"
LINE = 2
NOW = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp())
DR, MR, LR, IMSC, RIS, MIS, ICR = 0x00, 0x04, 0x08, 0x10, 0x14, 0x18, 0x1C


def accesses(random: Random) -> Accesses:
    """Time stands still, so that an alarm goes off at once or never."""
    for _ in range(600):
        offset = random.choice((*range(0, 0x28, 4), MR, LR, IMSC, ICR, RIS, random.randrange(0xFE0, 0x1000)))
        letter = random.choice("lllbw")
        size = {"b": 1, "w": 2, "l": 4}[letter]
        offset &= -size
        if random.random() < 0.5:
            yield f"read{letter} {BASE + offset:#x}"
        else:
            value = random.choice((0, 1, NOW, NOW + 5, random.getrandbits(32)))
            yield f"write{letter} {BASE + offset:#x} {value & (1 << 8 * size) - 1:#x}"
        if random.random() < 0.05:
            now = yield f"readl {BASE:#x}"
            yield f"writel {BASE + random.choice((MR, LR)):#x} {now:#x}"


SCENARIOS = (
    Scenario(
        "pl031",
        "qemu-system-aarch64",
        ("-M", "virt,gic-version=2", "-rtc", "base=2020-01-01T00:00:00,clock=vm"),
        accesses,
        intercept_in=GIC,
    ),
)


def agree(exchanges: list[Exchange]) -> None:
    machine = FakeMachine(FakeHost(NOW * SECOND))
    machine.lines["rtc"] = LINE
    check(exchanges, Bus(machine, {BASE: Pl031("rtc", machine)}), lambda: {n for n, up in machine.levels.items() if up})


def test_it_answers_as_qemu_did() -> None:
    exchanges = SCENARIOS[0].recorded()
    assert {line for exchange in exchanges for line in exchange.lines} == {(LINE, 0), (LINE, 1)}
    agree(exchanges)


@pytest.mark.qemu
def test_it_answers_as_the_qemu_that_is_here() -> None:
    agree(asked_again(SCENARIOS[0]))


@pytest.fixture
def machine() -> FakeMachine:
    machine = FakeMachine(FakeHost(NOW * SECOND + SECOND // 2))
    machine.lines["rtc"] = LINE
    return machine


@pytest.fixture
def rtc(machine: FakeMachine) -> Pl031:
    """Its interrupt is let through."""
    rtc = Pl031("rtc", machine)
    rtc.write(IMSC, 4, 1)
    return rtc


def pass_time(machine: FakeMachine, virtual_ns: int, wall_ns: int) -> None:
    machine.host.clock_ns += wall_ns
    machine.now_ns += virtual_ns
    machine.timers.run_out(machine.now_ns, lambda: False)


@pytest.mark.parametrize("register", [RIS, MIS, DR])
def test_a_guest_that_polls_sees_the_alarm_when_the_wall_clock_is_there(
    rtc: Pl031, machine: FakeMachine, register: int
) -> None:
    rtc.write(MR, 4, NOW + 2)
    machine.host.clock_ns += 2 * SECOND - 1
    rtc.read(register, 4)
    assert (rtc.read(RIS, 4), machine.levels[LINE]) == (0, False)
    machine.host.clock_ns += 1
    rtc.read(register, 4)
    assert machine.levels[LINE]
    assert (rtc.read(RIS, 4), rtc.read(MIS, 4)) == (1, 1)


def test_the_alarm_is_whole_seconds_behind_the_write(rtc: Pl031, machine: FakeMachine) -> None:
    """QEMU's clock changes in the middle of them."""
    rtc.write(MR, 4, NOW + 1)
    machine.host.clock_ns += SECOND // 2
    assert (rtc.read(DR, 4), rtc.read(RIS, 4)) == (NOW + 1, 0)


@pytest.mark.parametrize(("faster", "quarters"), [(1, 40), (5, 8)])
def test_the_line_rises_when_as_much_virtual_time_has_gone_by(
    rtc: Pl031, machine: FakeMachine, faster: int, quarters: int
) -> None:
    """``faster``: virtual time than the wall clock, which is asked once, and put on to the alarm."""
    rtc.write(MR, 4, NOW + 10)
    asked = len(machine.host.asked)
    for _ in range(quarters):
        assert not machine.levels[LINE]
        pass_time(machine, faster * SECOND // 4, SECOND // 4)
    assert machine.levels[LINE]
    assert len(machine.host.asked) == asked + 1
    pass_time(machine, 1000 * SECOND, 0)
    assert len(machine.host.asked) == asked + 1, "it is over"
    assert rtc.read(DR, 4) == NOW + 10
    rtc.write(ICR, 4, 1)
    assert not machine.levels[LINE]


def test_virtual_time_that_is_slow_does_not_ask(rtc: Pl031, machine: FakeMachine) -> None:
    rtc.write(MR, 4, NOW + 10)
    asked = len(machine.host.asked)
    pass_time(machine, 9 * SECOND, 100 * SECOND)
    assert len(machine.host.asked) == asked
    pass_time(machine, SECOND, 0)
    assert machine.levels[LINE]
    assert rtc.read(DR, 4) == NOW + 100


def test_a_new_match_or_time_moves_the_alarm(rtc: Pl031, machine: FakeMachine) -> None:
    rtc.write(MR, 4, NOW + 1)
    rtc.write(MR, 4, NOW + 100)
    pass_time(machine, 50 * SECOND, 50 * SECOND)
    assert rtc.read(RIS, 4) == 0
    rtc.write(LR, 4, NOW + 99)
    pass_time(machine, SECOND, SECOND)
    assert rtc.read(RIS, 4) == 1


def test_a_match_in_the_past_is_a_round_away(rtc: Pl031, machine: FakeMachine) -> None:
    rtc.write(MR, 4, NOW - 1)
    assert rtc.read(RIS, 4) == 0
    pass_time(machine, 0, ((1 << 32) - 1) * SECOND)
    assert rtc.read(RIS, 4) == 1


def test_clearing_takes_what_has_come_meanwhile(rtc: Pl031, machine: FakeMachine) -> None:
    rtc.write(MR, 4, NOW + 1)
    machine.host.clock_ns += SECOND
    rtc.write(ICR, 4, 1)
    assert (rtc.read(RIS, 4), machine.levels[LINE]) == (0, False)


def test_a_masked_alarm_waits_for_the_mask(rtc: Pl031, machine: FakeMachine) -> None:
    rtc.write(IMSC, 4, 0)
    rtc.write(MR, 4, NOW)
    assert (rtc.read(RIS, 4), rtc.read(MIS, 4), machine.levels[LINE]) == (1, 0, False)
    rtc.write(IMSC, 4, 1)
    assert machine.levels[LINE]


def test_only_a_clock_with_an_alarm_asks_more_than_it_shows(machine: FakeMachine) -> None:
    rtc = Pl031("rtc", machine)
    for offset in range(0, 0x28, 4):
        rtc.read(offset, 4)
    rtc.write(IMSC, 4, 1)
    rtc.write(ICR, 4, 1)
    assert machine.host.asked == ["rtc"]
