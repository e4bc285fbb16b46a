"""Exceptions of every family in gdb: onto, over and out of their handlers, forward and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rrgdb_tests.e2e.harness import Gdb, debugging
from rrgdb_tests.guests import ARCHES, AWKWARD, build

GUESTS = {family: next(name for name in AWKWARD[family] if name.endswith("_trap")) for family in ARCHES}
LOOPS = {"LOOPS": 6}
DISTANCE = 28
"""instructions from before an exception to the first of the C handler, at most"""
ENTRIES = {
    "riscv64": ("mcause", "cause", "mepc", "pc"),
    "riscv32": ("mcause", "cause", "mepc", "pc"),
    "aarch64": ("ESR_EL1", "syndrome", "ELR_EL1", "pc"),
}
"""what the handler was given, and the registers that it comes from"""


@pytest.fixture
def trap(arch: str) -> Path:
    return build(arch, GUESTS[arch], LOOPS)


@pytest.fixture
def at(trap: Path, recordings: Callable[[Path], Path]) -> Iterator[Gdb]:
    with debugging(trap, "replay", recordings(trap)) as gdb:
        yield gdb


def _state(gdb: Gdb) -> tuple[int, dict[str, str]]:
    return gdb.icount, gdb.registers()


def test_back_before_an_exception_and_forth_again(at: Gdb) -> None:
    number = at.break_at("handle")
    for _ in range(3):
        at.cont()
    at.delete(number)
    trail = [_state(at)]
    for _ in range(DISTANCE):
        at.stepi(reverse=True)
        trail.append(_state(at))
    assert [icount for icount, _ in trail] == list(range(trail[0][0], trail[0][0] - DISTANCE - 1, -1))
    for expected in reversed(trail[:-1]):
        at.stepi()
        assert _state(at) == expected


def test_every_handler_is_passed_in_both_directions(at: Gdb) -> None:
    number = at.break_at("handle")
    seen = []
    for _ in range(8):
        assert at.cont()["reason"] == "breakpoint-hit"
        seen.append(_state(at))
    for expected in reversed(seen[:-1]):
        assert at.cont(reverse=True)["reason"] == "breakpoint-hit"
        assert _state(at) == expected
    at.delete(number)


def test_out_of_a_handler_and_back_into_it(at: Gdb) -> None:
    number = at.break_at("handle")
    at.cont()
    at.cont()
    entered = _state(at)
    at.delete(number)
    at.finish()
    outside = _state(at)
    assert at.command("-stack-info-frame")["frame"].get("func") != "handle"
    trail = []
    for _ in range(DISTANCE):
        trail.append(_state(at))
        at.stepi()
    for expected in reversed(trail):
        at.stepi(reverse=True)
        assert _state(at) == expected
    assert _state(at) == outside
    at.break_at("handle")
    at.cont(reverse=True)
    assert _state(at) == entered


@pytest.mark.parametrize("arch", ENTRIES)
def test_what_the_handler_is_given_is_in_the_registers(arch: str, at: Gdb) -> None:
    cause, given_cause, address, given_address = ENTRIES[arch]
    at.break_at("handle")
    for _ in range(6):
        at.cont()
        assert at.value(f"${cause}") == at.value(given_cause)
        assert at.value(f"${address}") == at.value(given_address)


def test_a_live_guest_too(trap: Path, tmp_path: Path) -> None:
    with debugging(trap, "run", "-o", tmp_path / "r", trap) as gdb:
        number = gdb.break_at("handle")
        gdb.cont()
        gdb.cont()
        gdb.delete(number)
        here = _state(gdb)
        for _ in range(20):
            gdb.stepi(reverse=True)
        for _ in range(20):
            gdb.stepi()
        assert _state(gdb) == here
        gdb.stepi()
        assert gdb.when()[3] == "record"
