"""The fast gear agrees with the slow one, icount by icount: the slow path is the specification."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest

from rrgdb.arch import ARCHES as ARCH_TABLE
from rrgdb.board.boards import default_board
from rrgdb.board.firmware.image import load_image, place_image
from rrgdb.board.machine import Board
from rrgdb.engine.base import NO_STOPS, ExitKind, Stops, Watch
from rrgdb.engine.memory import PAGE, Ram
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb.timeline.digest import RamDigest
from rrgdb_tests.board.fakes import FakeHost
from rrgdb_tests.engine.unicorn.rig import assemble, pass_by
from rrgdb_tests.guests import AWKWARD, arch_name, build

MEMORY = 16 << 20
ARCHES = ("riscv64", "riscv32", "arm", "thumb", "aarch64", "i386", "x86_64")
"""the families that have a fast gear"""
GUESTS = [(arch, name) for arch in ARCHES for name in (*AWKWARD[arch], "hunt", "ticker")]
CONDITIONS = (None, None, None, (), (bytes.fromhex("26000322030f220113 27"),))
"""of breakpoints: none, one that only the caller knows, (register 3 & 3) == 1"""
SLICES = (1, 3, 50, 1_000, 20_000, 200_000)


class Running:
    """One guest in one gear, and a digest of all that it consists of."""

    def __init__(self, path: Path, *, fast: bool, memory: int = MEMORY) -> None:
        image = load_image(path.read_bytes(), path.name)
        spec = default_board(image.arch.name)
        placed = place_image(image, spec, spec.ram(memory))
        ram = Ram(spec.memory_bytes(placed.ram))
        self.engine = UnicornEngine(image.arch, ram, fast=fast)
        self.host = FakeHost()
        self.board = Board(spec, self.engine, placed, self.host)
        self._digest = RamDigest(ram.pages)
        populated = ram.populated()
        self._digest.update(populated, ram.contents(populated))
        ram.clean(ram.dirty())

    def state(self) -> tuple[object, ...]:
        ram = self.engine.ram
        dirty = ram.dirty()
        self._digest.update(dirty, ram.contents(dirty))
        ram.clean(dirty)
        return (
            self.engine.icount,
            self.engine.registers_digest(),
            self.board.save_devices(),
            self._digest.value(),
            self.host.text,
            self.board.end,
        )


def compare_gears(path: Path, seed: int, limit: int) -> None:
    fast, slow = Running(path, fast=True), Running(path, fast=False)
    rng = random.Random(seed)
    while fast.board.end is None and fast.engine.icount < limit:
        target = fast.engine.icount + rng.randrange(rng.choice(SLICES)) + 1
        exits = fast.board.run_until(target), slow.board.run_until(target)
        assert exits[0] == exits[1]
        assert fast.state() == slow.state(), f"after running to {target}"
    assert slow.board.end == fast.board.end


@pytest.mark.parametrize(("arch", "name"), GUESTS)
def test_any_slices_reach_the_same_states(arch: str, name: str) -> None:
    compare_gears(build(arch, name), seed=1, limit=400_000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
@pytest.mark.parametrize(("arch", "name"), GUESTS)
def test_many_more_slices_reach_the_same_states(arch: str, name: str, seed: int) -> None:
    compare_gears(build(arch, name), seed, limit=20_000_000)


@pytest.mark.parametrize("arch", ARCHES)
def test_both_gears_stop_at_the_same_breakpoints(arch: str) -> None:
    path = build(arch, "ticker")
    fast, slow = Running(path, fast=True), Running(path, fast=False)
    rng = random.Random(5)
    slow.board.run_until(3_000)
    places = set()
    for _ in range(40):
        slow.board.run_until(slow.engine.icount + rng.randrange(200) + 1)
        places.add(slow.engine.read(slow.engine.arch.pc))
    slow = Running(path, fast=False)
    for running in (fast, slow):
        running.engine.arm(Stops(tuple((place, None) for place in places)))
    for _ in range(300):
        stops = []
        for running in (fast, slow):
            pass_by(running.engine)
            exit_ = running.board.run_until(running.engine.icount + 100_000)
            stops.append((exit_.kind, running.engine.icount, running.engine.read(running.engine.arch.pc)))
        assert stops[0] == stops[1]
        if stops[0][0] is not ExitKind.BREAKPOINT:
            break
    assert fast.state() == slow.state()


class _Places:
    """Where a guest executes and what it touches, sampled on a run of its own."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        running = Running(path, fast=False)
        engine = running.engine
        self.code: list[int] = []
        self.data: list[int] = []
        while running.board.end is None and engine.icount < 200_000:
            running.board.run_until(engine.icount + rng.randrange(2_000) + 1)
            self.code.append(engine.read(engine.arch.pc))
            self.data.append(engine.read(engine.arch.sp) & -8)
        stack = self.data[0]
        last = next(r for r in engine.ram.regions if r.base <= stack < r.base + r.size)
        for n in engine.ram.dirty().tolist():
            page = engine.ram.page(n)
            used = [at for at in range(0, PAGE, 4) if page[at : at + 4] != bytes(4)] or [0]
            first = next(r.base - r.offset for r in engine.ram.regions if r.offset <= n * PAGE < r.offset + r.size)
            self.data += [first + n * PAGE + at for at in (0, PAGE - 4, *rng.choices(used, k=8))]
        inside = [a for a in self.data if last.base + 4 <= a < last.base + last.size - 64]
        self.data = inside or [last.base + 4]


