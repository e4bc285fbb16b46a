"""Verification with stops on the way finds what makes a guest notice that it was stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rrgdb.opening import record, replay
from rrgdb.recording.door import Divergence
from rrgdb.timeline.stop import Points
from rrgdb.timeline.timeline import Timeline
from rrgdb.timeline.verify import verify
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import OPTIONS


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verify") / "r"
    with record(path, build("riscv64", "ticker", {"TICKS": 20, "WORK": 60}), OPTIONS, interval=1e-9) as opened:
        while opened.guest.end is None:
            opened.timeline.run(Points({}), steps=2_000)
    return path


@pytest.mark.parametrize("jobs", [1, 2])
def test_stops_change_nothing(recorded: Path, jobs: int) -> None:
    with replay(recorded, writable=False, jobs=jobs) as opened:
        said: list[str] = []
        assert verify(opened.timeline, said.append, opened.workers, stops=5) > 5
        assert len(said) == len(opened.timeline.marks.stored)


def test_a_guest_that_notices_is_found(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit is lost when the guest is saved and put back."""
    excursion = Timeline.excursion

    @contextmanager
    def lossy(timeline: Timeline) -> Iterator[None]:
        with excursion(timeline):
            yield
        timeline.engine.write("ft11", timeline.engine.read("ft11") + 1)

    monkeypatch.setattr(Timeline, "excursion", lossy)
    with replay(recorded, writable=False) as opened:
        verify(opened.timeline)
        with pytest.raises(Divergence, match="another state behind icount"):
            verify(opened.timeline, stops=5)
