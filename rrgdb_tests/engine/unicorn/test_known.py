"""Conditions on memory in a guest that translates addresses: judged in the hooks, wherever the page is by now."""

from __future__ import annotations

import struct

import pytest

from rrgdb.engine.base import ExitKind, Stops
from rrgdb_tests.engine.unicorn import twins as tw
from rrgdb_tests.engine.unicorn.rig import Bench
from rrgdb_tests.engine.unicorn.test_conditions import Step, encode

LOOP = """
1: add w1, w1, #1
 eor w4, w4, w1
 b 1b
"""
WORD = tw.DATA_AT + 40
ENTRY = tw.TABLES + 0x2000 + 8 * (WORD >> 12 & 511)
ODD = encode([Step("const", WORD), Step("ref32", 0), Step("const", 1), Step("bit_and", 0), Step("end", 0)])
"""whether the word is odd"""


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def bench(request: pytest.FixtureRequest) -> Bench:
    bench = tw.make("aarch64", LOOP, fast=request.param, paged=True)
    bench.engine.write("x0", WORD)
    return bench


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
    _map(bench, elsewhere & -4096 | entry & ~0xFFFF_FFFF_F000)
    assert not _hits(bench)
    _word(bench, elsewhere, 1)
    assert _hits(bench)
    _map(bench, entry)
    _word(bench, here, 0)
    assert not _hits(bench)


@pytest.mark.parametrize("entry", [0, 0x7FFF_F000 | 0x703], ids=["unmapped", "no RAM"])
def test_what_is_in_no_ram_is_left_to_the_caller(bench: Bench, entry: int) -> None:
    (before,) = struct.unpack("<Q", bench.engine.ram.read(ENTRY, 8))
    _word(bench, bench.engine.translate(WORD), 2)
    assert not _hits(bench)
    _map(bench, entry)
    assert _hits(bench)
    assert _hits(bench)
    _map(bench, before)
    assert not _hits(bench)


def test_other_tables_are_other_memory(bench: Bench) -> None:
    """TTBR0 of another process."""
    here, elsewhere, root = bench.engine.translate(WORD), tw.MORE + 0x3000 + (WORD & 0xFFF), tw.MORE + 0x8000
    _word(bench, here, 2)
    _word(bench, elsewhere, 1)
    assert not _hits(bench)
    ram = bench.engine.ram
    for table in range(3):
        ram.write(root + 0x1000 * table, ram.read(tw.TABLES + 0x1000 * table, 0x1000))
    (entry,) = struct.unpack("<Q", ram.read(ENTRY, 8))
    ram.write(root + 8 * (tw.VIRTUAL >> 30), struct.pack("<Q", root + 0x1000 | 3))
    ram.write(root + 0x1000, struct.pack("<Q", root + 0x2000 | 3))
    ram.write(root + 0x2000 + 8 * (WORD >> 12 & 511), struct.pack("<Q", elsewhere & -4096 | entry & ~0xFFFF_FFFF_F000))
    for ttbr, expected in ((root, True), (tw.TABLES, False), (root | 5 << 48, True), (tw.TABLES | 9 << 48, False)):
        bench.engine.write("ttbr0_el1", ttbr)
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
