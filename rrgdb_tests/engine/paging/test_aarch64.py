"""Where the manual says that memory is, by AArch64's page tables; and that Unicorn says the same."""

from __future__ import annotations

import random
import struct

import pytest

from rrgdb.arch import ARCHES
from rrgdb.engine.memory import Ram
from rrgdb.engine.paging.aarch64 import translation
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb_tests.engine.paging.memory import mapped_for_both, memory

EL0, EL1, EL2 = 0, 5, 9
T48 = 16 | 16 << 16
K4, K16, K64 = 2 << 30, 2 << 14 | 1 << 30, 1 << 14 | 3 << 30
TBI = 3 << 37
EPD0, EPD1 = 1 << 7, 1 << 23
HIGH = 0xFFFF_0000_0000_0000
PAGE, BLOCK = 0x703, 0x701

# name: (SCTLR_EL1, CPSR, TCR_EL1, TTBR0_EL1, TTBR1_EL1, entries, address, where it is)
AARCH64 = {
    "off": (0, EL1, T48, 0x1000, 0, {}, 0x12345, 0x12345),
    "another regime": (1, EL2, T48, 0x1000, 0, {}, 0x12345, 0x12345),
    "4 KiB": (1, EL1, T48 | K4, 0x1000, 0,
              {0x1008: 0x2003, 0x2010: 0x3003, 0x3018: 0x4003, 0x4020: 0x60_0000_0000_5703},
              0x80_80604123, 0x5123),
    "by the user": (1, EL0, T48 | K4, 0x1000, 0, {0x1000: 0x2003, 0x2000: 0x40000701}, 0x1234567, 0x41234567),
    "another ASID": (1, EL1, T48 | K4, 0x7 << 48 | 0x1001, 0, {0x1000: 0x2003, 0x2000: 0x40000701}, 0x1, 0x40000001),
    "no access flag": (1, EL1, T48 | K4, 0x1000, 0, {0x1000: 0x2003, 0x2000: 0x40000301}, 0x1, 0x40000001),
    "2 MiB": (1, EL1, T48 | K4, 0x1000, 0, {0x1000: 0x2003, 0x2000: 0x3003, 0x3008: 0x40000701}, 0x212345, 0x40012345),
    "upper half": (1, EL1, T48 | K4, 0, 0x1000, {0x1000: 0x2003, 0x2000: 0x40000701}, HIGH | 0x12345, 0x40012345),
    "upper half off": (1, EL1, T48 | K4 | EPD1, 0, 0x1000, {0x1000: 0x2003, 0x2000: 0x40000701}, HIGH | 0x12345, None),
    "lower half off": (1, EL1, T48 | K4 | EPD0, 0x1000, 0, {0x1000: 0x2003, 0x2000: 0x40000701}, 0x12345, None),
    "between the halves": (1, EL1, T48 | K4, 0x1000, 0x1000, {}, 1 << 48, None),
    "39 bits": (1, EL1, 25 | K4, 0x1000, 0, {0x1008: 0x2003, 0x2000: 0x40000701}, 0x40012345, 0x40012345),
    "39 bits, beyond": (1, EL1, 25 | K4, 0x1000, 0, {0x1008: 0x2003}, 1 << 39, None),
    "42 bits, 64 KiB": (1, EL1, 22 | K64, 0x10000, 0, {0x10008: 0x20003, 0x20010: 0x50703}, 0x20021234, 0x51234),
    "64 KiB, 512 MiB": (1, EL1, 22 | K64, 0x10000, 0, {0x10008: 0x60000701}, 0x20021234, 0x60021234),
    "47 bits, 16 KiB": (1, EL1, 17 | K16, 0x4000, 0,
                        {0x4008: 0x8003, 0x8008: 0xC003, 0xC008: 0x10703}, 1 << 36 | 1 << 25 | 0x4123, 0x10123),
    "16 KiB, 32 MiB": (1, EL1, 17 | K16, 0x4000, 0, {0x4000: 0x8003, 0x8008: 0x4000701}, 0x2123456, 0x4123456),
    "no table": (1, EL1, T48 | K4, 0x1000, 0, {0x1000: 0x2002}, 0x1234, None),
    "no page": (1, EL1, 34 | K4, 0x1000, 0, {0x1000: 0x2003, 0x2008: 0x5701}, 0x1234, None),
    "tag": (1, EL1, T48 | K4 | TBI, 0x1000, 0, {0x1000: 0x2003, 0x2000: 0x40000701}, 0xA5 << 56 | 0x45, 0x40000045),
    "tag, upper half": (1, EL1, T48 | K4 | TBI, 0, 0x1000, {0x1000: 0x2003, 0x2000: 0x40000701},
                        0x5A_FF_0000_0000_0045, 0x40000045),
    "tag that counts": (1, EL1, T48 | K4, 0x1000, 0, {0x1000: 0x2003, 0x2000: 0x40000701}, 0xA5 << 56 | 0x45, None),
    "big-endian": (1 | 1 << 25, EL1, 34 | K4, 0x1000, 0,
                   {0x1000: 0x0320_0000_0000_0000, 0x2008: 0x0357_0000_0000_0000}, 0x1234, 0x5234),
}  # fmt: skip


@pytest.mark.parametrize("what", AARCH64)
def test_where_memory_is(what: str) -> None:
    sctlr, cpsr, tcr, ttbr0, ttbr1, entries, address, found = AARCH64[what]
    registers = {"sctlr_el1": sctlr, "cpsr": cpsr, "tcr_el1": tcr, "ttbr0_el1": ttbr0, "ttbr1_el1": ttbr1}
    tables = translation(64, registers.__getitem__)
    assert (address if tables is None else tables.find(address, memory(entries))) == found


def _random_tables(choice: random.Random, granule: int, ram: int) -> bytes:
    """Entries: tables and pages within ``ram`` bytes from 0, blocks at 0, or nothing; all may be read."""
    entries = []
    for _ in range(ram // 8):
        kind = choice.choice((0, BLOCK, PAGE, PAGE, PAGE))
        target = choice.randrange(0, ram, 1 << granule) if kind == PAGE else 0
        entries.append(target | kind | choice.getrandbits(3) << 52 & 1 << 54)
    return struct.pack(f"<{len(entries)}Q", *entries)


@pytest.mark.parametrize(("granule", "control"), [(12, 0 | 2 << 30), (14, 2 << 14 | 1 << 30), (16, 1 << 14 | 3 << 30)])
def test_unicorn_translates_the_same(granule: int, control: int) -> None:
    size = 4 << granule
    ram = Ram(size)
    engine = UnicornEngine(ARCHES["aarch64"], ram)
    engine.map_ram(0, size)
    engine.arch.reset(engine, 0, size)
    choice = random.Random(granule)
    engine.ram.write(0, _random_tables(choice, granule, size))
    answers = set()
    for _ in range(20):
        sizes = choice.randint(16, 39), choice.randint(16, 39)
        engine.write("ttbr0_el1", choice.randrange(0, size, 1 << granule))
        engine.write("ttbr1_el1", choice.randrange(0, size, 1 << granule))
        engine.write("tcr_el1", sizes[0] | sizes[1] << 16 | control | choice.getrandbits(2) << 37 | 5 << 32)
        engine.write("sctlr_el1", 1)
        for _ in range(50):
            address = choice.getrandbits(64 - min(sizes) + choice.randint(-9, 1))
            if choice.getrandbits(1):
                address = ~address & (1 << 64) - 1
            if not choice.getrandbits(3):
                address ^= choice.getrandbits(8) << 56
            answers.add(mapped_for_both(engine, address))
    assert answers == {True, False}
