"""Breakpoints: the same stops in both directions."""

from __future__ import annotations

import re

import pytest

from rrgdb_tests.e2e.conftest import TICKS
from rrgdb_tests.e2e.harness import Gdb
from rrgdb_tests.guests import line_of


def _visits(gdb: Gdb, count: int, reverse: bool = False) -> list[tuple[int, int, int]]:
    """icount, pc and tick_count at ``count`` stops at a breakpoint."""
    seen = []
    for _ in range(count):
        stop = gdb.cont(reverse)
        assert stop["reason"] == "breakpoint-hit"
        seen.append((gdb.icount, gdb.pc, gdb.value("tick_count")))
    return seen


@pytest.mark.parametrize("hardware", [False, True], ids=["software", "hardware"])
def test_reverse_continue_visits_the_same_stops_backwards(replay: Gdb, hardware: bool) -> None:
    replay.break_at("tick", hardware=hardware)
    forward = _visits(replay, TICKS)
    assert [count for _, _, count in forward] == list(range(TICKS))
    assert replay.cont()["reason"] == "no-history"
    assert _visits(replay, TICKS, reverse=True) == forward[::-1]
    assert replay.cont(reverse=True)["reason"] == "no-history"
    assert _visits(replay, TICKS) == forward


def test_the_breakpoint_under_the_feet_is_not_hit_again(replay: Gdb) -> None:
    replay.break_at("at_half")
    replay.cont()
    here = replay.icount
    assert replay.cont(reverse=True)["reason"] == "no-history"
    replay.cont()
    assert replay.icount == here
    assert replay.cont()["reason"] == "no-history"
    replay.cont(reverse=True)
    assert replay.icount == here


def test_ten_steps_forward_ten_back_with_breakpoints_on_all_of_them(replay: Gdb) -> None:
    replay.break_at("tick")
    replay.cont()
    replay.delete()
    steps = []
    for _ in range(10):
        steps.append((replay.icount, replay.pc))
        replay.stepi()
    end = replay.icount
    for icount, pc in reversed(steps):
        replay.stepi(reverse=True)
        assert (replay.icount, replay.pc) == (icount, pc)
    for _, pc in steps:
        replay.break_at(f"*{pc:#x}")
    for icount, _ in steps[1:]:
        replay.cont()
        assert replay.icount == icount
    replay.delete()
    replay.cli(f"monitor seek {end}")
    replay.cli("maintenance flush register-cache")
    for _, pc in steps:
        replay.break_at(f"*{pc:#x}")
    for icount, _ in reversed(steps):
        replay.cont(reverse=True)
        assert replay.icount == icount


def test_a_conditional_breakpoint_stops_only_where_it_is_true(replay: Gdb) -> None:
    replay.break_at("tick", "tick_count == 7")
    replay.cont()
    seven = replay.icount
    assert replay.value("tick_count") == 7
    assert replay.cont()["reason"] == "no-history"
    replay.cont(reverse=True)
    assert (replay.icount, replay.value("tick_count")) == (seven, 7)
    assert replay.cont(reverse=True)["reason"] == "no-history"


@pytest.mark.parametrize("arch", ["riscv64", "x86_64"], indirect=True)
def test_a_condition_that_cannot_be_evaluated_stops_with_a_reason(replay: Gdb) -> None:
    for condition, why in (
        ("100 / (tick_count - 3) == 1000", "divides by zero"),
        ("tick_count == 3 && *(int *) -16 == 1", "fffffff0"),
    ):
        number = replay.break_at("tick", condition)
        for reverse in (False, True):
            start = len(replay.transcript)
            assert replay.cont(reverse)["reason"] == "breakpoint-hit"
            assert replay.value("tick_count") == 3
            assert re.search(f"its condition cannot be evaluated: .*{why}", replay.transcript[start:])
            assert replay.cont(reverse)["reason"] == "no-history"
        replay.delete(number)


@pytest.mark.parametrize("arch", ["x86_64"], indirect=True)
def test_the_beginning_of_history_is_told_whatever_stands_there(replay: Gdb) -> None:
    replay.break_at("*$pc")
    replay.stepi()
    assert replay.stepi(reverse=True)["reason"] == "no-history"
    replay.stepi()
    replay.stepi()
    assert replay.cont(reverse=True)["reason"] == "no-history"
    assert replay.icount == 0
    replay.stepi()
    assert replay.icount == 1


def test_a_condition_on_a_hot_line_is_quick_enough_to_use(replay: Gdb) -> None:
    """Two thousand evaluations in either direction, one of them true."""
    line = line_of("ticker", "table[x >> 22] += x ^ i;")
    replay.break_at(f"ticker.c:{line}", "i == 150 && tick_count == 4")
    first = replay.cont()
    assert first["reason"] == "breakpoint-hit"
    here = replay.icount
    assert (replay.value("i"), replay.value("tick_count")) == (150, 4)
    replay.delete()
    replay.cont()
    replay.break_at(f"ticker.c:{line}", "i == 150 && tick_count == 4")
    replay.cont(reverse=True)
    assert replay.value("tick_count") == 4
    assert abs(replay.icount - here) < 20


def test_a_condition_that_is_never_true_ends_at_the_end_of_history(replay: Gdb) -> None:
    replay.break_at("tick", "tick_count == 1000")
    assert replay.cont()["reason"] == "no-history"
    assert replay.cont(reverse=True)["reason"] == "no-history"
    assert replay.icount == 0


def test_ignore_counts_and_temporary_breakpoints(replay: Gdb) -> None:
    number = replay.break_at("tick")
    replay.command(f"-break-after {number} 3")
    replay.cont()
    assert replay.value("tick_count") == 3
    replay.delete(number)
    replay.command("-break-insert -t at_half")
    assert replay.cont()["frame"]["func"] == "at_half"
    assert replay.cont()["reason"] == "no-history"


def test_a_breakpoint_that_is_never_reached_stops_nothing(replay: Gdb) -> None:
    replay.break_at("never")
    assert replay.cont()["reason"] == "no-history"
    assert replay.cont(reverse=True)["reason"] == "no-history"


def test_many_breakpoints_at_once(replay: Gdb) -> None:
    for where in ("leaf", "inner", "tick", "never", "at_half", "look", "at_end"):
        replay.break_at(where)
    stops = []
    while (stop := replay.cont())["reason"] == "breakpoint-hit":
        stops.append((stop["frame"]["func"], replay.pc))
    assert len(stops) == TICKS * (1 + 1 + 4) + 3
    back = []
    while (stop := replay.cont(reverse=True))["reason"] == "breakpoint-hit":
        back.append((stop["frame"]["func"], replay.pc))
    assert back == stops[::-1]


def test_until_and_advance(replay: Gdb) -> None:
    replay.break_at("tick")
    replay.cont()
    replay.delete()
    stop = replay.run(f"-exec-until ticker.c:{line_of('ticker', 'if (tick_count % 10 == 0)')}")
    assert stop["frame"]["func"] == "tick"
    assert replay.value("tick_count") == 1


def test_breakpoints_while_recording_go_back_and_forth(live: Gdb) -> None:
    live.break_at("tick")
    forward = _visits(live, 4)
    assert _visits(live, 3, reverse=True) == forward[-2::-1]
    assert _visits(live, 3) == forward[1:]
    later = _visits(live, 2)
    assert [count for _, _, count in later] == [4, 5]
