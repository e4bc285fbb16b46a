"""A program dies of a ruined pointer; its user goes back to the line that ruined it."""

from __future__ import annotations

from pathlib import Path

from rrgdb_tests.e2e.harness import Gdb, Server, batch, debugging
from rrgdb_tests.guests import build, line_of

CULPRIT = line_of("hunt", "/* the culprit */")
CRASH = line_of("hunt", "/* the crash */")


def _hunt(gdb: Gdb) -> None:
    stop = gdb.cont()
    assert stop["reason"] == "signal-received"
    assert stop["signal-name"] in {"SIGSEGV", "SIGBUS"}
    assert (stop["frame"]["func"], stop["frame"]["line"]) == ("total", str(CRASH))
    gdb.command("-stack-select-frame 1")
    gdb.cli("watch -location s->next")
    stop = gdb.cont(reverse=True)
    assert stop["reason"] == "watchpoint-trigger"
    assert (stop["frame"]["func"], stop["frame"]["line"]) == ("visit", str(CULPRIT))
    assert gdb.value("lane") == 4


def test_hunting_the_culprit_while_recording(arch: str, tmp_path: Path) -> None:
    image = build(arch, "hunt", optimise="-O0")
    with debugging(image, "run", "-o", tmp_path / "hunt.rrgdb", image) as gdb:
        _hunt(gdb)


def test_hunting_the_culprit_on_the_command_line_of_a_replay(arch: str, tmp_path: Path) -> None:
    image = build(arch, "hunt", optimise="-O0")
    with debugging(image, "run", "-o", tmp_path / "hunt.rrgdb", image) as gdb:
        gdb.cont()
        crash = gdb.icount
    hunt = ["continue", "up", "watch -location s->next", "reverse-continue", "backtrace", "monitor when"]
    with Server("replay", "--gdb", "127.0.0.1:0", tmp_path / "hunt.rrgdb") as server:
        output = batch(image, server.address, hunt)
    assert "SIGSEGV" in output or "SIGBUS" in output
    assert f"hunt.c:{CULPRIT}\n" in output
    assert "#2" in output
    assert f"..{crash}, replay" in output


def test_the_same_crash_again_and_again(arch: str, tmp_path: Path) -> None:
    image = build(arch, "hunt", optimise="-O0")
    with debugging(image, "run", "-o", tmp_path / "hunt.rrgdb", image) as gdb:
        gdb.cont()
        seen = (gdb.icount, gdb.registers())
        for _ in range(3):
            gdb.cont(reverse=True)
            assert gdb.cont()["reason"] == "signal-received"
            assert (gdb.icount, gdb.registers()) == seen


def test_the_program_without_the_bug_runs_to_its_end(arch: str, tmp_path: Path) -> None:
    image = build(arch, "hunt", {"FIXED": 1}, "-O0")
    with Server("run", "-o", tmp_path / "fixed.rrgdb", image) as server:
        assert server.wait_exit() == 0
        assert "hunt: total 79.375\n" in (server.console + server.log).replace("\r\n", "\n")
