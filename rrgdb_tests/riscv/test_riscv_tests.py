"""The p environment of riscv-tests: each program ends by writing to ``tohost``, 1 if all is well.

They are not part of rrgdb: ``RRGDB_RISCV_TESTS`` names a directory with the ELF files, ``rv64ui-p-add`` and so on.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from rrgdb.engine.base import ExitKind, Stops, Watch
from rrgdb_tests.engine.unicorn.rig import board_with

DIRECTORY = os.environ.get("RRGDB_RISCV_TESTS", "")
LONGEST = 1_000_000
"""instructions"""
KNOWN = {"rv64uf-p-fmin", "rv64ud-p-fmin", "rv32uf-p-fmin", "rv32ud-p-fmin"}
"""Minima and maxima of signalling NaNs are those of version 2.0 of "F", as QEMU's sifive-u54 has them; the tests want
version 2.2."""


def programs() -> list[Path]:
    return sorted(path for path in Path(DIRECTORY).glob("rv*-p-*") if path.suffix == "") if DIRECTORY else []


def result(path: Path, *, fast: bool) -> int:
    """What the program writes to ``tohost``: 1, or twice the number of the test that failed and 1."""
    with path.open("rb") as f:
        symbols = ELFFile(f).get_section_by_name(".symtab").get_symbol_by_name("tohost")
    guest = board_with(path, fast=fast)
    address = int(symbols[0]["st_value"])
    guest.engine.arm(Stops(watches=(Watch(address, 8, "w"),)))
    exit_ = guest.run_until(LONGEST)
    assert exit_.kind is ExitKind.WATCHPOINT, (exit_, guest.end, hex(guest.engine.read("pc")))
    return int.from_bytes(guest.engine.read_memory(address, 4), "little")


@pytest.mark.slow
@pytest.mark.parametrize("fast", [True, False], ids=["fast gear", "slow gear"])
@pytest.mark.parametrize("path", programs(), ids=lambda path: path.name)
def test_program(path: Path, fast: bool) -> None:
    value = result(path, fast=fast)
    assert (value == 1) != (path.name in KNOWN), f"test {value >> 1} failed"


@pytest.mark.slow
def test_all_of_them_were_given() -> None:
    if not DIRECTORY:
        pytest.skip("RRGDB_RISCV_TESTS names no directory with the programs, which are not part of rrgdb")
    names = [path.name for path in programs()]
    assert sum(name.startswith("rv64") for name in names) >= 134
    assert sum(name.startswith("rv32") for name in names) >= 104
