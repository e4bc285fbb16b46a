"""32-bit ARM, translation regime PL1&0 ("ARM Architecture Reference Manual" DDI 0406, sections B3.5 and B3.6).

Domains are not looked at: the permissions are those of their clients.
"""

from __future__ import annotations

from collections.abc import Callable

from rrgdb.engine.paging import arm_long
from rrgdb.engine.paging.tables import EVERYTHING, Entry, Level, Permission, ReadRegister, Tables, Translation

_MMU, _EE, _AFE = 1 << 0, 1 << 25, 1 << 29  # SCTLR
_EAE = 1 << 31  # TTBCR
_ROOT = (1 << 48) - 1
"""of a TTBR; with long descriptors the rest holds an ASID, which says nothing of the tables"""
_REGIME = (("sctlr", _MMU | _EE), ("ttbcr", (1 << 32) - 1), ("ttbr0_wide", _ROOT), ("ttbr1_wide", _ROOT))
_SECTION, _SMALL = 20, 12
_TABLE, _LARGE = 1, 1
_WRITES = Permission.WRITE | Permission.USER_WRITE
_EXECUTES = Permission.EXECUTE | Permission.USER_EXECUTE
_USER_DATA = Permission.USER_READ | Permission.USER_WRITE
_ACCESS = (
    Permission.NONE,
    Permission.READ | Permission.WRITE,
    Permission.READ | Permission.WRITE | Permission.USER_READ,
    Permission.READ | Permission.WRITE | _USER_DATA,
    Permission.NONE,
    Permission.READ,
    Permission.READ | Permission.USER_READ,
    Permission.READ | Permission.USER_READ,
)
"""AP[2:0] -> what of data may be accessed"""


def regime(_: int) -> tuple[tuple[str, int], ...]:
    """(register, its bits) from which the tables of an address follow, and whether there are any. Which TTBR
    it is follows from TTBCR."""
    return _REGIME


def translation(_: int, register: ReadRegister) -> Translation | None:
    """None: addresses are physical."""
    control = register("sctlr")
    if not control & _MMU:
        return None
    base, swapped = register("ttbcr"), bool(control & _EE)
    if base & _EAE:
        return Translation(tuple(_long(register, base, swapped)))
    narrow = base & 7
    border = 1 << 32 - narrow
    decode = _decoder(bool(control & _AFE), swapped)
    trees = []
    if not base >> 4 & 1:  # PD0
        root = register("ttbr0") & 0xFFFFFFFF & ~((1 << 14 - narrow) - 1)
        trees.append(Tables(0, border - 1, root, (Level(20, 12 - narrow, 4), Level(12, 8, 4)), decode))
    if narrow and not base >> 5 & 1:  # PD1
        root = register("ttbr1") & 0xFFFFC000
        trees.append(Tables(border, (1 << 32) - 1, root, (Level(20, 12, 4), Level(12, 8, 4)), decode))
    return Translation(tuple(trees))


def _long(register: ReadRegister, control: int, swapped: bool) -> list[Tables]:
    """TTBR0 maps from 0 on, TTBR1 up to the top; where one of their sizes is 0 it is all that the other leaves."""
    sizes = [control & 7, control >> 16 & 7]
    upper_first = (1 << 32) - (1 << 32 - sizes[1]) if sizes[1] else 1 << 32 - sizes[0]
    lower_last = (1 << 32 - sizes[0]) - 1 if sizes[0] or not sizes[1] else upper_first - 1
    trees = []
    if not control >> 7 & 1:  # EPD0
        tree = arm_long.tables(0, 32 - sizes[0], 12, register("ttbr0_wide"), both_never=True, swapped=swapped)
        trees.append(Tables(0, lower_last, tree.root, tree.levels, tree.decode))
    if (sizes[0] or sizes[1]) and not control >> 23 & 1:  # EPD1
        bits = 32 - sizes[1]
        tree = arm_long.tables(0, bits, 12, register("ttbr1_wide"), both_never=True, swapped=swapped)
        trees.append(Tables(upper_first, (1 << 32) - 1, tree.root, tree.levels, tree.decode))
    return trees


def _decoder(simple: bool, swapped: bool) -> Callable[[int, Level], Entry | None]:
    """``simple``: AP[0] is the access flag (SCTLR.AFE)."""

    def permitted(access: int, never: bool, privileged_never: bool) -> Permission:
        allowed = _ACCESS[access | simple] | _EXECUTES
        if not allowed & Permission.USER_READ:
            allowed &= ~Permission.USER_EXECUTE
        if never:
            allowed &= ~_EXECUTES
        return allowed & ~Permission.EXECUTE if privileged_never else allowed

    def leaf(physical: int, shift: int, access: int, flags: str, permissions: Permission) -> Entry:
        if simple and access & 1:
            flags = f"{flags} accessed".strip()
        return Entry(physical, True, shift, permissions, flags)

    def decode(entry: int, level: Level) -> Entry | None:
        if swapped:
            entry = int.from_bytes(entry.to_bytes(4, "little"), "big")
        kind = entry & 3
        if not kind:
            return None
        if level.shift == _SECTION:
            return _first(entry, kind)
        access = entry >> 4 & 3 | (entry >> 9 & 1) << 2
        flags = "" if entry >> 11 & 1 else "global"
        if kind == _LARGE:
            return leaf(entry & 0xFFFF0000, 16, access, flags, permitted(access, bool(entry >> 15 & 1), False))
        return leaf(entry & 0xFFFFF000, 12, access, flags, permitted(access, bool(entry & 1), False))

    def _first(entry: int, kind: int) -> Entry:
        if kind == _TABLE:
            left = EVERYTHING & ~Permission.EXECUTE if entry >> 2 & 1 else EVERYTHING
            return Entry(entry & 0xFFFFFC00, False, permissions=left)
        access = entry >> 10 & 3 | (entry >> 15 & 1) << 2
        flags = "" if entry >> 17 & 1 else "global"
        rights = permitted(access, bool(entry >> 4 & 1), bool(entry & 1))
        if entry >> 18 & 1:  # a supersection
            physical = entry & 0xFF000000 | (entry >> 20 & 15) << 32 | (entry >> 5 & 15) << 36
            return leaf(physical, 24, access, flags, rights)
        return leaf(entry & 0xFFF00000, 20, access, flags, rights)

    return decode
