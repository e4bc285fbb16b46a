"""What is done with gdb in a kernel whose timer interrupts it, on every board."""

from __future__ import annotations

from rrgdb_tests.e2e.harness import Gdb

State = tuple[int, dict[str, str]]
"""icount, and registers as gdb shows them"""


def to(gdb: Gdb, where: str, times: int = 1) -> None:
    """To the next arrival at ``where``, and on to the one so many times behind."""
    number = gdb.break_at(where)
    for _ in range(times):
        assert gdb.cont()["reason"] == "breakpoint-hit"
    gdb.delete(number)


def state(gdb: Gdb) -> State:
    return gdb.icount, gdb.registers()


def back_to_the_previous_tick(at: Gdb, handler: str) -> None:
    """``handler`` counts ``ticks``, from 0 on."""
    at.break_at(handler)
    seen = []
    for _ in range(20):
        at.cont()
        seen.append((state(at), at.value("ticks")))
    assert [ticks for _, ticks in seen] == list(range(20))
    for expected in reversed(seen[:-1]):
        assert at.cont(reverse=True)["reason"] == "breakpoint-hit"
        assert (state(at), at.value("ticks")) == expected


def back_and_forth(at: Gdb, before: int, steps: int) -> list[State]:
    """Steps around the position, from so many ``before`` it: all of them back, and each one back and forth. Returns
    what was passed."""
    at.cli(f"monitor seek {at.icount - before}")
    at.cli("maintenance flush register-cache")
    straight = [state(at)]
    for _ in range(steps):
        at.stepi()
        straight.append(state(at))
    for expected in reversed(straight[:-1]):
        at.stepi(reverse=True)
        assert state(at) == expected
    for expected in straight[1:]:
        at.stepi()
        at.stepi(reverse=True)
        at.stepi()
        assert state(at) == expected
    return straight


def qemus_acceptance(at: Gdb) -> None:
    """Ten steps, back, and forth again; breakpoints on all of them; on, and back to the last."""
    steps = [state(at)]
    for _ in range(10):
        at.stepi()
        steps.append(state(at))
    for expected in reversed(steps[:-1]):
        at.stepi(reverse=True)
        assert state(at) == expected
    for expected in steps[1:]:
        at.stepi()
        assert state(at) == expected
    assert at.cont()["reason"] == "no-history"
    places = {registers["pc"].split()[0] for _, registers in steps}
    for place in places:
        at.break_at(f"*{place}")
    assert at.cont(reverse=True)["reason"] == "breakpoint-hit"
    assert at.icount > steps[-1][0]
    assert at.registers()["pc"].split()[0] in places
    assert at.cont()["reason"] == "no-history"


def threads_of_switches_backwards(at: Gdb, where: str, times: int, function: str) -> set[int]:
    """``switches`` watched backwards from an arrival at ``where``: ``function`` counts each one. Returns which threads
    were current."""
    to(at, where, times)
    switches, watched = at.value("switches"), at.watch("switches")
    threads = set()
    for expected in range(switches, switches - 12, -1):
        stop = at.cont(reverse=True)
        assert stop["wpt"]["number"] == watched
        assert stop["value"] == {"old": str(expected), "new": str(expected - 1)}
        assert stop["frame"]["func"] == function
        threads.add(at.value("current"))
    return threads
