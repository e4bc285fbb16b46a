"""What a board tells a user about itself."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rrgdb.arch.base import LINES
from rrgdb.board.boards import default_board
from rrgdb.board.machine import Board
from rrgdb_tests.board.test_machine import FAMILIES, raw


@pytest.mark.parametrize("family", FAMILIES)
def test_the_memory_map_has_all_that_answers_and_nothing_twice(family: str) -> None:
    board = raw(family, "nop")
    areas = board.hardware.areas()
    spec = default_board(family)
    memory = [area for area in areas if area.kind != "port"]
    for kind in (memory, [area for area in areas if area.kind == "port"]):
        for one, other in pairwise(kind):
            assert one.first <= one.last < other.first
    names = {"mmio": "i/o", "port": "port", "rom": "rom"}
    for place in spec.placements:
        kinds = {area.kind for area in areas if area.name == place.name and place.base <= area.first < place.end}
        assert kinds == {names[place.space]}, place.name
    ram = [(area.first, area.last) for area in areas if area.kind == "ram"]
    assert spec.ram_base == ram[0][0]
    for first, last in ram:
        board.check_physical(first, last + 1 - first)


def _told(board: Board) -> str:
    return "\n".join(board.hardware.interrupts())


@pytest.mark.parametrize(("family", "line", "pending"), [("riscv64", 11, 11), ("aarch64", 2, 34)], ids=["PLIC", "GIC"])
def test_a_line_is_followed_to_the_controller(family: str, line: int, pending: int) -> None:
    board = raw(family, "nop")
    assert "lines that are high: none" in _told(board)
    board.irq(line, True)
    before = board.save_devices(), board.engine.save()
    text = _told(board)
    assert f"lines that are high: {line} (rtc)" in text
    assert f"pending {pending}," in text
    assert (board.save_devices(), board.engine.save()) == before
    board.irq(line, False)
    assert "lines that are high: none" in _told(board)


@pytest.mark.parametrize("family", ["riscv64", "aarch64", "arm"])
def test_inputs_of_the_cpu_are_named(family: str) -> None:
    board = raw(family, "nop")
    interrupts = board.arch.interrupts
    assert interrupts is not None
    for name, bit in interrupts.lines.items():
        board.engine.write(LINES, 1 << bit)
        assert f"inputs of the CPU that are high: {name}" in _told(board)