def _compare_armed(path: Path, seed: int, limit: int) -> None:
    """Points come and go while both gears run; they stop at the same places, with the same hits."""
    rng = random.Random(seed)
    places = _Places(path, rng)
    both = Running(path, fast=True), Running(path, fast=False)
    fast, slow = both
    while fast.board.end is None and fast.engine.icount < limit:
        breakpoints = {(rng.choice(places.code), rng.choice(CONDITIONS)) for _ in range(rng.choice((0, 0, 1, 5, 50)))}
        watches = tuple(
            Watch(rng.choice(places.data) + rng.randrange(-4, 40), rng.choice((1, 2, 4, 8, 40)), rng.choice("wwra"))
            for _ in range(rng.choice((0, 0, 1, 2)))
        )
        collect = rng.random() < 0.5
        for running in both:
            running.engine.arm(NO_STOPS)
            running.engine.arm(Stops(tuple(breakpoints), watches, collect=collect))
        for _ in range(rng.randrange(1, 6)):
            target = fast.engine.icount + rng.randrange(rng.choice(SLICES)) + 1
            exits = []
            for running in both:
                pass_by(running.engine)
                exits.append((running.board.run_until(target), running.engine.icount))
            assert exits[0] == exits[1], (breakpoints, watches, collect)
        seen = [running.engine.collected() for running in both] if collect else [0, 0]
        assert seen[0] == seen[1], (breakpoints, watches)
        assert fast.state() == slow.state(), (breakpoints, watches, collect)


@pytest.mark.parametrize(("arch", "name"), GUESTS)
def test_points_stop_both_gears_at_the_same_places(arch: str, name: str) -> None:
    _compare_armed(build(arch, name), seed=1, limit=300_000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 42))
@pytest.mark.parametrize(("arch", "name"), GUESTS)
def test_many_more_points_stop_both_gears_at_the_same_places(arch: str, name: str, seed: int) -> None:
    _compare_armed(build(arch, name), seed, limit=2_000_000)


def _compare_travels(path: Path, seed: int, moves: int) -> None:
    """Saved states are loaded again and again while translations, hooks and TLB stay as earlier runs have left them."""
    rng = random.Random(seed)
    both = Running(path, fast=True), Running(path, fast=False)
    marks: list[list[tuple[bytes, bytes, dict[int, bytes]]]] = [[], []]
    for running, saved in zip(both, marks, strict=True):
        for _ in range(6):
            ram = running.engine.ram
            pages = {n: ram.page(n) for n in ram.populated().tolist()}
            saved.append((running.engine.save(), running.board.save_devices(), pages))
            running.board.run_until(running.engine.icount + 1_500)
    for _ in range(moves):
        which, ahead, afresh = rng.randrange(6), [rng.randrange(2_000) + 1 for _ in range(2)], rng.random() < 0.5
        states = []
        for running, saved in zip(both, marks, strict=True):
            cpu, devices, pages = saved[which]
            ram = running.engine.ram
            now = ram.populated().tolist()
            changed = [n for n in now if ram.page(n) != pages.get(n, bytes(PAGE))]
            ram.set_clean(np.array(now), [pages.get(n, bytes(PAGE)) for n in now], ram.dirty())
            running.engine.pages_changed(changed)
            running.engine.load(cpu)
            running.board.load_devices(devices)
            if afresh:
                running.engine.drop_translations()
            for n in ahead:
                running.board.run_until(running.engine.icount + n)
            states.append((running.engine.icount, running.engine.registers_digest(), running.board.save_devices()))
        assert states[0] == states[1], (which, ahead, afresh)


