"""Watchpoints: every hit once, in both directions, with the storing line and both values."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from rrgdb_tests.e2e.conftest import TICKS
from rrgdb_tests.e2e.harness import Gdb, batch, debugging, rrgdb
from rrgdb_tests.guests import build, line_of

STORE = line_of("ticker", "/* the store */")


def test_watch_shows_every_write_with_old_and_new_value(replay: Gdb) -> None:
    replay.watch("tick_count")
    for count in range(TICKS):
        stop = replay.cont()
        assert stop["reason"] == "watchpoint-trigger"
        assert stop["value"] == {"old": str(count), "new": str(count + 1)}
        assert stop["frame"]["func"] == "tick"
        assert replay.value("tick_count") == count + 1
    assert replay.cont()["reason"] == "no-history"


def test_watch_in_reverse_stops_before_the_storing_line_ran(replay: Gdb) -> None:
    replay.cont()
    replay.watch("tick_count")
    for count in range(TICKS, 0, -1):
        stop = replay.cont(reverse=True)
        assert stop["reason"] == "watchpoint-trigger"
        assert stop["value"] == {"old": str(count), "new": str(count - 1)}
        assert (stop["frame"]["func"], stop["frame"]["line"]) == ("tick", str(STORE))
        assert replay.value("tick_count") == count - 1
    # The start file clears .bss: that write leaves the value as it is, so gdb does not show it.
    assert replay.cont(reverse=True)["reason"] == "no-history"


def test_a_write_is_hit_at_the_same_instruction_from_both_sides(replay: Gdb) -> None:
    replay.watch("tick_count")
    replay.cont()
    replay.cont()
    after = replay.icount
    replay.cont()
    replay.cont(reverse=True)
    assert replay.value("tick_count") == 2
    replay.cont(reverse=True)
    before = replay.icount
    assert replay.value("tick_count") == 1
    assert after - before == 1
    replay.delete()
    replay.stepi()
    assert (replay.icount, replay.value("tick_count")) == (after, 2)


def test_rwatch_stops_at_each_read(replay: Gdb) -> None:
    replay.break_at("look")
    replay.cont()
    replay.delete()
    replay.watch("tick_count", "-r")
    stop = replay.cont()
    assert stop["reason"] == "read-watchpoint-trigger"
    assert stop["value"] == {"value": str(TICKS)}
    assert stop["frame"]["func"] == "look"
    forward = replay.icount
    assert replay.cont()["reason"] == "no-history"
    stop = replay.cont(reverse=True)
    assert stop["reason"] == "read-watchpoint-trigger"
    assert stop["frame"]["func"] == "look"
    assert forward - replay.icount == 1


def test_awatch_stops_at_reads_and_writes_alike(replay: Gdb) -> None:
    replay.break_at("tick")
    replay.cont()
    replay.cont()
    replay.delete()
    replay.watch("tick_count", "-a")
    reads, writes = [], []
    while replay.value("tick_count") < 3:
        stop = replay.cont()
        assert stop["reason"] == "access-watchpoint-trigger"
        (writes if "old" in stop["value"] else reads).append(replay.icount)
    assert len(writes) == 2
    assert len(reads) >= 2
    forward = sorted(reads + writes)
    backward = []
    for _ in forward[:-1]:
        stop = replay.cont(reverse=True)
        assert stop["reason"] == "access-watchpoint-trigger"
        backward.append(replay.icount + 1)
    assert backward == forward[-2::-1] or backward == forward[:0:-1]


def test_watch_location_through_a_pointer(replay: Gdb) -> None:
    replay.break_at("work")
    replay.cont()
    replay.delete()
    replay.watch("*(unsigned int *)&round_number")
    stop = replay.cont()
    assert stop["reason"] == "watchpoint-trigger"
    assert stop["value"] == {"old": "1", "new": "2"}
    assert stop["frame"]["func"] == "main"


def test_a_watchpoint_beside_hot_data_is_not_hit_by_its_neighbours(replay: Gdb) -> None:
    """mirror is written by nobody, on a page that is written all the time."""
    replay.watch("mirror")
    assert replay.cont()["reason"] == "no-history"
    assert replay.cont(reverse=True)["reason"] == "no-history"


def test_a_watchpoint_on_one_byte_of_a_word(replay: Gdb) -> None:
    replay.cont()
    replay.watch("*(unsigned char *)&tick_count")
    stop = replay.cont(reverse=True)
    assert stop["reason"] == "watchpoint-trigger"
    assert stop["frame"]["line"] == str(STORE)


def test_watchpoint_and_breakpoint_together(replay: Gdb) -> None:
    replay.break_at("tick")
    replay.watch("tick_count")
    reasons = [replay.cont()["reason"] for _ in range(6)]
    assert reasons == ["breakpoint-hit", "watchpoint-trigger"] * 3
    back = [replay.cont(reverse=True)["reason"] for _ in range(5)]
    assert back == ["watchpoint-trigger", "breakpoint-hit"] * 2 + ["watchpoint-trigger"]


@pytest.mark.parametrize("arch", ["riscv64", "arm", "x86_64"])
def test_two_watchpoints_that_one_instruction_hits_are_both_shown(replay: Gdb) -> None:
    replay.break_at("look")
    replay.cont()
    replay.delete()
    numbers = {replay.watch(f"((unsigned short *)&tick_count)[{half}]", "-r") for half in (0, 1)}
    for reverse in (False, True):
        shown = []
        for _ in numbers:
            stop = replay.cont(reverse)
            assert stop["reason"] == "read-watchpoint-trigger"
            shown.append((stop["hw-rwpt"]["number"], replay.icount))
        assert {number for number, _ in shown} == numbers
        assert shown[0][1] == shown[1][1]
        replay.cont(reverse)


@pytest.mark.parametrize("arch", ["riscv64", "riscv32"])
def test_what_a_null_pointer_points_to_can_be_watched(arch: str, recordings: Callable[[Path], Path]) -> None:
    """It refuses no move, and is hit once it points to something. (On Arm flash is at 0.)"""
    image = build(arch, "pointer")
    with debugging(image, "replay", recordings(image)) as gdb:
        gdb.break_at("main")
        gdb.cont()
        gdb.delete()
        gdb.watch("*pointer")
        assert gdb.stepi()["reason"] == "end-stepping-range"
        stop = gdb.cont()
        assert (stop["frame"]["func"], stop["value"]["new"]) == ("aim", "0")
        for old, new in (("0", "3"), ("3", "4")):
            assert gdb.cont()["value"] == {"old": old, "new": new}
        assert gdb.cont()["reason"] == "no-history"
        for old, new in (("4", "3"), ("3", "0")):
            assert gdb.cont(reverse=True)["value"] == {"old": old, "new": new}
        assert gdb.cont(reverse=True)["frame"]["func"] == "aim"
        assert gdb.cont(reverse=True)["reason"] == "no-history"


@pytest.mark.parametrize("arch", ["riscv64", "arm", "x86_64"])
def test_registers_of_a_device_can_be_watched(replay: Gdb, arch: str) -> None:
    """gdb cannot read them, so it shows accesses and no values. The PC's devices are not in memory."""
    uart = 0x10000000 if arch == "riscv64" else 0x9000000
    replay.break_at("main")
    replay.cont()
    replay.delete()
    replay.watch(f"*(unsigned char *) {uart:#x}", "-a")
    stop = replay.cont()
    if arch == "x86_64":
        assert stop["reason"] == "no-history"
        return
    assert (stop["reason"], stop["frame"]["func"]) == ("access-watchpoint-trigger", "uart_putc")
    first = replay.icount
    assert replay.cont()["frame"]["func"] == "uart_putc"
    assert first < replay.icount
    for _ in range(2):
        assert replay.cont(reverse=True)["frame"]["func"] == "uart_putc"
    assert replay.icount == first - 1


