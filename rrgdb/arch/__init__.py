"""CPU families: registers, traps, exceptions; data before code. Knows no engine."""

from __future__ import annotations

from rrgdb.arch.base import Arch
from rrgdb.arch.cpu import ByteOrder
from rrgdb.lazy import Imported

__all__ = ["ARCHES", "by_elf"]

ARCHES: Imported[Arch] = Imported(
    {
        "riscv32": "rrgdb.arch.riscv:RISCV32",
        "riscv64": "rrgdb.arch.riscv:RISCV64",
        "arm": "rrgdb.arch.arm:ARM",
        "armv7m": "rrgdb.arch.armv7m:ARMV7M",
        "aarch64": "rrgdb.arch.aarch64:AARCH64",
        "i386": "rrgdb.arch.x86:I386",
        "x86_64": "rrgdb.arch.x86:X86_64",
    }
)
_BY_ELF: dict[tuple[str, int, ByteOrder], str] = {
    ("EM_RISCV", 32, "little"): "riscv32",
    ("EM_RISCV", 64, "little"): "riscv64",
    ("EM_ARM", 32, "little"): "arm",
    ("EM_AARCH64", 64, "little"): "aarch64",
    ("EM_386", 32, "little"): "i386",
    ("EM_X86_64", 64, "little"): "x86_64",
}
"""what those say of themselves that are asked for by an ELF file: not to import the others"""


def by_elf(machine: str, elfclass: int, byteorder: ByteOrder) -> Arch:
    """The family that runs an ELF file: ``machine`` as pyelftools names e_machine, ``elfclass`` 32 or 64.

    Raises ``ValueError`` naming what was found and what is supported.
    """
    known = _BY_ELF.get((machine, elfclass, byteorder))
    if known is not None:
        return ARCHES[known]
    for arch in ARCHES.values():
        if (arch.elf_machine, arch.bits, arch.byteorder) == (machine, elfclass, byteorder):
            return arch
    families: dict[str, list[str]] = {}
    for arch in ARCHES.values():
        families.setdefault(arch.byteorder, []).append(f"{arch.elf_machine}/{arch.bits}")
    supported = "; ".join(f"supported ({order}-endian): {', '.join(names)}" for order, names in families.items())
    raise ValueError(f"unsupported ELF machine {machine}, {elfclass}-bit, {byteorder}-endian; {supported}")
