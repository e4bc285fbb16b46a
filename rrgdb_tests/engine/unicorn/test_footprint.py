"""Footprints hold every pc and every written page of their span, in every gear, and not much more."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrgdb.engine.base import Ranges, ranges
from rrgdb.engine.memory import PAGE
from rrgdb_tests.engine.unicorn import rig
from rrgdb_tests.engine.unicorn.rig import FAMILIES, Bench
from rrgdb_tests.guests import AWKWARD

GUESTS = [(family, name) for family in FAMILIES for name in (*AWKWARD[family], "mixer")]
LIMIT = 20_000


def _holds(found: Ranges, number: int) -> bool:
    i = int(np.searchsorted(found[:, 0], np.uint64(number), side="right")) - 1
    return i >= 0 and number <= int(found[i, 1])


def _numbers(found: Ranges) -> set[int]:
    return {n for first, last in found.tolist() for n in range(first, last + 1)}


@pytest.mark.parametrize(("family", "program"), GUESTS)
def test_holds_every_pc_and_every_written_page(family: str, program: str) -> None:
    plain, guest = rig.board(family, program), rig.board(family, program)
    rng = random.Random(1)
    plain.engine.forget_footprint()
    guest.engine.forget_footprint()
    ram = guest.engine.ram
    while guest.end is None and guest.engine.icount < LIMIT:
        before = {n: ram.page(n) for n in ram.populated().tolist()}
        begin = guest.engine.icount
        end = begin + rng.choice((1, 2, 60, 4_000, 15_000))
        pcs = set()
        while plain.engine.icount < end and plain.end is None:
            pcs.add(plain.engine.read(plain.arch.pc))
            plain.run_until(plain.engine.icount + 1)
        for _ in range(rng.choice((1, 1, 3))):
            guest.run_until(rng.randint(guest.engine.icount, end))
        guest.run_until(end)
        found = guest.engine.take_footprint()
        assert found is not None
        assert (found.begin, found.end) == (begin, guest.engine.icount)
        assert [hex(pc) for pc in sorted(pcs) if not _holds(found.code, pc)] == []
        changed = {n for n in ram.populated().tolist() if ram.page(n) != before.get(n, bytes(PAGE))}
        assert changed <= _numbers(found.pages)
        if rng.random() < 0.5:
            ram.clean(ram.dirty())
            guest.engine.forget_footprint()


def test_holds_little_else() -> None:
    bench = Bench.with_code("riscv64", "1: addi a0, a0, 1\n blt a0, a1, 1b\n sd a0, 0(a2)\n 2: j 2b\n .zero 64\n ret")
    bench.engine.write("a1", 10_000)
    bench.engine.write("a2", rig.DATA + PAGE)
    bench.engine.ram.clean(bench.engine.ram.dirty())
    bench.engine.forget_footprint()
    bench.run(5_000)
    loop = bench.engine.take_footprint()
    assert loop is not None
    assert (loop.code.tolist(), loop.pages.tolist()) == ([[rig.CODE, rig.CODE + 5]], [])
    bench.run(30_000)
    rest = bench.engine.take_footprint()
    assert rest is not None
    assert rest.code[-1, 1] < rig.CODE + 32
    assert rest.pages.tolist() == [[rig.DATA_SIZE // PAGE + 1] * 2]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_instruction_that_cannot_be_fetched_is_in_it(family: str) -> None:
    bench = Bench.with_code(family, ".byte 0,0,0,0")
    bench.engine.write(bench.engine.arch.pc, rig.HOLE)
    bench.to_exception()
    found = bench.engine.take_footprint()
    assert found is not None
    assert _holds(found.code, rig.HOLE)


def test_begins_anew_when_a_state_is_loaded() -> None:
    guest = rig.board("riscv64", "mixer")
    guest.run_until(1_000)
    saved = guest.engine.save()
    guest.run_until(30_000)
    guest.engine.load(saved)
    assert guest.engine.footprint_begin == 1_000
    found = guest.engine.take_footprint()
    assert found is not None
    assert (found.begin, found.end, len(found.code)) == (1_000, 1_000, 0)


def test_more_blocks_than_the_set_begins_with() -> None:
    jumps = "\n".join(["j 1f\n nop\n nop\n 1:"] * 1_300) + "\n2: j 2b"
    bench = Bench.with_code("riscv64", f".option norvc\n{jumps}")
    bench.engine.forget_footprint()
    for _ in range(3):
        bench.engine.write("pc", rig.CODE)
        bench.run(bench.engine.icount + 1_200)
        found = bench.engine.take_footprint()
        assert found is not None
        assert all(_holds(found.code, rig.CODE + 12 * i) for i in range(1_200))
        assert len(found.code) >= 1_200


number = st.integers(0, 60) | st.integers((1 << 64) - 60, (1 << 64) - 1)


@given(st.lists(st.tuples(number, st.integers(0, 5))))
def test_ranges_hold_the_same_numbers(spans: list[tuple[int, int]]) -> None:
    top = (1 << 64) - 1
    first = np.array([n for n, _ in spans], dtype=np.uint64)
    last = np.array([min(n + length, top) for n, length in spans], dtype=np.uint64)
    merged = ranges(first, last)
    expected = {n for a, b in zip(first.tolist(), last.tolist(), strict=True) for n in range(a, b + 1)}
    assert _numbers(merged) == expected
    flat = merged.ravel().tolist()
    assert flat == sorted(flat)
    assert all(b - a > 1 for a, b in zip(flat[1::2], flat[2::2], strict=False))
