"""What users of QEMU's reverse debugging run into, each as a test that the same thing works here.

The numbers are those of the comparison in docs/; 6, 7 (timer interrupts) and 10 (more CPUs) have their own tests.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rrgdb_tests.e2e.conftest import TICKER, TICKS
from rrgdb_tests.e2e.harness import Gdb, Server, batch, debugging, rrgdb
from rrgdb_tests.e2e.rsp_client import RspClient
from rrgdb_tests.guests import build, line_of

STORE = line_of("ticker", "/* the store */")


def test_1_a_reverse_watchpoint_says_which_and_shows_the_storing_line(replay: Gdb) -> None:
    replay.cont()
    number = replay.watch("tick_count")
    stop = replay.cont(reverse=True)
    assert stop["reason"] == "watchpoint-trigger"
    assert stop["wpt"] == {"number": number, "exp": "tick_count"}
    assert stop["value"] == {"old": str(TICKS), "new": str(TICKS - 1)}
    assert stop["frame"]["line"] == str(STORE)


def test_2_both_ends_of_history_are_told_and_nothing_exits(recording: Path, start: Callable[..., Server]) -> None:
    server = start("replay", "--gdb", "127.0.0.1:0", recording)
    with RspClient(server.connect()) as client:
        client.ask(b"qSupported:swbreak+;hwbreak+;multiprocess+")
        assert b"replaylog:begin" in client.ask(b"bs")
        assert b"replaylog:begin" in client.ask(b"bc")
        assert b"replaylog:end" in client.ask(b"c")
        assert b"replaylog:end" in client.ask(b"s")
        assert b"replaylog" not in client.ask(b"bs")
    assert server.process.poll() is None


def test_3_stepping_back_while_recording_does_not_abort(live: Gdb) -> None:
    live.break_at("tick")
    live.cont()
    here, present = live.icount, live.registers()
    live.stepi(reverse=True)
    assert live.icount == here - 1
    live.stepi()
    assert live.registers() == present
    live.delete()
    assert live.cont()["reason"] == "no-history"


def test_4_two_loads_in_a_row_with_no_run_between(replay: Gdb) -> None:
    replay.break_at("tick", "tick_count == 3")
    replay.cont()
    here = (replay.icount, replay.registers())
    replay.cli("monitor savevm three")
    for _ in range(3):
        assert f"icount {here[0]}" in replay.cli("monitor loadvm three")
    replay.cli("maintenance flush register-cache")
    assert (replay.icount, replay.registers()) == here
    replay.stepi(reverse=True)
    assert replay.icount == here[0] - 1


@pytest.mark.parametrize("arch", ["i386", "x86_64"])
def test_5_reverse_stepi_on_x86_never_hangs(replay: Gdb) -> None:
    replay.break_at("tick", "tick_count == 8")
    replay.cont()
    here = replay.icount
    for count in range(1, 101):
        replay.stepi(reverse=True)
        assert replay.icount == here - count


def test_8_after_an_interrupted_reverse_continue_the_old_search_is_gone(arch: str, tmp_path: Path) -> None:
    image = build(arch, "ticker", {"TICKS": 1_000_000, "WORK": 10_000})
    hot = f"ticker.c:{line_of('ticker', 'table[x >> 22] += x ^ i;')}"
    with debugging(image, "run", "-o", tmp_path / "r", image) as gdb:
        gdb.break_at("tick", "tick_count == 400")
        gdb.cont()
        end = gdb.icount
        gdb.delete()
        # Never true, and with a division, for which a hook is called each time: the search is long.
        gdb.break_at(hot, "table[0] % 7 == 8")
        stop = gdb.interrupted("-exec-continue --reverse")
        assert stop["signal-name"] == "SIGINT"
        here = (gdb.icount, gdb.registers())
        assert here[0] <= end
        gdb.delete()
        gdb.stepi(reverse=True)
        gdb.stepi()
        assert (gdb.icount, gdb.registers()) == here
        gdb.break_at("tick", "tick_count == 401")
        assert gdb.cont()["reason"] == "breakpoint-hit"
        assert gdb.value("tick_count") == 401


def test_9_a_write_in_the_past_is_kept_apart_and_told(replay: Gdb) -> None:
    replay.break_at("tick", "tick_count == 5")
    replay.cont()
    here = (replay.icount, replay.registers())
    replay.cli("set var tick_count = 99")
    assert replay.value("tick_count") == 99
    assert replay.when()[3] == "diversion"
    replay.cli("monitor seek " + str(here[0]))
    replay.cli("maintenance flush register-cache")
    replay.cli("maintenance flush dcache")
    assert (replay.icount, replay.registers(), replay.value("tick_count")) == (*here, 5)
    assert replay.when()[3] == "replay"


@pytest.fixture
def spoilt(recording: Path, tmp_path: Path) -> Path:
    """A copy of the recording to be damaged."""
    return Path(shutil.copytree(recording, tmp_path / "spoilt.rrgdb"))


def _assert_refused(recording: Path, *words: str) -> None:
    """Neither replay nor verify takes it, and both say why in one line."""
    with Server("replay", "--gdb", "127.0.0.1:0", recording) as server:
        replay_says = server.wait_refused()
    verify = rrgdb("verify", recording, status=None)
    assert verify.returncode != 0
    for said in (replay_says, verify.stdout + verify.stderr):
        assert "Traceback" not in said
        assert any(word in said for word in words), said


def test_11_another_program_in_place_of_the_recorded_one_is_refused(arch: str, spoilt: Path) -> None:
    (image,) = (spoilt / "images").iterdir()
    image.write_bytes(build(arch, "ticker", {**TICKER, "TICKS": TICKS + 1}).read_bytes())
    _assert_refused(spoilt, image.name)


@pytest.fixture
def chunks(ticker: Path, tmp_path: Path) -> tuple[Path, list[int]]:
    """A recording made with several stops, and the offsets of its log's chunks."""
    path = tmp_path / "stops.rrgdb"
    with Server("run", "--gdb", "127.0.0.1:0", "-o", path, ticker) as server, Gdb(ticker) as gdb:
        gdb.connect(server.address)
        gdb.break_at("tick")
        for _ in range(4):
            gdb.cont()
        gdb.delete()
        gdb.cont()
        gdb.command("-target-disconnect")
        server.stop()
    data = (path / "events.log").read_bytes()
    offsets = [at for at in range(len(data)) if data.startswith(b"RRCH", at)]
    assert len(offsets) >= 3
    return path, offsets


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def test_11_one_flipped_byte_of_the_log_is_refused(chunks: tuple[Path, list[int]]) -> None:
    recording, offsets = chunks
    _flip(recording / "events.log", offsets[1] - 1)
    _assert_refused(recording, "events.log")


