"""What a user tries out in the past never changes the recording."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from rrgdb_tests.e2e.harness import Gdb, GdbError, debugging, rrgdb


def _state(gdb: Gdb) -> tuple[int, dict[str, str], int, int]:
    return gdb.icount, gdb.registers(), gdb.value("tick_count"), gdb.value("mirror")


def _at_third_tick(gdb: Gdb) -> None:
    number = gdb.break_at("tick")
    for _ in range(3):
        gdb.cont()
    gdb.delete(number)


def test_calling_a_function_of_the_guest_in_the_past(replay: Gdb) -> None:
    _at_third_tick(replay)
    before = _state(replay)
    assert replay.value("square(7)") == 49
    assert replay.value("square(12)") == 144
    assert replay.registers() == before[1]
    replay.stepi(reverse=True)
    replay.stepi()
    assert _state(replay) == before
    replay.cont()
    replay.break_at("tick", "tick_count == 2")
    replay.cont(reverse=True)
    assert _state(replay) == before


def test_a_call_that_a_breakpoint_interrupts(replay: Gdb) -> None:
    _at_third_tick(replay)
    before = _state(replay)
    replay.break_at("square")
    with pytest.raises(GdbError, match="stopped while in a function called from GDB"):
        replay.value("square(5)")
    replay.delete()
    assert replay.when()[3] == "diversion"
    # gdb 13 itself fails an assertion when it runs backward out of an abandoned call.
    replay.cli(f"monitor seek {before[0]}")
    replay.cli("maintenance flush register-cache")
    replay.cli("maintenance flush dcache")
    assert _state(replay) == before
    assert replay.when()[3] == "replay"


@pytest.mark.parametrize("write", ["tick_count = 1000", "$pc = (unsigned long)never", "*(char *)table = 77"])
def test_a_write_in_the_past_diverts_and_going_back_drops_it(replay: Gdb, write: str) -> None:
    _at_third_tick(replay)
    before = _state(replay)
    assert replay.when()[3] == "replay"
    replay.cli(f"set var {write}")
    assert replay.when()[3] == "diversion"
    replay.stepi()
    replay.stepi()
    stop = replay.stepi(reverse=True)
    while replay.when()[3] == "diversion":
        stop = replay.stepi(reverse=True)
    assert stop["reason"] in {"end-stepping-range", "no-history"}
    replay.break_at("tick", "tick_count == 2")
    replay.cont(reverse=True) if replay.icount > before[0] else replay.cont()
    assert _state(replay) == before


def test_what_if_a_diversion_runs_on_with_the_changed_value(replay: Gdb) -> None:
    replay.break_at("work", "tick_count == 2")
    replay.cont()
    replay.delete()
    replay.cli("set var tick_count = 100")
    replay.watch("tick_count")
    assert replay.cont()["value"] == {"old": "100", "new": "101"}
    assert replay.when()[3] == "diversion"


def test_reading_anything_is_no_write(replay: Gdb) -> None:
    """What front ends ask at each stop: registers, memory, the stack, disassembly."""
    _at_third_tick(replay)
    replay.command("-data-list-register-values x")
    replay.command("-data-read-memory-bytes &table 4096")
    replay.command("-data-disassemble -s $pc -e $pc+64 -- 2")
    replay.command("-stack-list-frames")
    replay.cli("info all-registers")
    replay.cli("x/64xb $sp")
    replay.cli("info line *$pc")
    replay.cli("find &table, &table[1023], 0x12345678")
    assert replay.when()[3] == "replay"


def test_the_files_of_a_replayed_recording_stay_as_they_are(ticker: Path, recording: Path) -> None:
    def digests() -> dict[str, str]:
        kept = [p for p in sorted(recording.rglob("*")) if p.is_file() and p.name in {"events.log", "manifest.json"}]
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in kept}

    before = digests()
    assert set(before) == {"events.log", "manifest.json"}
    with debugging(ticker, "replay", recording) as gdb:
        _at_third_tick(gdb)
        gdb.cli("set var tick_count = 1000")
        gdb.cli("print square(3)")
        gdb.cont()
    assert digests() == before
    rrgdb("verify", recording)


def test_writes_in_the_past_of_a_live_guest_leave_the_present_alone(live: Gdb) -> None:
    _at_third_tick(live)
    present = _state(live)
    live.break_at("work")
    live.cont(reverse=True)
    live.delete()
    live.cli("set var tick_count = 555")
    assert live.value("square(3)") == 9
    live.stepi()
    live.cli("monitor seek end")
    live.cli("maintenance flush register-cache")
    live.cli("maintenance flush dcache")
    assert _state(live) == present
    live.break_at("tick")
    live.cont()
    assert live.value("tick_count") == 3


def test_writes_in_the_present_of_a_live_guest_are_part_of_its_history(live: Gdb) -> None:
    """Only the past is frozen: at the present the user may change the guest, and the change is recorded or refused."""
    _at_third_tick(live)
    live.cli("set var tick_count = 50")
    live.break_at("tick")
    live.cont()
    assert live.value("tick_count") == 51
