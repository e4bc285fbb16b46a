"""Pairs of benches: one with blocks that are counted inside their code, and one in the slow gear, which is right."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from rrgdb.engine.base import NO_STOPS, Collected, Exit, Stops
from rrgdb.engine.memory import PAGE, Ram
from rrgdb.engine.unicorn import _hot
from rrgdb.engine.unicorn.counting import INLINE
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb_tests.engine.unicorn.rig import CODE, DATA, DATA_SIZE, DEVICE, Bench, assemble

INLINES = bool(_hot.CAN_INLINE)
"""whether blocks are counted inside their code on this host"""
TABLES, MORE, MORE_SIZE = 0x30000, 0x100000, 0x40000
VIRTUAL, DATA_AT, ALIAS, DEVICE_AT = 0x4000_0000, 0x4000_4000, 0x4000_8000, 0x4000_C000
HOLE_AT, DATA_ALIAS = 0x4000_E000, 0x4001_0000
MANY = 0x4010_0000
_SLOW_BYTES = 16 << 20
PAGED = ("riscv64", "riscv32", "aarch64", "arm", "thumb")


def _page_of(address: int) -> int:
    """Where VIRTUAL and what lies behind it is."""
    if address >= MANY:
        return address - MANY + MORE
    places = {VIRTUAL: CODE, DATA_AT: DATA, ALIAS: CODE, DEVICE_AT: DEVICE, DATA_ALIAS: DATA}
    base = address & -DATA_SIZE
    return places[base] + address - base


def _executes(page: int) -> bool:
    """Whether it may be executed: entries of Unicorn's TLB differ in that."""
    return not DATA_AT <= page < DEVICE_AT


def _map_riscv64(bench: Bench, pages: list[int]) -> None:
    engine, root, middle, leaf = bench.engine, TABLES, TABLES + 0x1000, TABLES + 0x2000
    entries = [(root + 8 * (VIRTUAL >> 30), middle, 1), (middle, leaf, 1)]
    entries += [(leaf + 8 * (page >> 12 & 511), _page_of(page), 0xCF if _executes(page) else 0xC7) for page in pages]
    for at, target, flags in entries:
        engine.write_memory(at, struct.pack("<Q", target >> 12 << 10 | flags))
    engine.write("satp", 8 << 60 | root >> 12)


def _map_riscv32(bench: Bench, pages: list[int]) -> None:
    engine, root, leaf = bench.engine, TABLES, TABLES + 0x1000
    entries = [(root + 4 * (VIRTUAL >> 22), leaf, 1)]
    entries += [(leaf + 4 * (page >> 12 & 1023), _page_of(page), 0xCF if _executes(page) else 0xC7) for page in pages]
    for at, target, flags in entries:
        engine.write_memory(at, struct.pack("<I", target >> 12 << 10 | flags))
    engine.write("satp", 1 << 31 | root >> 12)


def _map_aarch64(bench: Bench, pages: list[int]) -> None:
    engine, root, middle, leaf = bench.engine, TABLES, TABLES + 0x1000, TABLES + 0x2000
    entries = [(root + 8 * (VIRTUAL >> 30), middle | 3), (middle, leaf | 3)]
    entries += [(leaf + 8 * (page >> 12 & 511), _page_of(page) | 0x703 | (not _executes(page)) << 53) for page in pages]
    for at, value in entries:
        engine.write_memory(at, struct.pack("<Q", value))
    for name, value in (("tcr_el1", 0x803519), ("mair_el1", 0xFF), ("ttbr0_el1", root)):
        engine.write(name, value)
    engine.write("sctlr_el1", engine.read("sctlr_el1") | 1)


def _map_arm(bench: Bench, pages: list[int]) -> None:
    """Short descriptors; TTBR0 translates the lower half."""
    engine, root, leaves = bench.engine, TABLES, TABLES + 0x2000
    for page in pages:
        leaf = leaves + 0x400 * (page - VIRTUAL >> 20)
        engine.write_memory(root + 4 * (page >> 20), struct.pack("<I", leaf | 1))
        flags = 0x3E | (not _executes(page))
        engine.write_memory(leaf + 4 * (page >> 12 & 255), struct.pack("<I", _page_of(page) | flags))
    for name, value in (("ttbcr", 1 << 5 | 1), ("dacr", 1), ("ttbr0", root)):
        engine.write(name, value)
    engine.write("sctlr", engine.read("sctlr") | 1)


def _map_thumb(bench: Bench, pages: list[int]) -> None:
    """Long descriptors."""
    engine, root, middle, leaf = bench.engine, TABLES, TABLES + 0x1000, TABLES + 0x2000
    entries = [(root + 8 * (VIRTUAL >> 30), middle | 3), (middle, leaf | 3)]
    entries += [(leaf + 8 * (page >> 12 & 511), _page_of(page) | 0x743 | (not _executes(page)) << 54) for page in pages]
    for at, value in entries:
        engine.write_memory(at, struct.pack("<Q", value))
    for name, value in (("ttbcr", 1 << 31), ("prrr", 0xFF), ("ttbr0_wide", root)):
        engine.write(name, value)
    engine.write("sctlr", engine.read("sctlr") | 1)


