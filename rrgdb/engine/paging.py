"""Page tables, looked at from outside: nothing of the guest changes.

Unicorn's own translation does what an access would do: it sets accessed bits in RISC-V's and x86's tables, and where
nothing is mapped, x86's CR2. On Arm it leaves everything as it is. Permissions are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable

ReadRegister = Callable[[str], int]
ReadPhysical = Callable[[int, int], int]
"""(physical address, bytes) -> number in the guest's byte order; MemoryFault where there is no RAM"""
Walk = Callable[[int, ReadRegister, ReadPhysical, int], int | None]
"""(bits of the CPU, …, virtual address) -> physical address; None: nothing is mapped there"""

_PAGING, _PSE, _PAE, _LA57 = 1 << 31, 1 << 4, 1 << 5, 1 << 12  # CR0; CR4
_PRESENT, _LARGE = 1 << 0, 1 << 7
_ADDRESS = (1 << 52) - (1 << 12)
_MACHINE, _MPRV = 3, 1 << 17
_VALID, _READ, _WRITE, _EXECUTE = 1, 2, 4, 8
_SV32 = 1
_LEVELS = {8: 3, 9: 4, 10: 5}
"""satp's MODE of RV64 -> levels of tables"""


def x86(bits: int, register: ReadRegister, read: ReadPhysical, address: int) -> int | None:
    """Physical address, or None (Intel SDM volume 3, chapter 4)."""
    if not register("cr0") & _PAGING:
        return address
    table, control = register("cr3"), register("cr4")
    if bits == 32 and not control & _PAE:
        entry = read((table & ~0xFFF) + (address >> 22) * 4, 4)
        if entry & _PRESENT and entry & _LARGE and control & _PSE:
            return (entry >> 13 & 0xFF) << 32 | entry & 0xFFC00000 | address & 0x3FFFFF
        if entry & _PRESENT:
            entry = read((entry & ~0xFFF) + (address >> 12 & 0x3FF) * 4, 4)
        return entry & ~0xFFF | address & 0xFFF if entry & _PRESENT else None
    shifts = [30, 21, 12]
    if bits == 64:
        shifts = [48, 39, *shifts] if control & _LA57 else [39, *shifts]
        if (address >> shifts[0] + 8) not in (0, (1 << 64 - shifts[0] - 8) - 1):
            return None
    table &= _ADDRESS if bits == 64 else 0xFFFFFFE0
    for shift in shifts:
        entry = read(table + (address >> shift & 0x1FF) * 8, 8)
        if not entry & _PRESENT:
            return None
        if shift == 12 or (entry & _LARGE and shift <= 30 and (shift, bits) != (30, 32)):
            inside = (1 << shift) - 1
            return entry & _ADDRESS & ~inside | address & inside
        table = entry & _ADDRESS
    return None


def riscv(bits: int, register: ReadRegister, read: ReadPhysical, address: int) -> int | None:
    """Physical address of a load or store, or None (privileged specification, 4.3.2)."""
    status, mode = register("mstatus"), register("priv")
    if mode == _MACHINE and status & _MPRV:
        mode = status >> 11 & 3
    satp = register("satp")
    levels = (2 if satp >> 31 & _SV32 else 0) if bits == 32 else _LEVELS.get(satp >> 60, 0)
    if mode == _MACHINE or not levels:
        return address
    size, width, frames = (4, 10, 22) if bits == 32 else (8, 9, 44)
    if bits == 64 and (address >> 11 + levels * width) not in (0, (1 << 53 - levels * width) - 1):
        return None
    table = (satp & (1 << frames) - 1) << 12
    for level in reversed(range(levels)):
        shift = 12 + level * width
        entry = read(table + (address >> shift & (1 << width) - 1) * size, size)
        if not entry & _VALID or entry & (_READ | _WRITE) == _WRITE:
            return None
        frame = (entry >> 10 & (1 << frames) - 1) << 12
        inside = (1 << shift) - 1
        if entry & (_READ | _EXECUTE):
            return None if frame & inside else frame | address & inside
        table = frame
    return None
