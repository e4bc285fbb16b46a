"""Images as linkers make them when they are told little, or much."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rrgdb.qcow2 import Image
from rrgdb_tests import guests
from rrgdb_tests.e2e.harness import rrgdb

PASS_RISCV = "li t0, 0x100000; li t1, 0x5555; sw t1, 0(t0); j ."
SOURCES = {
    "riscv64": f".globl _start; _start: {PASS_RISCV}",
    "i386": ".long 0x1badb002, 0, -0x1badb002; .globl _start; _start: mov $0, %al; outb %al, $0xf4; jmp .",
}
STORED_ELSEWHERE = f"""
    .section .text.start, "ax"; .globl _start
_start: la t0, stored; la t1, value; ld t2, 0(t0); sd t2, 0(t1); ld t3, zeros; add t2, t2, t3
    lbu t3, letter; bne t2, t3, 1f; {PASS_RISCV}
1:  li t0, 0x100000; li t1, 0x73333; sw t1, 0(t0); j .
    .data; value: .dword 'x'
    .bss; zeros: .zero 64
    .section .rodata; letter: .byte 'x'
"""
SCRIPT = """
ENTRY(_start)
MEMORY { ROM : ORIGIN = 0x80000000, LENGTH = 64K   RAM : ORIGIN = 0x80100000, LENGTH = 64K }
SECTIONS {
  .text : { *(.text*) } > ROM
  .data : { *(.data*) . = ALIGN(8); } > RAM AT> ROM
  stored = LOADADDR(.data);
  .bss (NOLOAD) : { *(.bss*) } > RAM
  .rodata : { *(.rodata*) } > ROM
}
"""


def _link(arch: str, source: str, directory: Path, *flags: str) -> Path:
    (directory / "x.S").write_text(source)
    chain = guests.TOOLCHAINS[arch]
    command = [chain.compiler, *chain.flags, "-nostdlib", "-nostartfiles", "-static", *flags]
    subprocess.run([*command, "-o", directory / "x.elf", directory / "x.S"], check=True)
    return directory / "x.elf"


@pytest.mark.parametrize("build_id", ["none", "sha1"])
@pytest.mark.parametrize("arch", SOURCES)
def test_linked_with_the_address_of_the_code_alone(arch: str, build_id: str, tmp_path: Path) -> None:
    """The linker puts the headers, and a build id, below RAM: QEMU starts it, and so do we, saying so once."""
    load = guests.TOOLCHAINS[arch].load
    image = _link(arch, SOURCES[arch], tmp_path, f"-Wl,-Ttext={load:#x}", f"-Wl,--build-id={build_id}")
    done = rrgdb("record", "-o", tmp_path / "r", image, status=guests.exit_status(arch, 0))
    told = [line for line in done.stderr.splitlines() if "left out" in line]
    assert len(told) == 1
    assert told[0].startswith(f"rrgdb: {image}: its headers at 0x")
    assert "left out" not in rrgdb("verify", tmp_path / "r").stderr


def test_data_that_is_stored_elsewhere_than_it_runs(tmp_path: Path) -> None:
    """``.data`` ``AT>`` ROM with ``.bss`` behind it, and ``.rodata`` in ROM behind the stored ``.data``."""
    (tmp_path / "x.ld").write_text(SCRIPT)
    image = _link("riscv64", STORED_ELSEWHERE, tmp_path, f"-Wl,-n,-T,{tmp_path / 'x.ld'},--no-warn-rwx-segments")
    rrgdb("record", "-o", tmp_path / "r", image)
    rrgdb("verify", tmp_path / "r")


@pytest.mark.parametrize("depth", [1, 2])
def test_a_missing_backing_file_is_named_itself(depth: int, tmp_path: Path) -> None:
    Image.create(tmp_path / "0.qcow2", 1 << 20).close()
    for i in range(depth):
        below = tmp_path / f"{i}.qcow2"
        Image.create(tmp_path / f"{i + 1}.qcow2", 1 << 20, backing_file=str(below), backing_format="qcow2").close()
    disk = tmp_path / f"{depth}.qcow2"
    elf = guests.build("riscv64", "disks", {"ROUNDS": 3})
    rrgdb("record", "-o", tmp_path / "q", "--disk", f"a={disk},format=qcow2", elf)
    missing = tmp_path / "0.qcow2"
    shutil.move(missing, tmp_path / "away")
    for arguments in (
        ["record", "-o", tmp_path / "r", f"--disk=a={disk},format=qcow2", elf],
        ["verify", tmp_path / "q"],
    ):
        said = rrgdb(*arguments, status=1).stderr
        assert f"{disk}: it needs {missing}: No such file or directory" in said
        assert said.count("\n") == 1
