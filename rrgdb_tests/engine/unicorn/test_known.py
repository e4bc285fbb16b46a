"""Conditions on memory in a guest that translates addresses: judged in the hooks, wherever the page is by now."""

from __future__ import annotations

import struct

import pytest

from rrgdb.engine.base import ExitKind, Stops
from rrgdb_tests.engine.unicorn import twins as tw
from rrgdb_tests.engine.unicorn.rig import Bench
from rrgdb_tests.engine.unicorn.test_conditions import Step, encode

_A32 = """
1: add.w r1, r1, #1
 eor.w r4, r4, r1
 b.w 1b
"""
LOOPS = {
    "aarch64": "1: add w1, w1, #1\neor w4, w4, w1\nb 1b",
    "arm": _A32.replace(".w", ""),
    "thumb": _A32,
    "riscv64": ".option norvc\n1: addi a1, a1, 1\nxor a4, a4, a1\nj 1b",
}
ADDRESS = {"arm": (0xFFFF_F000, 0), "riscv64": (0x3F_FFFF_FFFF_FC00, 2)}
"""bits of an entry that hold a physical address, and by how much it is shifted there"""
LONG = 0xFFFF_FFFF_F000, 0
WORD = tw.DATA_AT + 40
ODD = encode([Step("const", WORD), Step("ref32", 0), Step("const", 1), Step("bit_and", 0), Step("end", 0)])
"""whether the word is odd"""


@pytest.fixture(params=LOOPS)
def family(request: pytest.FixtureRequest) -> str:
    """That of "arm" has short descriptors, the others long ones."""
    return str(request.param)


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def bench(request: pytest.FixtureRequest, family: str) -> Bench:
    return tw.make(family, LOOPS[family], fast=request.param, paged=True)


def _form(bench: Bench) -> str:
    """Of an entry of the last table."""
    return "<I" if bench.family == "arm" else "<Q"


def _place(bench: Bench, tables: int = tw.TABLES) -> int:
    """Where the entry for the word is."""
    return tables + 0x2000 + (4 * (WORD >> 12 & 255) if bench.family == "arm" else 8 * (WORD >> 12 & 511))


def _entry(bench: Bench) -> int:
    return int(struct.unpack(_form(bench), bench.engine.ram.read(_place(bench), struct.calcsize(_form(bench))))[0])


def _leading(bench: Bench, entry: int, physical: int) -> int:
    """An entry with another page."""
    mask, shift = ADDRESS.get(bench.family, LONG)
    return entry & ~mask | (physical & -4096) >> shift


def _elsewhere(bench: Bench, physical: int) -> int:
    """The entry for the word with another page."""
    return _leading(bench, _entry(bench), physical)


def _hits(bench: Bench, instructions: int = 3_000) -> bool:
    """Whether the loop stops at its second instruction."""
    engine = bench.engine
    engine.arm(Stops(((tw.VIRTUAL + 4, (ODD,)),)), ignored_at=engine.icount)
    kind = engine.run_until(engine.icount + instructions).kind
    assert kind in (ExitKind.LIMIT, ExitKind.BREAKPOINT)
    return kind is ExitKind.BREAKPOINT


def _map(bench: Bench, entry: int) -> None:
    bench.engine.pages_changed(bench.engine.ram.write(_place(bench), struct.pack(_form(bench), entry)))
    bench.engine.drop_translations()


def _word(bench: Bench, physical: int, value: int) -> None:
    bench.engine.ram.write(physical, struct.pack("<I", value))


def test_a_condition_follows_its_page(bench: Bench) -> None:
    here, elsewhere = bench.engine.translate(WORD), tw.MORE + 0x3000 + (WORD & 0xFFF)
    entry = _entry(bench)
    _word(bench, here, 2)
    _word(bench, elsewhere, 2)
    assert not _hits(bench)
    _word(bench, here, 3)
    assert _hits(bench)
    _map(bench, _elsewhere(bench, elsewhere))
    assert not _hits(bench)
    _word(bench, elsewhere, 1)
    assert _hits(bench)
    _map(bench, entry)
    _word(bench, here, 0)
    assert not _hits(bench)


@pytest.mark.parametrize("mapped", [False, True], ids=["unmapped", "no RAM"])
def test_what_is_in_no_ram_is_left_to_the_caller(bench: Bench, mapped: bool) -> None:
    before, entry = _entry(bench), _elsewhere(bench, 0x7FFF_F000) if mapped else 0
    _word(bench, bench.engine.translate(WORD), 2)
    assert not _hits(bench)
    _map(bench, entry)
    assert _hits(bench)
    assert _hits(bench)
    _map(bench, before)
    assert not _hits(bench)


def test_other_tables_are_other_memory(bench: Bench) -> None:
    """TTBR0, or satp, of another process."""
    here, elsewhere, root = bench.engine.translate(WORD), tw.MORE + 0x3000 + (WORD & 0xFFF), tw.MORE + 0x8000
    _word(bench, here, 2)
    _word(bench, elsewhere, 1)
    assert not _hits(bench)
    ram = bench.engine.ram
    for table in range(3):
        ram.write(root + 0x1000 * table, ram.read(tw.TABLES + 0x1000 * table, 0x1000))
    if bench.family == "arm":
        ram.write(root + 4 * (tw.VIRTUAL >> 20), struct.pack("<I", root + 0x2000 | 1))
    else:
        table = 1 if bench.family == "riscv64" else 3
        ram.write(root + 8 * (tw.VIRTUAL >> 30), struct.pack("<Q", _leading(bench, table, root + 0x1000)))
        ram.write(root + 0x1000, struct.pack("<Q", _leading(bench, table, root + 0x2000)))
    ram.write(_place(bench, root), struct.pack(_form(bench), _elsewhere(bench, elsewhere)))
    name, asid = {
        "aarch64": ("ttbr0_el1", 48),
        "arm": ("ttbr0", 0),
        "thumb": ("ttbr0_wide", 48),
        "riscv64": ("satp", 44),
    }[bench.family]
    for tables, number, expected in ((root, 0, True), (tw.TABLES, 0, False), (root, 5, True), (tw.TABLES, 9, False)):
        value = 8 << 60 | tables >> 12 if bench.family == "riscv64" else tables
        bench.engine.write(name, value | number << asid)
        bench.engine.drop_translations()
        assert _hits(bench) is expected


class _Counting:
    """The native half; ``runs``: how often it came back from a run."""

    def __init__(self, core: object) -> None:
        self._core = core
        self.runs = 0

    def __getattr__(self, name: str) -> object:
        self.runs += name == "run"
        return getattr(self._core, name)


def test_it_costs_one_look_for_all_hits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _word(bench, bench.engine.translate(WORD), 2)
    counting = _Counting(bench.engine._core)
    monkeypatch.setattr(bench.engine, "_core", counting)
    assert not _hits(bench)
    assert counting.runs <= 3
