"""Clocks, counters, entropy and the registers that end a machine."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrgdb.board.devices.clock.clint import Clint
from rrgdb.board.devices.clock.cmos_rtc import CmosRtc
from rrgdb.board.devices.clock.counter import Counter
from rrgdb.board.devices.clock.goldfish_rtc import GoldfishRtc
from rrgdb.board.devices.clock.pl031 import Pl031, SilentPl031
from rrgdb.board.devices.entropy import Entropy
from rrgdb.board.devices.power.debug_exit import DebugExit, ExitRegister
from rrgdb.board.devices.power.syscon import Syscon
from rrgdb_tests.board.fakes import FakeHost, FakeMachine

EPOCH_2023 = 1_700_000_000
SECOND = 10**9


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


def test_goldfish_latches_high_half(machine: FakeMachine) -> None:
    rtc = GoldfishRtc("rtc", machine)
    machine.host.clock_ns = 0x1234_FFFFFFFF
    machine.host.clock_step_ns = 1
    assert rtc.read(0, 4) == 0xFFFFFFFF
    assert rtc.read(4, 4) == 0x1234
    assert rtc.read(0, 4) == 0
    assert rtc.read(4, 4) == 0x1235
    assert machine.host.asked == ["rtc", "rtc"]


def test_goldfish_set_time_runs_on(machine: FakeMachine) -> None:
    rtc = GoldfishRtc("rtc", machine)
    rtc.write(4, 4, 0x11)
    rtc.write(0, 4, 0x22)
    machine.host.clock_ns += 5
    assert (rtc.read(0, 4), rtc.read(4, 4)) == (0x27, 0x11)


def test_goldfish_alarm_registers(machine: FakeMachine) -> None:
    rtc = GoldfishRtc("rtc", machine)
    rtc.write(0x0C, 4, 0x7FFFFFFF)
    rtc.write(0x08, 4, 0x55)
    rtc.write(0x10, 4, 3)
    assert [rtc.read(offset, 4) for offset in (0x08, 0x0C, 0x10, 0x18)] == [0x55, 0x7FFFFFFF, 1, 1]
    rtc.write(0x14, 4, 1)
    assert rtc.read(0x18, 4) == 0
    rtc.write(0x0C, 4, 0)
    rtc.write(0x08, 4, 1)
    assert rtc.read(0x18, 4) == 0
    assert rtc.irq_pending == 1
    rtc.write(0x1C, 4, 1)
    assert rtc.irq_pending == 0


@pytest.mark.parametrize("factory", [Pl031, SilentPl031])
def test_pl031(machine: FakeMachine, factory: type[SilentPl031]) -> None:
    rtc = factory("rtc", machine)
    assert rtc.read(0, 4) == EPOCH_2023
    assert [rtc.read(offset, 4) for offset in (4, 8, 0xC, 0x10, 0x14, 0x18)] == [0, 0, 1, 0, 0, 0]
    rtc.write(8, 4, 1000)
    machine.host.clock_ns += 7 * SECOND
    assert rtc.read(0, 4) == 1007
    assert rtc.read(8, 4) == 1000
    rtc.write(4, 4, 0xFFFFFFFF)
    rtc.write(0x10, 4, 0xFFFFFFFF)
    rtc.write(0x0C, 4, 0)
    assert [rtc.read(offset, 4) for offset in (4, 0xC, 0x10)] == [0xFFFFFFFF, 1, 1]
    identity = [rtc.read(offset, 4) for offset in range(0xFE0, 0x1000, 4)]
    assert identity == [0x31, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1]


def test_the_pl031_of_earlier_boards_has_no_alarm(machine: FakeMachine) -> None:
    rtc = SilentPl031("rtc", machine)
    rtc.write(0x10, 4, 1)
    rtc.write(4, 4, EPOCH_2023)
    rtc.write(4, 4, EPOCH_2023 + 1)
    machine.host.clock_ns += 2 * SECOND
    assert (rtc.read(0x14, 4), machine.levels) == (0, {})


def cmos(rtc: CmosRtc, index: int) -> int:
    rtc.write(0, 1, index)
    return rtc.read(1, 1)


def set_cmos(rtc: CmosRtc, index: int, value: int) -> None:
    rtc.write(0, 1, index)
    rtc.write(1, 1, value)


def clock(rtc: CmosRtc) -> list[int]:
    return [cmos(rtc, index) for index in (0x32, 9, 8, 7, 6, 4, 2, 0)]


def test_cmos_shows_the_wall_clock_in_bcd(machine: FakeMachine) -> None:
    rtc = CmosRtc("rtc", machine)  # 2023-11-14 22:13:20 UTC, a Tuesday
    assert clock(rtc) == [0x20, 0x23, 0x11, 0x14, 3, 0x22, 0x13, 0x20]
    assert [cmos(rtc, index) for index in (0x0A, 0x0B, 0x0C, 0x0D)] == [0x26, 0x02, 0, 0x80]
    assert rtc.read(0, 1) == 0xFF


def test_cmos_binary_and_12_hours(machine: FakeMachine) -> None:
    rtc = CmosRtc("rtc", machine)
    set_cmos(rtc, 0x0B, 0x06)
    assert clock(rtc) == [20, 23, 11, 14, 3, 22, 13, 20]
    set_cmos(rtc, 0x0B, 0x04)
    assert cmos(rtc, 4) == 0x80 | 10
    machine.host.clock_ns += 2 * 3600 * SECOND
    assert cmos(rtc, 4) == 12
    set_cmos(rtc, 0x0B, 0x00)
    machine.host.clock_ns += 12 * 3600 * SECOND
    assert cmos(rtc, 4) == 0x80 | 0x12


@given(st.integers(0, 2**62), st.sampled_from([0x00, 0x02, 0x04, 0x06]))
def test_cmos_set_and_read_back(wall_ns: int, mode: int) -> None:
    machine = FakeMachine(FakeHost(wall_ns))
    rtc = CmosRtc("rtc", machine)
    set_cmos(rtc, 0x0B, mode)
    before = clock(rtc)
    machine.host.clock_ns += 12345 * SECOND
    set_cmos(rtc, 0x0B, 0x80 | mode)
    for index, value in zip((0x32, 9, 8, 7, 6, 4, 2, 0), before, strict=True):
        set_cmos(rtc, index, value)
    machine.host.clock_ns += 999 * SECOND
    assert clock(rtc) == before
    set_cmos(rtc, 0x0B, mode)
    assert clock(rtc) == before


@given(st.integers(0, 240_000_000_000))
def test_cmos_agrees_with_the_calendar(seconds: int) -> None:
    rtc = CmosRtc("rtc", FakeMachine(FakeHost(seconds * SECOND)))
    set_cmos(rtc, 0x0B, 0x06)
    when = datetime.fromtimestamp(seconds, UTC)
    expected = [when.year // 100, when.year % 100, when.month, when.day, when.isoweekday() % 7 + 1]
    assert clock(rtc) == [*expected, when.hour, when.minute, when.second]


def test_cmos_keeps_years_before_1970(machine: FakeMachine) -> None:
    rtc = CmosRtc("rtc", machine)
    set_cmos(rtc, 0x32, 0x19)
    set_cmos(rtc, 9, 0x41)
    assert clock(rtc) == [0x19, 0x41, 0x11, 0x14, 6, 0x22, 0x13, 0x20]


def test_cmos_one_field_while_running(machine: FakeMachine) -> None:
    rtc = CmosRtc("rtc", machine)
    set_cmos(rtc, 4, 0x05)
    assert clock(rtc) == [0x20, 0x23, 0x11, 0x14, 3, 0x05, 0x13, 0x20]
    set_cmos(rtc, 8, 0x77)
    assert clock(rtc) == [0x20, 0x23, 0x11, 0x14, 3, 0x05, 0x13, 0x20]


def test_cmos_update_in_progress_and_ram(machine: FakeMachine) -> None:
    rtc = CmosRtc("rtc", machine)
    machine.host.clock_ns = EPOCH_2023 * SECOND + SECOND - 1
    assert cmos(rtc, 0x0A) == 0xA6
    set_cmos(rtc, 0xC0, 0x99)  # bit 7 masks NMI
    assert cmos(rtc, 0x40) == 0x99
    set_cmos(rtc, 0x0D, 0)
    assert cmos(rtc, 0x0D) == 0x80
    assert cmos(rtc, 0x15) | cmos(rtc, 0x16) << 8 == 640


def test_entropy_asks_each_time(machine: FakeMachine) -> None:
    device = Entropy("entropy", machine)
    first, second = device.read(0, 4), device.read(0, 4)
    assert first != second
    assert device.read(0, 1) < 256
    assert device.read(4, 4) == 0
    assert machine.host.asked == ["entropy"] * 3


def test_counter_latches(machine: FakeMachine) -> None:
    device = Counter("counter", machine)
    machine.now_ns, machine.icount = 0x1_23456789, 0x7_00000001
    assert device.read(0x0, 4) == 0x23456789
    assert device.read(0x8, 4) == 1
    machine.now_ns = machine.icount = 0
    assert (device.read(0x4, 4), device.read(0xC, 4)) == (1, 7)
    assert device.read(0x10, 4) == 0
    before = device.save()
    device.write(4, 4, 9)
    assert device.save() == before


def test_clint_mtime_is_virtual_time_at_10_mhz(machine: FakeMachine) -> None:
    clint = Clint("clint", machine)
    machine.now_ns = 0x1_00000002 * 100 + 99
    assert (clint.read(0xBFF8, 4), clint.read(0xBFFC, 4)) == (2, 1)
    assert clint.read(0xBFFC, 1) == 1
    clint.write(0xBFF8, 4, 0x10)
    clint.write(0xBFFC, 4, 0)
    machine.now_ns += 300
    assert (clint.read(0xBFF8, 4), clint.read(0xBFFC, 4)) == (0x13, 0)


def test_clint_stores_mtimecmp_and_msip(machine: FakeMachine) -> None:
    clint = Clint("clint", machine)
    assert (clint.read(0x4000, 4), clint.read(0x4004, 4)) == (0, 0)
    clint.write(0x4000, 4, 0x89ABCDEF)
    clint.write(0x4004, 4, 0x01234567)
    assert clint.mtimecmp == 0x0123456789ABCDEF
    clint.write(0, 4, 0xFFFFFFFF)
    assert clint.read(0, 4) == 1
    assert clint.read(4, 4) == 0


@pytest.mark.parametrize(
    ("value", "status"),
    [(0x5555, 0), (0x3333, 0), (0x0007_3333, 7), (0x0142_3333, 0x42), (0x7777, None), (0x1234, None)],
)
def test_syscon(machine: FakeMachine, value: int, status: int | None) -> None:
    device = Syscon("syscon", machine)
    device.write(4, 4, value)
    device.write(0, 1, value & 0xFF)
    assert machine.status is None
    device.write(0, 4, value)
    assert machine.status == status
    assert machine.restarts == (value == 0x7777)
    assert device.read(0, 4) == 0


@pytest.mark.parametrize(("value", "status"), [(0, 1), (1, 3), (0x10, 0x21), (0xFF, 0xFF)])
def test_debug_exit(machine: FakeMachine, value: int, status: int) -> None:
    device = DebugExit("debug-exit", machine)
    assert device.read(0, 1) == 0
    device.write(0, 1, value)
    assert machine.status == status


def test_exit_register(machine: FakeMachine) -> None:
    device = ExitRegister("exit", machine)
    device.write(4, 4, 9)
    assert machine.status is None
    device.write(0, 4, 0x105)
    assert machine.status == 5
