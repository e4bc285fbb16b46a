"""Power State Coordination Interface 1.0 of a machine with one CPU (ARM DEN 0022), called by HVC or SMC.

There is no other firmware: every other function of the SMC calling convention (ARM DEN 0028) is not supported either.
"""

from __future__ import annotations

from rrgdb.arch.base import Arch
from rrgdb.arch.cpu import Cpu
from rrgdb.board.device import RESET_STATUS, Machine

VERSION, CPU_ON, AFFINITY_INFO, MIGRATE_INFO_TYPE = 0x84000000, 0x84000003, 0x84000004, 0x84000006
SYSTEM_OFF, SYSTEM_RESET, FEATURES = 0x84000008, 0x84000009, 0x8400000A
WIDE = 0x40000000
"""set in the function ids of the 64-bit calling convention, which AArch32 does not have"""
CPU_ON_0_1 = 0x95C1BA60
"""CPU_ON of version 0.1, whose numbers are the platform's: QEMU's"""
IMPLEMENTED = frozenset(
    {VERSION, CPU_ON, CPU_ON | WIDE, CPU_ON_0_1, AFFINITY_INFO, AFFINITY_INFO | WIDE, MIGRATE_INFO_TYPE}
    | {SYSTEM_OFF, SYSTEM_RESET, FEATURES}
)
VERSION_1_0 = 0x00010000
SUCCESS, NOT_SUPPORTED, INVALID_PARAMETERS, ALREADY_ON = 0, -1, -2, -4
NO_TRUSTED_OS = 2
THE_CPU = 0
"""affinity fields of MPIDR_EL1 of the only CPU"""


def serve(cpu: Cpu, machine: Machine, arch: Arch) -> bool:
    """Perform the call that the instruction at pc makes: result to x0 or r0, and behind the instruction.

    False, with nothing changed, in user mode (EL0): the instruction is undefined there. Function id and arguments are
    taken as whole registers, as QEMU does.
    """
    if cpu.read("cpsr") & 15 == 0:
        return False
    letter = "x" if arch.bits == 64 else "r"
    function, first, second = (cpu.read(f"{letter}{n}") for n in range(3))
    result = _call(function, first, second, arch.bits == 64, machine)
    cpu.write(f"{letter}0", result & (1 << arch.bits) - 1)
    arch.step_over(cpu, 4)
    return True


def _call(function: int, first: int, second: int, wide: bool, machine: Machine) -> int:
    if not _has(function, wide):
        return NOT_SUPPORTED
    match function & ~WIDE:
        case 0x84000000:
            return VERSION_1_0
        case 0x84000003 | 0x95C1BA60:
            return ALREADY_ON if first == THE_CPU else INVALID_PARAMETERS
        case 0x84000004:
            # Whatever holds CPUs is on.
            return SUCCESS if second or first == THE_CPU else INVALID_PARAMETERS
        case 0x84000006:
            return NO_TRUSTED_OS
        case 0x84000008:
            machine.power_off(0)
        case 0x84000009:
            machine.power_off(RESET_STATUS)
        case 0x8400000A:
            return SUCCESS if _has(first, wide) else NOT_SUPPORTED
    return SUCCESS


def _has(function: int, wide: bool) -> bool:
    return function in IMPLEMENTED and (wide or not function & WIDE)
