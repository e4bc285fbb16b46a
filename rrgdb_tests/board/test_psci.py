"""PSCI calls of a machine with one CPU."""

from __future__ import annotations

import pytest

from rrgdb.arch import ARCHES
from rrgdb.board import psci
from rrgdb.board.device import RESET_STATUS
from rrgdb_tests.board.fakes import FakeCpu, FakeMachine


def call(function: int, argument: int = 0) -> tuple[int, FakeMachine]:
    cpu, machine = FakeCpu(), FakeMachine()
    cpu.registers |= {"x0": function, "x1": argument, "pc": 0x1000}
    assert psci.serve(cpu, machine, ARCHES["aarch64"])
    assert cpu.registers["pc"] == 0x1004
    value = cpu.registers["x0"]
    return value - (1 << 64) if value >> 63 else value, machine


@pytest.mark.parametrize(
    ("function", "argument", "result"),
    [
        (0x84000000, 0, 0x00010000),
        (0xDEAD_84000000, 0, 0x00010000),
        (0x84000001, 0, -1),
        (0xC4000001, 0, -1),
        (0x84000002, 0, -1),
        (0x84000003, 0, -4),
        (0xC4000003, 0, -4),
        (0xC4000003, 0x80000000, -4),
        (0xC4000003, 1, -2),
        (0xC4000003, 1 << 32, -2),
        (0x84000003, 1 << 32, -4),
        (0x84000004, 0, 0),
        (0xC4000004, 2, -2),
        (0x84000006, 0, 2),
        (0xC4000006, 0, -1),
        (0x8400000A, 0x84000000, 0),
        (0x8400000A, 0xC4000003, 0),
        (0x8400000A, 0x84000008, 0),
        (0x8400000A, 0x84000001, -1),
        (0x8400000A, 0x80000000, -1),
        (0xC400000A, 0x84000000, -1),
        (0xC4000008, 0, -1),
        (0x8400001F, 0, -1),
    ],
)
def test_results(function: int, argument: int, result: int) -> None:
    value, machine = call(function, argument)
    assert value == result
    assert machine.status is None


def test_power() -> None:
    assert call(0x84000008)[1].status == 0
    assert call(0x84000009)[1].status == RESET_STATUS


@pytest.mark.parametrize("function", [0, 0x80000000, 0x84000020, 0xC4000020, 0x04000000, 0x83FFFFFF, 0xFFFFFFFF])
def test_other_calls_are_left_alone(function: int) -> None:
    cpu, machine = FakeCpu(), FakeMachine()
    before = {"x0": function, "pc": 0x1000}
    cpu.registers |= before
    assert not psci.serve(cpu, machine, ARCHES["aarch64"])
    assert cpu.registers == before
    assert machine.status is None


def test_32_bit_guests_call_with_their_own_registers() -> None:
    cpu, machine = FakeCpu(), FakeMachine()
    cpu.registers |= {"r0": 0x84000003, "r1": 0, "pc": 0x1000}
    assert psci.serve(cpu, machine, ARCHES["arm"])
    assert (cpu.registers["r0"], cpu.registers["pc"]) == (0xFFFFFFFC, 0x1004)
