"""Stopping and resuming anywhere, any number of times, in any engine, is the same as never stopping."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys

import pytest

from rrgdb.engine.base import NO_STOPS, ExitKind, Stops, Watch
from rrgdb_tests.engine.unicorn.rig import BOARD_RAM, Saved, board, board_state, pass_by
from rrgdb_tests.guests import AWKWARD, CHECKSUMS

PROGRAMS = [(family, program) for family, programs in AWKWARD.items() for program in programs]
IDS = [f"{family}-{program}" for family, program in PROGRAMS]
LOOPS = 8
MARKS = 40


def reference(family: str, program: str, loops: int = LOOPS) -> dict[int, tuple[int, str, str]]:
    """States of an uninterrupted run at some positions, the last included."""
    whole = board(family, program, LOOPS=loops)
    whole.run_until(1 << 40)
    end = whole.engine.icount
    rng = random.Random(f"{family} {program}")
    at = sorted({*(rng.randrange(end) for _ in range(MARKS)), end})
    guest = board(family, program, LOOPS=loops)
    states = {}
    for icount in at:
        guest.run_until(icount)
        states[icount] = board_state(guest)
        assert states[icount][0] == icount
    assert states[end] == board_state(whole), "stopping at some positions changed the end"
    return states


@pytest.mark.parametrize(("family", "program"), PROGRAMS, ids=IDS)
def test_a_guest_prints_what_real_cpus_print(family: str, program: str) -> None:
    guest = board(family, program)
    guest.run_until(1 << 40)
    assert f"{program} checksum {CHECKSUMS[family, program]:08x}\n" in guest.host.text.decode()
    assert guest.end is not None
    assert guest.end.kind == "exit"


def sliced(family: str, program: str, loops: int, one_by_one: int) -> None:
    """``one_by_one`` of a thousand stretches are walked by single steps, the others by small random slices; points are
    armed and disarmed and the guest saved and loaded on the way."""
    states = reference(family, program, loops)
    rng = random.Random(f"slices {family} {program}")
    guest = board(family, program, LOOPS=loops)
    base = guest.spec.ram(BOARD_RAM).regions[-1][0]
    breakpoints = tuple((base + 2 * i, () if i % 2 else None) for i in range(500))
    stops = Stops(breakpoints, (Watch(base + 0x2000, 64, "a"), Watch(base + 0x1FF0, 8, "w")))
    armed = False
    for target, state in states.items():
        singly = rng.randrange(1000) < one_by_one
        while guest.engine.icount < target:
            step = 1 if singly else rng.choice((1, 2, 3, 7, 50, 400))
            if rng.random() < 0.01:
                armed = not armed
                guest.engine.arm(stops if armed else NO_STOPS)
            if rng.random() < 0.003:
                saved = Saved.of(guest)
                if rng.random() < 0.5:
                    guest.run_until(guest.engine.icount + 100)
                    guest.host.outputs.clear()
                else:
                    guest = board(family, program, LOOPS=loops)
                    armed = False
                saved.load(guest)
            goal = min(guest.engine.icount + step, target)
            while guest.engine.icount < goal and guest.end is None:
                exit_ = guest.run_until(goal)
                assert exit_.kind in (ExitKind.LIMIT, ExitKind.BREAKPOINT, ExitKind.WATCHPOINT)
                if exit_.kind is ExitKind.BREAKPOINT:
                    pass_by(guest.engine)
            assert guest.engine.icount == goal
        assert board_state(guest) == state


@pytest.mark.parametrize(("family", "program"), PROGRAMS, ids=IDS)
def test_slices_change_nothing(family: str, program: str) -> None:
    sliced(family, program, 2, 100)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "program"), PROGRAMS, ids=IDS)
def test_single_steps_change_nothing(family: str, program: str) -> None:
    sliced(family, program, 40, 1000)


_OTHER_PROCESS = """
import pickle, sys
from rrgdb_tests.engine.unicorn.rig import board, board_state
family, program, saved, targets = pickle.load(sys.stdin.buffer)
guest = board(family, program, LOOPS=4)
saved.load(guest)
states = []
for target in targets:
    guest.run_until(target)
    states.append(board_state(guest))
sys.stdout.buffer.write(pickle.dumps(states))
"""


@pytest.mark.parametrize(
    ("family", "program"),
    [(f, p) for f, p in PROGRAMS if p.endswith(("_fp", "_atomic", "_lock"))],
    ids=[i for i in IDS if i.endswith(("_fp", "_atomic", "_lock"))],
)
def test_a_state_goes_on_in_another_process(family: str, program: str) -> None:
    guest = board(family, program, LOOPS=4)
    guest.run_until(1 << 40)
    end = guest.engine.icount
    guest = board(family, program, LOOPS=4)
    guest.run_until(end * 3 // 5)
    saved = Saved.of(guest)
    targets = [end * 3 // 5, end * 3 // 5 + 1, end * 4 // 5, end]
    expected = []
    for target in targets:
        guest.run_until(target)
        expected.append(board_state(guest))
    given = pickle.dumps((family, program, saved, targets))
    run = subprocess.run([sys.executable, "-c", _OTHER_PROCESS], input=given, capture_output=True, check=True)
    assert pickle.loads(run.stdout) == expected
