"""Both ends of history are told as what they are."""

from __future__ import annotations

from pathlib import Path

from rrgdb_tests.e2e.conftest import TICKS
from rrgdb_tests.e2e.harness import NO_HISTORY, Gdb, Server, batch, debugging
from rrgdb_tests.guests import build, exit_status


def test_the_beginning_is_told_and_stays_usable(replay: Gdb) -> None:
    first = replay.registers()
    for _ in range(3):
        assert replay.stepi(reverse=True)["reason"] == "no-history"
        assert replay.cont(reverse=True)["reason"] == "no-history"
        assert (replay.icount, replay.registers()) == (0, first)
    assert replay.stepi()["reason"] == "end-stepping-range"
    assert replay.icount == 1


def test_the_end_is_told_and_stays_usable(replay: Gdb) -> None:
    assert replay.cont()["reason"] == "no-history"
    end, _, last, _ = replay.when()
    assert end == last
    for _ in range(3):
        assert replay.cont()["reason"] == "no-history"
        assert replay.stepi()["reason"] == "no-history"
        assert replay.icount == end
    assert replay.stepi(reverse=True)["reason"] == "end-stepping-range"
    assert replay.icount == end - 1


def test_reverse_after_the_guest_has_ended_while_recording(live: Gdb) -> None:
    stop = live.cont()
    assert stop["reason"] == "no-history"
    end = live.icount
    live.break_at("tick")
    assert live.cont(reverse=True)["reason"] == "breakpoint-hit"
    assert live.value("tick_count") == TICKS - 1
    live.delete()
    assert live.cont()["reason"] == "no-history"
    assert live.icount == end


def test_the_command_line_says_that_history_ended(ticker: Path, recording: Path) -> None:
    with Server("replay", "--gdb", "127.0.0.1:0", recording) as server:
        output = batch(ticker, server.address, ["reverse-continue", "echo ---\\n", "continue"])
    first, second = output.split("---\n")
    assert any(text in first for text in NO_HISTORY), output
    assert any(text in second for text in NO_HISTORY), output


def test_report_exit_tells_gdb_of_the_exit(arch: str, tmp_path: Path) -> None:
    image = build(arch, "status")
    with debugging(image, "run", "--report-exit", "-o", tmp_path / "status.rrgdb", image) as gdb:
        stop = gdb.cont()
        assert stop["reason"] == "exited"
        assert int(stop["exit-code"], 8) == exit_status(arch, 3)


def test_a_live_guest_goes_on_past_what_was_seen(live: Gdb) -> None:
    """Forward past the end of history records on from the present."""
    number = live.break_at("tick")
    live.cont()
    live.cont()
    present, _, end, mode = live.when()
    assert (present, mode) == (end, "record")
    live.cont(reverse=True)
    assert live.when()[:3] == (live.icount, 0, end)
    live.delete(number)
    live.break_at("tick", "tick_count == 3")
    live.cont()
    assert live.value("tick_count") == 3
    assert live.icount > end
