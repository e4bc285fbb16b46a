"""x86: 32-bit paging, PAE, 4-level and 5-level paging (Intel SDM volume 3, chapter 4)."""

from __future__ import annotations

from collections.abc import Callable

from rrgdb.engine.paging.tables import EVERYTHING, USER, Entry, Level, Permission, ReadRegister, Tables, Translation

_PAGING, _PSE, _PAE, _LA57 = 1 << 31, 1 << 4, 1 << 5, 1 << 12  # CR0; CR4
_LMA, _NXE = 1 << 10, 1 << 11  # EFER
_PRESENT, _WRITE, _USER, _ACCESSED, _DIRTY, _LARGE, _GLOBAL = (1 << n for n in (0, 1, 2, 5, 6, 7, 8))
_NO_EXECUTE = 1 << 63
_ADDRESS = (1 << 52) - (1 << 12)
_WRITES = Permission.WRITE | Permission.USER_WRITE
_EXECUTES = Permission.EXECUTE | Permission.USER_EXECUTE
_FLAGS = ((_GLOBAL, "global"), (_ACCESSED, "accessed"), (_DIRTY, "dirty"))


def _permissions(entry: int, no_execute: bool) -> Permission:
    permitted = EVERYTHING
    if not entry & _WRITE:
        permitted &= ~_WRITES
    if not entry & _USER:
        permitted &= ~USER
    if no_execute:
        permitted &= ~_EXECUTES
    return permitted


def _leaf(entry: int, physical: int, shift: int, no_execute: bool) -> Entry:
    flags = " ".join(name for bit, name in _FLAGS if entry & bit)
    return Entry(physical, True, shift, _permissions(entry, no_execute), flags)


def translation(bits: int, register: ReadRegister) -> Translation | None:
    """None: addresses are physical."""
    if not register("cr0") & _PAGING:
        return None
    table, control, extended = register("cr3"), register("cr4"), register("efer")
    if not control & _PAE:
        return Translation((_two_levels(table, bool(control & _PSE)),))
    enabled = bool(extended & _NXE)
    if bits == 32 or not extended & _LMA:
        levels: tuple[Level, ...] = (Level(30, 2, 8), Level(21, 9, 8), Level(12, 9, 8))
        return Translation((Tables(0, (1 << 32) - 1, table & 0xFFFFFFE0, levels, _wide(enabled, pointers=True)),))
    shifts = (48, 39, 30, 21, 12) if control & _LA57 else (39, 30, 21, 12)
    levels = tuple(Level(shift, 9, 8) for shift in shifts)
    half = 1 << shifts[0] + 8
    decode, root = _wide(enabled, pointers=False), table & _ADDRESS
    return Translation(
        (Tables(0, half - 1, root, levels, decode), Tables((1 << 64) - half, (1 << 64) - 1, root, levels, decode))
    )


def _two_levels(table: int, large: bool) -> Tables:
    def decode(entry: int, level: Level) -> Entry | None:
        if not entry & _PRESENT:
            return None
        if level.shift == 12:
            return _leaf(entry, entry & ~0xFFF, 12, False)
        if entry & _LARGE and large:
            return _leaf(entry, (entry >> 13 & 0xFF) << 32 | entry & 0xFFC00000, 22, False)
        return Entry(entry & ~0xFFF, False, permissions=_permissions(entry, False))

    levels = (Level(22, 10, 4), Level(12, 10, 4))
    return Tables(0, (1 << 32) - 1, table & ~0xFFF & 0xFFFFFFFF, levels, decode)


def _wide(no_execute: bool, *, pointers: bool) -> Callable[[int, Level], Entry | None]:
    """Entries of 8 bytes. ``no_execute``: their highest bit says so. ``pointers``: those of 1 GiB are PAE's, which have
    no permissions and are never large."""

    def decode(entry: int, level: Level) -> Entry | None:
        if not entry & _PRESENT:
            return None
        if pointers and level.shift == 30:
            return Entry(entry & _ADDRESS, False)
        forbidden = no_execute and bool(entry & _NO_EXECUTE)
        if level.shift == 12 or (entry & _LARGE and level.shift <= 30):
            return _leaf(entry, entry & _ADDRESS, level.shift, forbidden)
        return Entry(entry & _ADDRESS, False, permissions=_permissions(entry, forbidden))

    return decode
