"""Guests that use all of their RAM: what they do not change costs nothing again, and pages of zeros nothing at all."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from rrgdb.engine.memory import PAGE
from rrgdb.opening import Opened, record, replay
from rrgdb.snapshots.entries import Entry
from rrgdb.snapshots.writer import StoreWriter
from rrgdb.timeline.recorder import Recorder
from rrgdb.timeline.stop import Points, StopKind
from rrgdb.timeline.verify import verify
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import OPTIONS, digests_straight, symbol

NONE = Points({})
TOUCHED = 200
SPARE = 64
"""MiB that the guest does not fill"""
TABLES = 0.02
"""of what RAM takes: tables and counts of clusters, at most"""
SIZES = [16, *(pytest.param(size, marks=pytest.mark.slow) for size in (512 - SPARE, 4096 - SPARE))]
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def _guest(arch: str, megabytes: int, zeros: int = 0) -> Path:
    rounds = 20_000 if megabytes > 16 else 400
    return build(arch, "filler", {"MEGABYTES": megabytes, "ROUNDS": rounds, "TOUCHED": TOUCHED, "ZEROS": zeros})


def _store_bytes(opened: Opened) -> int:
    assert opened.store is not None
    opened.store.flush()
    return opened.store.file_size


@pytest.mark.parametrize("megabytes", SIZES)
@pytest.mark.parametrize("arch", ["riscv64", "aarch64"])
def test_full_ram(arch: str, megabytes: int, tmp_path: Path) -> None:
    """Recorded, verified, gone back in. Snapshots hold what was written since the one before."""
    image, ram = _guest(arch, megabytes), (megabytes + SPARE) << 20
    with record(tmp_path / "r", image, replace(OPTIONS, memory=ram)) as opened:
        t = opened.timeline
        assert t.run(Points({symbol(image, "touch"): None})).kind is StopKind.BREAKPOINT
        t.marks.take_snapshot("full")
        full = _store_bytes(opened)
        assert megabytes << 20 <= full < (megabytes << 20) * (1 + TABLES) + (4 << 20)
        for name in ("one", "two", "three"):
            t.run(NONE, steps=20 * TOUCHED)
            t.marks.take_snapshot(name)
        assert opened.store is not None
        stored = {s.name: s for s in opened.store.snapshots}
        for before, after in (("full", "one"), ("one", "two"), ("two", "three")):
            assert 0 < len(opened.store.differing(stored[before], stored[after])) < TOUCHED + 20
        # Tables on the way to what was touched.
        assert _store_bytes(opened) - full < 3 * PAGE * (2 * TOUCHED + megabytes)
        assert t.run(NONE).kind is StopKind.EXIT
    with replay(tmp_path / "r") as opened:
        t = opened.timeline
        assert verify(t) == len(t.log.digests)
        filled = stored["full"].icount
        positions = [filled // 3, filled, t.end]
        seen = {}
        for position in Random(arch).sample(positions * 2, 6):
            t.seek(position)
            digest = t.marks.state_digest()
            assert seen.setdefault(position, digest) == digest
    assert digests_straight(tmp_path / "r", positions, tmp_path / "straight") == seen


@pytest.mark.parametrize("megabytes", SIZES)
def test_ram_of_zeros_is_free(megabytes: int, tmp_path: Path) -> None:
    image, ram = _guest("riscv64", megabytes, zeros=1), (megabytes + SPARE) << 20
    with record(tmp_path / "r", image, replace(OPTIONS, memory=ram)) as opened:
        t = opened.timeline
        t.run(Points({symbol(image, "touch"): None}))
        t.marks.take_snapshot("full of zeros")
        assert t.run(NONE).kind is StopKind.EXIT
        # Each snapshot has a table of the tables of all of RAM, and a few pages of state.
        assert _store_bytes(opened) < (256 << 10) + len(t.marks.stored) * ((32 << 10) + 8 * (ram >> 21))
    with replay(tmp_path / "r", writable=False) as opened:
        assert verify(opened.timeline) == len(opened.timeline.log.digests)


def test_what_waits_for_a_slow_disk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest waits, rather than that all of its RAM is in memory once more."""
    write, keep, held = StoreWriter._write, Recorder._keep, []

    def slow(writer: StoreWriter, group: Sequence[Entry]) -> None:
        time.sleep(0.1)
        write(writer, group)

    def watched(recorder: Recorder, *, wait: bool) -> None:
        keep(recorder, wait=wait)
        assert recorder._store is not None
        held.append(recorder._store.queued_bytes + PAGE * recorder._marks.changed_pages)

    monkeypatch.setattr(StoreWriter, "_write", slow)
    monkeypatch.setattr(Recorder, "_keep", watched)
    options, memory = replace(OPTIONS, memory=160 << 20), 8 << 20
    image = build("riscv64", "filler", {"MEGABYTES": 100, "ROUNDS": 1})
    with record(tmp_path / "r", image, options, interval=1e-9, checkpoint_memory=memory) as opened:
        assert opened.timeline.run(NONE).kind is StopKind.EXIT
    assert memory // 2 < max(held) < 60 << 20


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [512 - SPARE, 4096 - SPARE])
def test_memory_of_a_recording_of_full_ram(megabytes: int, tmp_path: Path) -> None:
    """RAM itself, a fifth of it, and 300 MiB: also where the disk takes longer than the guest."""
    ram = megabytes + SPARE
    command = [
        "record",
        "--serial",
        "null",
        "-m",
        f"{ram}M",
        "-o",
        str(tmp_path / "r"),
        str(_guest("riscv64", megabytes)),
    ]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, sys.executable, "-m", "rrgdb", *command],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) >> 10 < 1.2 * ram + 300
