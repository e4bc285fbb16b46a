"""Timers of a device in time: recorded, replayed, stopped everywhere, saved, searched; in both gears."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

from rrgdb.board.machine import Board
from rrgdb.engine.base import Watch
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb.opening import Opened, guests, record, replay
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.stop import Points, StopKind
from rrgdb.timeline.verify import verify
from rrgdb_tests.board.toy import Toy, toys
from rrgdb_tests.guests import ARCHES, build
from rrgdb_tests.timeline.oracle import OPTIONS, digests_straight, symbol

NONE = Points({})
DEFINES = {"PERIOD": 97, "LOOPS": 400}


@pytest.fixture(autouse=True)
def _boards_with_toys() -> Iterator[None]:
    with toys():
        yield


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def gear(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "UnicornEngine", partial(UnicornEngine, fast=request.param))


def toy_of(opened: Opened) -> Toy:
    assert isinstance(opened.guest, Board)
    return next(device for device in opened.guest.devices if isinstance(device, Toy))


def _record(arch: str, path: Path) -> dict[int, bytes]:
    """A recording of some thousand instructions, with states of positions on the way."""
    random = Random(arch)
    seen = {}
    with record(path, build(arch, "timers", DEFINES), OPTIONS, interval=1e-9) as opened:
        t = opened.timeline
        while opened.guest.end is None:
            t.run(NONE, steps=random.choice((1, 2, 90, 600)))
            seen[t.icount] = t.marks.state_digest()
        assert len(toy_of(opened).fired) > 40
        assert {event.source for event in t.log.answers} == {"toy"}
    return seen


@pytest.mark.usefixtures("gear")
@pytest.mark.parametrize("arch", ARCHES)
def test_wherever_it_is_stopped_it_is_the_same(arch: str, tmp_path: Path) -> None:
    seen = _record(arch, tmp_path / "r")
    with replay(tmp_path / "r", writable=False) as opened:
        assert verify(opened.timeline, stops=7) == len(opened.timeline.log.digests) > 5
        assert not opened.messages
    random = Random(arch)
    with replay(tmp_path / "r") as opened:
        t = opened.timeline
        timer = toy_of(opened)._tick_timer
        positions = [*seen, *random.sample(range(t.end), 40)]
        t.seek(t.end // 2)
        for _ in range(20):
            # Around what runs out next.
            due = timer.when
            if due is None or due > t.end:
                break
            positions += [due - 1, due, due + 1]
            t.seek(due)
        positions = [position for position in positions if position <= t.end]
        straight = digests_straight(tmp_path / "r", positions, tmp_path / "straight")
        assert {position: straight[position] for position in seen} == seen
        for position in random.sample(positions, len(positions)):
            t.seek(position)
            assert t.marks.state_digest() == straight[position], position
            if random.random() < 0.2:
                t.marks.take_snapshot(f"s{len(t.marks.stored)}")


@pytest.mark.usefixtures("gear")
@pytest.mark.parametrize("arch", ARCHES)
def test_backward_over_ticks(arch: str, tmp_path: Path) -> None:
    """Watches on what the device writes stop at the same positions in both directions, in history and live."""
    image = build(arch, "timers", DEFINES)
    where = symbol(image, "ticked")
    watch = Points({}, (Watch(where, 4, "w"),))
    with record(tmp_path / "r", image, OPTIONS, interval=1e-9) as opened:
        t = opened.timeline
        live = []
        while (stop := t.run(watch)).kind is StopKind.WATCHPOINT:
            live.append((stop.icount, stop.old, stop.new))
        assert stop.kind is StopKind.EXIT
        ticks = [now for what, _, now in toy_of(opened).fired if what == "tick"]
        assert [icount for icount, _, _ in live] == ticks
        back = []
        while (stop := Backward(t).run(watch)).kind is StopKind.WATCHPOINT:
            back.append((stop.icount + 1, stop.old, stop.new))
        assert back == live[::-1]
    with replay(tmp_path / "r") as opened:
        t = opened.timeline
        for expected in live:
            stop = t.run(watch)
            assert (stop.icount, stop.old, stop.new) == expected


@pytest.mark.parametrize("arch", ["riscv64", "x86_64"])
def test_a_diversion_has_ticks_of_its_own(arch: str, tmp_path: Path) -> None:
    image = build(arch, "timers", DEFINES)
    where = symbol(image, "ticked")
    with record(tmp_path / "r", image, OPTIONS) as opened:
        t = opened.timeline
        t.run(NONE, steps=3000)
        state = t.marks.state_digest()
        t.seek(1000)
        number = t.engine.read_memory(where, 4)
        t.write_memory(where + 60, b"\1\2\3\4")
        t.run(NONE, steps=500)
        assert int.from_bytes(t.engine.read_memory(where, 4), "little") > int.from_bytes(number, "little")
        t.seek(3000)
        assert (t.at_present, t.marks.state_digest()) == (True, state)
        t.run(NONE)
        assert opened.guest.end is not None
    with replay(tmp_path / "r") as opened:
        verify(opened.timeline, stops=3)


def test_a_timer_is_a_part_of_the_state_and_of_its_digest(tmp_path: Path) -> None:
    _record("riscv64", tmp_path / "r")
    with replay(tmp_path / "r", writable=False) as opened:
        t = opened.timeline
        t.seek(t.end // 2)
        before = t.marks.state_digest()
        timer = toy_of(opened)._tick_timer
        assert timer.when is not None
        timer.at(timer.when + 1)
        assert t.marks.state_digest() != before
