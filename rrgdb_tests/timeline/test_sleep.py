"""Guests that sleep for hours of virtual time: that costs neither instructions nor events, and no time of the host's
where ``sleep=off`` says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rrgdb.board.machine import Board
from rrgdb.opening import Opened, record, replay
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.stop import Points, StopKind
from rrgdb.timeline.verify import verify
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import OPTIONS, digests_straight, symbol, whole_state

HOUR_NS = 3600 * 10**9
NAPS = 3
UNPACED = replace(OPTIONS, sleep=False)


def _virtual_ns(opened: Opened) -> int:
    assert isinstance(opened.guest, Board)
    return opened.guest.virtual_ns()


@pytest.mark.parametrize("arch", ["riscv64", "riscv32", "aarch64", "arm"])
def test_hours_cost_nothing(arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = build(arch, "sleeper", {"SECONDS": 3600, "NAPS": NAPS})
    with record(tmp_path / "r", image, UNPACED) as opened:
        # Whoever waited would wait for an hour.
        monkeypatch.setattr(opened.door.woken, "wait", lambda _seconds: pytest.fail("the host sleeps as well"))
        stop = opened.timeline.run(Points({}))
        assert (stop.kind, stop.value) == (StopKind.EXIT, 0)
        assert _virtual_ns(opened) >= NAPS * HOUR_NS
        assert opened.timeline.end < 5000
        assert not len(opened.timeline.log.answers)
        assert not len(opened.timeline.log.inputs)
    with replay(tmp_path / "r") as opened:
        t = opened.timeline
        assert verify(t) == len(t.log.digests)
        woken = Points({symbol(image, "mix"): None})
        t.seek(0)
        passed = []
        while t.run(woken).kind is StopKind.BREAKPOINT:
            passed.append((t.icount, whole_state(opened)))
            assert _virtual_ns(opened) >= len(passed) * HOUR_NS
        for position, state in reversed(passed):
            assert Backward(t).run(woken).kind is StopKind.BREAKPOINT
            assert (t.icount, whole_state(opened)) == (position, state)
            Backward(t).step(Points({}), 30)
            assert t.icount == position - 30
            t.seek(position)
        assert len(passed) >= NAPS
    assert digests_straight(tmp_path / "r", dict(passed), tmp_path / "straight") == dict(passed)