@pytest.mark.parametrize("arch", ["riscv64", "aarch64"])
def test_a_breakpoint_where_no_instruction_can_stand_is_never_hit(replay: Gdb) -> None:
    """It refuses no move either."""
    tick = replay.value("(char *) tick")
    replay.break_at(f"*{tick + 1}", hardware=True)
    replay.break_at(f"*{tick + 3}")
    assert replay.cont()["reason"] == "no-history"
    assert replay.cont(reverse=True)["reason"] == "no-history"


def test_a_conditional_watchpoint(replay: Gdb) -> None:
    number = replay.watch("tick_count")
    replay.command(f"-break-condition {number} tick_count == 5")
    assert replay.cont()["value"] == {"old": "4", "new": "5"}
    assert replay.cont()["reason"] == "no-history"


def test_a_watchpoint_while_recording(live: Gdb) -> None:
    live.watch("tick_count")
    for count in range(3):
        assert live.cont()["value"] == {"old": str(count), "new": str(count + 1)}
    stop = live.cont(reverse=True)
    assert stop["value"] == {"old": "3", "new": "2"}
    assert stop["frame"]["line"] == str(STORE)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_command_line_shows_what_was_written(ticker: Path, recording: Path, start: object, direction: str) -> None:
    server = start("replay", "--gdb", "127.0.0.1:0", recording)  # type: ignore[operator]
    if direction == "forward":
        output = batch(ticker, server.address, ["watch tick_count", "continue"])
        assert "Old value = 0\nNew value = 1" in output
    else:
        output = batch(ticker, server.address, ["continue", "watch tick_count", "reverse-continue"])
        assert f"Old value = {TICKS}\nNew value = {TICKS - 1}" in output
        assert f"{STORE}\t" in output
    assert "Hardware watchpoint" in output


