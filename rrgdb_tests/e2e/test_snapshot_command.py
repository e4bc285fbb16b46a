"""Cores of ``rrgdb snapshot export`` in a real gdb, and a recording that another process has open."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rrgdb.arch.base import words
from rrgdb.opening import record
from rrgdb.timeline.stop import Points
from rrgdb_tests import guests
from rrgdb_tests.e2e.harness import Gdb, Server, batch, debugging, rrgdb
from rrgdb_tests.timeline.oracle import OPTIONS

PROGRAMS = {"aarch64": "aarch64_fp", "i386": "x86_fp", "x86_64": "x86_fp", "arm": "arm_fp", "thumb": "arm_fp"}
FLOATS = {
    "riscv64": words("$fa0.double $fa4.double $fa5.double $fs11.double $fcsr"),
    "riscv32": words("$fa0.float $fa4.float $fa5.float $fs11.float $fcsr"),
    "aarch64": words("$v0.d.u[0] $v1.d.u[1] $v31.d.u[0] (int)$fpsr (int)$fpcr"),
    "arm": words("$d0 $d7 $d31 $fpscr"),
    "thumb": words("$d0 $d7 $d31 $fpscr"),
    "i386": words("$st0 $st7 $xmm0.v2_int64 $xmm7.v2_int64 $fctrl $fstat $ftag $fop $mxcsr"),
    "x86_64": words("$st0 $st7 $xmm0.v2_int64 $xmm15.v2_int64 $fctrl $fstat $ftag $fop $mxcsr"),
}
"""of the families' float units"""
CORE = {
    "riscv64": words("pc ra sp gp tp t0 fp s1 a0 a7 s11 t6"),
    "riscv32": words("pc ra sp gp tp t0 fp s1 a0 a7 s11 t6"),
    "aarch64": words("pc sp cpsr x0 x29 x30"),
    "arm": words("pc sp lr cpsr r0 r12"),
    "thumb": words("pc sp lr cpsr r0 r12"),
    "i386": words("eip esp ebp eax ebx ecx edx esi edi eflags cs ss ds es"),
    "x86_64": words("rip rsp rbp rax rbx rcx rdx rsi rdi r8 r15 eflags cs ss"),
}
"""registers that every core must have"""


@pytest.fixture
def ours(recordings: Callable[[Path], Path], tmp_path: Path) -> Path:
    """The same, of one family."""
    ticker = guests.build("riscv64", "ticker", {"TICKS": 10, "WORK": 200})
    return Path(shutil.copytree(recordings(ticker), tmp_path / "ours"))


def _raw_registers(gdb: Gdb) -> dict[str, int]:
    """All registers that gdb knows the contents of."""
    names = gdb.command("-data-list-register-names")["register-names"]
    values = gdb.command("-data-list-register-values --skip-unavailable r")["register-values"]
    raw = {names[int(v["number"])]: v["value"] for v in values}
    return {name: int(value, 16) for name, value in raw.items() if name and value.startswith("0x")}


def test_a_named_snapshot_is_where_a_debugger_goes(ours: Path) -> None:
    rrgdb("snapshot", "create", ours, "mine", "--at", "15000")
    with debugging(guests.build("riscv64", "ticker", {"TICKS": 10, "WORK": 200}), "replay", ours) as gdb:
        gdb.cli("monitor loadvm mine")
        assert gdb.icount == 15000
        gdb.stepi(reverse=True)
        assert gdb.icount == 14999


def test_the_starting_snapshot_by_qemus_option(tmp_path: Path) -> None:
    image, path = guests.build("riscv64", "ticker", {"TICKS": 10, "WORK": 200}), tmp_path / "r"
    rrgdb("record", "--rrsnapshot", "init", "-o", path, image)
    with debugging(image, "replay", path) as gdb:
        assert "init" in gdb.cli("monitor info snapshots")
        gdb.cont()
        gdb.cli("monitor loadvm init")
        assert gdb.icount == 0
        gdb.cli("monitor seek end")
        gdb.cli("monitor seek start")
        assert gdb.icount == 0
        assert "snapshot init stays" in gdb.cli("monitor delvm init")
    if shutil.which("qemu-img"):
        listed = subprocess.run(
            ["qemu-img", "snapshot", "-l", path / "snapshots.qcow2"], capture_output=True, text=True, check=True
        )
        assert listed.stdout.splitlines()[2].split()[1] == "init"


def test_a_recording_in_use(ours: Path, tmp_path: Path, start: Callable[..., Server]) -> None:
    server = start("replay", "--gdb", "127.0.0.1:0", ours)
    assert server.address
    busy = f"the recording is in use: process {server.process.pid} is writing it"
    for verb in ("create", "delete"):
        assert rrgdb("snapshot", verb, ours, "mine", status=1).stderr == f"rrgdb: {ours}: {busy}\n"
    assert "start (starting)" in rrgdb("snapshot", "list", ours).stdout
    rrgdb("snapshot", "export", ours, "start", tmp_path / "core")


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[pytest.mark.slow] * (name == "thumb")) for name in guests.ARCHES]
)
def test_gdb_sees_in_a_core_what_it_sees_in_the_replay(family: str, tmp_path: Path) -> None:
    """All registers that a core has, floats among them; memory; the stack."""
    image = guests.build(family, PROGRAMS.get(family, "riscv_fp"), {"LOOPS": 20})
    path, core = tmp_path / "r", tmp_path / "core"
    with record(path, image, OPTIONS) as opened:
        opened.timeline.run(Points({}))
        at = opened.timeline.end // 3
    rrgdb("snapshot", "export", path, core, "--at", at)
    with debugging(image, "replay", path) as gdb:
        gdb.cli(f"monitor seek {at}")
        gdb.cli("maintenance flush register-cache")
        registers = _raw_registers(gdb)
        stack, code = gdb.cli("x/64xb $sp"), gdb.cli("x/4i $pc")
        frames = gdb.cli("bt")
        floats = {name: gdb.cli(f"output {name}") for name in FLOATS[family]}
    with Gdb(image) as gdb:
        assert "warning" not in gdb.cli(f"core-file {core}")
        found = _raw_registers(gdb)
        assert gdb.cli("x/64xb $sp") == stack
        assert gdb.cli("x/4i $pc") == code
        assert gdb.cli("bt") == frames
        # Of a guest built for single-precision floats gdb shows them alone.
        assert {name: gdb.cli(f"output {name.removesuffix('.float')}") for name in FLOATS[family]} == floats
    assert {name: found.get(name) for name in CORE[family]} == {name: registers[name] for name in CORE[family]}
    assert {name: value for name, value in found.items() if registers.get(name, value) != value} == {}
    assert set(floats.values()) - {"0", "{0, 0}"}


def test_a_core_of_a_guest_that_died_names_the_signal(recordings: Callable[[Path], Path], tmp_path: Path) -> None:
    image = guests.build("riscv64", "hunt")
    path = tmp_path / "r"
    assert rrgdb("record", "-o", path, image, status=None).returncode > 128
    end = json.loads(rrgdb("info", "--json", path).stdout)["instructions"]
    rrgdb("snapshot", "export", path, tmp_path / "core", "--at", end)
    assert "Program terminated with signal SIG" in batch(image, None, [f"core-file {tmp_path / 'core'}"])
