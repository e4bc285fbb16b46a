"""Power State Coordination Interface 1.0 of a machine with one CPU (ARM DEN 0022), called by HVC or SMC."""

from __future__ import annotations

from rrgdb.arch.base import Arch, Cpu
from rrgdb.board.device import RESET_STATUS, Machine

VERSION, CPU_ON, AFFINITY_INFO, MIGRATE_INFO_TYPE = 0x84000000, 0x84000003, 0x84000004, 0x84000006
SYSTEM_OFF, SYSTEM_RESET, FEATURES = 0x84000008, 0x84000009, 0x8400000A
WIDE = 0x40000000
"""set in the function ids of the 64-bit calling convention"""
IMPLEMENTED = frozenset(
    {VERSION, CPU_ON, CPU_ON | WIDE, AFFINITY_INFO, AFFINITY_INFO | WIDE, MIGRATE_INFO_TYPE}
    | {SYSTEM_OFF, SYSTEM_RESET, FEATURES}
)
VERSION_1_0 = 0x00010000
SUCCESS, NOT_SUPPORTED, INVALID_PARAMETERS, ALREADY_ON = 0, -1, -2, -4
NO_TRUSTED_OS = 2
AFFINITY = 0xFF_00FF_FFFF
"""the affinity fields of MPIDR_EL1; those of the only CPU are 0"""


def serve(cpu: Cpu, machine: Machine, arch: Arch) -> bool:
    """Perform the call that the instruction at pc makes: result to x0 or r0, and behind the instruction.

    False, with nothing changed, if x0 holds no PSCI function id: the instruction is undefined then.
    """
    first, second = ("x0", "x1") if arch.bits == 64 else ("r0", "r1")
    function = cpu.read(first) & 0xFFFFFFFF
    if function & ~WIDE & 0xFFFFFFE0 != VERSION:
        return False
    result = _call(function, cpu.read(second), machine)
    cpu.write(first, result & (1 << arch.bits) - 1)
    arch.step_over(cpu, 4)
    return True


def _call(function: int, argument: int, machine: Machine) -> int:
    if function not in IMPLEMENTED:
        return NOT_SUPPORTED
    if not function & WIDE:
        argument &= 0xFFFFFFFF
    match function & ~WIDE:
        case 0x84000000:
            return VERSION_1_0
        case 0x84000003:
            return ALREADY_ON if argument & AFFINITY == 0 else INVALID_PARAMETERS
        case 0x84000004:
            return SUCCESS if argument & AFFINITY == 0 else INVALID_PARAMETERS
        case 0x84000006:
            return NO_TRUSTED_OS
        case 0x84000008:
            machine.power_off(0)
        case 0x84000009:
            machine.power_off(RESET_STATUS)
        case 0x8400000A:
            return SUCCESS if argument in IMPLEMENTED else NOT_SUPPORTED
    return SUCCESS