@pytest.mark.parametrize("arch", ["riscv64"])
def test_memory_of_an_address_space_while_another_one_is_in_use(arch: str, tmp_path: Path) -> None:
    """gdb, which could not read it, is told in a line; while the space is in use, it shows the watchpoint."""
    image = build(arch, "riscv_upper", {"LOOPS": 1100})
    path = tmp_path / "r"
    rrgdb("record", "-o", path, "-m", "4M", image, status=None)
    with debugging(image, "replay", path) as gdb:
        gdb.break_at(f"riscv_upper.c:{line_of('riscv_upper', 'UPPER[4] += i;')}")
        gdb.cont()
        gdb.delete()
        root = gdb.value("$satp") << 12 & (1 << 56) - 1
        assert f"page tables at {root:#x}" in gdb.cli("monitor watch-space current")
        gdb.watch("*(unsigned int *) 0x40000040")
        word = gdb.value("&frames[2][16]")
        told = re.compile(rf"watchpoint of the address space at {root:#x}, 0x40000040: 0x0+(\d) -> 0x0+(\d)")
        values = []
        while (stop := gdb.cont())["reason"] != "no-history":
            if stop["reason"] == "watchpoint-trigger":
                values.append(("own", int(stop["value"]["new"])))
            else:
                assert (stop["reason"], stop["signal-name"]) == ("signal-received", "0")
                (found,) = told.findall(gdb.cli("monitor when"))
                assert int(found[0]) + 1 == int(found[1])
                values.append(("other", int(found[1])))
            assert gdb.value(f"*(unsigned int *) {word:#x}") == values[-1][1]
        assert [value for _, value in values] == list(range(1, len(values) + 1))
        assert {whose for whose, _ in values} == {"own", "other"}
        back = []
        for _ in values:
            stop = gdb.cont(reverse=True)
            back.append("own" if stop["reason"] == "watchpoint-trigger" else "other")
        assert back[::-1] == [whose for whose, _ in values]
