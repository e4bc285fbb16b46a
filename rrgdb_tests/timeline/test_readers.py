"""Two at one recording: one takes and deletes snapshots, and the other goes on to come to the right states."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

from rrgdb.engine.base import Watch
from rrgdb.opening import Opened, record, replay
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.stop import Points, StopKind
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import OPTIONS, digests_straight, oracle

NONE = Points({})
STEPS = 400
DEFINES = {"TICKS": 60, "WORK": 60}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, bytes]]:
    """A recording with some 50 snapshots, and states on the way."""
    directory = tmp_path_factory.mktemp("readers")
    with record(directory / "r", build("riscv64", "ticker", DEFINES), OPTIONS, interval=1e-9) as opened:
        while opened.guest.end is None:
            opened.timeline.run(NONE, steps=STEPS)
        end = opened.timeline.end
    return directory / "r", digests_straight(directory / "r", range(0, end, 373), directory / "straight")


@pytest.fixture
def copied(recorded: tuple[Path, dict[int, bytes]], tmp_path: Path) -> Path:
    """A copy without the index: searches go by what snapshots tell."""
    return Path(shutil.copytree(recorded[0], tmp_path / "r", ignore=shutil.ignore_patterns("history.index")))


def _churn(opened: Opened, random: Random, turn: int) -> None:
    """Snapshots go, and others come in their place in the file."""
    t = opened.timeline
    t.marks.delete_snapshots([s for s in t.marks.stored[1:] if random.random() < 0.4])
    for n in range(8):
        t.seek(random.randrange(t.end))
        t.marks.take_snapshot(f"new-{turn}-{n}")
    t.marks.flush()


SEEDS = [*range(3), *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 30))]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_reader_comes_to_the_right_states(recorded: tuple[Path, dict[int, bytes]], copied: Path, seed: int) -> None:
    right = recorded[1]
    random, positions = Random(seed), list(right)
    said: list[str] = []
    with replay(copied, writable=False) as reader, replay(copied) as writer:
        t = reader.timeline
        t.say = said.append
        for turn in range(8):
            for position in random.sample(positions, 6):
                t.seek(position)
                assert t.marks.state_digest() == right[position], position
            _churn(writer, random, turn)
        assert any("was deleted by another process; passed over" in line for line in said)
        assert t.marks.starting in t.marks.stored
        assert len(t.marks.stored) > 3
    with replay(copied, writable=False) as reader:
        assert reader.messages == ()
        for position in random.sample(positions, 10):
            reader.timeline.seek(position)
            assert reader.timeline.marks.state_digest() == right[position]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_search_does_not_believe_what_is_in_reused_room(copied: Path, seed: int) -> None:
    """A search passes over spans in which two snapshots have the same page; not where one of them is gone."""
    known = oracle("riscv64", "ticker", tuple(DEFINES.items()))
    assert known.watched is not None
    points = Points({}, (Watch(*known.watched, "w"),))
    writers, random = known.writers(), Random(seed)
    with replay(copied, writable=False) as reader, replay(copied) as writer:
        t = reader.timeline
        backward = Backward(t)
        for turn in range(6):
            for _ in range(3):
                here = random.randrange(writers[2], known.end)
                t.seek(here)
                stop = backward.run(points)
                assert stop.kind is StopKind.WATCHPOINT
                assert stop.icount == max(n for n in writers if n < here)
            _churn(writer, random, turn)
