"""The fast gear agrees with the slow one, icount by icount: the slow path is the specification."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from rrgdb.board.boards import default_board
from rrgdb.board.guest import Board
from rrgdb.board.image import load_image, place_image
from rrgdb.engine.base import ExitKind
from rrgdb.engine.memory import Ram
from rrgdb.engine.unicorn import UnicornEngine
from rrgdb.timeline.digest import RamDigest
from rrgdb_tests.board.fakes import FakeHost
from rrgdb_tests.guests import AWKWARD, build

MEMORY = 16 << 20
ARCHES = ("riscv64", "riscv32", "aarch64", "arm", "thumb", "i386", "x86_64")
"""the families that have a fast gear"""
GUESTS = [(arch, name) for arch in ARCHES for name in (*AWKWARD[arch], "hunt", "ticker")]
SLICES = (1, 3, 50, 1_000, 20_000, 200_000)


class Running:
    """One guest in one gear, and a digest of all that it consists of."""

    def __init__(self, path: Path, *, fast: bool) -> None:
        image = load_image(path.read_bytes(), path.name)
        spec = default_board(image.arch.name)
        ram = Ram(sum(size for _, size in spec.ram_regions(MEMORY)))
        self.engine = UnicornEngine(image.arch, ram, fast=fast)
        self.host = FakeHost()
        self.board = Board(spec, self.engine, MEMORY, self.host, place_image(image, spec, MEMORY))
        self._digest = RamDigest(ram.pages)
        populated = np.array(list(ram.populated()), dtype=np.int64)
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


def _compare(path: Path, seed: int, limit: int) -> None:
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
    _compare(build(arch, name), seed=1, limit=400_000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
@pytest.mark.parametrize(("arch", "name"), GUESTS)
def test_many_more_slices_reach_the_same_states(arch: str, name: str, seed: int) -> None:
    _compare(build(arch, name), seed, limit=20_000_000)


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
        running.engine.set_breakpoints((place, False) for place in places)
    for _ in range(300):
        stops = []
        for running in (fast, slow):
            running.engine.ignore_stops_at(running.engine.icount)
            exit_ = running.board.run_until(running.engine.icount + 100_000)
            stops.append((exit_.kind, running.engine.icount, running.engine.read(running.engine.arch.pc)))
        assert stops[0] == stops[1]
        if stops[0][0] is not ExitKind.BREAKPOINT:
            break
    assert fast.state() == slow.state()


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
