"""AArch64, translation regime EL1&0 ("Arm Architecture Reference Manual" DDI 0487, section D8.2)."""

from __future__ import annotations

from collections.abc import Sequence

from rrgdb.engine.paging import arm_long
from rrgdb.engine.paging.tables import ReadRegister, Tables, Translation

_MMU, _EE = 1 << 0, 1 << 25  # SCTLR_EL1
_GRANULES = ({0: 12, 1: 16, 2: 14}, {1: 14, 2: 12, 3: 16})
"""TCR_EL1.TG0 and TG1 -> log2 of a page"""
_LEAST_SIZE, _MOST_SIZE = 16, 39
"""of TnSZ; others count as the nearer one, as in QEMU"""
_TOP = 1 << 55
_TAG = 0xFF << 56
_ROOT = (1 << 48) - 1
"""of a TTBR; the rest is an ASID, which says nothing of the tables"""
REGIME = {"cpsr": 2 << 2, "sctlr_el1": _MMU | _EE, "tcr_el1": ~0, "ttbr1_el1": _ROOT}
"""register -> its bits from which the tables of addresses with the top bit follow, and whether there are any. Of the
exception levels only EL2 and EL3 count: those below see the same"""


def regime(address: int) -> tuple[tuple[str, int], ...]:
    """(register, its bits) from which the tables of an address follow, and whether there are any."""
    return tuple((name if address & _TOP else name.replace("ttbr1", "ttbr0"), bits) for name, bits in REGIME.items())


def shared(address: int, _: Sequence[int]) -> bool:
    """Whether an address is translated so in all address spaces: by TTBR1."""
    return bool(address & _TOP)


def translation(_: int, register: ReadRegister) -> Translation | None:
    """None: addresses are physical. So are those of EL2 and EL3, whose tables are not looked at."""
    if register("cpsr") >> 2 & 3 > 1 or not register("sctlr_el1") & _MMU:
        return None
    control = register("tcr_el1")
    swapped = bool(register("sctlr_el1") & _EE)
    trees = []
    for upper in (0, 1):
        half = control >> 16 * upper
        if half >> 7 & 1:  # EPDn
            continue
        bits = 64 - min(max(half & 63, _LEAST_SIZE), _MOST_SIZE)
        granule = _GRANULES[upper].get(half >> 14 & 3, 12)
        trees.append(_tree(bits, granule, register(f"ttbr{upper}_el1"), upper, swapped))
    lower_ignored, upper_ignored = control >> 37 & 1, control >> 38 & 1

    def untagged(address: int) -> int:
        if address & _TOP:
            return address | _TAG if upper_ignored else address
        return address & ~_TAG if lower_ignored else address

    return Translation(tuple(trees), untagged)


def _tree(bits: int, granule: int, root: int, upper: int, swapped: bool) -> Tables:
    first = (1 << 64) - (1 << bits) if upper else 0
    return arm_long.tables(first, bits, granule, root, swapped=swapped)
