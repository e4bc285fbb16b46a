"""CPU families: registers, traps, exceptions; data before code. Knows no engine."""

from __future__ import annotations

from rrgdb.arch.aarch64 import AARCH64
from rrgdb.arch.arm import ARM
from rrgdb.arch.armv7m import ARMV7M
from rrgdb.arch.base import Arch
from rrgdb.arch.cpu import ByteOrder
from rrgdb.arch.riscv import RISCV32, RISCV64
from rrgdb.arch.x86 import I386, X86_64

__all__ = ["ARCHES", "by_elf"]

ARCHES: dict[str, Arch] = {arch.name: arch for arch in (RISCV32, RISCV64, ARM, ARMV7M, AARCH64, I386, X86_64)}


def by_elf(machine: str, elfclass: int, byteorder: ByteOrder) -> Arch:
    """The family that runs an ELF file: ``machine`` as pyelftools names e_machine, ``elfclass`` 32 or 64.

    Raises ``ValueError`` naming what was found and what is supported.
    """
    for arch in ARCHES.values():
        if (arch.elf_machine, arch.bits, arch.byteorder) == (machine, elfclass, byteorder):
            return arch
    families: dict[str, list[str]] = {}
    for arch in ARCHES.values():
        families.setdefault(arch.byteorder, []).append(f"{arch.elf_machine}/{arch.bits}")
    supported = "; ".join(f"supported ({order}-endian): {', '.join(names)}" for order, names in families.items())
    raise ValueError(f"unsupported ELF machine {machine}, {elfclass}-bit, {byteorder}-endian; {supported}")
