"""Exceptions of the M profile: what handlers and threads see is what QEMU's mps2-an385 shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rrgdb.board.machine import Board
from rrgdb.guest import End
from rrgdb_tests.board.mps2.cases import CASES, LOG, LOG_BYTES
from rrgdb_tests.board.mps2.judge import LOCKUP, ask, build, is_there, outcome, recorded, symbol
from rrgdb_tests.engine.unicorn.rig import board_state, board_with

_ENOUGH = 3000
"""instructions"""
_REGISTERS = (*(f"r{n}" for n in range(13)), "sp", "lr", "pc", "xpsr")


def run(elf: Path, *, fast: bool = True) -> Board:
    guest = board_with(elf, fast=fast)
    guest.run_until(_ENOUGH)
    return guest


def ours(guest: Board, elf: Path) -> list[str] | str:
    if guest.end is not None:
        assert guest.end.kind == "signal"
        return LOCKUP
    assert guest.engine.pc == symbol(elf, "done")
    return outcome([guest.engine.read(name) for name in _REGISTERS], guest.read_physical(LOG - 4, LOG_BYTES))


@pytest.mark.parametrize("name", CASES)
def test_it_ends_as_on_qemu(name: str, tmp_path: Path) -> None:
    elf = build(name, tmp_path)
    assert ours(run(elf), elf) == recorded()[name]


@pytest.mark.parametrize("name", CASES)
def test_every_gear_and_every_step_agree(name: str, tmp_path: Path) -> None:
    elf = build(name, tmp_path)
    straight, slow, stepped = run(elf), run(elf, fast=False), board_with(elf)
    assert board_state(slow) == board_state(straight)
    while stepped.engine.icount < min(_ENOUGH, 600) and stepped.end is None:
        before = stepped.engine.icount
        stepped.run_until(before + 1)
        assert stepped.engine.icount == before + (stepped.end is None)
    stepped.run_until(_ENOUGH)
    assert board_state(stepped) == board_state(straight)


@pytest.mark.slow
@pytest.mark.skipif(not is_there(), reason="qemu-system-arm, or the assembler, is not installed")
@pytest.mark.parametrize("name", CASES)
def test_the_qemu_that_is_here_says_the_same(name: str) -> None:
    assert ask(name) == recorded()[name]


def test_lockup_ends_the_guest_and_says_why(tmp_path: Path) -> None:
    guest = run(build("lockup: a fault with FAULTMASK", tmp_path))
    assert guest.end == End("signal", 4)
    assert "undefined instruction" in guest.cause


@pytest.mark.parametrize(
    "name", ["MPU: AP 6, unprivileged", "MPU: in a loop", "division by zero in a loop, trapped late"]
)
def test_a_state_that_is_restored_finds_the_same_faults(name: str, tmp_path: Path) -> None:
    elf = build(name, tmp_path)
    straight = run(elf)
    for position in range(20, straight.engine.icount, 97):
        guest, other = board_with(elf), board_with(elf)
        guest.run_until(position)
        for base in (0x20000000, 0x200F8000):
            other.write_physical(base, guest.read_physical(base, 0x9000))
        other.engine.load(guest.engine.save())
        other.load_devices(guest.save_devices())
        other.run_until(_ENOUGH)
        assert board_state(other) == board_state(straight)
