"""Descriptors of 64 bits, as AArch64 and ARM's Large Physical Address Extension have them ("Arm Architecture Reference
Manual" DDI 0487, section D8.3; DDI 0406, section B3.6)."""

from __future__ import annotations

from collections.abc import Callable

from rrgdb.engine.paging.tables import Entry, Level, Permission, Tables

_VALID, _TABLE = 1 << 0, 1 << 1
_USER, _READ_ONLY, _ACCESSED, _NOT_GLOBAL = 1 << 6, 1 << 7, 1 << 10, 1 << 11
_PXN, _XN = 1 << 53, 1 << 54
_PXN_TABLE, _XN_TABLE, _NO_USER_TABLE, _READ_ONLY_TABLE = (1 << n for n in (59, 60, 61, 62))
_WRITES = Permission.WRITE | Permission.USER_WRITE
_ADDRESS = (1 << 48) - 1
_USERS = Permission.USER_READ | Permission.USER_WRITE


def tables(
    first: int, bits: int, granule: int, root: int, *, both_never: bool = False, swapped: bool = False
) -> Tables:
    """Those of 2**``bits`` virtual addresses from ``first`` on. ``granule``: log2 of a page. ``root``: the base address
    field of TTBRn. ``both_never``: one XN bit holds for both levels of privilege. ``swapped``: descriptors have
    the other byte order.

    A block of a size that the manual reserves maps, as it does in QEMU."""
    width = granule - 3
    count = -(-(bits - granule) // width)
    shifts = [granule + n * width for n in reversed(range(count))]
    levels = [Level(shift, width, 8) for shift in shifts]
    levels[0] = Level(shifts[0], bits - shifts[0], 8)
    aligned = root & _ADDRESS & ~((1 << levels[0].width + 3) - 1)
    return Tables(first, first + (1 << bits) - 1, aligned, tuple(levels), _decoder(granule, both_never, swapped))


def _decoder(granule: int, both_never: bool, swapped: bool) -> Callable[[int, Level], Entry | None]:
    def decode(entry: int, level: Level) -> Entry | None:
        if swapped:
            entry = int.from_bytes(entry.to_bytes(8, "little"), "big")
        last = level.shift == granule
        if not entry & _VALID or (last and not entry & _TABLE):
            return None
        physical = entry & _ADDRESS & ~((1 << granule) - 1)
        if not last and entry & _TABLE:
            return Entry(physical, False, permissions=_left(entry, both_never))
        flags = [name for bit, name in ((_ACCESSED, "accessed"),) if entry & bit]
        if not entry & _NOT_GLOBAL:
            flags.insert(0, "global")
        flags.append(f"attribute {entry >> 2 & 7}")
        return Entry(physical, True, level.shift, _permitted(entry, both_never), " ".join(flags))

    return decode


def _never(permitted: Permission, entry: int, privileged: int, user: int, both: bool) -> Permission:
    if entry & privileged or (both and entry & user):
        permitted &= ~Permission.EXECUTE
    if entry & user:
        permitted &= ~Permission.USER_EXECUTE
    return permitted


def _left(entry: int, both_never: bool) -> Permission:
    permitted = ~Permission.NONE
    if entry & _READ_ONLY_TABLE:
        permitted &= ~_WRITES
    if entry & _NO_USER_TABLE:
        permitted &= ~_USERS
    return _never(permitted, entry, _PXN_TABLE, _XN_TABLE, both_never)


def _permitted(entry: int, both_never: bool) -> Permission:
    permitted = ~Permission.NONE
    if entry & _READ_ONLY:
        permitted &= ~_WRITES
    if not entry & _USER:
        permitted &= ~_USERS
    elif not entry & _READ_ONLY:
        # What the user may write the supervisor never executes.
        permitted &= ~Permission.EXECUTE
    return _never(permitted, entry, _PXN, _XN, both_never)
