"""Interrupts from another thread: moves end soon, at an exact position, and leave nothing armed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from rrgdb.engine.base import Watch
from rrgdb.opening import Opened, record, replay
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.stop import Condition, Points, StopKind
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import OPTIONS, assert_disarmed, digests_straight, symbol

NONE = Points({})


@contextmanager
def _interrupting(opened: Opened, delay: float) -> Iterator[None]:
    """Interrupts again and again from ``delay`` seconds on, until the move has ended."""
    ended = threading.Event()

    def run() -> None:
        ended.wait(delay)
        while not ended.is_set():
            opened.timeline.interrupt()
            ended.wait(0.05)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _moves(opened: Opened, image: Path) -> list[Callable[[], object]]:
    t = opened.timeline
    watch = (Watch(symbol(image, "mirror"), 4, "w"),)
    never, hot = symbol(image, "never"), symbol(image, "work")
    back = Backward(t)
    return [
        lambda: t.run(NONE),
        lambda: t.run(Points({never: None})),
        lambda: t.run(Points({hot: Condition(lambda: False)}, watch)),
        lambda: back.run(Points({never: None})),
        lambda: back.run(Points({hot: Condition(lambda: False)})),
        lambda: back.run(Points({}, watch)),
        lambda: back.step(NONE, 1_000_000),
        lambda: t.seek(t.end),
        lambda: t.seek(t.end // 2),
        lambda: t.seek(t.end // 3),
        lambda: t.seek(t.start),
    ]


def _interrupt_at_random(scratch: Path, moves: int, seed: int) -> None:
    random = Random(seed)
    image = build("riscv64", "ticker", {"TICKS": 2, "WORK": 200_000})
    path = scratch / "r"
    seen: dict[int, bytes] = {}
    with record(path, image, OPTIONS, interval=0.03) as opened:
        t = opened.timeline
        for n in range(moves):
            if n == moves // 2:
                t.seek(t.end)
                t.run(NONE)
            with _interrupting(opened, random.choice((0, 0.001, 0.01, 0.03))):
                random.choice(_moves(opened, image))()
            t.clear_interrupt()
            assert_disarmed(opened)
            assert t.start <= t.icount <= t.end
            digest = t.marks.state_digest()
            assert seen.setdefault(t.icount, digest) == digest
            if t.icount < t.end:
                before = t.icount
                t.run(NONE, steps=1)
                assert t.icount == before + 1
        t.seek(t.end)
    assert digests_straight(path, seen, scratch / "straight") == seen


def test_interrupts_at_random_moments(tmp_path: Path) -> None:
    _interrupt_at_random(tmp_path, 40, 1)


@pytest.mark.slow
def test_many_interrupts_at_random_moments(tmp_path: Path) -> None:
    for seed in range(20):
        (tmp_path / str(seed)).mkdir()
        _interrupt_at_random(tmp_path / str(seed), 100, seed)


def test_an_interrupted_search_ends_where_it_knows(tmp_path: Path) -> None:
    """Behind the position there is no hit; the search goes on from there to the right answer."""
    image = build("riscv64", "ticker", {"TICKS": 3, "WORK": 100_000})
    hot = symbol(image, "work")
    with record(tmp_path / "r", image, OPTIONS, interval=0.005) as opened:
        opened.timeline.run(NONE)
    with replay(tmp_path / "r") as opened:
        t = opened.timeline
        t.seek(t.end)
        first = Backward(t).run(Points({hot: None}))
        assert first.kind is StopKind.BREAKPOINT
        t.seek(t.end)
        looked = []

        def condition() -> bool:
            looked.append(t.icount)
            if len(looked) == 1:
                t.interrupt()
            return True

        stop = Backward(t).run(Points({hot: Condition(condition)}))
        assert stop.kind is StopKind.INTERRUPT
        assert stop.icount > first.icount
        assert t.icount == stop.icount
        assert Backward(t).run(Points({hot: Condition(lambda: True)})).icount == first.icount


def test_an_interrupt_before_a_move_is_heeded_and_then_forgotten(tmp_path: Path) -> None:
    image = build("riscv64", "ticker", {"TICKS": 10, "WORK": 60})
    with record(tmp_path / "r", image, OPTIONS) as opened:
        t = opened.timeline
        t.interrupt()
        assert t.run(NONE).kind is StopKind.INTERRUPT
        assert t.icount == 0
        assert t.run(NONE, steps=10).kind is StopKind.STEP
        t.interrupt()
        t.clear_interrupt()
        assert t.run(NONE, steps=10).icount == 20
