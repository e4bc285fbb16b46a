"""Short programs that change the CPU's modes: wherever they are stopped, saved and resumed, and in whatever gear, they
go the same way."""

from __future__ import annotations

import random

import pytest

from rrgdb.board.machine import Board
from rrgdb_tests.engine.unicorn.rig import Saved, board_state, board_with
from rrgdb_tests.guests import SHORTS, build_short

PROGRAMS = [(family, name) for family, names in SHORTS.items() for name in names]
LONGEST = 900
"""instructions that are looked at of a program: it ends in a loop"""
SAMPLE = 30
State = tuple[int, str, str]


def straight(family: str, name: str, *, fast: bool) -> Board:
    return board_with(build_short(family, name), fast=fast)


def stepped(family: str, name: str) -> tuple[list[State], list[Saved]]:
    """States of the slow gear at all positions, reached one by one, and what is saved there."""
    guest = straight(family, name, fast=False)
    states, saved = [], []
    for position in range(LONGEST + 1):
        guest.run_until(position)
        states.append(board_state(guest))
        saved.append(Saved.of(guest))
    return states, saved


@pytest.mark.parametrize(("family", "name"), PROGRAMS)
def test_every_way_to_a_position_leads_to_the_same_state(family: str, name: str) -> None:
    states, saved = stepped(family, name)
    assert len(set(states[:LONGEST])) > LONGEST // 2
    random_ = random.Random(f"{family} {name}")
    positions = sorted(random_.sample(range(LONGEST), SAMPLE))
    for fast in (False, True):
        guest = straight(family, name, fast=fast)
        guest.run_until(LONGEST)
        assert board_state(guest) == states[LONGEST], "not stopped at all"
        guest = straight(family, name, fast=fast)
        for position in range(LONGEST + 1):
            guest.run_until(position)
            assert board_state(guest) == states[position], f"stopped everywhere, at {position}"
        guest = straight(family, name, fast=fast)
        for position in positions:
            guest.run_until(position)
            assert board_state(guest) == states[position], f"stopped at some, at {position}"
        for position in random_.sample(positions, SAMPLE):
            saved[position].load(guest)
            assert board_state(guest) == states[position], f"loaded at {position}"
            guest.run_until(LONGEST)
            assert board_state(guest) == states[LONGEST], f"from {position} to the end"


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), PROGRAMS)
def test_the_end_is_reached_from_every_position(family: str, name: str) -> None:
    states, saved = stepped(family, name)
    for fast in (False, True):
        guest = straight(family, name, fast=fast)
        for position in range(LONGEST):
            for stop in (position + 1, (position + LONGEST) // 2, LONGEST):
                saved[position].load(guest)
                guest.run_until(stop)
                assert board_state(guest) == states[stop], f"from {position} to {stop}"
