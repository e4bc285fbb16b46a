"""Conditions on memory in a guest that translates addresses: judged in the hooks, wherever the page is by now."""

from __future__ import annotations

import struct

import pytest

from rrgdb.engine.base import ExitKind, Stops
from rrgdb_tests.engine.unicorn import twins as tw
from rrgdb_tests.engine.unicorn.rig import Bench
from rrgdb_tests.engine.unicorn.test_conditions import Step, encode

LOOPS = {
    "aarch64": "1: add w1, w1, #1\n eor w4, w4, w1\n b 1b",
    "riscv64": ".option norvc\n1: addi a1, a1, 1\n xor a4, a4, a1\n j 1b",
}
WORD = tw.DATA_AT + 40
ENTRY = tw.TABLES + 0x2000 + 8 * (WORD >> 12 & 511)
ADDRESS = {"aarch64": (0xFFFF_FFFF_F000, 0), "riscv64": (0x3F_FFFF_FFFF_FC00, 2)}
"""bits of an entry that hold a physical address, and how far to the right it stands"""
ODD = encode([Step("const", WORD), Step("ref32", 0), Step("const", 1), Step("bit_and", 0), Step("end", 0)])
"""whether the word is odd"""


@pytest.fixture(params=LOOPS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def bench(family: str, request: pytest.FixtureRequest) -> Bench:
    return tw.make(family, LOOPS[family], fast=request.param, paged=True)


def _entry(bench: Bench, entry: int, physical: int) -> int:
    """An entry of a table that leads to the page of ``physical``, otherwise as ``entry``."""
    mask, shift = ADDRESS[bench.family]
    return entry & ~mask | physical >> 12 << 12 >> shift


def _hits(bench: Bench, instructions: int = 3_000) -> bool:
    """Whether the loop stops at its second instruction."""
    engine = bench.engine
    engine.arm(Stops(((tw.VIRTUAL + 4, (ODD,)),)), ignored_at=engine.icount)
    kind = engine.run_until(engine.icount + instructions).kind
    assert kind in (ExitKind.LIMIT, ExitKind.BREAKPOINT)
    return kind is ExitKind.BREAKPOINT


def _map(bench: Bench, entry: int) -> None:
    bench.engine.pages_changed(bench.engine.ram.write(ENTRY, struct.pack("<Q", entry)))
    bench.engine.drop_translations()


def _word(bench: Bench, physical: int, value: int) -> None:
    bench.engine.ram.write(physical, struct.pack("<I", value))


def test_a_condition_follows_its_page(bench: Bench) -> None:
    here, elsewhere = bench.engine.translate(WORD), tw.MORE + 0x3000 + (WORD & 0xFFF)
    (entry,) = struct.unpack("<Q", bench.engine.ram.read(ENTRY, 8))
    _word(bench, here, 2)
    _word(bench, elsewhere, 2)
    assert not _hits(bench)
    _word(bench, here, 3)
    assert _hits(bench)
    _map(bench, _entry(bench, entry, elsewhere))
    assert not _hits(bench)
    _word(bench, elsewhere, 1)
    assert _hits(bench)
    _map(bench, entry)
    _word(bench, here, 0)
    assert not _hits(bench)


@pytest.mark.parametrize("mapped", [False, True], ids=["unmapped", "no RAM"])
def test_what_is_in_no_ram_is_left_to_the_caller(bench: Bench, mapped: bool) -> None:
    (before,) = struct.unpack("<Q", bench.engine.ram.read(ENTRY, 8))
    entry = _entry(bench, before, 0x7FFF_F000) if mapped else 0
    _word(bench, bench.engine.translate(WORD), 2)
    assert not _hits(bench)
    _map(bench, entry)
    assert _hits(bench)
    assert _hits(bench)
    _map(bench, before)
    assert not _hits(bench)


def test_other_tables_are_other_memory(bench: Bench, family: str) -> None:
    """TTBR0, or satp, of another process."""
    here, elsewhere, root = bench.engine.translate(WORD), tw.MORE + 0x3000 + (WORD & 0xFFF), tw.MORE + 0x8000
    _word(bench, here, 2)
    _word(bench, elsewhere, 1)
    assert not _hits(bench)
    ram = bench.engine.ram
    for table in range(3):
        ram.write(root + 0x1000 * table, ram.read(tw.TABLES + 0x1000 * table, 0x1000))
    (entry,) = struct.unpack("<Q", ram.read(ENTRY, 8))
    table = 3 if family == "aarch64" else 1
    ram.write(root + 8 * (tw.VIRTUAL >> 30), struct.pack("<Q", _entry(bench, table, root + 0x1000)))
    ram.write(root + 0x1000, struct.pack("<Q", _entry(bench, table, root + 0x2000)))
    ram.write(root + 0x2000 + 8 * (WORD >> 12 & 511), struct.pack("<Q", _entry(bench, entry, elsewhere)))
    for at, asid, expected in ((root, 0, True), (tw.TABLES, 0, False), (root, 5, True), (tw.TABLES, 9, False)):
        if family == "aarch64":
            bench.engine.write("ttbr0_el1", at | asid << 48)
        else:
            bench.engine.write("satp", 8 << 60 | asid << 44 | at >> 12)
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
