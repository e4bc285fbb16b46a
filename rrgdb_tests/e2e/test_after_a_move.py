"""After a move that gdb did not make, nothing that it shows is old, and no hit goes by: with the file of
``rrgdb gdbinit``, and with the commands that the stub names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rrgdb.rsp import gdbinit
from rrgdb_tests import guests
from rrgdb_tests.e2e.harness import Gdb, GdbError, debugging

ARCHES = ("riscv64", "x86_64")


@pytest.fixture(params=ARCHES)
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def unoptimised(arch: str) -> Path:
    """The ticker with its locals on the stack."""
    return guests.build(arch, "ticker", {"TICKS": 10, "WORK": 20}, optimise="-O0")


@pytest.fixture
def at_third_tick(unoptimised: Path, recordings: Callable[[Path], Path]) -> Iterator[Gdb]:
    """Behind the third hit of a watchpoint, whose number is 1."""
    with debugging(unoptimised, "replay", recordings(unoptimised)) as gdb:
        gdb.watch("tick_count")
        for count in range(3):
            assert gdb.cont()["value"] == {"old": str(count), "new": str(count + 1)}
        yield gdb


def told(gdb: Gdb, text: str) -> None:
    """Type what the text says."""
    commands = re.findall("`([^`]+)`", text)
    assert commands.pop() == "rrgdb gdbinit"
    for command in commands:
        gdb.cli(command.replace("enable N", "enable 1"))


@pytest.fixture(params=["sourced", "plain"])
def move(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Gdb, str], None]:
    """``move(gdb, command)``, as the file offers it or as plain gdb is told to."""
    file = tmp_path / "rrgdb.py"
    file.write_text(gdbinit.text())

    def sourced(gdb: Gdb, command: str) -> None:
        gdb.cli(f"source {file}")
        gdb.cli("rrgdb-" + command.replace("loadvm", "restart"))

    def plain(gdb: Gdb, command: str) -> None:
        told(gdb, gdb.cli(f"monitor {command}"))

    return sourced if request.param == "sourced" else plain


def test_a_hit_behind_a_move_is_shown_with_its_values(at_third_tick: Gdb, move: Callable[[Gdb, str], None]) -> None:
    gdb = at_third_tick
    here = gdb.icount
    gdb.cli(f"monitor seek {here - 300}")
    gdb.cli("monitor savevm there")
    gdb.cli(f"monitor seek {here}")
    for command in (f"seek {here - 300}", "back 300", "loadvm there"):
        move(gdb, command)
        assert gdb.value("tick_count") == 2
        assert gdb.cont()["value"] == {"old": "2", "new": "3"}
        assert gdb.icount == here


@pytest.mark.parametrize("arch", ["riscv64"])
def test_locals_and_frames_behind_a_move_are_those_of_the_position(
    unoptimised: Path, recordings: Callable[[Path], Path], move: Callable[[Gdb, str], None]
) -> None:
    with debugging(unoptimised, "replay", recordings(unoptimised)) as gdb:
        gdb.break_at("work")
        gdb.cont()
        gdb.delete()
        gdb.watch("tick_count")
        seen: dict[int, tuple[int, str, str]] = {}
        for count in (300, -150, 150, -200):
            gdb.cli("backtrace")
            gdb.cli("info locals")
            move(gdb, f"{'forward' if count > 0 else 'back'} {abs(count)}")
            shown = gdb.value("x"), gdb.cli("info locals"), gdb.cli("backtrace")
            gdb.cli("maintenance flush dcache")
            gdb.cli("maintenance flush register-cache")
            assert shown == (gdb.value("x"), gdb.cli("info locals"), gdb.cli("backtrace"))
            assert seen.setdefault(gdb.icount, shown) == shown
        assert len({x for x, _, _ in seen.values()}) > 1


def test_leaving_a_diversion_lets_no_hit_go_by(at_third_tick: Gdb) -> None:
    gdb = at_third_tick
    gdb.stepi()
    gdb.stepi()
    here = gdb.icount
    gdb.cli("set var mirror = 9")
    assert gdb.cont()["value"] == {"old": "3", "new": "4"}
    assert gdb.when()[3] == "diversion"
    stop = gdb.stepi(reverse=True)
    assert (stop["reason"], stop["value"]) == ("watchpoint-trigger", {"old": "4", "new": "3"})
    assert gdb.when()[3] == "replay"
    assert here - 1 <= gdb.icount <= here
    assert gdb.cont()["value"] == {"old": "3", "new": "4"}
    assert gdb.when()[3] == "replay"


def test_a_written_value_is_undone_as_well(at_third_tick: Gdb) -> None:
    """gdb saw what it wrote itself; the hit that writes the same is one."""
    gdb = at_third_tick
    gdb.stepi()
    gdb.cli("set var tick_count = 4")
    stop = gdb.cont(reverse=True)
    assert (stop["reason"], stop["value"]) == ("watchpoint-trigger", {"old": "4", "new": "3"})
    assert gdb.cont()["value"] == {"old": "3", "new": "4"}


def test_a_call_in_the_past_lets_no_hit_go_by(at_third_tick: Gdb) -> None:
    """It stops in the function that is called, hits there, and is undone when it is over."""
    gdb = at_third_tick
    here = gdb.icount
    gdb.delete()
    gdb.watch("mirror")
    inside = gdb.break_at("square")
    with pytest.raises(GdbError, match="stopped while in a function"):
        gdb.value("square(7)")
    gdb.delete(inside)
    assert gdb.cont()["value"] == {"old": "0", "new": "7"}
    gdb.finish()
    assert (gdb.icount, gdb.when()[3], gdb.value("mirror")) == (here, "replay", 0)
    assert gdb.cont()["value"] == {"old": "7", "new": "0"}
    assert gdb.cont()["reason"] == "no-history"
