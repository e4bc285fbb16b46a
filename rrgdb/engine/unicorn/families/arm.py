"""32-bit ARM on Unicorn."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from unicorn import arm_const
from unicorn import unicorn_const as const

from rrgdb.arch import arm as arch
from rrgdb.engine.memory import PAGE
from rrgdb.engine.paging import arm as paging
from rrgdb.engine.unicorn.families.arm_common import KINDS, check_mode
from rrgdb.engine.unicorn.families.base import Family, Sync, numbers
from rrgdb.engine.unicorn.faults import FaultReader
from rrgdb.engine.unicorn.probes import arm as probes
from rrgdb.engine.unicorn.probes import thumb
from rrgdb.engine.unicorn.registers import Part, Quirk

_MODES = frozenset((0x10, 0x11, 0x12, 0x13, 0x16, 0x17, 0x1A, 0x1B, 0x1F))

_COPROCESSOR_FILTER = (
    (0x0F0F0F10, 0x0E0E0F10),  # MRC and MCR, CRn 14: generic timer
    (0x0F0F0F10, 0x0E090F10),  # CRn 9: performance monitors
    *((0x0F1F0F10, 0x0E000F10 | crn << 16) for crn in (1, 2, 3, 8, 10, 13)),  # MCR: translation
    (0x0FE00F0F, 0x0C400F0E),  # MRRC and MCRR, CRm 14: generic timer
    (0x0FF00F0F, 0x0C400F02),  # MCRR, CRm 2: translation tables
)
_FILTERS = (
    *_COPROCESSOR_FILTER,
    (0x0FFFFFFC, 0x0320F000),  # YIELD, WFE, WFI
    (0x0FD000F0, 0x01400070),  # HVC, SMC
    (0x0FFFFFFF, 0x0F123456),  # SVC 0x123456: semihosting
    (0xFFFFFFFF, 0xE10F0070),  # HLT 0xF000: semihosting
)


def _swapped(word: int) -> int:
    """A 32-bit Thumb instruction, first halfword first, as a little-endian word of memory."""
    return word >> 16 | word << 16 & 0xFFFFFFFF


_THUMB_FILTERS = (
    *((_swapped(mask | 0xF0000000), _swapped(value | 0xE0000000)) for mask, value in _COPROCESSOR_FILTER),
    (_swapped(0xFFFFFFFC), _swapped(0xF3AF8000)),  # YIELD, WFE, WFI
    (_swapped(0xFFE0F000), _swapped(0xF7E08000)),  # HVC, SMC
    (0xFFFFFFCF, 0xBF00),  # the same hints, narrow
    (0xFFFFFFFF, 0xDFAB),  # SVC 0xAB: semihosting
    (0xFFFFFFFF, 0xBABC),  # HLT 0x3C: semihosting
)


_CODED = arch.COPROCESSOR | arch.TIMER | arch.SHOWN | arch.WIDE_TABLES


def _coprocessor(encoding: tuple[int, ...]) -> Part:
    """A register of coprocessor 15, by (CRn, CRm, opc1, opc2), or (CRm, opc1) if it has 64 bits: unicorn.h's
    uc_arm_cp_reg."""
    wide = len(encoding) == 2
    crn, crm, opc1, opc2 = (0, *encoding, 0) if wide else encoding
    return Part(arm_const.UC_ARM_REG_CP_REG, 32, 8, struct.pack("<7I4x", 15, wide, 0, crn, crm, opc1, opc2))


def _places(uc: Any, bare: bool) -> Mapping[str, int]:
    """Where the hooks find what they need, and whether there is a generic timer, of which a script's CPU gets none."""
    found = asdict(thumb.find_addresses(uc)) | {"cpsr": arm_const.UC_ARM_REG_CPSR}
    if bare:
        return found | {"timer": 0}
    name, bits = arch.GENERIC_TIMER
    crn, crm, opc1, opc2 = arch.COPROCESSOR[name]
    value = uc.reg_read(arm_const.UC_ARM_REG_CP_REG, (15, 0, 0, crn, crm, opc1, opc2))
    return found | {"timer": int(value & bits != 0)}


class _Faults(FaultReader):
    STORE = 1 << 11  # WnR of the fault status


ARM = Family(
    name="arm",
    arch=const.UC_ARCH_ARM,
    mode=const.UC_MODE_ARM,
    models={
        "cortex-a15": arm_const.UC_CPU_ARM_CORTEX_A15,
        "cortex-a7": arm_const.UC_CPU_ARM_CORTEX_A7,
        "cortex-a8": arm_const.UC_CPU_ARM_CORTEX_A8,
        "cortex-a9": arm_const.UC_CPU_ARM_CORTEX_A9,
    },
    registers=numbers(
        arm_const,
        "UC_ARM_REG_",
        (*(f"r{n}" for n in range(13)), "sp", "lr", "pc", "cpsr", *(f"d{n}" for n in range(32)), "fpscr", *arch.NAMED),
    )
    | {name: _coprocessor(encoding) for name, encoding in _CODED.items()},
    kinds=KINDS,
    quirks={"cpsr": Quirk(late=True), **dict.fromkeys(arch.TIMER, Quirk(enabled_by=arch.GENERIC_TIMER))},
    filters=_FILTERS,
    second_filters=_THUMB_FILTERS,
    faults=_Faults,
    native="arm",
    places=_places,
    sync=Sync.NEVER,
    page_size=PAGE,
    translation={
        "sctlr": 1,
        **dict.fromkeys(("ttbr0", "ttbr1", "ttbcr", "dacr", "prrr", "nmrr", "contextidr"), 0),
    },
    paging=paging.translation,
    regime=paging.regime,
    layout=probes.layout,
    masks=thumb.find_masks,
    check=check_mode("sctlr", _MODES),
)
