"""The CPU families as Unicorn has them, one data module each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rrgdb.lazy import Imported

if TYPE_CHECKING:
    from rrgdb.engine.unicorn.families.base import Family

__all__ = ["FAMILIES"]

FAMILIES: Imported[Family] = Imported(
    {
        "riscv32": "rrgdb.engine.unicorn.families.riscv:RISCV32",
        "riscv64": "rrgdb.engine.unicorn.families.riscv:RISCV64",
        "arm": "rrgdb.engine.unicorn.families.arm:ARM",
        "armv7m": "rrgdb.engine.unicorn.families.armv7m:ARMV7M",
        "aarch64": "rrgdb.engine.unicorn.families.aarch64:AARCH64",
        "i386": "rrgdb.engine.unicorn.families.x86:I386",
        "x86_64": "rrgdb.engine.unicorn.families.x86:X86_64",
    }
)
"""by ``Arch.name``"""
