"""Going back, inside the server: steps and searches by the timeline API, without protocol and debugger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchlib.bench import Bench, positions, power
from benchlib.figures import seconds, timed
from benchlib.guests import Guest
from rrgdb.engine.base import Watch
from rrgdb.opening import Opened
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.stop import Points, Stop
from rrgdb.timeline.timeline import Timeline

GROUP = "travel"
FOLLOWING = 20
SEARCHES: tuple[tuple[str, Callable[[Guest], Points]], ...] = (
    ("breakpoint, no hit", lambda g: Points({g.at("never"): None})),
    ("breakpoint, hit near the beginning", lambda g: Points({g.at("early"): None})),
    ("breakpoint with 1,000 hits", lambda g: Points({g.at("often"): None})),
    ("watch for reads, last read near", lambda g: Points({}, (Watch(g.at("counter"), 4, "r"),))),
    ("watch, last write near", lambda g: Points({}, (Watch(g.at("counter"), 4, "w"),))),
    ("watch, never written", lambda g: Points({}, (Watch(g.at("unwritten"), 4, "w"),))),
)
"""reverse-continue from the end of the recording"""


def arrive(timeline: Timeline, icount: int) -> None:
    """Stand at a position reached by running forward from afar: no checkpoint lies near."""
    before = [s.icount for s in timeline.marks.stored if s.icount < icount]
    timeline.seek(before[-2] if len(before) > 1 else timeline.start)
    timeline.run(Points({}), steps=icount - timeline.icount)


@contextmanager
def _standing_at(bench: Bench, guest: Guest, icount: int) -> Iterator[tuple[Opened, Backward]]:
    with bench.replay(guest) as opened:
        arrive(opened.timeline, icount)
        yield opened, Backward(opened.timeline)


def _steps(bench: Bench, guest: Guest, icount: int) -> None:
    first: list[float] = []
    following: list[float] = []
    hundred: list[float] = []
    for _ in range(bench.repeat):
        with _standing_at(bench, guest, icount) as (opened, backward):
            first += seconds(backward.step, Points({}))
            following += seconds(backward.step, Points({}), repeat=FOLLOWING)
            if opened.timeline.icount != icount - 1 - FOLLOWING:
                raise AssertionError(
                    f"{guest.name}: {FOLLOWING + 1} steps back from {icount}: {opened.timeline.icount}"
                )
        with _standing_at(bench, guest, icount) as (_, backward):
            hundred.append(sum(seconds(backward.step, Points({}), repeat=100)))
    where = power(icount)
    bench.figures.ms(GROUP, guest.name, f"first reverse-stepi at {where}", first)
    bench.figures.ms(GROUP, guest.name, f"following reverse-stepi at {where}", following)
    bench.figures.ms(GROUP, guest.name, f"100 × reverse-stepi at {where}", hundred)


def _search(bench: Bench, guest: Guest, name: str, points: Points) -> None:
    taken: list[float] = []
    stops: list[Stop] = []
    end = 0
    for _ in range(bench.repeat):
        with bench.replay(guest) as opened:
            end = opened.timeline.end
            arrive(opened.timeline, end)
            backward = Backward(opened.timeline)
            took, stop = timed(backward.run, points)
            taken.append(took)
            stops.append(stop)
    if len(set(stops)) != 1:
        raise AssertionError(f"{guest.name}: {name}: several stops: {stops}")
    away = end - stops[0].icount
    bench.figures.ms(GROUP, guest.name, f"reverse-continue: {name}", taken, note=f"{away:,} back")


def measure(bench: Bench, guest: Guest) -> None:
    """All of this group for one guest."""
    with bench.replay(guest) as opened:
        end = opened.timeline.end
    for icount in positions(end):
        _steps(bench, guest, icount)
    for name, points in SEARCHES:
        _search(bench, guest, name, points(guest))
