"""Disassembly of single instructions for people to read."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from rrgdb.arch.base import Arch
from rrgdb.arch.cpu import ByteOrder


@lru_cache(maxsize=8)
def _decoder(capstone_arch: str, modes: tuple[str, ...], byteorder: ByteOrder) -> Any:
    import capstone  # noqa: PLC0415 - takes as long as all of rrgdb's own families, and few guests die

    mode = capstone.CS_MODE_BIG_ENDIAN if byteorder == "big" else 0
    for name in modes:
        mode |= getattr(capstone, name)
    return capstone.Cs(getattr(capstone, capstone_arch), mode)


def disassemble(arch: Arch, code: bytes, address: int, second_set: bool = False) -> tuple[int, str]:
    """(length in bytes, text) of the first instruction in ``code``; undecodable bytes read as ``.byte``.

    ``second_set``: they are of ``arch.second_set``."""
    modes = arch.second_set.capstone_mode if second_set and arch.second_set else arch.capstone_mode
    decoder = _decoder(arch.capstone_arch, modes, arch.byteorder)
    for _, size, mnemonic, operands in decoder.disasm_lite(code, address, 1):
        return size, f"{mnemonic} {operands}".rstrip()
    size = min(len(code), arch.instruction_alignment) or 1
    return size, ".byte " + ", ".join(f"{b:#04x}" for b in code[:size])