_MAP: dict[str, Callable[[Bench, list[int]], None]] = {
    "riscv64": _map_riscv64,
    "riscv32": _map_riscv32,
    "aarch64": _map_aarch64,
    "arm": _map_arm,
    "thumb": _map_thumb,
}


def make(family: str, code: str | bytes, *, fast: bool = True, paged: bool = False, offset: int = 0) -> Bench:
    """A bench. ``paged``: it stands at VIRTUAL as a kernel, with what VIRTUAL and the others name."""
    ram = Ram(3 * DATA_SIZE + MORE_SIZE)
    bench = Bench.with_code(family, code, CODE + offset, fast=fast, ram=ram)
    engine = bench.engine
    engine.map_ram(TABLES, DATA_SIZE)
    engine.map_ram(MORE, MORE_SIZE)
    if not paged:
        return bench
    pages = [*range(VIRTUAL, DEVICE_AT + PAGE, PAGE), *range(DATA_ALIAS, DATA_ALIAS + DATA_SIZE, PAGE)]
    pages += range(MANY, MANY + MORE_SIZE, PAGE)
    if family.startswith("riscv"):
        engine.write_memory(TABLES + 0x3800, assemble(family, "mret"))
        engine.write("mepc", VIRTUAL + offset)
        engine.write("mstatus", 1 << 11 | 1 << 13)  # MPP = S, FS on
        engine.write("pc", TABLES + 0x3800)
        _MAP[family](bench, pages)
        bench.run(1)
    else:
        _MAP[family](bench, pages)
        engine.write("pc", VIRTUAL + offset)
    engine.write("sp", DATA_AT + DATA_SIZE - 64)
    assert (bench.pc, engine.translates) == (VIRTUAL + offset, True)
    return bench


@dataclass
class Twins:
    """The same done to both, and the same found."""

    inlined: Bench
    slow: Bench

    def each(self, act: Callable[[Bench], object]) -> None:
        """The answers are the same."""
        answers = act(self.inlined), act(self.slow)
        assert answers[0] == answers[1]

    def run(self, icount: int) -> Exit:
        exits = self.inlined.run(icount), self.slow.run(icount)
        assert (exits[0], self.inlined.engine.icount) == (exits[1], self.slow.engine.icount)
        self.compare()
        return exits[0]

    def compare(self) -> None:
        """Where they stand, and all that they are."""
        places = [(b.engine.icount, hex(b.pc)) for b in (self.inlined, self.slow)]
        assert places[0] == places[1]
        digests = self.inlined.state(), self.slow.state()
        assert digests[0] == digests[1], places[0]
        assert self.inlined.accesses == self.slow.accesses

    def write(self, register: str, value: int) -> None:
        for bench in (self.inlined, self.slow):
            bench.engine.write(register, value)

    def write_memory(self, address: int, data: bytes) -> None:
        for bench in (self.inlined, self.slow):
            bench.engine.write_memory(address, data)

    def arm(self, stops: Stops) -> None:
        for bench in (self.inlined, self.slow):
            bench.engine.arm(NO_STOPS)
            bench.engine.arm(stops, bench.engine.icount)

    def collected(self) -> Collected:
        found = self.inlined.engine.collected(), self.slow.engine.collected()
        assert found[0] == found[1]
        return found[0]

    def to(self, icount: int, *, most: int = 1_000) -> int:
        """Over all stops up to there; how many there were."""
        for stops in range(most):
            if self.run(icount).kind.name == "LIMIT":
                return stops
            for bench in (self.inlined, self.slow):
                bench.engine.arm(bench.engine.stops, bench.engine.icount)
        raise AssertionError("it does not get there")

    @property
    def sites(self) -> int:
        """How many blocks of the one are counted inside their code now."""
        return self.inlined.engine._core.inlined


Make = Callable[..., Twins]


def maker(patch: pytest.MonkeyPatch) -> Make:
    """Makes twins as ``make`` does."""
    new_cpu = UnicornEngine._new_cpu

    def small(engine: UnicornEngine, model: str | None) -> Any:
        """Unicorn would reserve a GiB for the code of the slow one, which pushes the next one out of reach."""
        uc = new_cpu(engine, model)
        uc.ctl_set_tcg_buffer_size(_SLOW_BYTES)
        return uc

    patch.setattr(UnicornEngine, "_new_cpu", small)

    def twins(family: str, code: str | bytes, *, paged: bool = False, offset: int = 0) -> Twins:
        benches = []
        for fast in (True, False):
            patch.setenv(INLINE, str(int(fast)))
            benches.append(make(family, code, fast=fast, paged=paged, offset=offset))
        return Twins(*benches)

    return twins


def walk(twins: Twins, chosen: random.Random, runs: int, longest: int = 3_000) -> None:
    """Runs of random lengths."""
    for _ in range(runs):
        twins.to(twins.slow.engine.icount + chosen.randrange(1, chosen.choice((2, 300, longest))))