def test_11_one_flipped_byte_in_the_last_chunk_is_told_and_not_verified(chunks: tuple[Path, list[int]]) -> None:
    """The recording was finished, so it is no torn tail of a killed recorder; what stands before it can be replayed."""
    recording, offsets = chunks
    _flip(recording / "events.log", offsets[-1] + 20)
    with Server("replay", "--gdb", "127.0.0.1:0", recording) as server:
        assert server.address
        assert "the recording is damaged behind icount" in server.log
    verify = rrgdb("verify", recording, status=None)
    assert verify.returncode != 0, verify


@pytest.mark.parametrize("key", ["board", "cpu", "ram_bytes"])
def test_11_another_machine_than_the_recorded_one_is_refused(arch: str, spoilt: Path, key: str) -> None:
    manifest = spoilt / "manifest.json"
    data = json.loads(manifest.read_text())
    other = {
        "board": "riscv64-virt" if arch == "aarch64" else "aarch64-virt",
        "cpu": "no-such-cpu",
        "ram_bytes": 64 << 20,
    }

    def change(node: object) -> bool:
        if isinstance(node, dict):
            if key in node and node[key] != other[key]:
                node[key] = other[key]
                return True
            return any(change(value) for value in node.values())
        return False

    if not change(data):
        pytest.fail(f"manifest.json has no {key} to change: {data}")
    manifest.write_text(json.dumps(data))
    _assert_refused(spoilt, "manifest.json", "snapshots.qcow2", str(other[key]))


def test_12_a_second_gdb_is_told_at_once(ticker: Path, recording: Path, start: Callable[..., Server]) -> None:
    server = start("replay", "--gdb", "127.0.0.1:0", recording)
    with RspClient(server.connect()) as first:
        assert first.ask(b"?").startswith((b"T", b"S"))
        with server.connect() as second:
            second.sendall(b"$?#3f")
            said = b""
            while data := second.recv(4096):
                said += data
        assert b"$T" not in said
        assert first.ask(b"?").startswith((b"T", b"S"))


def test_12_a_dropped_connection_does_not_leave_the_machine_stuck(
    ticker: Path, recording: Path, start: Callable[..., Server]
) -> None:
    server = start("replay", "--gdb", "127.0.0.1:0", recording)
    for _ in range(5):
        with RspClient(server.connect()) as client:
            client.ask(b"?")
            client.send(b"c")
    output = batch(ticker, server.address, ["break at_half", "reverse-continue", "continue", "monitor when"])
    assert "Breakpoint 1, at_half" in output


def test_13_a_monitor_command_that_moves_puts_no_stop_reply_on_the_link(
    recording: Path, start: Callable[..., Server]
) -> None:
    server = start("replay", "--gdb", "127.0.0.1:0", recording)
    with RspClient(server.connect()) as client:
        client.ask(b"?")
        for line in ("seek 1000", "back 10", "forward 5", "savevm here", "loadvm here", "seek end", "seek start"):
            text, last = client.monitor(line)
            assert not last.startswith(b"E"), (line, text, last)
        assert client.stray == []
        # Anything unasked for would come before these answers.
        assert client.ask(b"qAttached") in {b"0", b"1"}
        assert client.ask(b"?").startswith((b"T", b"S"))


def test_14_reverse_needs_no_drive_and_no_option(
    ticker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., Server], gdb: Callable[..., Gdb]
) -> None:
    monkeypatch.chdir(tmp_path)
    server = start("run", "--gdb", "127.0.0.1:0", ticker)
    debugger = gdb(ticker)
    debugger.connect(server.address)
    assert "reverse" in debugger.command("-list-target-features")["features"]
    debugger.stepi()
    debugger.stepi()
    debugger.stepi(reverse=True)
    assert debugger.icount == 1
    assert debugger.cont(reverse=True)["reason"] == "no-history"
