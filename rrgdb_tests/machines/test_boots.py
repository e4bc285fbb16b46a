"""Firmware and kernels of Debian, from power-on to power-off: recorded, replayed, copied, debugged backwards.

They are fetched when they are needed (``debian.py``).
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import pytest

from rrgdb.board.machine import Board
from rrgdb.engine.unicorn.counting import INLINE
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb.opening import replay
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.stop import Points, StopKind
from rrgdb.timeline.verify import verify
from rrgdb_tests.e2e import harness
from rrgdb_tests.e2e.harness import rrgdb
from rrgdb_tests.machines.driver import ASLEEP, MACHINES, SHORT, Machine, follow_exactly, run
from rrgdb_tests.timeline.oracle import digests_straight, whole_state

pytestmark = pytest.mark.e2e

CLOCK_NS = 1_700_000_000_000_000_000
COMPARED = 50_000_000
"""instructions of each boot in which the gears are compared"""
HOUR_NS = 3600 * 10**9
MOST_AWAKE = {"linux-arm64 asleep": 10**9, "linux-riscv64 asleep": 35 * 10**8}
"""instructions of the same boot without the sleep, and some"""
LINUXES = [name for name in MACHINES if name.startswith("linux")]
U_BOOTS = [name for name in MACHINES if name.startswith("u-boot")]
ALL = [*U_BOOTS, *(pytest.param(name, marks=pytest.mark.slow) for name in LINUXES)]


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux takes some 10**9 instructions, and each replay as many."""
    monkeypatch.setattr(harness, "PATIENCE", 900.0)


@pytest.mark.parametrize("name", ALL)
def test_from_the_command_line(name: str, machine: Callable[[str], Machine], tmp_path: Path) -> None:
    """Recorded with QEMU's options, typed at by somebody else's clock; then it verifies, and once more, stopped all the
    way, as a copy that cannot be written, with nothing of what the machine was made of but the disk."""
    booted, recording = machine(name), tmp_path / "r.rrgdb"
    shown = run(booted.record_command(recording), booted)
    for text in booted.shown:
        assert text in shown
    rrgdb("verify", recording)
    copy = Path(shutil.copytree(recording, tmp_path / "elsewhere" / "copy.rrgdb"))
    shutil.rmtree(recording)
    for path in booted.files:
        if path.is_relative_to(tmp_path):
            path.unlink()
    disk = booted.disk.rename(tmp_path / "elsewhere" / "moved.img")
    for path in copy.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    rrgdb("verify", "--stops", "3", "--disk", f"disk={disk}", copy)


def test_linux(machine: Callable[[str], Machine], tmp_path: Path) -> None:
    """As above, in the time that there is for every change."""
    booted = machine("linux-arm64")
    shown = run(booted.record_command(tmp_path / "r.rrgdb"), booted)
    for text in booted.shown:
        assert text in shown
    rrgdb("verify", tmp_path / "r.rrgdb")


def _events(recording: Path) -> tuple[list[tuple[int, str, bytes]], int]:
    """What came from outside, and the length of history."""
    with replay(recording, writable=False) as opened:
        log = opened.timeline.log
        return [(e.icount, e.source, e.payload) for e in (*log.inputs, *log.answers)], opened.timeline.end


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_two_recordings_of_one_script(name: str, machine: Callable[[str], Machine], tmp_path: Path) -> None:
    """With the same answers of the clock and of chance, their logs are equal but for the places of snapshots."""
    booted, logs, shown = machine(name), [], []
    for path in (tmp_path / "a", tmp_path / "b"):
        with booted.record(path) as opened:
            opened.door._clock, opened.door._random = lambda: CLOCK_NS, bytes
            shown.append(follow_exactly(opened, booted))
        logs.append(_events(path))
    assert logs[0] == logs[1]
    for text in booted.shown:
        assert text in shown[0]


def test_a_walk_reaches_the_states_of_a_straight_run(machine: Callable[[str], Machine], tmp_path: Path) -> None:
    walk(machine("u-boot-riscv64"), tmp_path, moves=40, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
@pytest.mark.parametrize("name", U_BOOTS)
def test_many_walks(name: str, seed: int, machine: Callable[[str], Machine], tmp_path: Path) -> None:
    """10,000 moves a board."""
    walk(machine(name), tmp_path, moves=1000, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 22))
@pytest.mark.parametrize("name", SHORT)
def test_many_walks_through_linux(name: str, seed: int, machine: Callable[[str], Machine], tmp_path: Path) -> None:
    """10,000 moves a board."""
    walk(machine(name), tmp_path, moves=1000, seed=seed)


