"""The Goldfish clock: as QEMU's answers, and its alarm."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest

from rrgdb.board.devices.clock.goldfish_rtc import GoldfishRtc, SilentGoldfishRtc
from rrgdb_tests.board.devices.qtest import Accesses, Bus, Exchange, Scenario, asked_again, check
from rrgdb_tests.board.fakes import FakeHost, FakeMachine

BASE = 0x101000
PLIC = "/machine/unattached/device[2]"
LINE = 11
SECOND = 10**9
NOW = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()) * SECOND
TIME_LOW, TIME_HIGH, ALARM_LOW, ALARM_HIGH = 0x00, 0x04, 0x08, 0x0C
IRQ_ENABLED, CLEAR_ALARM, ALARM_STATUS, CLEAR_INTERRUPT = 0x10, 0x14, 0x18, 0x1C


def accesses(random: Random) -> Accesses:
    """Time stands still, so that an alarm comes at once or never."""
    for _ in range(1500):
        offset = 4 * random.randrange(9)
        if random.randrange(2):
            yield f"readl {BASE + offset:#x}"
        else:
            now = NOW & 0xFFFFFFFF if offset in (TIME_LOW, ALARM_LOW) else NOW >> 32
            value = random.choice((0, 1, now - 1, now, now + 1, random.getrandbits(31)))
            yield f"writel {BASE + offset:#x} {value:#x}"


SCENARIOS = (
    Scenario(
        "goldfish-rtc",
        "qemu-system-riscv64",
        ("-M", "virt", "-bios", "none", "-rtc", "base=2020-01-01T00:00:00,clock=vm"),
        accesses,
        intercept_in=PLIC,
    ),
)


def agree(exchanges: list[Exchange]) -> None:
    machine = FakeMachine(FakeHost(NOW))
    machine.lines["rtc"] = LINE
    rtc = GoldfishRtc("rtc", machine)
    check(exchanges, Bus(machine, {BASE: rtc}), lambda: {line for line, up in machine.levels.items() if up})


def test_it_answers_as_qemu_did() -> None:
    exchanges = SCENARIOS[0].recorded()
    assert {line for exchange in exchanges for line in exchange.lines} == {(LINE, 0), (LINE, 1)}
    agree(exchanges)


@pytest.mark.qemu
def test_it_answers_as_the_qemu_that_is_here() -> None:
    agree(asked_again(SCENARIOS[0]))


@pytest.fixture
def machine() -> FakeMachine:
    machine = FakeMachine(FakeHost(NOW))
    machine.lines["rtc"] = LINE
    return machine


@pytest.fixture
def rtc(machine: FakeMachine) -> GoldfishRtc:
    """Its interrupt is enabled."""
    rtc = GoldfishRtc("rtc", machine)
    rtc.write(IRQ_ENABLED, 4, 1)
    return rtc


def set_alarm(rtc: GoldfishRtc, ns: int) -> None:
    rtc.write(ALARM_HIGH, 4, ns >> 32)
    rtc.write(ALARM_LOW, 4, ns & 0xFFFFFFFF)


def time(rtc: GoldfishRtc) -> int:
    return rtc.read(TIME_LOW, 4) | rtc.read(TIME_HIGH, 4) << 32


def pass_virtually(machine: FakeMachine, ns: int) -> None:
    machine.now_ns += ns
    machine.timers.run_out(machine.now_ns, lambda: False)


@pytest.mark.parametrize("looks_at", [ALARM_STATUS, TIME_LOW])
def test_a_guest_that_polls_sees_it_when_the_wall_clock_is_there(
    machine: FakeMachine, rtc: GoldfishRtc, looks_at: int
) -> None:
    set_alarm(rtc, NOW + SECOND)
    machine.host.clock_ns += SECOND - 1
    rtc.read(looks_at, 4)
    assert (rtc.read(ALARM_STATUS, 4), machine.levels[LINE]) == (1, False)
    machine.host.clock_ns += 1
    rtc.read(looks_at, 4)
    assert (rtc.read(ALARM_STATUS, 4), machine.levels[LINE]) == (0, True)
    pass_virtually(machine, 2 * SECOND)
    rtc.write(CLEAR_INTERRUPT, 4, 1)
    assert not machine.levels[LINE]
    assert time(rtc) == machine.host.clock_ns


def test_a_guest_that_sleeps_finds_its_clock_put_on(machine: FakeMachine, rtc: GoldfishRtc) -> None:
    set_alarm(rtc, NOW + 3600 * SECOND)
    machine.host.clock_ns += SECOND
    pass_virtually(machine, 3600 * SECOND - 1)
    assert machine.levels[LINE] is False
    pass_virtually(machine, 1)
    assert (machine.levels[LINE], rtc.read(ALARM_STATUS, 4)) == (True, 0)
    assert time(rtc) == NOW + 3600 * SECOND


def test_a_clock_that_is_there_already_is_left_alone(machine: FakeMachine, rtc: GoldfishRtc) -> None:
    set_alarm(rtc, NOW + SECOND)
    machine.host.clock_ns += 5 * SECOND
    pass_virtually(machine, SECOND)
    assert machine.levels[LINE]
    assert time(rtc) == NOW + 5 * SECOND


def test_an_alarm_is_where_it_was_set_whatever_the_time_is_set_to(machine: FakeMachine, rtc: GoldfishRtc) -> None:
    set_alarm(rtc, NOW + SECOND)
    rtc.write(TIME_HIGH, 4, 0)
    rtc.write(ALARM_HIGH, 4, 0)
    machine.host.clock_ns += SECOND - 1
    assert rtc.read(ALARM_STATUS, 4) == 1
    machine.host.clock_ns += 1
    assert rtc.read(ALARM_STATUS, 4) == 0


def test_a_cleared_alarm_does_not_come(machine: FakeMachine, rtc: GoldfishRtc) -> None:
    set_alarm(rtc, NOW + SECOND)
    rtc.write(CLEAR_ALARM, 4, 1)
    assert rtc.read(ALARM_STATUS, 4) == 0
    machine.host.clock_ns += 2 * SECOND
    pass_virtually(machine, 2 * SECOND)
    rtc.read(TIME_LOW, 4)
    assert not machine.levels[LINE]


def test_the_interrupt_waits_until_it_is_enabled(machine: FakeMachine) -> None:
    rtc = GoldfishRtc("rtc", machine)
    set_alarm(rtc, 1)
    assert not machine.levels[LINE]
    rtc.write(IRQ_ENABLED, 4, 1)
    assert machine.levels[LINE]


def test_a_reset_forgets_the_alarm_and_keeps_nobody_waiting(machine: FakeMachine, rtc: GoldfishRtc) -> None:
    set_alarm(rtc, 1)
    set_alarm(rtc, NOW + SECOND)
    rtc.reset()
    assert not machine.levels[LINE]
    assert not machine.timers.save()


def test_the_host_is_asked_no_more_than_is_looked(machine: FakeMachine, rtc: GoldfishRtc) -> None:
    rtc.read(ALARM_STATUS, 4)
    assert machine.host.asked == []
    set_alarm(rtc, NOW + SECOND)
    assert len(machine.host.asked) == 1


def test_the_clock_of_earlier_boards_has_no_alarm(machine: FakeMachine) -> None:
    rtc = SilentGoldfishRtc("rtc", machine)
    rtc.write(IRQ_ENABLED, 4, 1)
    rtc.write(ALARM_HIGH, 4, NOW >> 32)
    rtc.write(ALARM_LOW, 4, 0xFFFFFFFF)
    machine.host.clock_ns += 10 * SECOND
    assert rtc.read(ALARM_STATUS, 4) == 1
    assert machine.levels == {}
    assert len(machine.host.asked) == 1
