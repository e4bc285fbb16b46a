"""Where the manual says that memory is, by x86's page tables."""

from __future__ import annotations

import pytest

from rrgdb.engine.paging.x86 import translation
from rrgdb_tests.engine.paging.memory import memory

PAGING, PSE, PAE, LA57 = 1 << 31, 1 << 4, 1 << 5, 1 << 12
LMA = 1 << 10

# name: (bits, CR0, CR3, CR4, entries by physical address, address, where it is)
X86 = {
    "off": (32, 0, 0x1000, 0, {}, 0x12345, 0x12345),
    "two levels": (32, PAGING, 0x1018, 0, {0x1008: 0x2067, 0x2004: 0x5067}, 0x801234, 0x5234),
    "no table": (32, PAGING, 0x1000, 0, {0x1008: 0x2066}, 0x801234, None),
    "no page": (32, PAGING, 0x1000, 0, {0x1008: 0x2067, 0x2004: 0x5066}, 0x801234, None),
    "4 MiB": (32, PAGING, 0x1000, PSE, {0x1008: 0xC00083}, 0x801234, 0xC01234),
    "4 MiB, high": (32, PAGING, 0x1000, PSE, {0x1008: 0xC02083}, 0x801234, 0x1_00C01234),
    "4 MiB, off": (32, PAGING, 0x1000, 0, {0x1008: 0x2083, 0x2004: 0x5001}, 0x801234, 0x5234),
    "PAE": (32, PAGING, 0x1020, PAE, {0x1028: 0x2001, 0x2010: 0x3001, 0x3008: 0x1_00005001}, 0x40401234, 0x1_00005234),
    "PAE, 2 MiB": (32, PAGING, 0x1020, PAE, {0x1028: 0x2001, 0x2010: 0x600083}, 0x40401234, 0x601234),
    "long": (64, PAGING, 0x1000, PAE, {0x1FF8: 0x2003, 0x2FF0: 0x3003, 0x3008: 0x4003, 0x4010: 1 << 63 | 0x5003},
             0xFFFFFFFF80202345, 0x5345),
    "long, 2 MiB": (64, PAGING, 0x1000, PAE, {0x1000: 0x2003, 0x2000: 0x3003, 0x3008: 0x800083}, 0x201234, 0x801234),
    "long, 1 GiB": (64, PAGING, 0x1000, PAE, {0x1000: 0x2003, 0x2008: 0x80000083}, 0x40123456, 0x80123456),
    "long, not canonical": (64, PAGING, 0x1000, PAE, {0x1000: 0x2003}, 0x8000_0000_0000, None),
    "five levels": (64, PAGING, 0x1000, PAE | LA57,
                    {0x1008: 0x2003, 0x2000: 0x3003, 0x3000: 0x4003, 0x4000: 0x5003, 0x5000: 0x6003},
                    1 << 48 | 0x123, 0x6123),
}  # fmt: skip


@pytest.mark.parametrize("what", X86)
def test_where_memory_is(what: str) -> None:
    bits, cr0, cr3, cr4, entries, address, found = X86[what]
    registers = {"cr0": cr0, "cr3": cr3, "cr4": cr4, "efer": LMA if bits == 64 else 0}
    tables = translation(bits, registers.__getitem__)
    assert (address if tables is None else tables.find(address, memory(entries))) == found


def test_a_64_bit_cpu_outside_long_mode_has_three_levels() -> None:
    registers = {"cr0": PAGING, "cr3": 0x1020, "cr4": PAE, "efer": 0}
    tables = translation(64, registers.__getitem__)
    assert tables is not None
    assert tables.find(0x40401234, memory({0x1028: 0x2001, 0x2010: 0x3001, 0x3008: 0x5001})) == 0x5234
