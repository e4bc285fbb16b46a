"""Programs that change their page tables and modes: at each position, what we find is what the CPU finds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rrgdb.arch.cpu import MemoryFault
from rrgdb.board.machine import Board
from rrgdb_tests.engine.unicorn.rig import board_with
from rrgdb_tests.guests import SHORTS, build_short

PROGRAMS = [(family, name) for family, names in SHORTS.items() for name in names if name.endswith(("_mmu", "_mode"))]
LONGEST = 6000
PAGE = 4096
MPRV = 1 << 17


def _of_the_cpu(guest: Board, address: int) -> int | None:
    """Where Unicorn's own translation says that it is; None: the present mode may not access it."""
    engine = guest.engine
    saved, family = (engine.save(), guest.save_devices()), engine.family
    engine.family = replace(family, paging=None)
    try:
        return engine.translate(address)
    except MemoryFault:
        return None
    finally:
        engine.family = family
        engine.load(saved[0])


@pytest.mark.parametrize(("family", "name"), PROGRAMS)
def test_at_each_position_it_is_where_the_cpu_finds_it(family: str, name: str) -> None:
    guest = board_with(build_short(family, name))
    engine = guest.engine
    compared = 0
    for position in range(LONGEST):
        guest.run_until(position)
        if not engine.translates:
            continue
        if family.startswith("riscv") and engine.read("mstatus") & MPRV:
            continue  # loads are not translated as fetches are
        if compared > 2000:
            break
        pc = engine.pc
        assert engine.translate(pc) >= 0
        places = {pc, engine.read(engine.arch.sp), *(pc & -PAGE ^ (PAGE << shift) for shift in (0, 1, 9, 10, 18))}
        for place in places:
            theirs = _of_the_cpu(guest, place & (1 << engine.arch.bits) - 1)
            if theirs is not None:
                assert engine.translate(place & (1 << engine.arch.bits) - 1) == theirs, (position, hex(place))
                compared += 1
    assert compared > 20
