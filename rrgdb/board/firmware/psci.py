"""Power State Coordination Interface of a machine with one CPU (ARM DEN 0022), called by HVC or SMC.

There is no other firmware: every other function of the SMC calling convention (ARM DEN 0028) is not supported either.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from rrgdb.arch.base import Arch
from rrgdb.arch.cpu import Cpu
from rrgdb.board.device import Machine
from rrgdb.board.firmware.devicetree import Node, Value

VERSION, CPU_SUSPEND, CPU_OFF, CPU_ON, AFFINITY_INFO = (0x84000000 + n for n in range(5))
MIGRATE, MIGRATE_INFO_TYPE, SYSTEM_OFF, SYSTEM_RESET, FEATURES = (0x84000000 + n for n in (5, 6, 8, 9, 10))
WIDE = 0x40000000
"""set in the function ids of the 64-bit calling convention, which AArch32 does not have"""
CPU_SUSPEND_0_1, CPU_OFF_0_1, CPU_ON_0_1 = 0x95C1BA5E, 0x95C1BA5F, 0x95C1BA60
"""of version 0.1, whose numbers are the platform's: QEMU's"""
SUCCESS, NOT_SUPPORTED, INVALID_PARAMETERS, ALREADY_ON = 0, -1, -2, -4
NO_TRUSTED_OS = 2
THE_CPU = 0
"""affinity fields of MPIDR_EL1 of the only CPU"""
NOT_THIS_CPU_ALONE = 0xFFFE0000
"""bits of a power state that QEMU does not take: affinity levels and what is reserved"""


@dataclass(frozen=True, slots=True)
class Version:
    number: int
    """as the function VERSION answers"""
    functions: frozenset[int]


_V1_0 = Version(
    0x00010000,
    frozenset(
        {VERSION, CPU_ON, CPU_ON | WIDE, CPU_ON_0_1, AFFINITY_INFO, AFFINITY_INFO | WIDE, MIGRATE_INFO_TYPE}
        | {SYSTEM_OFF, SYSTEM_RESET, FEATURES}
    ),
)
_V1_1 = Version(
    0x00010001,
    _V1_0.functions | {CPU_SUSPEND, CPU_SUSPEND | WIDE, CPU_SUSPEND_0_1, CPU_OFF, CPU_OFF_0_1},
)
VERSIONS = {"1.0": _V1_0, "1.1": _V1_1}
"""by ``BoardSpec.psci``: as on earlier revisions of the boards, and as QEMU 7.2's"""


def psci_node(wide: bool) -> Node:
    """What a device tree says of version 1.0 and later; ``wide``: for AArch64."""
    extra = WIDE if wide else 0
    functions: dict[str, Value] = {
        "migrate": MIGRATE | extra,
        "cpu_on": CPU_ON | extra,
        "cpu_off": CPU_OFF,
        "cpu_suspend": CPU_SUSPEND | extra,
    }
    return Node("psci", {**functions, "method": "hvc", "compatible": ("arm,psci-1.0", "arm,psci-0.2", "arm,psci")})


class Served(Enum):
    """What has become of a call."""

    REFUSED = auto()
    """nothing was changed: the instruction is undefined"""
    DONE = auto()
    WAITS = auto()
    """done, and the CPU waits for an interrupt, as by WFI"""
    OFF = auto()
    """done, and the CPU is off for good"""


def serve(cpu: Cpu, machine: Machine, arch: Arch, version: str) -> Served:
    """Perform the call that the instruction at pc makes: result to x0 or r0, and behind the instruction.

    ``version`` is one of ``VERSIONS``, or empty. REFUSED without a version, and in user mode (EL0). Function id and
    arguments are taken as whole registers, as QEMU does.
    """
    if not version or cpu.read("cpsr") & 15 == 0:
        return Served.REFUSED
    letter = "x" if arch.bits == 64 else "r"
    function, first, second = (cpu.read(f"{letter}{n}") for n in range(3))
    result, served = _call(VERSIONS[version], function, first, second, arch.bits == 64, machine)
    cpu.write(f"{letter}0", result & (1 << arch.bits) - 1)
    arch.step_over(cpu, 4)
    return served


def _call(version: Version, function: int, first: int, second: int, wide: bool, machine: Machine) -> tuple[int, Served]:
    if not _has(version, function, wide):
        return NOT_SUPPORTED, Served.DONE
    result, served = SUCCESS, Served.DONE
    match function & ~WIDE:
        case 0x84000000:
            result = version.number
        case 0x84000001 | 0x95C1BA5E:
            if first & NOT_THIS_CPU_ALONE:
                result = INVALID_PARAMETERS
            else:
                served = Served.WAITS
        case 0x84000002 | 0x95C1BA5F:
            served = Served.OFF
        case 0x84000003 | 0x95C1BA60:
            result = ALREADY_ON if first == THE_CPU else INVALID_PARAMETERS
        case 0x84000004:
            # Whatever holds CPUs is on.
            result = SUCCESS if second or first == THE_CPU else INVALID_PARAMETERS
        case 0x84000006:
            result = NO_TRUSTED_OS
        case 0x84000008:
            machine.power_off(0)
        case 0x84000009:
            machine.restart()
        case 0x8400000A:
            result = SUCCESS if _has(version, first, wide) else NOT_SUPPORTED
    return result, served


def _has(version: Version, function: int, wide: bool) -> bool:
    return function in version.functions and (wide or not function & WIDE)
