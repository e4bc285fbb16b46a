"""What idle time prepares, and that nobody can tell. ``test_walks`` does it at random moments."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path

import pytest

from rrgdb.opening import Opened, record, replay
from rrgdb.target import QUIET, Target
from rrgdb.timeline import prepare
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.prepare import Preparation
from rrgdb.timeline.stop import Points
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import OPTIONS

NONE = Points({})
SNAPSHOTS = 40_000
"""instructions between two snapshots"""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prepare") / "r"
    image = build("riscv64", "ticker", {"TICKS": 200, "WORK": 60})
    with record(path, image, OPTIONS, interval=1e9) as opened:
        t = opened.timeline
        for number in range(3):
            t.run(NONE, steps=SNAPSHOTS)
            opened.timeline.recorder.close_chunk()  # type: ignore[union-attr]
            t.marks.take_snapshot(f"s{number}")
        t.run(NONE, steps=SNAPSHOTS // 2)
    return path


@pytest.fixture
def opened(recording: Path) -> Iterator[Opened]:
    with replay(recording, writable=False) as opened:
        yield opened


def _stand(opened: Opened, icount: int) -> None:
    """Come from afar, so that no checkpoint is near."""
    t = opened.timeline
    t.seek(0)
    t.run(NONE, steps=icount)
    assert t.icount == icount


def _way(opened: Opened, icount: int) -> int:
    """Instructions to replay for going there."""
    return icount - opened.timeline.marks.best(icount).icount


@pytest.mark.parametrize("behind", [1, 20, 500, 20_000])
def test_checkpoints_reach_into_the_segment_before(opened: Opened, behind: int) -> None:
    here = 2 * SNAPSHOTS + behind
    _stand(opened, here)
    t = opened.timeline
    before = t.marks.state_digest()
    assert _way(opened, 2 * SNAPSHOTS - 1) == SNAPSHOTS - 1
    preparation = Preparation(t)
    assert preparation.due
    preparation.work()
    assert not preparation.due
    assert (t.icount, t.marks.state_digest()) == (here, before)
    for back in range(1, min(here, 3 * SNAPSHOTS), 37):
        assert _way(opened, here - back) <= 16 * back + 64
    kept = len(t.marks._memory.marks)
    t.seek(here - 10)
    preparation.work()
    assert len(t.marks._memory.marks) <= kept + 2, "what lies near enough is not made again"


def test_nothing_is_prepared_at_the_live_present_or_in_a_diversion(tmp_path: Path) -> None:
    with record(tmp_path / "r", build("riscv64", "ticker"), OPTIONS) as opened:
        t = opened.timeline
        t.run(NONE, steps=3000)
        assert not Preparation(t).due
        t.seek(1000)
        assert Preparation(t).due
        t.write_memory(0x80001000, b"diverted")
        assert not Preparation(t).due


def test_nothing_is_prepared_where_much_would_have_to_be_put_back(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "MAX_PAGES", 0)
    _stand(opened, 2 * SNAPSHOTS + 20)
    Preparation(opened.timeline).work()
    assert _way(opened, 2 * SNAPSHOTS - 1) == SNAPSHOTS - 1


def test_a_walk_back_pays_for_the_segment_before(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rest between the steps: the checkpoints are there when the walk comes to the snapshot."""
    monkeypatch.setattr(prepare, "PIECE", 500)
    ticks = count()
    t = opened.timeline
    _stand(opened, 2 * SNAPSHOTS + 100)
    back = Backward(t, clock=lambda: next(ticks) * prepare.PAYS / 4)
    made = []
    for n in range(1, 130):
        back.step(NONE)
        assert t.icount == 2 * SNAPSHOTS + 100 - n
        made.append(_way(opened, 2 * SNAPSHOTS - 1))
    assert made[:3] == [SNAPSHOTS - 1] * 3
    assert all(later <= earlier for earlier, later in pairwise(made[:99]))
    assert made[98] <= 2000
    assert len(set(made)) > 10, "little by little"


def test_single_steps_that_are_no_walk_pay_nothing(opened: Opened) -> None:
    t = opened.timeline
    back = Backward(t)
    _stand(opened, 2 * SNAPSHOTS + 100)
    for _ in range(20):
        back.step(NONE)
        t.run(NONE, steps=1)
    assert _way(opened, 2 * SNAPSHOTS - 1) == SNAPSHOTS - 1


def test_a_target_prepares_once_it_is_quiet_and_held(opened: Opened) -> None:
    target = Target(opened)
    t = opened.timeline
    _stand(opened, 2 * SNAPSHOTS + 20)
    assert target.idle(False) is None, "nobody looks"
    target.attached(lambda _text: None)
    assert target.idle(False) == QUIET
    assert _way(opened, 2 * SNAPSHOTS - 1) == SNAPSHOTS - 1
    target.interrupt()
    digest = t.marks.state_digest()
    assert target.idle(True) == QUIET
    assert not t.interrupted
    assert _way(opened, 2 * SNAPSHOTS - 1) < 2000
    assert (t.icount, t.marks.state_digest()) == (2 * SNAPSHOTS + 20, digest)
    assert target.idle(True) is None
    target.detached(resume=True)
    t.seek(100)
    assert target.idle(False) is None