@pytest.mark.parametrize(("arch", "name"), GUESTS)
def test_going_back_leaves_nothing_behind(arch: str, name: str) -> None:
    _compare_travels(build(arch, name), seed=1, moves=15)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
@pytest.mark.parametrize(("arch", "name"), GUESTS)
def test_going_back_often_leaves_nothing_behind(arch: str, name: str, seed: int) -> None:
    _compare_travels(build(arch, name), seed, moves=200)


@pytest.mark.parametrize("arch", ARCHES)
def test_a_start_that_touches_address_translation_does_not_keep_the_slow_gear(arch: str) -> None:
    running = Running(build(arch, "ticker"), fast=True)
    running.board.run_until(300_000)
    assert not running.engine._core.mmu_seen
    assert running.engine.icount == 300_000


# reads one word of each of 1,024 pages, again and again; ends in nothing
ROUND = {
    "riscv": "1: li a0, {begin}\nli a1, {end}\nli a2, 4096\n2: lw a3, (a0)\nadd a0, a0, a2\nbne a0, a1, 2b\nj 1b",
    "aarch64": "1: ldr x0, ={begin}\nldr x1, ={end}\n2: ldr w3, [x0]\nadd x0, x0, #4096\ncmp x0, x1\nbne 2b\nb 1b\n"
    ".ltorg",
    "arm": "1: ldr r0, 8f\nldr r1, 9f\n2: ldr r3, [r0]\nadd r0, r0, #4096\ncmp r0, r1\nbne 2b\nb 1b\n"
    ".p2align 2\n8: .word {begin}\n9: .word {end}",
    "x86": "1: mov esi, {begin}\n2: mov edi, [{wide}si]\nadd esi, 4096\ncmp esi, {end}\njne 2b\njmp 1b",
}
CODE_OF_ROUND = {arch: arch.rstrip("0123456789") for arch in ("riscv64", "riscv32", "arm")} | {
    "aarch64": "aarch64",
    "thumb": "arm",
    "i386": "x86",
    "x86_64": "x86",
}


@pytest.mark.parametrize("arch", ARCHES)
def test_the_tlb_grows_with_the_pages_that_a_guest_uses(arch: str) -> None:
    begin, pages = 0x1000000, 1024
    end = begin + pages * PAGE
    source = ROUND[CODE_OF_ROUND[arch]].format(begin=begin, end=end, wide="r" if arch == "x86_64" else "e")
    engine = UnicornEngine(ARCH_TABLE[arch_name(arch)], Ram(end - begin + PAGE))
    engine.map_ram(0x10000, PAGE)
    engine.map_ram(begin, end - begin)
    engine.write_memory(0x10000, assemble(arch, source))
    engine.arch.reset(engine, 0x10000 | (arch == "thumb"), begin)
    engine.run_until(100 * pages)
    fills = engine._core.fills
    engine.run_until(200 * pages)
    assert engine._core.fills - fills < pages


def test_a_tlb_that_has_grown_is_made_smaller_once_the_guest_uses_little() -> None:
    """Each block that Unicorn translates costs a walk over all of it. What the guest does is the same."""
    image = build("riscv64", "filler", {"MEGABYTES": 200, "ROUNDS": 100_000, "TOUCHED": 20})
    fast, slow = (Running(image, fast=fast, memory=224 << 20) for fast in (True, False))
    filled = 200 << 13
    for guest in (fast, slow):
        guest.board.run_until(filled)
    grown = fast.engine._core.table_size
    assert grown > 8192
    for look in range(1, 9):
        time.sleep(0.12)
        for guest in (fast, slow):
            guest.board.run_until(filled + 10_000 * look)
        assert fast.state() == slow.state()
    assert fast.engine._core.table_size < grown // 8


@pytest.mark.parametrize("arch", ARCHES)
def test_a_state_saved_in_one_gear_loads_in_the_other(arch: str) -> None:
    path = build(arch, "hunt")
    fast, slow = Running(path, fast=True), Running(path, fast=False)
    fast.board.run_until(5_000)
    slow.board.run_until(5_000)
    slow.engine.load(fast.engine.save())
    slow.board.load_devices(fast.board.save_devices())
    for running in (fast, slow):
        running.board.run_until(9_000)
    assert fast.state() == slow.state()
