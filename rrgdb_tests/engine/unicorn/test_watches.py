"""Watches of physical addresses, and of one address space: hit exactly where the bytes change."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import pytest

from rrgdb.engine.base import EngineError, ExitKind, Space, Stops, Watch, armed
from rrgdb_tests.engine.unicorn.rig import (
    DATA,
    DEVICE,
    Bench,
    Board,
    Saved,
    assemble,
    board,
    board_with,
    riscv_supervisor,
)
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import symbol

LOOPS = 720
UPPER = {"riscv64": 0xFFFFFFC000000000, "aarch64": 0xFFFFFF8000000000}
OWN = 0x40000000
"""what ``riscv_upper`` has mapped in each address space to another page: ``frames[2]``, ``frames[3]``"""
GUESTS = {"riscv64": "riscv_upper", "aarch64": "aarch64_upper"}
Change = tuple[int, bytes, bytes]
"""position behind it, bytes before and after"""


class Word(NamedTuple):
    """A physical address."""

    address: int
    length: int

    def watch(self, kind: str = "w") -> Watch:
        return Watch(self.address, self.length, kind, physical=True)


def _words(arch: str) -> list[Word]:
    """What is written at another address, at this one, in machine mode, by nobody, while it is mapped now and then; and
    an entry of the page tables."""
    image = build(arch, GUESTS[arch], {"LOOPS": LOOPS})
    frames = symbol(image, "frames")
    words = [Word(frames + 4096 * frame + 4 * at, 4) for frame in (0, 1, 2) for at in (4, 16, 20, 32)]
    if arch == "riscv64":
        return [*words, Word(frames + 4096 * 3 + 16, 4), Word(symbol(image, "leaf") + 8, 8)]
    return [*words, Word(symbol(image, "leaves") + 8, 8)]


@cache
def _truth(arch: str) -> tuple[dict[Word, list[Change]], int, dict[int, tuple[Saved, Space | None]]]:
    """Changes of each word, the length of it all, and states on the way; one instruction after the other."""
    guest = _guest(arch, fast=False)
    words, found, saved = _words(arch), dict[Word, list[Change]](), dict[int, tuple[Saved, Space | None]]()
    read = guest.engine.ram.read
    held = {word: read(*word) for word in words}
    found = {word: [] for word in words}
    position = 0
    while guest.end is None:
        if position % 4999 == 0:
            saved[position] = Saved.of(guest), guest.engine.space()
        position += 1
        guest.run_until(position)
        for word in words:
            now = read(*word)
            if now != held[word]:
                found[word].append((guest.engine.icount, held[word], now))
                held[word] = now
    return found, guest.engine.icount, saved


def _guest(arch: str, *, fast: bool) -> Board:
    return board_with(build(arch, GUESTS[arch], {"LOOPS": LOOPS}), fast=fast)


def _stops(guest: Board, watch: Watch, end: int) -> list[Change]:
    found = []
    with armed(guest.engine, Stops(watches=(watch,))):
        while guest.engine.icount < end and guest.end is None:
            exit_ = guest.run_until(end)
            if exit_.kind is ExitKind.WATCHPOINT:
                (hit,) = exit_.hits
                found.append((guest.engine.icount, hit.old, hit.new))
    return found


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("arch", GUESTS)
def test_physical_words_are_hit_whoever_writes_to_them(arch: str, fast: bool) -> None:
    truth, end, saved = _truth(arch)
    assert sum(bool(changes) for changes in truth.values()) >= 6
    for word, changes in truth.items():
        guest = _guest(arch, fast=fast)
        assert _stops(guest, word.watch(), end) == changes, word
    guest = _guest(arch, fast=fast)
    for position in list(saved)[1::3]:
        for word, changes in truth.items():
            saved[position][0].load(guest)
            assert _stops(guest, word.watch(), end) == [c for c in changes if c[0] > position], (word, position)


@pytest.mark.parametrize("arch", GUESTS)
def test_the_last_change_is_collected(arch: str) -> None:
    truth, end, _ = _truth(arch)
    guest = _guest(arch, fast=True)
    with armed(guest.engine, Stops(watches=tuple(word.watch() for word in truth), collect=True)):
        guest.run_until(end)
        last = guest.engine.collected()
    changes = {word: changes[-1] for word, changes in truth.items() if changes}
    assert last.watch == max(icount for icount, _, _ in changes.values())
    assert {(hit.address, hit.old, hit.new) for hit in last.hits} == {
        (word.address, old, new) for word, (icount, old, new) in changes.items() if icount == last.watch
    }
    assert all(hit.hidden for hit in last.hits)


@pytest.mark.parametrize("fast", [False, True])
def test_a_space_is_watched_whichever_is_in_use(fast: bool) -> None:
    """Although the other space writes to another page there; and by another address."""
    truth, end, saved = _truth("riscv64")
    frames = symbol(build("riscv64", "riscv_upper", {"LOOPS": LOOPS}), "frames")
    spaces = {space.root: space for _, space in saved.values() if space is not None}
    first, second = (spaces[root] for root in sorted(spaces))
    for space, frame, at in ((first, 2, 16), (second, 3, 16), (first, 2, 64)):
        changes = truth[Word(frames + 4096 * frame + at, 4)]
        assert changes
        watch = Watch(OWN + at, 4, "w", space=space)
        assert _stops(_guest("riscv64", fast=fast), watch, end) == changes
        guest = _guest("riscv64", fast=fast)
        for position in list(saved)[1::3]:
            saved[position][0].load(guest)
            assert _stops(guest, watch, end) == [c for c in changes if c[0] > position]


@pytest.mark.parametrize("arch", GUESTS)
def test_what_all_spaces_share_is_watched_as_without_a_space(arch: str) -> None:
    _, end, saved = _truth(arch)
    space = next(space for _, space in saved.values() if space is not None)
    for at in (4, 1024 + 16):
        watch = Watch(UPPER[arch] + 4 * at, 4, "w")
        expected = _stops(_guest(arch, fast=True), watch, end)
        assert len(expected) > 1
        assert _stops(_guest(arch, fast=True), replace(watch, space=space), end) == expected


def test_whether_an_address_leads_to_the_same_in_a_space() -> None:
    _, _, saved = _truth("riscv64")
    guest = _guest("riscv64", fast=True)
    seen = set()
    others = [space for _, space in saved.values() if space is not None]
    for state, space in saved.values():
        state.load(guest)
        assert guest.engine.space() == space
        if space is None:
            continue
        for other in others:
            assert guest.engine.shows(other, OWN + 16) is (other.root == space.root)
            assert guest.engine.shows(other, UPPER["riscv64"])
            seen.add(other.root == space.root)
    assert seen == {False, True}


ACCESSED, DIRTY = 0x40, 0x80
LOAD, STORE = "li a0, 0x40001000\nnop\nnop\nlw a1, 8(a0)", "nop\nnop\nsw a0, 8(a0)"


def _walked() -> Bench:
    """RISC-V in supervisor mode, at a load from a page and a store to it, both for the first time."""
    return riscv_supervisor(f"{LOAD}\n{STORE}\nnop\nnop\nsw zero, 8(a0)\nnop\nnop\n")


def test_accessed_and_dirty_bits_that_a_walk_sets_are_writes() -> None:
    b = _walked()
    b.run(3)
    entry = int.from_bytes(b.engine.ram.read(DATA + 0x3008, 8), "little")
    with armed(b.engine, Stops(watches=(Watch(DATA + 0x3008, 8, "w", physical=True),))):
        seen = []
        while b.engine.icount < 12:
            exit_ = b.run(12)
            assert exit_.kind in (ExitKind.WATCHPOINT, ExitKind.LIMIT)
            if exit_.kind is ExitKind.WATCHPOINT:
                (hit,) = exit_.hits
                seen.append((b.pc, *(int.from_bytes(value, "little") - entry for value in (hit.old, hit.new))))
    load = 0x40000000 + len(assemble("riscv64", LOAD))
    store = load + len(assemble("riscv64", STORE))
    assert seen == [(load, 0, ACCESSED), (store, ACCESSED, ACCESSED | DIRTY)]


@pytest.mark.parametrize("family", ["riscv64", "aarch64", "arm", "x86_64"])
@pytest.mark.parametrize("kind", "wra")
def test_without_translation_physical_addresses_are_as_virtual_ones(family: str, kind: str) -> None:
    found = []
    for physical in (False, True):
        guest = board(family, "ticker", TICKS=3, WORK=30)
        address = symbol(build(family, "ticker", {"TICKS": 3, "WORK": 30}), "tick_count")
        found.append([])
        with armed(guest.engine, Stops(watches=(Watch(address, 4, kind, physical=physical),))):
            while guest.end is None:
                exit_ = guest.run_until(1 << 40)
                if exit_.kind is ExitKind.WATCHPOINT:
                    found[-1].append((guest.engine.icount, [replace(hit, hidden=False) for hit in exit_.hits]))
    assert len(found[0]) >= 3
    assert found[0] == found[1]


@pytest.mark.parametrize("fast", [False, True])
def test_registers_of_a_device_are_watched_at_their_physical_address(fast: bool) -> None:
    b = Bench.with_code("riscv64", f"li a0, {DEVICE}\nsw a0, 4(a0)\nlw a1, 8(a0)\nsw a0, 8(a0)\n1: j 1b", fast=fast)
    stops = []
    with armed(b.engine, Stops(watches=(Watch(DEVICE + 8, 4, "w", physical=True),))):
        while b.engine.icount < 40:
            if b.run(40).kind is ExitKind.WATCHPOINT:
                stops.append(b.engine.icount)
    (stop,) = stops
    assert b.accesses[-1][:2] == ("w", 8)
    assert stop < 12


def test_too_many_physical_watches_are_refused() -> None:
    b = Bench.with_code("riscv64", "nop")
    few = tuple(Watch(DATA + 16 * n, 4, "w", physical=True) for n in range(64))
    with armed(b.engine, Stops(watches=few)):
        pass
    with pytest.raises(EngineError, match="cannot watch"):
        b.engine.arm(Stops(watches=(*few, Watch(DATA, 4, "w"))))
