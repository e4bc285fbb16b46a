"""The CPU families as Unicorn has them, one data module each."""

from __future__ import annotations

from rrgdb.engine.unicorn.families.aarch64 import AARCH64
from rrgdb.engine.unicorn.families.arm import ARM
from rrgdb.engine.unicorn.families.armv7m import ARMV7M
from rrgdb.engine.unicorn.families.base import Family
from rrgdb.engine.unicorn.families.riscv import RISCV32, RISCV64
from rrgdb.engine.unicorn.families.x86 import I386, X86_64

__all__ = ["FAMILIES"]

FAMILIES: dict[str, Family] = {family.name: family for family in (RISCV32, RISCV64, ARM, ARMV7M, AARCH64, I386, X86_64)}
"""by ``Arch.name``"""
