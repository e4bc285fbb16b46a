"""A program dies of a ruined pointer; its user goes back to the line that ruined it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rrgdb_tests.e2e.harness import Gdb, Server, batch, debugging, rrgdb
from rrgdb_tests.guests import ARCHES, TOOLCHAINS, build, exit_status, line_of

WITH_PICOLIBC = [arch for arch, chain in TOOLCHAINS.items() if chain.picolibc]

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


@pytest.mark.parametrize("arch", WITH_PICOLIBC)
def test_a_crash_that_the_guest_handles_itself(arch: str, tmp_path: Path) -> None:
    """picolibc's start file for RISC-V takes the fault, prints the registers and exits; elsewhere nobody takes it."""
    image = build(arch, "hunt", optimise="-O0", library="picolibc")
    with debugging(image, "run", "-o", tmp_path / "hunt.rrgdb", image) as gdb:
        if not arch.startswith("riscv"):
            _hunt(gdb)
            return
        gdb.break_at("*_trap")
        assert gdb.cont()["reason"] == "breakpoint-hit"
        gdb.delete()
        stop = gdb.stepi(reverse=True)
        assert (stop["frame"]["func"], stop["frame"]["line"]) == ("total", str(CRASH))
        gdb.stepi()
        assert gdb.pc == gdb.value("&_trap")
        assert gdb.cont()["reason"] == "no-history"
        gdb.break_at("total", "(unsigned long)s >> 16 == 0xf1e2")
        gdb.cont(reverse=True)
        gdb.delete()
        gdb.command("-stack-select-frame 1")
        gdb.cli("watch -location s->next")
        stop = gdb.cont(reverse=True)
        assert (stop["frame"]["func"], stop["frame"]["line"]) == ("visit", str(CULPRIT))


@pytest.mark.parametrize(
    ("arch", "library"), [*((arch, "small") for arch in ARCHES), *((arch, "picolibc") for arch in WITH_PICOLIBC)]
)
def test_the_program_without_the_bug_runs_to_its_end(arch: str, library: str, tmp_path: Path) -> None:
    image = build(arch, "hunt", {"FIXED": 1}, "-O0", library)
    done = rrgdb("record", "-o", tmp_path / "fixed.rrgdb", image, status=exit_status(arch, 0))
    assert "hunt: total 79.375\n" in done.stdout.replace("\r\n", "\n")
