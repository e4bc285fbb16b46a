"""Recordings of x86 guests in real mode, with breakpoints of their own, and with what x87 computes: all ways agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from rrgdb.opening import GuestOptions, record
from rrgdb_tests.board import test_x86_real_mode as real_mode
from rrgdb_tests.board import test_x87 as x87
from rrgdb_tests.engine.unicorn.rig import BOARD_RAM
from rrgdb_tests.script.rig import check

IMAGES = {
    "exceptions": ("i386", lambda: real_mode.image(real_mode.BODY), real_mode.BASE),
    "breakpoints": ("i386", lambda: real_mode.image(real_mode.DEBUGGED), real_mode.BASE),
    "i386 x87": ("i386", lambda: x87.image("i386", x87.LOOP.replace("40", "4")), x87.BASE),
    "x86_64 x87": ("x86_64", lambda: x87.image("x86_64", x87.LOOP.replace("40", "4")), x87.BASE),
}


@pytest.mark.parametrize("name", IMAGES)
def test_all_ways_lead_to_the_same_state(name: str, tmp_path: Path) -> None:
    arch, image, load = IMAGES[name]
    (tmp_path / "image").write_bytes(image())
    options = GuestOptions(board=f"{arch}-pc", memory=BOARD_RAM, load=load)
    path = tmp_path / "r.rrgdb"
    with record(path, tmp_path / "image", options, interval=1e-9) as opened:
        while opened.guest.end is None:
            opened.timeline.advance(opened.timeline.icount + 20)
        assert opened.guest.end.kind == "halt"
    assert len(check(path, moves=60)) > 50
