"""Short programs that change the CPU's modes: wherever they are stopped, saved and resumed, and in whatever gear, they
go the same way."""

from __future__ import annotations

import random

import pytest

from rrgdb.board.machine import Board
from rrgdb_tests.engine.unicorn.rig import board_state, board_with, goes_every_way, goes_there, stepped
from rrgdb_tests.guests import SHORTS, build_short

PROGRAMS = [(family, name) for family, names in SHORTS.items() for name in names]
LONGEST = 900
"""instructions that are looked at of a program: it ends in a loop"""
SAMPLE = 30


def straight(family: str, name: str, *, fast: bool) -> Board:
    return board_with(build_short(family, name), fast=fast)


@pytest.mark.parametrize(("family", "name"), PROGRAMS)
def test_every_way_to_a_position_leads_to_the_same_state(family: str, name: str) -> None:
    states, saved = stepped(straight(family, name, fast=False), LONGEST)
    assert len(set(states[:LONGEST])) > LONGEST // 2
    for fast in (False, True):
        guest = straight(family, name, fast=fast)
        for position in range(LONGEST + 1):
            goes_there(guest, position, states, "stopped everywhere")
    chosen = random.Random(f"{family} {name}")
    goes_every_way(lambda fast: straight(family, name, fast=fast), states, saved, SAMPLE, chosen)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), PROGRAMS)
def test_the_end_is_reached_from_every_position(family: str, name: str) -> None:
    states, saved = stepped(straight(family, name, fast=False), LONGEST)
    for fast in (False, True):
        guest = straight(family, name, fast=fast)
        for position in range(LONGEST):
            for stop in (position + 1, (position + LONGEST) // 2, LONGEST):
                saved[position].load(guest)
                guest.run_until(stop)
                assert board_state(guest) == states[stop], f"from {position} to {stop}"
