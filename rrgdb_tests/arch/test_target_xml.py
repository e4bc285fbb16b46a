"""A real gdb takes each target description without a warning and lays the registers out as our tables do."""

from __future__ import annotations

import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from rrgdb.arch import ARCHES
from rrgdb.arch.base import Arch
from rrgdb.arch.system import FEATURE
from rrgdb.arch.target_xml import target_xml

EVERY_ARCH = pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES.keys())
GDB = shutil.which("gdb-multiarch")
NEEDS_GDB = pytest.mark.skipif(GDB is None, reason="gdb-multiarch is not installed")


def _gdb(tmp_path: Path, arch: Arch, *commands: str) -> str:
    path = tmp_path / f"{arch.name}.xml"
    path.write_text(target_xml(arch))
    assert GDB
    arguments = [GDB, "-nx", "-batch", "-ex", f"set tdesc filename {path}"]
    for command in commands:
        arguments += ["-ex", command]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert run.stderr == ""
    return run.stdout


@EVERY_ARCH
def test_document_lists_every_register_in_order(arch: Arch) -> None:
    root = ET.fromstring(target_xml(arch))
    assert [(reg.get("name"), int(reg.get("bitsize", "0"))) for reg in root.iter("reg")] == [
        (register.name, register.bits) for register in (*arch.registers, *arch.shown_registers)
    ]
    assert [feature.get("name") for feature in root.iter("feature")] == [
        *(feature.name for feature in arch.features),
        FEATURE,
    ]
    assert root.findtext("osabi") == "none"


@NEEDS_GDB
@EVERY_ARCH
def test_gdb_accepts_it(arch: Arch, tmp_path: Path) -> None:
    output = _gdb(tmp_path, arch, "show architecture", "maint print remote-registers")
    assert f'currently "{arch.gdb_architecture}"' in output
    rows = [line.split() for line in output.splitlines()]
    # Columns: name, number, relative number, offset, size, type, protocol number, offset in the g packet.
    seen = {
        row[0]: (int(row[-2]), int(row[-1]), int(row[4]))
        for row in rows
        if len(row) >= 7 and row[-1].isdigit() and row[-2].isdigit()
    }
    offset = 0
    for number, register in enumerate((*arch.registers, *arch.shown_registers)):
        assert seen[register.name] == (number, offset, register.bits // 8), register.name
        offset += register.bits // 8


@NEEDS_GDB
@pytest.mark.parametrize(
    ("name", "expression", "expected"),
    [
        ("riscv64", "$fa0", "ieee_double"),
        ("riscv64", "$mstatus", "long"),
        ("aarch64", "$v0.s", "v4f f"),
        ("arm", "$d16", "ieee_double"),
        ("arm", "$cpsr", "flag cpsr_flags"),
        ("aarch64", "$cpsr", "flag cpsr_flags"),
        ("x86_64", "$xmm15", "v2_double"),
        ("x86_64", "$mxcsr", "flag i386_mxcsr"),
        ("i386", "$eflags", "flag i386_eflags"),
        ("i386", "$st0", "i387_ext"),
        ("i386", "$cr0", "flag i386_cr0"),
        ("x86_64", "$efer", "flag i386_efer"),
        ("aarch64", "$ELR_EL1", "(*)()"),
        ("arm", "$SP_svc", "void *"),
        ("riscv64", "$pmpaddr0", "uint64_t"),
    ],
)
def test_gdb_knows_the_types(name: str, expression: str, expected: str, tmp_path: Path) -> None:
    output = _gdb(tmp_path, ARCHES[name], f"ptype {expression}")
    assert "type = " in output
    assert expected in output
