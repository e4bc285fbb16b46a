"""PSCI calls of a machine with one CPU."""

from __future__ import annotations

import pytest

from rrgdb.arch import ARCHES
from rrgdb.arch.base import Arch
from rrgdb.board.firmware import psci
from rrgdb.board.firmware.psci import Served
from rrgdb_tests.board.fakes import FakeCpu, FakeMachine

AARCH64, ARM = ARCHES["aarch64"], ARCHES["arm"]
SUPERVISOR = {"aarch64": 0x3C5, "arm": 0x1D3}
USER = {"aarch64": 0x3C0, "arm": 0x1D0}


def prepared(arch: Arch, *arguments: int) -> tuple[FakeCpu, FakeMachine]:
    cpu, letter = FakeCpu(), "x" if arch.bits == 64 else "r"
    cpu.registers |= {f"{letter}{n}": value for n, value in enumerate((*arguments, 0, 0)[:3])}
    cpu.registers |= {"pc": 0x1000, "cpsr": SUPERVISOR[arch.name]}
    return cpu, FakeMachine()


def call(arch: Arch, *arguments: int, version: str = "1.1", served: Served = Served.DONE) -> tuple[int, FakeMachine]:
    cpu, machine = prepared(arch, *arguments)
    assert psci.serve(cpu, machine, arch, version) is served
    assert cpu.registers["pc"] == 0x1004
    value = cpu.registers["x0" if arch.bits == 64 else "r0"]
    return value - (1 << arch.bits) if value >> arch.bits - 1 else value, machine


# What QEMU 7.2's virt boards answer, with one CPU, by HVC and (virtualization=on) by SMC.
BOTH = [
    ((0x84000000,), 0x00010001),
    ((0x84000001, 0x00020000), -2),
    ((0x84000001, 0x80000000), -2),
    ((0x95C1BA5E, 0x00020000), -2),
    ((0x95C1BA61,), -1),
    ((0x84000003,), -4),
    ((0x84000003, 1), -2),
    ((0x84000003, 0x80000000), -2),
    ((0x95C1BA60,), -4),
    ((0x84000004,), 0),
    ((0x84000004, 1), -2),
    ((0x84000004, 0, 1), 0),
    ((0x84000004, 1, 1), 0),
    ((0x84000006,), 2),
    ((0x8400000A, 0x84000000), 0),
    ((0x8400000A, 0x84000001), 0),
    ((0x8400000A, 0x84000002), 0),
    ((0x8400000A, 0x84000003), 0),
    ((0x8400000A, 0x84000006), 0),
    ((0x8400000A, 0x84000008), 0),
    ((0x8400000A, 0x84000009), 0),
    ((0x8400000A, 0x8400000A), 0),
    ((0x8400000A, 0x95C1BA5E), 0),
    ((0x8400000A, 0x95C1BA5F), 0),
    ((0x8400000A, 0x95C1BA60), 0),
    ((0x8400000A, 0x95C1BA61), -1),
    ((0x8400000A, 0x84000005), -1),
    ((0x8400000A, 0x80000000), -1),
    ((0x8400000A, 0xC4000002), -1),
    ((0x84000005,), -1),
    ((0xC4000002,), -1),
    ((0xC4000006,), -1),
    ((0xC4000008,), -1),
    ((0xC400000A, 0x84000000), -1),
]
WIDE = [
    ((0xC4000001, 0x00020000), -2),
    ((0xC4000003,), -4),
    ((0xC4000003, 1 << 32), -2),
    ((0x84000003, 1 << 32), -2),
    ((0xC4000004,), 0),
    ((0x84000004, 1 << 32), -2),
    ((0x8400000A, 0xC4000001), 0),
    ((0x8400000A, 0xC4000003), 0),
    ((0x8400000A, 0xC4000004), 0),
    ((0x8400000A, 1 << 32 | 0x84000000), -1),
    ((0xDEAD_84000000,), -1),
    ((0xFFFFFFFF_84000000,), -1),
]
NARROW = [
    ((0xC4000001,), -1),
    ((0xC4000003,), -1),
    ((0xC4000004,), -1),
    ((0x8400000A, 0xC4000001), -1),
    ((0x8400000A, 0xC4000003), -1),
]


@pytest.mark.parametrize(
    ("arch", "arguments", "result"),
    [(arch, *case) for arch, more in ((AARCH64, WIDE), (ARM, NARROW)) for case in BOTH + more],
)
def test_results(arch: Arch, arguments: tuple[int, ...], result: int) -> None:
    value, machine = call(arch, *arguments)
    assert value == result
    assert (machine.status, machine.restarts) == (None, 0)


@pytest.mark.parametrize("arch", [AARCH64, ARM])
def test_power(arch: Arch) -> None:
    machine = call(arch, 0x84000008)[1]
    assert (machine.status, machine.restarts) == (0, 0)
    machine = call(arch, 0x84000009)[1]
    assert (machine.status, machine.restarts) == (None, 1)


@pytest.mark.parametrize(
    ("arch", "function"),
    [(AARCH64, 0xC4000001), *((arch, f) for arch in (AARCH64, ARM) for f in (0x84000001, 0x95C1BA5E))],
)
@pytest.mark.parametrize("state", [0, 0x10000, 0x1FFFF])
def test_suspending_is_waiting_for_an_interrupt(arch: Arch, function: int, state: int) -> None:
    assert call(arch, function, state, served=Served.WAITS)[0] == 0


@pytest.mark.parametrize("arch", [AARCH64, ARM])
@pytest.mark.parametrize("function", [0x84000002, 0x95C1BA5F])
def test_the_cpu_can_be_off(arch: Arch, function: int) -> None:
    call(arch, function, served=Served.OFF)


@pytest.mark.parametrize("arch", [AARCH64, ARM])
def test_version_1_0_has_neither(arch: Arch) -> None:
    assert call(arch, 0x84000000, version="1.0")[0] == 0x00010000
    for function in (0x84000001, 0x84000002, 0xC4000001, 0x95C1BA5E, 0x95C1BA5F):
        assert call(arch, function, version="1.0")[0] == -1
        assert call(arch, 0x8400000A, function, version="1.0")[0] == -1


# Version, features, soft reset and the others of the architecture, of the CPU, SiP, OEM and standard services.
UNKNOWN = [0, 1, 0x04000000, 0x80000000, 0x80000001, 0x80007FFF, 0x80008000, 0x82000000, 0x83000000, 0x8400000B]
UNKNOWN += [0x84000010, 0x8400001F, 0x84000020, 0x84000050, 0x84008000, 0x86000000, 0x95C1BA61, 0xC0000000, 0xC400000E]
UNKNOWN += [0xC4000020, 0xC4000050, 0xFFFFFFFF]


@pytest.mark.parametrize("arch", [AARCH64, ARM])
def test_whatever_else_is_not_supported(arch: Arch) -> None:
    assert {call(arch, function)[0] for function in UNKNOWN} == {-1}


@pytest.mark.parametrize("arch", [AARCH64, ARM])
@pytest.mark.parametrize(("mode", "version"), [(USER, "1.1"), (USER, "1.0"), (SUPERVISOR, "")])
def test_user_mode_and_a_board_without_it_cannot_call(arch: Arch, mode: dict[str, int], version: str) -> None:
    cpu, machine = prepared(arch, 0x84000000)
    cpu.registers["cpsr"] = mode[arch.name]
    before = dict(cpu.registers)
    assert psci.serve(cpu, machine, arch, version) is Served.REFUSED
    assert (cpu.registers, machine.status) == (before, None)
