"""What a run forward through history leaves behind it. ``test_walks`` does it all the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from rrgdb.opening import Opened, record, replay
from rrgdb.timeline import trail
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.marks import Mark
from rrgdb.timeline.stop import Points
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import OPTIONS, digests_straight

NONE = Points({})
END = 100_000
EVERY = 1_000


class _Clock:
    """A second passes between any two looks at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trail") / "r"
    with record(path, build("riscv64", "ticker", {"TICKS": 200, "WORK": 60}), OPTIONS, interval=1e9) as opened:
        opened.timeline.run(NONE, steps=END)
    return path


@pytest.fixture
def opened(recording: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    monkeypatch.setattr(trail, "LEAST", EVERY)
    monkeypatch.setattr(trail, "SHARE", 0)
    with replay(recording, writable=False) as opened:
        opened.timeline.forward._trail = trail.Trail(opened.timeline.marks, _Clock())
        yield opened


def _checkpoints(opened: Opened) -> list[Mark]:
    return opened.timeline.marks._memory.marks


def test_a_run_leaves_checkpoints_just_before_its_stop(opened: Opened, recording: Path, tmp_path: Path) -> None:
    t = opened.timeline
    t.run(NONE, steps=50_500)
    assert [m.icount for m in _checkpoints(opened)] == [49_000, 50_000]
    Backward(t).step(NONE)
    assert (t.icount, t.marks.state_digest()) == (
        50_499,
        *digests_straight(recording, [50_499], tmp_path / "s").values(),
    )


def test_runs_that_follow_each_other_leave_one_trail(opened: Opened) -> None:
    t = opened.timeline
    for _ in range(90):
        t.run(NONE, steps=EVERY + 1)
    assert [m.icount for m in _checkpoints(opened)] == [88 * (EVERY + 1) + EVERY, 89 * (EVERY + 1) + EVERY]


def test_checkpoints_of_others_stay(opened: Opened) -> None:
    t = opened.timeline
    t.seek(10_000)
    others = [m.icount for m in _checkpoints(opened)]
    assert others
    t.run(NONE, steps=30_000)
    assert [m.icount for m in _checkpoints(opened)] == [*others, 38_000, 39_000]


def test_what_takes_long_is_rare(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand instructions take a second, and so does each checkpoint."""
    t = opened.timeline
    left: list[int] = []
    keep = t.marks.keep

    def slowly(marks: Sequence[Mark]) -> None:
        left.append(t.icount)
        keep(marks)

    monkeypatch.setattr(trail, "SHARE", 20)
    monkeypatch.setattr(t.marks, "keep", slowly)
    t.forward._trail = trail.Trail(t.marks, lambda: t.icount / 1000 + len(left))
    t.run(NONE, steps=END - 1)
    assert left[0] == EVERY
    assert all(20_000 <= b - a < 30_000 for a, b in pairwise(left))
    assert left[-1] > END - 30_000


def test_the_live_present_and_diversions_leave_no_trail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "LEAST", EVERY)
    monkeypatch.setattr(trail, "STRIDE", 0)
    with record(tmp_path / "r", build("riscv64", "ticker"), OPTIONS, interval=1e9) as opened:
        t = opened.timeline
        t.run(NONE, steps=20_000)
        assert not _checkpoints(opened)
        t.seek(5_000)
        before = [m.icount for m in _checkpoints(opened)]
        t.write_memory(0x80001000, b"diverted")
        t.run(NONE, steps=10_000)
        assert [m.icount for m in _checkpoints(opened)] == before


def test_a_seek_leaves_checkpoints_near_its_target_only(opened: Opened) -> None:
    """Each of them spares a later seek most of the way, or is not worth its pages."""
    t = opened.timeline
    t.seek(40_000)
    assert [40_000 - m.icount for m in _checkpoints(opened)] == [4096, 512, 64]
    t.seek(39_950)  # a short way from the second
    assert [40_000 - m.icount for m in _checkpoints(opened)] == [4096, 512, 64]


def test_steps_back_over_checkpoints_are_exact(opened: Opened, recording: Path, tmp_path: Path) -> None:
    t = opened.timeline
    t.seek(40_000)
    backward = Backward(t)
    positions = [*range(39_999, 39_930, -1), 39_487, 35_903]
    right = digests_straight(recording, sorted(positions), tmp_path / "s")
    for position in positions:
        backward.step(NONE, t.icount - position)
        assert (t.icount, t.marks.state_digest()) == (position, right[position])
