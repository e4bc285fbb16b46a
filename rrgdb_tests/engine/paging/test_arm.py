"""Where the manual says that memory is, by 32-bit ARM's page tables; and that Unicorn says the same."""

from __future__ import annotations

import random
import struct

import pytest

from rrgdb.arch import ARCHES
from rrgdb.engine.memory import Ram
from rrgdb.engine.paging.arm import translation
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb_tests.engine.paging.memory import mapped_for_both, memory

EAE, PD0, PD1 = 1 << 31, 1 << 4, 1 << 5
EE = 1 << 25
TABLE, SECTION, LARGE, SMALL = 0x001, 0xC02, 0x031, 0x032
SUPER = SECTION | 1 << 18

# name: (SCTLR, TTBCR, TTBR0, TTBR1, entries, address, where it is)
ARM = {
    "off": (0, 0, 0x4000, 0, {}, 0x12345, 0x12345),
    "section": (1, 0, 0x4000, 0, {0x4020: 0x50100000 | SECTION}, 0x812345, 0x50112345),
    "PXN": (1, 0, 0x4000, 0, {0x4020: 0x50100000 | SECTION | 1}, 0x812345, 0x50112345),
    "supersection": (1, 0, 0x4000, 0, {0x4044: 0x51000000 | SUPER}, 0x1112345, 0x51112345),
    "supersection beyond 4 GiB": (1, 0, 0x4000, 0, {0x4044: 0x51300000 | SUPER | 2 << 5}, 0x1112345, 0x23_51112345),
    "small page": (1, 0, 0x4059, 0, {0x4004: 0x8400 | TABLE, 0x8408: 0x5000 | SMALL}, 0x102345, 0x5345),
    "small page, XN": (1, 0, 0x4000, 0, {0x4004: 0x8001, 0x8008: 0x5000 | SMALL | 1}, 0x102345, 0x5345),
    "large page": (1, 0, 0x4000, 0, {0x4004: 0x8400 | TABLE, 0x8448: 0x50000 | LARGE}, 0x112345, 0x52345),
    "no section": (1, 0, 0x4000, 0, {0x4004: 0x50100C00}, 0x112345, None),
    "no page": (1, 0, 0x4000, 0, {0x4004: 0x8400 | TABLE, 0x8448: 0x50030}, 0x112345, None),
    "TTBR0 of two": (1, 2, 0x5000, 0x8000, {0x5020: 0x50100000 | SECTION}, 0x812345, 0x50112345),
    "TTBR1 of two": (1, 2, 0x5000, 0x8000, {0xA004: 0x50100000 | SECTION}, 0x80112345, 0x50112345),
    "TTBR0 off": (1, 2 | PD0, 0x5000, 0x8000, {0x5020: 0x50100000 | SECTION}, 0x812345, None),
    "TTBR1 off": (1, 2 | PD1, 0x5000, 0x8000, {0xA004: 0x50100000 | SECTION}, 0x80112345, None),
    "big-endian": (1 | EE, 0, 0x4000, 0, {0x4020: 0x020C1050}, 0x812345, 0x50112345),
    "long": (1, EAE, 1 << 48 | 0x1020, 0,
             {0x1028: 0x2003, 0x2010: 0x3003, 0x3018: 0x2_00005703}, 0x40403123, 0x2_00005123),
    "long, 2 MiB": (1, EAE, 0x1000, 0, {0x1000: 0x2003, 0x2010: 0x2_00400701}, 0x412345, 0x2_00412345),
    "long, 1 GiB": (1, EAE, 0x1000, 0, {0x1008: 0x2_40000701}, 0x40412345, 0x2_40412345),
    "long, TTBR1 above TTBR0": (1, EAE | 2, 0x1000, 0x4000, {0x4008: 0x40000701}, 0x40412345, 0x40412345),
    "long, TTBR0 below TTBR1": (1, EAE | 1 << 16, 0x1000, 0x4000, {0x1000: 0x40000701}, 0x412345, 0x40412345),
    "long, TTBR1 at the top, two levels": (1, EAE | 2 << 16, 0x1000, 0x4000, {0x4000: 0x400701}, 0xC0012345, 0x412345),
    "long, between": (1, EAE | 2 | 2 << 16, 0x1000, 0x4000, {}, 0x80000000, None),
}  # fmt: skip


@pytest.mark.parametrize("what", ARM)
def test_where_memory_is(what: str) -> None:
    sctlr, ttbcr, ttbr0, ttbr1, entries, address, found = ARM[what]
    registers = {"sctlr": sctlr, "ttbcr": ttbcr, "ttbr0": ttbr0, "ttbr1": ttbr1}
    registers |= {"ttbr0_wide": ttbr0, "ttbr1_wide": ttbr1}
    tables = translation(32, registers.__getitem__)
    assert (address if tables is None else tables.find(address, memory(entries))) == found


def _short(choice: random.Random, ram: int) -> bytes:
    words = []
    for _ in range(ram // 4):
        kind = choice.choice((0, TABLE, SECTION, SUPER, LARGE, SMALL))
        step = {TABLE: 0x400, SECTION: 1 << 20, SUPER: 1 << 24, LARGE: 1 << 16, SMALL: 1 << 12}.get(kind, 4)
        words.append(choice.randrange(0, 1 << 32 if step > 0x1000 else ram, step) | kind)
    return struct.pack(f"<{len(words)}I", *words)


def _long(choice: random.Random, ram: int) -> bytes:
    entries = []
    for _ in range(ram // 8):
        kind = choice.choice((0, 0x701, 0x703, 0x703, 0x703))
        entries.append((choice.randrange(0, ram, 1 << 12) if kind == 0x703 else 0) | kind)
    return struct.pack(f"<{len(entries)}Q", *entries)


@pytest.mark.parametrize("long", [False, True])
def test_unicorn_translates_the_same(long: bool) -> None:
    size = 0x8000
    ram = Ram(size)
    engine = UnicornEngine(ARCHES["arm"], ram)
    engine.map_ram(0, size)
    engine.arch.reset(engine, 0, size)
    choice = random.Random(7)
    engine.ram.write(0, (_long if long else _short)(choice, size))
    engine.write("dacr", (1 << 32) - 1)
    answers = set()
    for _ in range(20):
        control = choice.getrandbits(3) | (EAE | choice.getrandbits(3) << 16 if long else choice.getrandbits(2) << 4)
        engine.write("ttbcr", control)
        for register in ("ttbr0_wide", "ttbr1_wide") if long else ("ttbr0", "ttbr1"):
            engine.write(register, choice.randrange(0, size, 1 << 12))
        engine.write("sctlr", engine.read("sctlr") | 1)
        for _ in range(50):
            answers.add(mapped_for_both(engine, choice.getrandbits(32)))
    assert answers == {True, False}
