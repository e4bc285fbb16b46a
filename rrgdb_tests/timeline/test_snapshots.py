"""Snapshots and checkpoints as the timeline uses them: spacing, budgets, names, deletion, sizes."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import median

import pytest

from rrgdb.opening import Opened, record, replay
from rrgdb.snapshots.errors import StoreError
from rrgdb.timeline.prepare import Preparation
from rrgdb.timeline.stop import Points, StopKind
from rrgdb.timeline.verify import verify
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import OPTIONS, digests_straight, symbol

NONE = Points({})


def _ticker(arch: str = "riscv64", ticks: int = 200, work: int = 60) -> Path:
    return build(arch, "ticker", {"TICKS": ticks, "WORK": work})


def _assert_states(opened: Opened, right: dict[int, bytes], seed: int = 0) -> None:
    positions = list(right)
    Random(seed).shuffle(positions)
    for position in positions:
        opened.timeline.seek(position)
        assert opened.timeline.marks.state_digest() == right[position], position


def test_three_hundred_snapshots(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with record(path, _ticker(), OPTIONS, interval=1e-9) as opened:
        t = opened.timeline
        for n in range(300):
            t.run(NONE, steps=300)
            if n % 30 == 0:
                t.marks.take_snapshot(f"named {n}")
        assert len(t.marks.stored) >= 300
        taken = [s for s in t.marks.stored if not s.automatic]
    right = digests_straight(path, range(0, 300 * 300, 3701), tmp_path / "straight")
    with replay(path) as opened:
        _assert_states(opened, right)
        sizes = opened.timeline.marks.sizes()
        assert len(sizes) == len(opened.timeline.marks.stored)
        assert max(list(sizes.values())[1:]) < 100_000
        verify(opened.timeline)
    if shutil.which("qemu-img"):
        store = str(path / "snapshots.qcow2")
        subprocess.run(["qemu-img", "check", store], check=True, capture_output=True)
        listed = subprocess.run(["qemu-img", "snapshot", "-l", store], capture_output=True, text=True, check=True)
        for stored in taken:
            line = next(line for line in listed.stdout.splitlines() if f" {stored.name} " in line)
            assert line.split()[-1] == str(stored.icount)


def test_a_tiny_budget_thins_and_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "r"
    with record(path, _ticker(), OPTIONS, interval=1e-9, budget=400_000, say=said.append) as opened:
        t = opened.timeline
        t.run(NONE, steps=100)
        t.marks.take_snapshot("mine")
        for _ in range(250):
            t.run(NONE, steps=300)
            t.marks.flush()
        assert any("budget of 400000 bytes reached" in line for line in said)
        stored = t.marks.stored
        assert 5 < len(stored) < 150
        assert {"start", "mine"} <= {s.name for s in stored}
        t.seek(40_000)
        t.seek(t.end)
        t.run(NONE, steps=100)
    assert (path / "snapshots.qcow2").stat().st_size < 500_000
    right = digests_straight(path, range(0, 75_000, 2999), tmp_path / "straight")
    with replay(path) as opened:
        assert opened.messages == ()
        _assert_states(opened, right)


def test_snapshots_are_spaced_by_what_the_guest_computes(tmp_path: Path) -> None:
    """On a busy machine, ten thousand instructions may take an hour."""
    with record(tmp_path / "r", _ticker(), OPTIONS, interval=10) as opened:
        t = opened.timeline
        assert t.recorder is not None
        t.recorder._running = lambda: t.icount / 1024
        t.recorder._clock = lambda: 0.36 * t.icount
        for _ in range(45):
            t.run(NONE, steps=1024)
        assert [s.icount for s in t.marks.stored] == [0, 10_240, 20_480, 30_720, 40_960]


@pytest.mark.parametrize("waits", [True, False])
def test_the_budget_holds_for_a_guest_that_writes_much(tmp_path: Path, waits: bool) -> None:
    """On disk at every moment, but for one snapshot; what is left covers all of history evenly."""
    random, budget, pages = Random(5), 6 << 20, 40
    said: list[str] = []
    with record(tmp_path / "r", _ticker(), OPTIONS, interval=50e-6, budget=budget, say=said.append) as opened:
        t, ram = opened.timeline, opened.ram
        assert opened.store is not None
        assert t.recorder is not None
        t.recorder._running = lambda: 1e-6 * t.icount
        slack = 2 * opened.store.most_bytes(pages)
        middle = ram.regions[0].size // 4096 // 2
        held: dict[str, bytes] = {}
        for _ in range(400):
            for page in random.sample(range(middle, middle + 64), pages):
                ram.write(ram.regions[0].base + page * 4096, random.randbytes(16) * 256)
            t.run(NONE, steps=50)
            digest = t.marks.state_digest()
            held |= {s.name: digest for s in t.marks.stored if s.icount == t.icount}
            if waits:
                t.marks.flush()
            assert opened.store.file_size <= budget + slack
            assert opened.store.used_bytes <= budget
        t.marks.flush()
        automatic = [s for s in t.marks.stored if s.automatic]
        assert any("reached" in line for line in said)
        if waits:
            # Otherwise it depends on the disk which ones there are.
            assert len(automatic) >= 8
            gaps = [b.icount - a.icount for a, b in pairwise(automatic)]
            assert max(gaps) <= 4 * median(gaps)
            assert max(automatic[0].icount, *gaps) <= t.icount // 8
            assert len([line for line in said if "reached" in line]) <= 8
        with t.excursion():
            for stored in random.sample(automatic, min(8, len(automatic))):
                t.marks.restore(next(m for m in t.marks._disk if m.stored == stored))
                assert t.marks.state_digest() == held[stored.name]


def test_a_budget_too_small_for_any_snapshot(tmp_path: Path) -> None:
    said: list[str] = []
    with record(tmp_path / "r", _ticker(), OPTIONS, interval=1e-9, budget=1000, say=said.append) as opened:
        for _ in range(20):
            opened.timeline.run(NONE, steps=300)
        assert [s.name for s in opened.timeline.marks.stored] == ["start"]
    assert said == ["snapshot budget of 1000 bytes: there is no room for automatic snapshots"]
    with replay(tmp_path / "r") as opened:
        verify(opened.timeline)


@pytest.mark.parametrize("arch", ["riscv64", "x86_64"])
def test_deleting_what_the_present_is_built_on(tmp_path: Path, arch: str) -> None:
    """Going back to the present, or out of a diversion, needs no snapshot that is deleted meanwhile."""
    with record(tmp_path / "r", _ticker(arch), OPTIONS, interval=1e-9) as opened:
        t = opened.timeline
        for _ in range(6):
            t.run(NONE, steps=900)
        present, digest = t.icount, t.marks.state_digest()
        t.seek(1234)
        past = t.marks.state_digest()
        t.write_memory(0x80001000 if arch == "riscv64" else 0x102000, b"diverted")
        for stored in reversed(t.marks.stored[1:]):
            t.marks.delete_snapshot(stored)
        t.drop_diversion()
        assert (t.icount, t.marks.state_digest()) == (1234, past)
        t.seek(present)
        assert t.at_present
        assert t.marks.state_digest() == digest
        t.run(NONE, steps=500)
        t.seek(1234)
        assert t.marks.state_digest() == past
        t.seek(present)
        assert t.marks.state_digest() == digest
        t.marks.take_snapshot("again")
    with replay(tmp_path / "r") as opened:
        assert [s.name for s in opened.timeline.marks.stored][:2] == ["start", "again"]
        verify(opened.timeline)


def test_the_starting_snapshot_stays(tmp_path: Path) -> None:
    with record(tmp_path / "r", _ticker(), OPTIONS) as opened:
        marks = opened.timeline.marks
        with pytest.raises(StoreError, match="start stays"):
            marks.delete_snapshot(marks.stored[0])
        opened.timeline.run(NONE, steps=10)
        opened.timeline.seek(0)
        extra = marks.take_snapshot("at the start").stored
        assert extra is not None
        marks.delete_snapshot(extra)
        opened.timeline.seek(5)
        opened.timeline.seek(0)


@pytest.mark.parametrize("reopened", [False, True])
def test_an_id_that_is_used_again(tmp_path: Path, reopened: bool) -> None:
    """qcow2 gives the id of a deleted snapshot to the next one."""
    path = tmp_path / "r"
    with record(path, _ticker(), OPTIONS) as opened:
        opened.timeline.run(NONE, steps=5000)
        if not reopened:
            _use_an_id_again(opened)
    if reopened:
        with replay(path) as opened:
            _use_an_id_again(opened)


def _use_an_id_again(opened: Opened) -> None:
    t = opened.timeline
    t.seek(100)
    first = t.marks.take_snapshot("a").stored
    t.seek(50)
    t.seek(100)
    assert first is not None
    t.marks.delete_snapshot(first)
    t.seek(70)
    t.marks.take_snapshot("b")
    for _ in range(2):
        t.seek(3000)
        t.seek(70)
        assert t.icount == 70
        t.marks.flush()


def test_named_snapshots_in_the_past_and_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with record(path, _ticker(), OPTIONS) as opened:
        t = opened.timeline
        t.run(NONE, steps=20_000)
        t.seek(7777)
        t.marks.take_snapshot("live, in the past")
        t.seek(t.end)
        t.run(NONE, steps=20_000)
    with replay(path) as opened:
        opened.timeline.seek(12_345)
        opened.timeline.marks.take_snapshot("in replay")
    right = digests_straight(path, (7777, 12_345, 12_346, 30_000), tmp_path / "straight")
    with replay(path, writable=False) as opened:
        names = {s.name: s.icount for s in opened.timeline.marks.stored}
        assert names["live, in the past"] == 7777
        assert names["in replay"] == 12_345
        _assert_states(opened, right)


def test_checkpoints_keep_to_their_budget(tmp_path: Path) -> None:
    with record(tmp_path / "r", _ticker(), OPTIONS) as opened:
        opened.timeline.run(NONE, steps=80_000)
    with replay(tmp_path / "r") as opened:
        t = opened.timeline
        t.marks.budget = 300_000
        right = {}
        for position in range(100, 80_000, 777):
            t.seek(position)
            t.marks.keep_here()
            right[position] = t.marks.state_digest()
            Preparation(t).work()
            assert t.marks.memory_bytes <= 300_000
        _assert_states(opened, right)
        assert 0 < t.marks.memory_bytes <= 300_000
        t.marks.budget = 1000
        t.seek(5000)
        assert t.marks.memory_bytes == 0
        _assert_states(opened, dict(list(right.items())[::20]))


def test_checkpoint_accounting_comes_back_to_nothing(tmp_path: Path) -> None:
    with record(tmp_path / "r", _ticker(), OPTIONS) as opened:
        opened.timeline.run(NONE, steps=50_000)
        t = opened.timeline
        for position in range(100, 40_000, 999):
            t.seek(position)
            t.marks.keep_here()
        assert t.marks.memory_bytes > 0
        memory = t.marks._memory
        while memory.marks:
            memory.remove(len(memory.marks) // 2)
        assert memory.bytes == 0


def test_the_end_by_a_fatal_exception(tmp_path: Path) -> None:
    """A breakpoint at the fatal instruction stops before it, live and in replay; then the guest dies."""
    image = build("riscv64", "hunt")
    with record(tmp_path / "r", image, OPTIONS) as opened:
        stop = opened.timeline.run(NONE)
        assert stop.kind is StopKind.SIGNAL
        pc, end = opened.timeline.engine.read("pc"), stop.icount
    for live in (True, False):
        opened = record(tmp_path / "again", image, OPTIONS) if live else replay(tmp_path / "again")
        with opened:
            t = opened.timeline
            stop = t.run(Points({pc: None}))
            while stop.icount < end:
                stop = t.run(Points({pc: None}))
            assert (stop.kind, stop.icount) == (StopKind.BREAKPOINT, end)
            assert t.guest.end is None
            assert t.run(Points({pc: None}), steps=1).kind is StopKind.SIGNAL
            assert t.run(Points({pc: None}), steps=1).kind is StopKind.HISTORY_END
            t.seek(end - 1)
            assert t.run(NONE, steps=1).kind is StopKind.STEP
            assert t.run(NONE, steps=1).kind is StopKind.SIGNAL
            assert t.icount == end


def test_a_breakpoint_where_a_debugger_put_the_pc(tmp_path: Path) -> None:
    """A call out of the debugger stops at a breakpoint on the first instruction; a mere resume does not."""
    image = _ticker()
    square = symbol(image, "square")
    with record(tmp_path / "r", image, OPTIONS) as opened:
        t = opened.timeline
        t.run(NONE, steps=3000)
        t.seek(1000)
        t.write_register(t.engine.arch.register_index["pc"], square)
        assert t.run(Points({square: None})).kind is StopKind.BREAKPOINT
        assert (t.icount, t.engine.read("pc")) == (1000, square)
        assert t.run(Points({square: None}), steps=1).kind is StopKind.STEP
