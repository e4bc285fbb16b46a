"""Instruction by instruction beside Spike (package ``spike``, and ``dtc``): privilege, pc, what each instruction
wrote, and each exception's cause.

``RRGDB_SPIKE`` names the program; without it there is nothing to compare with.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rrgdb.board.machine import Board
from rrgdb_tests.engine.unicorn.rig import BOARD_RAM, board_with
from rrgdb_tests.guests import SHORTS, build_short

SPIKE = os.environ.get("RRGDB_SPIKE", "")
PROGRAMS = [(family, name) for family in ("riscv64", "riscv32") for name in SHORTS[family]]
LONGEST = 900
RAM = 0x80000000
RETIRED = re.compile(r"core +0: (\d) 0x([0-9a-f]+) \(0x([0-9a-f]+)\)(.*)")
RAISED = re.compile(r"core +0: exception (\w+), epc 0x([0-9a-f]+)")
WRITTEN = re.compile(r" ([xf])(\d+) +0x([0-9a-f]+)")
CAUSES = {
    "trap_instruction_access_fault": 1,
    "trap_illegal_instruction": 2,
    "trap_load_access_fault": 5,
    "trap_store_access_fault": 7,
    "trap_user_ecall": 8,
    "trap_supervisor_ecall": 9,
    "trap_machine_ecall": 11,
    "trap_instruction_page_fault": 12,
    "trap_load_page_fault": 13,
    "trap_store_page_fault": 15,
}
READS_TDATA1 = 0x7A102073
"""Spike has triggers, all of them switched off."""


def spikes_lines(path: Path, xlen: int) -> Iterator[str]:
    """What Spike does behind its boot code; it would go on for ever."""
    command = [SPIKE, f"--isa=rv{xlen}imafdc_zicsr_zifencei", f"-m{RAM:#x}:{BOARD_RAM:#x}", "-l", "--log-commits"]
    with subprocess.Popen(
        [*command, "--log=/dev/stdout", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield from process.stdout
        finally:
            process.kill()


def compare(guest: Board, line: re.Match[str]) -> None:
    """One instruction that retired."""
    engine = guest.engine
    before = (int(line[1]), int(line[2], 16))
    assert (engine.read("priv"), engine.read("pc")) == before, line[0]
    guest.run_until(engine.icount + 1)
    if int(line[3], 16) & 0xFFFFF07F == READS_TDATA1:
        return
    names = [r.name for r in guest.arch.registers]
    floats = names.index("ft0")
    for kind, number, value in WRITTEN.findall(line[4]):
        name = names[int(number) + (floats if kind == "f" else 0)]
        assert engine.read(name) == int(value, 16), f"{name} behind {line[0]}"


@pytest.mark.slow
@pytest.mark.skipif(not SPIKE, reason="RRGDB_SPIKE names no Spike, which is not part of rrgdb")
@pytest.mark.parametrize(("family", "name"), PROGRAMS)
def test_a_program_does_the_same_as_on_spike(family: str, name: str) -> None:
    path = build_short(family, name)
    guest = board_with(path)
    for line in spikes_lines(path, guest.arch.bits):
        if guest.engine.icount >= LONGEST:
            return
        if (retired := RETIRED.match(line)) and int(retired[2], 16) >= RAM:
            compare(guest, retired)
        elif raised := RAISED.match(line):
            assert guest.engine.read("pc") == int(raised[2], 16), line
            guest.run_until(guest.engine.icount + 1)
            assert guest.engine.read("mcause") == CAUSES[raised[1]], line
    pytest.fail("Spike ended")
