"""CPU families: registers, traps, exceptions; data before code. Knows no engine."""

from __future__ import annotations

from rrgdb.arch.aarch64 import AARCH64
from rrgdb.arch.arm import ARM
from rrgdb.arch.base import Arch
from rrgdb.arch.riscv import RISCV32, RISCV64
from rrgdb.arch.x86 import I386, X86_64

__all__ = ["ARCHES", "by_elf"]

ARCHES: dict[str, Arch] = {arch.name: arch for arch in (RISCV32, RISCV64, ARM, AARCH64, I386, X86_64)}


def by_elf(machine: str, elfclass: int, little_endian: bool) -> Arch:
    """The family that runs an ELF file: ``machine`` as pyelftools names e_machine, ``elfclass`` 32 or 64.

    Raises ``ValueError`` naming what was found and what is supported.
    """
    for arch in ARCHES.values():
        if (arch.elf_machine, arch.bits, True) == (machine, elfclass, little_endian):
            return arch
    supported = ", ".join(f"{a.elf_machine}/{a.bits}" for a in ARCHES.values())
    order = "little" if little_endian else "big"
    raise ValueError(
        f"unsupported ELF machine {machine}, {elfclass}-bit, {order}-endian; supported (little-endian): {supported}"
    )