def walk(booted: Machine, scratch: Path, moves: int, seed: int) -> None:
    """Seeks, steps and ways back at random; each position's state is that of one pass from the beginning."""
    random = Random(seed)
    path = scratch / "walked"
    with booted.record(path) as opened:
        follow_exactly(opened, booted)
    seen: dict[int, bytes] = {}
    with replay(path) as opened:
        t = opened.timeline
        for _ in range(moves):
            steps = random.choice((1, 1, 2, 30, 1000, 40_000))
            match random.randrange(5):
                case 0:
                    t.seek(random.randint(t.start, t.end))
                case 1:
                    t.seek(max(t.start, min(t.end, t.icount + random.randint(-3000, 3000))))
                case 2:
                    t.run(Points({}), steps=steps)
                case 3:
                    Backward(t).step(Points({}), steps)
                case 4:
                    here, pc = t.icount, t.engine.pc
                    stop = Backward(t).run(Points({pc: None}))
                    assert stop.kind in (StopKind.BREAKPOINT, StopKind.HISTORY_BEGIN)
                    if stop.kind is StopKind.BREAKPOINT:
                        assert t.run(Points({pc: None})).icount == here
            digest = whole_state(opened)
            assert seen.setdefault(t.icount, digest) == digest, f"seed {seed}, position {t.icount}"
        assert verify(t) == len(t.log.digests)
    straight = digests_straight(path, seen, scratch / "straight")
    assert straight == seen


@pytest.mark.slow
@pytest.mark.parametrize("inline", ["1", "0"])
@pytest.mark.parametrize("name", MACHINES)
def test_the_gears_agree(
    name: str, inline: str, machine: Callable[[str], Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 × 10**7 instructions of each boot, stopped at random and one by one."""
    monkeypatch.setenv(INLINE, inline)
    random, booted = Random(name), machine(name)
    begins = random.sample(range(COMPARED), 100)
    positions = sorted({n for begin in begins for n in (begin, *range(begin + 90, begin + 100))})
    digests = []
    for fast in (True, False):
        monkeypatch.setattr("rrgdb.opening.guests.UnicornEngine", partial(UnicornEngine, fast=fast))
        with booted.record(tmp_path / f"stopped-{fast}") as opened:
            opened.door._clock, opened.door._random = lambda: CLOCK_NS, bytes
            found = []
            for at in positions:
                opened.timeline.advance(at)
                found.append((opened.timeline.icount, whole_state(opened)))
            digests.append(found)
    assert digests[0] == digests[1]
    assert digests[0][-1][0] == positions[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ASLEEP)
def test_an_hour_of_sleep(name: str, machine: Callable[[str], Machine], tmp_path: Path) -> None:
    """The kernel wakes for work of its own, six times a second; nothing of it is an event."""
    with machine(name).record(tmp_path / "r") as opened:
        t = opened.timeline
        assert t.run(Points({})).kind is StopKind.EXIT
        assert isinstance(opened.guest, Board)
        assert opened.guest.virtual_ns() > HOUR_NS
        assert t.end - MOST_AWAKE[name] < 4 * 10**8
        assert len(t.log.answers) < 10
        assert not len(t.log.inputs)
    with replay(tmp_path / "r", writable=False) as opened:
        assert verify(opened.timeline) == len(opened.timeline.log.digests)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_killed_while_linux_boots(seed: int, machine: Callable[[str], Machine], tmp_path: Path) -> None:
    """Whatever is on disk then opens, verifies, and is debugged backwards."""
    random, booted, path = Random(seed), machine("linux-arm64"), tmp_path / "r"
    with (tmp_path / "shown").open("wb") as out:
        process = subprocess.Popen(
            booted.record_command(path), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL
        )
        try:
            while not (path / "manifest.json").exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(random.uniform(0, 15))
        finally:
            process.kill()
            process.wait()
    sent = bytearray()
    with replay(path) as opened:
        opened.door.set_output("serial0", sent.extend)
        t = opened.timeline
        assert verify(t) == len(t.log.digests)
        assert bytes(sent).startswith((tmp_path / "shown").read_bytes())
        end = t.end
        for back in (1, 10, 1000, 100_000):
            t.seek(end)
            if end > back:
                Backward(t).step(Points({}), back)
                assert t.icount == end - back
        t.seek(end)
        pc = t.engine.pc
        assert Backward(t).run(Points({pc: None})).kind in (StopKind.BREAKPOINT, StopKind.HISTORY_BEGIN)
