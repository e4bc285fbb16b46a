"""Ctrl-C: soon, at an exact position, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rrgdb_tests.e2e.harness import Gdb, Server, debugging
from rrgdb_tests.guests import build, line_of

ENDLESS = {"TICKS": 1_000_000, "WORK": 10_000}
HOT_LINE = line_of("ticker", "table[x >> 22] += x ^ i;")


@pytest.fixture
def endless(arch: str) -> Path:
    return build(arch, "ticker", ENDLESS)


@pytest.fixture
def running(endless: Path, tmp_path: Path) -> Iterator[Gdb]:
    """gdb at a program that would run for an hour, stopped after two ticks."""
    with debugging(endless, "run", "-o", tmp_path / "endless.rrgdb", endless) as gdb:
        gdb.break_at("tick", "tick_count == 2")
        gdb.cont()
        gdb.delete()
        yield gdb


def _assert_exact(gdb: Gdb) -> None:
    """The position is one of history: going back and forth comes to the same state."""
    here = (gdb.icount, gdb.registers())
    for _ in range(3):
        gdb.stepi(reverse=True)
    assert gdb.icount == here[0] - 3
    for _ in range(3):
        gdb.stepi()
    assert (gdb.icount, gdb.registers()) == here


def test_interrupt_while_running_forward(running: Gdb) -> None:
    before = running.icount
    stop = running.interrupted("-exec-continue")
    assert (stop["reason"], stop["signal-name"]) == ("signal-received", "SIGINT")
    assert running.icount >= before
    _assert_exact(running)


def test_interrupt_while_searching_backward_and_go_on(running: Gdb) -> None:
    """A condition that is never true on a hot line makes the search long: one with a division, for which a hook is
    called each time."""
    running.break_at("tick", "tick_count == 400")
    running.cont()
    end = running.icount
    running.delete()
    running.break_at(f"ticker.c:{HOT_LINE}", "table[0] % 7 == 8")
    stop = running.interrupted("-exec-continue --reverse")
    assert (stop["reason"], stop["signal-name"]) == ("signal-received", "SIGINT")
    running.delete()
    assert running.icount <= end
    _assert_exact(running)
    running.break_at("tick", "tick_count == 399")
    running.cont() if running.icount < end - 120_000 else running.cont(reverse=True)
    assert running.value("tick_count") == 399


def test_interrupt_with_mi_async(endless: Path, tmp_path: Path) -> None:
    """As IDEs do it: -exec-interrupt."""
    with debugging(endless, "run", "-o", tmp_path / "r", endless, commands=["set mi-async on"]) as gdb:
        start = gdb.send("-exec-continue")
        gdb.wait_running(start)
        gdb.command("-exec-interrupt")
        assert gdb.wait_stopped(start)["reason"] == "signal-received"
        _ = gdb.cont(reverse=True)
        assert gdb.icount == 0


def test_a_guest_that_nobody_debugs_is_stopped_by_a_gdb_that_comes(
    endless: Path, tmp_path: Path, start: Callable[..., Server], gdb: Callable[..., Gdb]
) -> None:
    server = start("run", "--gdb", "127.0.0.1:0", "-o", tmp_path / "r", endless)
    first = gdb(endless)
    first.connect(server.address)
    first.break_at("tick")
    first.cont()
    first.command("-break-delete")
    first.command("-target-detach")
    second = gdb(endless)
    second.connect(server.address)
    assert second.icount > 0
    _assert_exact(second)
