"""Random walks: whatever the moves, a position is always the same state, and every stop is where it must be."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from rrgdb.opening import record
from rrgdb.timeline import backward, forward, prepare, timeline, trail
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.stop import Points
from rrgdb_tests.board.toy import toys
from rrgdb_tests.guests import ARCHES, AWKWARD, KERNELS
from rrgdb_tests.timeline.oracle import OPTIONS, oracle
from rrgdb_tests.timeline.walk import Walk

SMALL = {
    "ticker": (("TICKS", 10), ("WORK", 60)),
    "hunt": (("ROUNDS", 40),),
    "timers": (("LOOPS", 150), ("PERIOD", 61)),
    "kernel": (("ROUNDS", 20), ("WORK", 4), ("PERIOD_NS", 2000)),
}
LONG = {
    "ticker": (("TICKS", 20), ("WORK", 300)),
    "hunt": (("ROUNDS", 300),),
    "timers": (("LOOPS", 1000), ("PERIOD", 700)),
    "kernel": (("ROUNDS", 100), ("WORK", 4), ("PERIOD_NS", 3000)),
}


@pytest.fixture(autouse=True)
def dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances that fit short guests, so that all kinds of marks come into play."""
    monkeypatch.setattr(timeline, "NEAR", (16, 100, 700, 3000))
    monkeypatch.setattr(forward, "LEAST_SKIP", 50)
    monkeypatch.setattr(prepare, "NEAR", (16, 100, 700, 3000))
    monkeypatch.setattr(prepare, "PIECE", 300)
    monkeypatch.setattr("rrgdb.timeline.scan.LEAST_PIECE", 200)
    monkeypatch.setattr(backward, "APPROACH", 900)
    monkeypatch.setattr(trail, "LEAST", 150)
    monkeypatch.setattr(trail, "STRIDE", 0)
    monkeypatch.setattr(trail, "SHARE", 0)


def _walk(arch: str, guest: str, defines: tuple[tuple[str, int], ...], moves: int, seed: int, scratch: Path) -> None:
    with toys() if guest == "timers" else nullcontext():
        walk = Walk(oracle(arch, guest, defines), scratch, seed, prepares=seed % 2 == 0)
        for _ in range(moves):
            walk.move()
        walk.finish(scratch / f"straight-{seed}")
    assert walk.prepared or seed % 2 or moves < 50


def _guests(arch: str) -> list[str]:
    # x86_string is too long for an oracle that looks at every instruction.
    kernel = ["kernel"] if arch in KERNELS else []
    return ["ticker", "hunt", "timers", *kernel, *(name for name in AWKWARD[arch] if name != "x86_string")]


@pytest.mark.parametrize("arch", ARCHES)
def test_walks(arch: str, tmp_path: Path) -> None:
    for number, guest in enumerate(_guests(arch)):
        moves = 60 if guest in SMALL else 15
        _walk(arch, guest, SMALL.get(guest, (("LOOPS", 3),)), moves, number, tmp_path)


@pytest.mark.parametrize("arch", KERNELS)
def test_a_breakpoint_waits_for_the_instruction_where_an_interrupt_comes(arch: str, tmp_path: Path) -> None:
    """There, before and after the entry are two positions, but the instruction is executed once, behind the handler: so
    it stops once, from wherever a run begins, forward and backward."""
    known = oracle(arch, "kernel", SMALL["kernel"])
    assert len(known.interrupted) > 10
    with record(tmp_path / "r", known.image, OPTIONS) as opened:
        opened.timeline.run(Points({}))
        t = opened.timeline
        for at in sorted(known.interrupted)[1:12]:
            points = Points({known.pcs[at]: None})
            hits = [i for i in range(known.end) if known.attempts(i) == known.pcs[at]]
            for begin in (at - 30, at - 1, at):
                t.seek(begin)
                assert t.run(points).icount == min((i for i in hits if i > begin), default=known.end)
            for begin in (at + 1, at + 30):
                t.seek(begin)
                assert Backward(t).run(points).icount == max((i for i in hits if i < begin), default=0)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHES)
def test_long_walks(arch: str, tmp_path: Path) -> None:
    """A little more than 10,000 moves in all."""
    for number, guest in enumerate(_guests(arch)):
        defines = LONG.get(guest, (("LOOPS", 10),))
        for seed in range(10 if guest in LONG else 8):
            _walk(arch, guest, defines, 410 if guest in LONG else 60, 100 * number + seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("arch", KERNELS)
def test_many_walks_on_a_kernel(arch: str, seed: int, tmp_path: Path) -> None:
    """10,000 moves a board."""
    _walk(arch, "kernel", LONG["kernel"], 400, seed, tmp_path)
