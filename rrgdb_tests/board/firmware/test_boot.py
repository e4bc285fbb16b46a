"""Kernels, firmware and what goes with them: where QEMU puts them, and one clear line for whatever cannot be."""

from __future__ import annotations

import shutil

import pytest

from rrgdb.arch import ARCHES
from rrgdb.board.boards import BOARDS
from rrgdb.board.firmware.boot import Boot, File, boot
from rrgdb.board.machine import Board
from rrgdb.board.spec import MIB
from rrgdb.engine.memory import Ram
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb_tests.board.elf_builder import EM_AARCH64, EM_ARM, EM_RISCV, Seg
from rrgdb_tests.board.fakes import FakeHost
from rrgdb_tests.board.firmware.placement import CASES, PROGRAMS, agree, elf, recorded
from rrgdb_tests.engine.unicorn.rig import assemble


@pytest.mark.parametrize("name", CASES)
def test_all_lies_where_qemu_puts_it(name: str) -> None:
    agree(CASES[name].ours(), recorded()[name])


@pytest.mark.qemu
@pytest.mark.parametrize("name", CASES)
def test_it_is_as_the_qemu_that_is_here(name: str) -> None:
    if shutil.which(PROGRAMS[CASES[name].board][0]) is None:
        pytest.skip("QEMU is not installed")
    agree(CASES[name].ours(), CASES[name].qemus())


def started(what: Boot, board: str = "riscv64-virt") -> Board:
    """A machine with 16 MiB that stands before its first instruction."""
    spec = BOARDS[board]
    placed = boot(what, spec, spec.ram(16 * MIB), ARCHES[spec.arches[0]].models[0])
    return Board(spec, UnicornEngine(placed.arch, Ram(spec.memory_bytes(placed.ram))), placed, FakeHost())


SPOILS = {
    "riscv64-virt": (
        EM_RISCV, 64, "a0",
        "li t1, 0x5a\n sb t1, 0(a0)\n sb t1, 100(a0)\n li t0, 0x100000\n li t1, 0x7777\n sw t1, 0(t0)\n nop",
    ),
    "aarch64-virt": (
        EM_AARCH64, 64, "x1",
        "mov w2, #0x5a\n strb w2, [x1]\n strb w2, [x1, #100]\n mov w0, #9\n movk w0, #0x8400, lsl #16\n hvc #0\n nop",
    ),
    "arm-virt": (
        EM_ARM, 32, "r1",
        ".arch_extension virt\n mov r2, #0x5a\n strb r2, [r1]\n strb r2, [r1, #100]\n"
        "mov r0, #9\n orr r0, r0, #0x84000000\n hvc #0\n nop",
    ),
}  # fmt: skip
"""programs that write to their data, whose address is in that register, and behind it, and then reset the machine"""


@pytest.mark.parametrize("name", SPOILS)
def test_a_reset_restores_what_was_loaded(name: str) -> None:
    """Files, and the zeros behind those of them that hold anything; the rest of RAM stays."""
    machine, bits, register, source = SPOILS[name]
    base = BOARDS[name].ram_base + 0x200000
    data, code = base + 0x100, assemble(name.removesuffix("-virt"), source).ljust(0x100, b"\0") + b"data"
    guest = started(Boot(kernel=File("k", elf(machine, bits, Seg(base, code, memsz=8192)))), name)
    ram, first = guest.engine.ram, guest.engine.pc
    ram.write(base + 8192, b"rest")
    guest.engine.write("pc", base)
    guest.engine.write(register, data)
    seen: set[tuple[bytes, bytes]] = set()
    while guest.engine.pc != first or not seen:
        guest.run_until(guest.engine.icount + 1)
        assert guest.engine.icount < 50
        seen.add((ram.read(data, 1), ram.read(data + 100, 1)))
    assert seen == {(b"d", b"\0"), (b"\x5a", b"\0"), (b"\x5a", b"\x5a")}
    assert (guest.engine.pc, guest.end) == (first, None)
    assert (ram.read(data, 4), ram.read(data + 100, 1), ram.read(base + 8192, 4)) == (b"data", b"\0", b"rest")
