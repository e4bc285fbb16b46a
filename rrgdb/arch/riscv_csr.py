"""RISC-V CSRs that the engine lacks or has wrong, and the instructions that access them.

Sources: "The RISC-V Instruction Set Manual", volume I, chapter "Zicsr", and volume II, chapters 2 to 4; "The RISC-V
Debug Support", chapter 5 (triggers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from rrgdb.arch import riscv_interrupts, riscv_pmp
from rrgdb.arch.base import IllegalInstruction, Trap, TrapHost
from rrgdb.arch.cpu import Cpu
from rrgdb.arch.riscv_levels import MACHINE, SUPERVISOR

TIMEBASE_HZ = 10_000_000
"""frequency of the ``time`` CSR (QEMU's virt board)"""

# Counter CSR -> (what it counts, whether it is the high half of an RV32 pair)
COUNTERS = {
    0xC00: ("mcycle", False),
    0xC01: ("time", False),
    0xC02: ("minstret", False),
    0xC80: ("mcycle", True),
    0xC81: ("time", True),
    0xC82: ("minstret", True),
    0xB00: ("mcycle", False),
    0xB02: ("minstret", False),
    0xB80: ("mcycle", True),
    0xB82: ("minstret", True),
}
_STATUS = {0x300: "mstatus", 0x100: "sstatus"}
PENDING = {0x344: "mip", 0x144: "sip"}
_TRIGGERS = range(0x7A0, 0x7A4)
"""tselect, tdata1 to tdata3: there are no triggers, so they hold 0"""
KEPT = {"mcycle": 64, "minstret": 64}
"""by how much the counters differ from the icount, modulo 2^64"""


@dataclass(frozen=True, slots=True)
class Access:
    """A Zicsr instruction. ``operation``: 1 write, 2 set, 3 clear; ``source``: a register or, if ``immediate``, a
    number."""

    csr: int
    operation: int
    rd: int
    source: int
    immediate: bool

    @property
    def writes(self) -> bool:
        """CSRRS, CSRRC and their immediate forms write unless their source field is 0; CSRRW always does."""
        return self.operation == 1 or self.source != 0


@lru_cache(1024)
def access(word: int) -> Access | None:
    """The Zicsr instruction of these bits; None if it is none."""
    if word & 0x7F != 0x73 or not word >> 12 & 3:
        return None
    return Access(word >> 20, word >> 12 & 3, word >> 7 & 31, word >> 15 & 31, bool(word >> 14 & 1))


def classify(insn: Access, xlen: int) -> Trap | None:
    """What has to be done by us. Accesses that the engine refuses by itself are left to it."""
    csr = insn.csr
    if csr in COUNTERS:
        # Writes of read-only counters ("unimp" is one).
        exists = xlen == 32 or not COUNTERS[csr][1]
        return Trap.COUNTER if exists and not (insn.writes and csr >> 10 == 3) else None
    if csr in _STATUS:
        return Trap.STATUS
    if csr in PENDING or csr in _TRIGGERS:
        return Trap.SYSTEM
    if 0 <= csr - riscv_pmp.CONFIGS < 4 or 0 <= csr - riscv_pmp.ADDRESSES < riscv_pmp.ENTRIES:
        return Trap.SYSTEM
    return None


def _check(cpu: Cpu, insn: Access) -> None:
    """Raise ``IllegalInstruction`` as volume II, sections 2.1 and 3.1.11 (mcounteren, scounteren) ask."""
    privilege, csr = cpu.read("priv"), insn.csr
    if privilege < csr >> 8 & 3 or (insn.writes and csr >> 10 == 3):
        raise IllegalInstruction
    if csr not in COUNTERS:
        return
    enable = 1 << (csr & 31)
    if privilege < MACHINE and not cpu.read("mcounteren") & enable:
        raise IllegalInstruction
    if privilege < SUPERVISOR and not cpu.read("scounteren") & enable:
        raise IllegalInstruction


def _read_counter(cpu: Cpu, csr: int, host: TrapHost) -> int:
    name, _ = COUNTERS[csr]
    if name == "time":
        ticks = host.virtual_ns() * TIMEBASE_HZ // 1_000_000_000
        return (ticks + cpu.read(riscv_interrupts.TIME_AHEAD)) & (1 << 64) - 1
    return (cpu.icount + cpu.read(name)) & (1 << 64) - 1


def _write_counter(cpu: Cpu, csr: int, value: int, xlen: int, host: TrapHost) -> None:
    """The next instruction reads what was written: this one does not count (volume II, section 3.1.10)."""
    name, high = COUNTERS[csr]
    if xlen == 32:
        old = _read_counter(cpu, csr, host)
        value = old & 0xFFFFFFFF | value << 32 if high else old & ~0xFFFFFFFF | value
    cpu.write(name, (value - cpu.icount - 1) & (1 << 64) - 1)


def perform(cpu: Cpu, insn: Access, xlen: int, host: TrapHost, names: Sequence[str]) -> None:
    """Do all of the instruction but for moving pc. ``names``: of the integer registers. Raises ``IllegalInstruction``,
    with nothing changed."""
    _check(cpu, insn)
    csr, mask = insn.csr, (1 << xlen) - 1
    protection = riscv_pmp.name_of(csr, xlen)
    if csr in COUNTERS:
        old = _read_counter(cpu, csr, host) >> (32 if COUNTERS[csr][1] else 0) & mask
    elif csr in _STATUS:
        old = cpu.read(_STATUS[csr])
    elif protection is not None:
        old = cpu.read(protection)
    elif csr in PENDING:
        old = cpu.read(PENDING[csr])
    elif csr in _TRIGGERS:
        old = 0
    else:
        raise IllegalInstruction
    source = insn.source if insn.immediate else cpu.read(names[insn.source])
    new = {1: source, 2: old | source, 3: old & ~source & mask}[insn.operation]
    if insn.writes:
        if csr in PENDING:
            # Only the bits that the instruction names, so that what comes from outside does not become software's.
            written = mask if insn.operation == 1 else source
            riscv_interrupts.change(cpu, PENDING[csr], new, written)
        elif csr in COUNTERS:
            _write_counter(cpu, csr, new, xlen, host)
        elif csr in _STATUS:
            cpu.write(_STATUS[csr], new)
        elif protection is not None:
            riscv_pmp.write(cpu, protection, new, xlen)
    if insn.rd:
        cpu.write(names[insn.rd], old)
