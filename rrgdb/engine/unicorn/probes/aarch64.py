"""Where Unicorn keeps what its interface does not show of AArch64."""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

from unicorn import arm64_const
from unicorn import unicorn_const as const

from rrgdb.engine.unicorn.probes.cpu import Cpus
from rrgdb.engine.unicorn.probes.experiments import CODE, Probe, common, found_at, hosts, missing, rounding, words
from rrgdb.engine.unicorn.probes.layout import Layout
from rrgdb.engine.unicorn.probes.structure import scratch

_DAIF_SET, _DAIF_CLEAR = 0xD50342DF, 0xD50342FF
"""msr daifset, #2 and msr daifclr, #2"""


def _scratch() -> Any:
    uc = scratch(const.UC_ARCH_ARM64, const.UC_MODE_ARM)
    uc.mem_map(CODE, 0x1000)
    return uc


CPUS = Cpus(
    "AArch64",
    _scratch,
    tuple(arm64_const.UC_ARM64_REG_X0 + n for n in range(29)),
    8,
)


@cache
def _interrupt_mask() -> int:
    def run(uc: Any, instruction: int) -> None:
        # A write of PSTATE from outside would change another place as well.
        uc.mem_write(CODE, struct.pack("<I", instruction))
        uc.ctl_flush_tb()
        uc.emu_start(CODE, CODE + 4)

    return CPUS.offset(run, _DAIF_CLEAR, _DAIF_SET, "its masks")


def find_masks(uc: Any) -> tuple[tuple[int, int], ...]:
    """(address, bytes) of D, A, I and F of PSTATE, for an engine that is not running."""
    return ((CPUS.address(uc) + _interrupt_mask(), 1),)


def layout() -> Layout:
    probe = Probe(const.UC_ARCH_ARM64, const.UC_MODE_ARM)
    x0 = arm64_const.UC_ARM64_REG_X0
    # svc #0x1a2b; svc #0x777
    calls = {"614503d4": 0x56001A2B, "e1ee00d4": 0x56000777}
    syndrome = common(found_at(probe.run(code, {}), struct.pack("<I", esr)) for code, esr in calls.items())
    # ldxr x1, [x0] on an odd address
    values = (0x12345677, 0x76543211)
    address = common(found_at(probe.run("017c5fc8", {x0: v}, [x0]), v.to_bytes(8, "little")) for v in values)
    # eret: the cycle counter is brought up to date
    returned = {arm64_const.UC_ARM64_REG_ELR_EL1: CODE}
    # msr dbgbcr0_el1, x0 to msr dbgbcr5_el1, x0: breakpoints of the guest's own
    breakpoints = words(0xD51000A0, 8, 6)
    fpcr = arm64_const.UC_ARM64_REG_FPCR
    return Layout(
        fault_address=address,
        syndrome=syndrome,
        bounds=rounding(probe.context, lambda mode: probe.uc.reg_write(fpcr, mode << 22)),
        objects=hosts(const.UC_ARCH_ARM64, const.UC_MODE_ARM, breakpoints, {x0: 0x1E5}, 6),
        hosts=hosts(const.UC_ARCH_ARM64, const.UC_MODE_ARM, "e0039fd6", returned),
        missing=missing({"syndrome": syndrome, "fault address": address}),
    )
