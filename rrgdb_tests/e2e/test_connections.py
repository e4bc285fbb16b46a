"""gdbs that come, go, drop out and come twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rrgdb_tests.e2e.harness import Gdb, Server, batch
from rrgdb_tests.e2e.rsp_client import RspClient
from rrgdb_tests.guests import exit_status

Start = Callable[..., Server]
NewGdb = Callable[..., Gdb]


def test_a_second_gdb_is_refused_and_the_first_goes_on(
    ticker: Path, recording: Path, start: Start, gdb: NewGdb
) -> None:
    server = start("replay", "--gdb", "127.0.0.1:0", recording)
    first = gdb(ticker)
    first.connect(server.address)
    first.break_at("tick")
    first.cont()
    output = batch(ticker, server.address, ["info registers"])
    assert "$pc" not in output
    assert "Remote debugging using" not in output or "The program has no registers now" in output
    first.cont()
    assert first.value("tick_count") == 1


def test_a_new_gdb_finds_everything_where_the_dropped_one_left_it(
    ticker: Path, recording: Path, start: Start, gdb: NewGdb
) -> None:
    server = start("replay", "--gdb", "127.0.0.1:0", recording)
    first = gdb(ticker)
    first.connect(server.address)
    first.break_at("tick", "tick_count == 4")
    first.cont()
    here = (first.icount, first.registers())
    first.close()
    second = gdb(ticker)
    second.connect(server.address)
    assert (second.icount, second.registers()) == here
    assert second.cont()["reason"] == "no-history"
    assert second.cont(reverse=True)["reason"] == "no-history"


def test_a_gdb_that_drops_out_while_the_guest_runs_leaves_a_usable_server(
    ticker: Path, recording: Path, start: Start, gdb: NewGdb
) -> None:
    server = start("replay", "--gdb", "127.0.0.1:0", recording)
    first = gdb(ticker)
    first.connect(server.address)
    first.wait_running(first.send("-exec-continue"))
    first.close()
    second = gdb(ticker)
    second.connect(server.address)
    second.cont(reverse=True)
    assert second.icount == 0


def test_detach_and_come_again(ticker: Path, recording: Path, start: Start, gdb: NewGdb) -> None:
    server = start("replay", "--gdb", "127.0.0.1:0", recording)
    for _ in range(3):
        debugger = gdb(ticker)
        debugger.connect(server.address)
        debugger.break_at("at_half")
        debugger.cont(reverse=True)
        debugger.cont()
        debugger.command("-target-detach")
        debugger.close()


def test_once_ends_the_server_with_the_session(ticker: Path, recording: Path, start: Start) -> None:
    server = start("replay", "--once", "--gdb", "127.0.0.1:0", recording)
    batch(ticker, server.address, ["stepi", "detach"])
    assert server.wait_exit() == 0


def test_kill_ends_the_server(ticker: Path, recording: Path, start: Start) -> None:
    server = start("replay", "--gdb", "127.0.0.1:0", recording)
    batch(ticker, server.address, ["stepi", "kill"])
    assert server.wait_exit() == 0


def test_gdb_without_the_program_file(recording: Path, start: Start) -> None:
    """All that gdb needs comes from the target description."""
    server = start("replay", "--gdb", "127.0.0.1:0", recording)
    output = batch(
        None, server.address, ["stepi", "stepi", "x/i $pc", "info registers", "reverse-stepi", "monitor when"]
    )
    assert "icount 1 of" in output
    assert "=> 0x" in output


def test_detach_from_a_live_guest_is_answered_and_the_guest_runs_to_its_end(
    arch: str, ticker: Path, tmp_path: Path, start: Start
) -> None:
    for number in range(4):
        server = start("run", "--gdb", "127.0.0.1:0", "-o", tmp_path / f"{number}.rrgdb", ticker)
        with RspClient(server.connect()) as client:
            client.ask(b"?")
            assert client.ask(b"D") == b"OK"
        assert server.wait_exit() == exit_status(arch, 0)
        assert "ticker checksum " in server.console
