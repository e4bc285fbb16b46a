"""Interrupts of RISC-V harts with machine, supervisor and user mode.

Source: "The RISC-V Instruction Set Manual", volume II, sections 3.1.6 to 3.1.9 and 4.1.3.
"""

from __future__ import annotations

from rrgdb.arch.base import LINES, Computed, Interrupts
from rrgdb.arch.cpu import Cpu
from rrgdb.arch.riscv_levels import MACHINE, SUPERVISOR

SSIP, MSIP, STIP, MTIP, SEIP, MEIP = 1, 3, 5, 7, 9, 11
"""bits of ``mip``, and causes"""
PRIORITY = (MEIP, MSIP, MTIP, SEIP, SSIP, STIP)
"""highest first"""
WRITTEN = "mip_written"
"""the kept register of those bits of ``mip`` that software has set"""
TIME_AHEAD = "time_ahead"
"""the kept register of the ticks by which the ``time`` CSR, a copy of the board's mtime, is ahead of virtual time"""
MACHINE_WRITES = 1 << SSIP | 1 << STIP | 1 << SEIP
SUPERVISOR_WRITES = 1 << SSIP
SUPERVISOR_SEES = MACHINE_WRITES
_SIE, _MIE = 1 << 1, 1 << 3
_SPIE, _SPP, _MPIE, _MPP = 1 << 5, 1 << 8, 1 << 7, 3 << 11


def enter(cpu: Cpu, cause: int, supervisor: bool, pc: int, value: int, vector: int) -> None:
    """Take a trap to supervisor or machine mode: ``cause`` and ``value`` go to xcause and xtval."""
    privilege = cpu.read("priv")
    if supervisor:
        status = cpu.read("sstatus")
        entered = status & ~(_SIE | _SPIE | _SPP)
        entered |= _SPIE if status & _SIE else 0
        entered |= _SPP if privilege == SUPERVISOR else 0
        # Writes of CSRs may be checked against the current mode, so raise it first. Changing the mode
        # drops an LR reservation; entering a trap may do so.
        cpu.write("priv", MACHINE)
        # By sstatus: a write of mstatus that changes MPP may flush a TLB.
        cpu.write("sstatus", entered)
        prefix, target = "s", SUPERVISOR
    else:
        status = cpu.read("mstatus")
        entered = status & ~(_MIE | _MPIE | _MPP)
        entered |= _MPIE if status & _MIE else 0
        entered |= privilege << 11
        cpu.write("priv", MACHINE)
        cpu.write("mstatus", entered)
        prefix, target = "m", MACHINE
    cpu.write(f"{prefix}epc", pc)
    cpu.write(f"{prefix}cause", cause)
    cpu.write(f"{prefix}tval", value)
    cpu.write("priv", target)
    cpu.write("pc", vector)


def _raised(cpu: Cpu) -> int:
    return cpu.read(LINES) | cpu.read(WRITTEN)


def _pending(cpu: Cpu) -> int | None:
    ready = _raised(cpu) & cpu.read("mie")
    if not ready:
        return None
    taken = _unmasked(cpu, ready)
    return next((number for number in PRIORITY if taken >> number & 1), None)


def _unmasked(cpu: Cpu, ready: int) -> int:
    """Those of ``ready``, all enabled, that are taken in the present mode."""
    privilege, delegated = cpu.read("priv"), cpu.read("mideleg")
    taken = 0
    if privilege < MACHINE or cpu.read("mstatus") & _MIE:
        taken = ready & ~delegated
    if not taken and (privilege < SUPERVISOR or (privilege == SUPERVISOR and cpu.read("mstatus") & _SIE)):
        taken = ready & delegated
    return taken


def _enter(xlen: int, cpu: Cpu, number: int) -> None:
    supervisor = bool(cpu.read("mideleg") >> number & 1)
    vector = cpu.read("stvec" if supervisor else "mtvec")
    # Vectored mode: each interrupt has an entry of its own.
    target = (vector & ~3) + (4 * number if vector & 1 else 0) & (1 << xlen) - 1
    enter(cpu, 1 << xlen - 1 | number, supervisor, cpu.read("pc"), 0, target)


def _read_sip(cpu: Cpu) -> int:
    return _raised(cpu) & cpu.read("mideleg") & SUPERVISOR_SEES


def change(cpu: Cpu, name: str, value: int, mask: int) -> None:
    """What an instruction that writes the bits ``mask`` of ``mip`` or ``sip`` does: what comes from outside does not
    become a bit of software's own."""
    mask &= MACHINE_WRITES if name == "mip" else cpu.read("mideleg") & SUPERVISOR_WRITES
    cpu.write(WRITTEN, cpu.read(WRITTEN) & ~mask | value & mask)


COMPUTED = {
    "mip": Computed(_raised, lambda cpu, value: change(cpu, "mip", value, MACHINE_WRITES)),
    "sip": Computed(_read_sip, lambda cpu, value: change(cpu, "sip", value, SUPERVISOR_WRITES)),
}


def interrupts(xlen: int) -> Interrupts:
    return Interrupts(
        lines={"msip": MSIP, "mtip": MTIP, "seip": SEIP, "meip": MEIP},
        raised=_raised,
        pending=_pending,
        enter=lambda cpu, number: _enter(xlen, cpu, number),
        wakes=lambda cpu: _raised(cpu) & cpu.read("mie") != 0,
        masked=lambda cpu: not _unmasked(cpu, cpu.read("mie")),
        kept={WRITTEN: 16, TIME_AHEAD: 64},
    )
