"""RISC-V on Unicorn, 32 and 64 bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from unicorn import riscv_const
from unicorn import unicorn_const as const

from rrgdb.arch import riscv as arch
from rrgdb.arch.base import ExceptionKind, words
from rrgdb.arch.riscv_interrupts import TIME_AHEAD
from rrgdb.arch.riscv_levels import MACHINE
from rrgdb.engine.paging import riscv as paging
from rrgdb.engine.unicorn.families.base import Family, numbers
from rrgdb.engine.unicorn.faults import FaultReader
from rrgdb.engine.unicorn.probes import riscv as probes
from rrgdb.engine.unicorn.probes.layout import Context
from rrgdb.engine.unicorn.registers import Quirk, RegisterFile

_KINDS = {
    0: ExceptionKind.FETCH_FAULT,
    1: ExceptionKind.FETCH_FAULT,
    2: ExceptionKind.UNDEFINED,
    3: ExceptionKind.BREAKPOINT,
    4: ExceptionKind.READ_FAULT,
    5: ExceptionKind.READ_FAULT,
    6: ExceptionKind.WRITE_FAULT,
    7: ExceptionKind.WRITE_FAULT,
    8: ExceptionKind.SYSCALL,
    9: ExceptionKind.SYSCALL,
    11: ExceptionKind.SYSCALL,
    12: ExceptionKind.FETCH_FAULT,
    13: ExceptionKind.READ_FAULT,
    15: ExceptionKind.WRITE_FAULT,
}
_C_EBREAK = b"\x02\x90"
_TW_TSR = ((21, 29), (22, 30))
_ENTRY = ("priv", "medeleg", *(f"{level}{name}" for name in words("status tvec epc cause tval") for level in "sm"))
_SXL, _UXL = 2 << 34, 2 << 32


class _Faults(FaultReader):
    def corrected(self, kind: ExceptionKind, number: int, pc: int, size: int) -> tuple[ExceptionKind, int]:
        if kind is ExceptionKind.READ_FAULT and self._is_amo(pc):
            # Unicorn tells of the load half; the architecture has one cause for both (volume II, 3.1.15).
            return ExceptionKind.WRITE_FAULT, number + 2 if number >= 0 else number
        if kind is ExceptionKind.UNDEFINED and self.read_memory(pc, 2) == _C_EBREAK:
            return ExceptionKind.BREAKPOINT, number
        return kind, number

    def _is_amo(self, pc: int) -> bool:
        word = int.from_bytes(self.read_memory(pc, 4), "little")
        return word & 0x7F == 0x2F and word >> 27 != 2  # LR is a load


def _quirks(xlen: int) -> dict[str, Quirk]:
    found = {name: Quirk(enabled_by=("mstatus", arch.MSTATUS_FS)) for name in arch.FLOAT_CONTROL}
    for level, names in arch.CSRS.items():
        found |= {name: Quirk(privilege=("priv", level)) for name in names}
    wide = xlen == 64
    found["mstatus"] = Quirk(("priv", MACHINE), moved=_TW_TSR, ones=_SXL | _UXL if wide else 0)
    found["sstatus"] = Quirk(found["sstatus"].privilege, ones=_UXL if wide else 0)
    # In supervisor mode mstatus.TVM may close it.
    found["satp"] = Quirk(("priv", MACHINE))
    return found


def _refresh_interrupts(registers: RegisterFile, context: Context) -> None:
    """Whether an interrupt is pending is kept outside the context: writing MIP as it is works it out anew."""
    state = context.save()
    registers.raw_write("priv", MACHINE)
    registers.raw_write("mip", registers.raw_read("mip"))
    context.restore(state)


def _family(xlen: int, models: Mapping[str, int]) -> Family:
    wide = xlen == 64
    mode = {"satp": 15 << 60 if wide else 1 << 31}
    named = ("pc", "priv", *arch.FLOAT_CONTROL, *(name for names in arch.CSRS.values() for name in names))
    return Family(
        name=f"riscv{xlen}",
        arch=const.UC_ARCH_RISCV,
        mode=const.UC_MODE_RISCV64 if wide else const.UC_MODE_RISCV32,
        models=models,
        # Unicorn would show what a debugger wrote to x0.
        registers={name: riscv_const.UC_RISCV_REG_X0 + n for n, name in enumerate(arch.INTEGER_NAMES) if n}
        | {name: riscv_const.UC_RISCV_REG_F0 + n for n, name in enumerate(arch.FLOAT_NAMES)}
        | numbers(riscv_const, "UC_RISCV_REG_", named),
        kinds=_KINDS,
        quirks=_quirks(xlen),
        filters=((0x7F, 0x73),),
        faults=_Faults,
        stale_pc=4,
        native="riscv",
        clock_ahead=TIME_AHEAD,
        places=lambda uc, bare: {} if bare else asdict(probes.find_addresses(uc, wide)),
        translation=mode,
        paging=paging.translation,
        regime=paging.regime,
        regime_registers=mode,
        shared=paging.shared,
        entry=_ENTRY,
        layout=lambda: probes.layout(wide),
        masks=lambda uc: probes.find_masks(uc, wide),
        protection=lambda layout: probes.find_pmp_table(wide, layout.more_bytes),
        refresh=_refresh_interrupts,
    )


RISCV32 = _family(32, {"sifive-u34": riscv_const.UC_CPU_RISCV32_SIFIVE_U34})
RISCV64 = _family(64, {"sifive-u54": riscv_const.UC_CPU_RISCV64_SIFIVE_U54})
