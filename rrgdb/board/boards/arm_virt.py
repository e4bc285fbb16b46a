"""QEMU's ``virt`` machine for Arm, one CPU; power is PSCI by HVC. Both widths have the same map."""

from __future__ import annotations

from dataclasses import replace

from rrgdb.board.boards.arm_tree import arm_tree
from rrgdb.board.devices.clock.counter import Counter
from rrgdb.board.devices.clock.pl031 import Pl031, SilentPl031
from rrgdb.board.devices.entropy import Entropy
from rrgdb.board.devices.gpio.pl061 import Pl061
from rrgdb.board.devices.intc import gic_registers as gic
from rrgdb.board.devices.intc.gic import Gic
from rrgdb.board.devices.memory.flash import Flash
from rrgdb.board.devices.memory.fw_cfg import FwCfg
from rrgdb.board.devices.power.debug_exit import ExitRegister
from rrgdb.board.devices.uart.pl011 import InterruptingPl011, Pl011
from rrgdb.board.devices.virtio.earlier import EarlierDenseVirtioMmio
from rrgdb.board.devices.virtio.slots import DenseVirtioMmio
from rrgdb.board.spec import GIB, MIB, BoardSpec, Placement

SLOTS = tuple(reversed(range(32)))
OWN = (
    Placement(Entropy, "entropy", 0x0B000000, 0x1000),
    Placement(Counter, "counter", 0x0B001000, 0x1000),
    Placement(ExitRegister, "exit", 0x0B002000, 0x1000),
)
"""what QEMU's machine lacks"""

AARCH64_VIRT = BoardSpec(
    name="aarch64-virt",
    arches=("aarch64",),
    description="QEMU virt, 64-bit Arm",
    ram_base=0x40000000,
    default_ram=128 * MIB,
    max_ram=4 * GIB,
    placements=(
        Placement(Flash, "flash0", 0x00000000, 64 * MIB, "rom"),
        Placement(Flash, "flash1", 0x04000000, 64 * MIB, "rom"),
        Placement(Gic, "gic", 0x08000000, gic.BYTES, gap=(gic.DISTRIBUTOR_BYTES, gic.CPU_INTERFACE)),
        Placement(InterruptingPl011, "serial0", 0x09000000, 0x1000, line=1),
        Placement(Pl031, "rtc", 0x09010000, 0x1000, line=2),
        Placement(FwCfg, "fw-cfg", 0x09020000, 0x1000),
        Placement(Pl061, "gpio", 0x09030000, 0x1000, line=7),
        Placement(DenseVirtioMmio, "virtio", 0x0A000000, 0x4000, slots=SLOTS, line=16),
        *OWN,
    ),
    serial="serial0",
    psci="1.1",
    lines=gic.LINES,
    cpu_timers={"cntp": gic.GIC_PPI + 14, "cntv": gic.GIC_PPI + 11},
    sleeps=True,
    restarts=True,
    tree=arm_tree,
    revision=3,
)
"""Lines are SPIs (INTID - 32), and from ``GIC_PPI`` on PPIs."""

ARM_VIRT = replace(AARCH64_VIRT, name="arm-virt", arches=("arm",), description="QEMU virt, 32-bit Arm", max_ram=3 * GIB)

EARLIER = tuple(
    replace(
        board,
        placements=(
            Placement(Pl011, "serial0", 0x09000000, 0x1000),
            Placement(SilentPl031, "rtc", 0x09010000, 0x1000),
            Placement(EarlierDenseVirtioMmio, "virtio", 0x0A000000, 0x4000, slots=SLOTS),
            *OWN,
        ),
        psci="1.0",
        lines=0,
        cpu_timers={},
        sleeps=False,
        restarts=False,
        tree=None,
        revision=revision,
        semihosting_input=revision == 1,
    )
    for board in (AARCH64_VIRT, ARM_VIRT)
    for revision in (1, 2)
)
"""without an interrupt controller"""
