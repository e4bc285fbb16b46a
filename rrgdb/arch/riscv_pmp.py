"""RISC-V physical memory protection: 16 entries as the guest writes them, and what they say of addresses.

Source: "The RISC-V Instruction Set Manual", volume II, section 3.6 (privileged architecture 1.10). The granularity is 4
bytes. Entries are enforced while one at least is not OFF; with none, every mode may access everything, as in QEMU.
"""

from __future__ import annotations

from rrgdb.arch.base import Protection
from rrgdb.arch.cpu import Cpu

ENTRIES = 16
CONFIGS, ADDRESSES = 0x3A0, 0x3B0
"""numbers of the CSRs pmpcfg0 and pmpaddr0"""
_R, _W, _X, _L = 1, 2, 4, 1 << 7
_OFF, _TOR, _NA4, _NAPOT = range(4)
_KEPT = _R | _W | _X | _L | 3 << 3
ADDRESS_BITS = {32: 32, 64: 54}
"""bits of a pmpaddr register, by XLEN: bits 2 and up of a physical address"""


def registers(xlen: int) -> dict[str, int]:
    """The registers that hold the entries, and their bits."""
    return {f"pmpcfg{n}": xlen for n in range(0, ENTRIES // 4, xlen // 32)} | {
        f"pmpaddr{n}": xlen for n in range(ENTRIES)
    }


def name_of(csr: int, xlen: int) -> str | None:
    """The register behind a CSR number; None where it is none of these: the odd pmpcfg do not exist on RV64."""
    if 0 <= csr - ADDRESSES < ENTRIES:
        return f"pmpaddr{csr - ADDRESSES}"
    if 0 <= csr - CONFIGS < ENTRIES // 4 and (csr - CONFIGS) % (xlen // 32) == 0:
        return f"pmpcfg{csr - CONFIGS}"
    return None


def _config(cpu: Cpu, entry: int, xlen: int) -> int:
    each = xlen // 8
    register = entry // each * (each // 4)
    return cpu.read(f"pmpcfg{register}") >> entry % each * 8 & 0xFF


def _mode(config: int) -> int:
    return config >> 3 & 3


def write(cpu: Cpu, name: str, value: int, xlen: int) -> None:
    """A CSR instruction writes one of ``registers``: locked entries stay, and writable without readable becomes
    neither."""
    if name.startswith("pmpaddr"):
        entry = int(name.removeprefix("pmpaddr"))
        behind = _config(cpu, entry + 1, xlen) if entry + 1 < ENTRIES else 0
        if not _config(cpu, entry, xlen) & _L and not (behind & _L and _mode(behind) == _TOR):
            cpu.write(name, value & (1 << ADDRESS_BITS[xlen]) - 1)
        return
    old = cpu.read(name)
    new = 0
    for at in range(0, xlen, 8):
        config = value >> at & _KEPT
        if not config & _R:
            config &= ~_W
        new |= (old >> at & 0xFF if old >> at & _L else config) << at
    cpu.write(name, new)


def protections(cpu: Cpu, xlen: int) -> tuple[Protection, ...]:
    """The entries that are not OFF, in the order of their numbers (see ``Arch.protections``)."""
    found = []
    for entry in range(ENTRIES):
        config = _config(cpu, entry, xlen)
        mode = _mode(config)
        if mode == _OFF:
            continue
        address = cpu.read(f"pmpaddr{entry}")
        if mode == _TOR:
            first = cpu.read(f"pmpaddr{entry - 1}") << 2 if entry else 0
            last = (address << 2) - 1
        elif mode == _NA4:
            first, last = address << 2, (address << 2) + 3
        else:
            ones = address ^ address + 1
            first = (address & ~ones) << 2
            last = first + (ones << 2 | 3)
        # One whose range is empty is enforced all the same: it is not OFF.
        found.append(Protection(first, last, config & (_R | _W | _X), bool(config & _L)))
    return tuple(found)
