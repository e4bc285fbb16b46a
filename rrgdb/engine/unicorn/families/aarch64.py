"""AArch64 on Unicorn."""

from __future__ import annotations

import struct

from unicorn import arm64_const
from unicorn import unicorn_const as const

from rrgdb.arch import aarch64 as arch
from rrgdb.arch.base import words
from rrgdb.engine.memory import PAGE
from rrgdb.engine.paging import aarch64 as paging
from rrgdb.engine.unicorn.families.arm_common import KINDS, check_mode
from rrgdb.engine.unicorn.families.base import Family, numbers
from rrgdb.engine.unicorn.faults import FaultReader
from rrgdb.engine.unicorn.probes import aarch64 as probes
from rrgdb.engine.unicorn.registers import Part

_FILTERS = (
    (0xFFD0F000, 0xD510E000),  # MRS/MSR, CRn 14: generic timer
    (0xFFD0F000, 0xD5109000),  # CRn 9: performance monitors
    (0xFFD0F000, 0xD5102000),  # CRn 2: translation tables, RNDR
    (0xFFF0F000, 0xD5101000),  # MSR, CRn 1: SCTLR and its like
    (0xFFF0F000, 0xD510A000),  # MSR, CRn 10: MAIR
    (0xFFF8FFE0, 0xD518D020),  # MSR CONTEXTIDR
    (0xFFF8F000, 0xD5088000),  # TLBI
    (0xFFFFFFDF, 0xD503205F),  # WFE, WFI
    (0xFFE0001E, 0xD4000002),  # HVC, SMC
    (0xFFFFFFFF, 0xD45E0000),  # HLT 0xF000: semihosting
)
_MODES = frozenset((0x0, 0x4, 0x5, 0x8, 0x9, 0xC, 0xD))


def _encoded(op0: int, op1: int, crn: int, crm: int, op2: int) -> Part:
    """unicorn.h's uc_arm64_cp_reg."""
    return Part(arm64_const.UC_ARM64_REG_CP_REG, 24, 8, struct.pack("<5I4x", crn, crm, op0, op1, op2))


class _Faults(FaultReader):
    STORE = 1 << 6  # WnR of the syndrome


AARCH64 = Family(
    name="aarch64",
    arch=const.UC_ARCH_ARM64,
    mode=const.UC_MODE_ARM,
    models={
        "cortex-a57": arm64_const.UC_CPU_ARM64_A57,
        "cortex-a53": arm64_const.UC_CPU_ARM64_A53,
        "cortex-a72": arm64_const.UC_CPU_ARM64_A72,
        "max": arm64_const.UC_CPU_ARM64_MAX,
    },
    registers=numbers(
        arm64_const,
        "UC_ARM64_REG_",
        (*(f"x{n}" for n in range(31)), "sp", "pc", *(f"v{n}" for n in range(32)), "fpsr", "fpcr", *arch.NAMED),
    )
    | {"cpsr": arm64_const.UC_ARM64_REG_PSTATE}
    | {name: _encoded(*encoding) for name, encoding in (arch.ENCODED | arch.SHOWN).items()},
    kinds=KINDS,
    filters=_FILTERS,
    faults=_Faults,
    native="aarch64",
    page_size=PAGE,
    translation={"sctlr_el1": 1, **dict.fromkeys(("ttbr0_el1", "ttbr1_el1", "tcr_el1", "mair_el1"), 0)},
    paging=paging.translation,
    regime=paging.regime,
    regime_registers=paging.REGIME,
    shared=paging.shared,
    entry=words("cpsr vbar_el1 sp sp_el0 sp_el1 esr_el1 far_el1 elr_el1 spsr_el1"),
    layout=probes.layout,
    masks=probes.find_masks,
    check=check_mode("sctlr_el1", _MODES),
)
