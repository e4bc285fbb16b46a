"""A real gdb at a script: live, from the present back and on again, at its end, and at the recording alone.

The script is the example of docs/attach.md.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rrgdb
from rrgdb_tests.e2e.harness import PATIENCE, Gdb, Server, batch
from rrgdb_tests.e2e.harness import rrgdb as rrgdb_command

pytestmark = pytest.mark.e2e
EXAMPLE = Path(rrgdb.__file__).parent.parent / "docs" / "attach_example.py"
UNBUFFERED = (sys.executable, "-u")
READ, STORE, LOAD, CALL = 0x100005, 0x10000C, 0x10001D, 0x10001F
POINTER = "*(unsigned long *) 0x200010"
LONG = b"a line that is too long"


def test_the_example_runs_without_a_debugger(tmp_path: Path) -> None:
    done = subprocess.run(
        [*UNBUFFERED, EXAMPLE], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.splitlines() == [
        "the program says: thank you",
        "'a line that is too long': Invalid memory read (UC_ERR_READ_UNMAPPED)",
        "recorded in attach_example.rrgdb",
    ]
    with rrgdb.open(tmp_path / "attach_example.rrgdb") as recording:
        assert recording.verify() > 0
        recording.seek(recording.end)
        stop = recording.reverse_continue(watch=[(0x200010, 8)])
        assert (stop.kind, recording.registers["rip"]) == (rrgdb.StopKind.WATCHPOINT, STORE)
        assert recording.registers["rax"] == LONG[-1]


def test_a_core_of_a_script(tmp_path: Path) -> None:
    """What the script has mapped by then, and the registers; without an ELF file."""
    subprocess.run([*UNBUFFERED, EXAMPLE], cwd=tmp_path, capture_output=True, timeout=PATIENCE, check=True)
    path, core = tmp_path / "attach_example.rrgdb", tmp_path / "core"
    rrgdb_command("snapshot", "export", path, core, "--at", 100)
    with rrgdb.open(path) as recording:
        recording.seek(100)
        pc, pointer = recording.registers["rip"], int.from_bytes(recording.memory(0x200010, 8), "little")
    said = batch(None, None, [f"core-file {core}", "output/x $rip", f"output/x {POINTER}"])
    assert said.endswith(f"{pc:#x}{pointer:#x}")
    assert core.stat().st_size == 3 * 4096


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.chdir(tmp_path)
    with Server(command=[*UNBUFFERED, str(EXAMPLE), "127.0.0.1:0"]) as server:
        yield server


@pytest.fixture
def gdb(script: Server) -> Iterator[Gdb]:
    with Gdb(None) as gdb:
        gdb.connect(script.address)
        yield gdb


def test_live_back_and_on(script: Server, gdb: Gdb) -> None:
    assert (gdb.pc, gdb.icount) == (0x100000, 0)
    gdb.break_at(f"*{READ:#x}")
    for byte in b"sho":
        gdb.cont()
        gdb.stepi()
        assert gdb.value("$eax") == byte
    here = gdb.when()
    assert here[3] == "record"
    gdb.cont(reverse=True)
    gdb.cont(reverse=True)
    assert (gdb.pc, gdb.value("$eax")) == (READ, ord("s"))
    assert gdb.when()[3] == "replay"
    gdb.stepi(reverse=True)
    assert gdb.icount < here[0]
    # On to the present, and past it: the UART goes on where it was.
    for byte in b"hor":
        gdb.cont()
        gdb.stepi()
        assert gdb.value("$eax") == byte
    assert gdb.when()[3] == "record"
    gdb.delete()
    gdb.break_at(f"*{CALL:#x}")
    gdb.cont()
    assert "says" not in script.console
    gdb.stepi()
    script.wait_for("the program says: thank you")
    assert gdb.when()[3] == "record"
    gdb.cli("detach")
    assert script.wait_exit() == 0
    with rrgdb.open("attach_example.rrgdb") as recording:
        assert recording.verify() > 0


def test_a_breakpoint_stops_where_the_next_run_begins(gdb: Gdb) -> None:
    gdb.break_at("*0x100000")
    gdb.cont()
    assert gdb.pc == 0x100000
    assert gdb.icount > 20
    gdb.cont(reverse=True)
    assert (gdb.pc, gdb.icount) == (0x100000, 0)


def test_after_the_crash(script: Server, gdb: Gdb) -> None:
    assert gdb.cont()["reason"] == "no-history"
    script.wait_for("UC_ERR_READ_UNMAPPED")
    assert gdb.pc == LOAD
    gdb.watch(POINTER)
    gdb.cont(reverse=True)
    assert gdb.pc == STORE
    assert gdb.value("$eax") == LONG[-1]
    gdb.cont(reverse=True)
    assert gdb.value("$eax") == LONG[-2]
    end = gdb.when()[2]
    gdb.cli("delete")
    assert gdb.cont()["reason"] == "no-history"
    assert gdb.icount == end
    gdb.cli("detach")
    assert script.wait_exit() == 0


def test_a_write_at_the_present_reaches_the_script(script: Server, gdb: Gdb) -> None:
    gdb.break_at(f"*{CALL:#x}")
    gdb.cont()
    gdb.cli('set {char[5]} 0x200040 = "well"')
    gdb.cli("kill")
    script.wait_for("the program says: well")
    script.wait_exit()
    with rrgdb.open("attach_example.rrgdb") as recording:
        assert recording.verify() > 0
        recording.seek(recording.end)
        assert recording.memory(0x200040, 5) == b"well\0"


def test_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        "import rrgdb, unicorn\n"
        "uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)\n"
        "rrgdb.attach(uc, 'r', serve='127.0.0.1:0')\n"
        "uc.mem_map(0x1000, 0x1000)\n"
        "uc.mem_write(0x1000, bytes.fromhex('ffc0ebfc'))\n"
        "uc.emu_start(0x1000, 0)\n"
    )
    with Server(command=[*UNBUFFERED, "-c", text]) as server, Gdb(None) as gdb:
        gdb.connect(server.address)
        for _ in range(5):
            # Ctrl-C may be there before the first instruction is.
            gdb.interrupted("-exec-continue")
            if gdb.icount:
                break
        here, count = gdb.icount, gdb.value("$rax")
        assert here > 0
        assert count == (here + 1) // 2
        gdb.stepi(reverse=True)
        assert gdb.icount == here - 1
        gdb.stepi()
        assert gdb.icount == here
        gdb.interrupted("-exec-continue")
        later = gdb.icount
        assert later >= here
        gdb.stepi()
        assert gdb.when()[0::3] == (later + 1, "record")
        assert gdb.value("$rax") == (later + 2) // 2


def test_replay_needs_no_script(tmp_path: Path) -> None:
    subprocess.run([*UNBUFFERED, EXAMPLE], cwd=tmp_path, capture_output=True, timeout=PATIENCE, check=True)
    recording = tmp_path / "attach_example.rrgdb"
    with Server("replay", "--gdb", "127.0.0.1:0", recording) as server, Gdb(None) as gdb:
        gdb.connect(server.address)
        assert (gdb.pc, gdb.icount) == (0x100000, 0)
        assert gdb.value(POINTER) == 0x200040
        assert gdb.cont()["reason"] == "no-history"
        assert gdb.pc == LOAD
        gdb.watch(POINTER)
        gdb.cont(reverse=True)
        assert gdb.pc == STORE
