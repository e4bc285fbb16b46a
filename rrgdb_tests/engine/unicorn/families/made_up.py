"""The family of ``rrgdb_tests.arch.made_up`` on Unicorn: all that it takes."""

from __future__ import annotations

from unicorn import ppc_const
from unicorn import unicorn_const as const

from rrgdb.arch.base import ExceptionKind
from rrgdb.engine.unicorn.families.base import Family

MADE_UP = Family(
    name="made-up",
    arch=const.UC_ARCH_PPC,
    mode=const.UC_MODE_PPC32 | const.UC_MODE_BIG_ENDIAN,
    models={"first": ppc_const.UC_CPU_PPC32_401, "second": ppc_const.UC_CPU_PPC32_750_V3_1},
    registers={
        "r3": ppc_const.UC_PPC_REG_3,
        "r4": ppc_const.UC_PPC_REG_4,
        "r5": ppc_const.UC_PPC_REG_5,
        "sp": ppc_const.UC_PPC_REG_1,
        "flags": ppc_const.UC_PPC_REG_CR,
        "pc": ppc_const.UC_PPC_REG_PC,
    },
    kinds={8: ExceptionKind.SYSCALL, 6: ExceptionKind.BREAKPOINT, 96: ExceptionKind.UNDEFINED},
    filters=((0xFC0007FE, 0x7C0002E6), (0xFC000002, 0x44000002)),  # mftb, sc
    stale_pc=4,
)
