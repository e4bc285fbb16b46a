"""A real gdb against the fake machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from rrgdb.rsp import gdbinit
from rrgdb_tests.rsp.fake import FOREVER, FakeDebuggee
from rrgdb_tests.rsp.test_server import SERVER, Running, serving, until

GDB = shutil.which("gdb-multiarch")
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(GDB is None, reason="gdb-multiarch is not installed")]


def command_line(target: str, commands: tuple[str, ...], osabi: str = "none") -> list[str]:
    assert GDB is not None
    arguments = [GDB, "-nx", "-batch", "-ex", "set pagination off", "-ex", f"set osabi {osabi}"]
    for command in (f"target {target}", *commands, "detach"):
        arguments += ["-ex", f"echo === {command}\\n", "-ex", command]
    return arguments


async def gdb(running: Running, *commands: str, mode: str = "remote", osabi: str = "none") -> str:
    """What gdb prints for ``commands`` (stdout and stderr)."""
    with trio.fail_after(60):
        result = await trio.run_process(
            command_line(f"{mode} {running.address}", commands, osabi),
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return result.stdout.decode()


def after(text: str, command: str) -> str:
    """What was printed for ``command`` (the first time, if it was given twice)."""
    return text.partition(f"=== {command}\n")[2].partition("=== ")[0].rstrip("\n")


async def test_looking_and_stepping_both_ways(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        text = await gdb(
            running, "info registers pc a1", "x/3i $pc", "x/4xb 0x80000000", "stepi", "reverse-stepi", "monitor when",
            "info threads", "reverse-continue",
        )  # fmt: skip
    assert "pc             0x80000000" in after(text, "info registers pc a1")
    assert "a1             0x80001000" in after(text, "info registers pc a1")
    assert "add\ta0,a0,1" in after(text, "x/3i $pc")
    assert "sw\ta0,0(a1)" in after(text, "x/3i $pc")
    assert "0x13\t0x05\t0x15\t0x00" in after(text, "x/4xb 0x80000000")
    assert "0x0000000080000004" in after(text, "stepi")
    assert "0x0000000080000000" in after(text, "reverse-stepi")
    assert after(text, "monitor when") == "icount 0 of 0..30000, replay"
    assert "replay, icount 0" in after(text, "info threads")
    assert "No more reverse-execution history" in after(text, "reverse-continue")
    assert "detached" in after(text, "detach")
    assert fake.calls[-1] == "detached resume=True"


async def test_condition_is_evaluated_here(fake: FakeDebuggee) -> None:
    fake.icount = 3000
    async with serving(fake) as running:
        text = await gdb(
            running, "break *0x80000004 if $a0 == 700 || *(int *) 0x80001000 == 300", "reverse-continue", "p $a0",
            "monitor when", "reverse-continue", "p *(int *) 0x80001000",
        )  # fmt: skip
    assert "Breakpoint 1, 0x0000000080000004" in after(text, "reverse-continue")
    assert after(text, "p $a0").endswith("= 700")
    assert after(text, "p *(int *) 0x80001000").endswith("= 300")
    assert fake.calls.count("bc") == 2, "no round trip per hit"


async def test_watchpoint_in_reverse_shows_both_values(fake: FakeDebuggee) -> None:
    fake.icount = 300
    async with serving(fake) as running:
        text = await gdb(running, "watch *(int *) 0x80001000", "reverse-continue", "monitor when")
    assert "Old value = 100" in after(text, "reverse-continue")
    assert "New value = 99" in after(text, "reverse-continue")
    assert after(text, "monitor when").startswith("icount 298 ")


async def test_gdb_commands(fake: FakeDebuggee, tmp_path: Path) -> None:
    script = tmp_path / "rrgdb.py"
    script.write_text(gdbinit.text())
    async with serving(fake) as running:
        text = await gdb(
            running, f"source {script}", "rrgdb-seek 100", "p $a0", "x/wx 0x80001000", "rrgdb-checkpoint here",
            "rrgdb-back 25 * 2", "p $pc", "set var $there = 70", "rrgdb-seek $there", "rrgdb-restart here",
            "rrgdb-when", "rrgdb-history 1", "rrgdb-forward", "info rrgdb", "rrgdb-seek nowhere",
            "rrgdb-delete-checkpoint here", "help rrgdb-back",
        )  # fmt: skip
    assert after(text, "rrgdb-seek 100").startswith("icount 100\n#0  0x0000000080000004")
    assert after(text, "p $a0").endswith("= 34")
    assert after(text, "x/wx 0x80001000").endswith("0x00000021")
    assert after(text, "rrgdb-back 25 * 2").startswith("icount 50\n")
    assert "0x80000008" in after(text, "p $pc")
    assert after(text, "rrgdb-seek $there").startswith("icount 70\n")
    assert after(text, "rrgdb-restart here").startswith("icount 100\n")
    assert after(text, "rrgdb-when").startswith("icount 100 of 0..30000")
    assert "j 0x80000000" not in after(text, "rrgdb-history 1")
    assert "addi a0, a0, 1" in after(text, "rrgdb-history 1")
    assert after(text, "rrgdb-forward").startswith("icount 101\n")
    assert "here" in after(text, "info rrgdb")
    assert "no snapshot is called 'nowhere'" in after(text, "rrgdb-seek nowhere")
    assert after(text, "rrgdb-delete-checkpoint here") == "snapshot here deleted"
    assert "Go N instructions back (1)" in after(text, "help rrgdb-back")


async def test_find_compare_and_write(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        text = await gdb(
            running, "find /w 0x80000000, +0x100, 0xff9ff06f", "set var *(int *) 0x80002000 = 77",
            "p *(int *) 0x80002000", "p $t0 = 5", "p/x $t0",
        )  # fmt: skip
    assert "0x80000008" in after(text, "find /w 0x80000000, +0x100, 0xff9ff06f")
    assert after(text, "p *(int *) 0x80002000").endswith("= 77")
    assert after(text, "p/x $t0").endswith("= 0x5")


async def test_run_again_in_extended_remote(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        text = await gdb(
            running, "stepi", "kill", "set remote exec-file guest", "starti", "monitor when", mode="extended-remote"
        )  # fmt: skip
    assert fake.calls[:3] == ["attached", "s", "detached resume=True"]
    assert after(text, "monitor when").startswith("icount 0 ")
    assert "kill" not in fake.calls


async def test_second_gdb_gets_a_clear_message(fake: FakeDebuggee) -> None:
    async with serving(fake) as running:
        first = await running.connect()
        assert await first.ask(b"qC") == b"QC1"
        text = await gdb(running)
        assert "another debugger is attached" in text
        assert await first.ask(b"qC") == b"QC1"


@pytest.mark.parametrize("command", ["continue", "reverse-continue"])
async def test_ctrl_c_in_gdb(command: str, tmp_path: Path) -> None:
    fake = FakeDebuggee(FOREVER)
    fake.icount = FOREVER // 2
    output = tmp_path / "output"
    async with serving(fake) as running:
        with output.open("wb") as file, trio.fail_after(60):
            process = await trio.lowlevel.open_process(
                command_line(f"remote {running.address}", (command, "p $pc")), stdout=file, stderr=subprocess.STDOUT
            )
            await until(fake.running.is_set)
            process.send_signal(signal.SIGINT)
            await process.wait()
    text = output.read_text()
    assert "Program received signal SIGINT" in after(text, command)
    assert "0x8000000" in after(text, "p $pc")


async def test_pipe(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    with trio.fail_after(60):
        result = await trio.run_process(
            command_line(f"remote | {sys.executable} {script} stdio", ("stepi", "monitor when")),
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    assert "icount 1 of 0.." in after(result.stdout.decode(), "monitor when")


async def test_connecting_costs_few_packets(fake: FakeDebuggee) -> None:
    """A reverse step sends bs, and reads no registers: they come with the stop."""
    async with serving(fake) as running:
        text = await gdb(running, "stepi", "stepi", "set debug remote 1", "reverse-stepi", "set debug remote 0")
    sent = [line.partition("packet: ")[2] for line in after(text, "reverse-stepi").splitlines() if "Sending" in line]
    assert any(packet.startswith("$bs#") for packet in sent)
    assert not any(packet.startswith("$g#") for packet in sent)
    assert len(sent) <= 5
