"""QEMU's ``virt`` machine for Arm, one CPU; power is PSCI by HVC. Both widths have the same map."""

from __future__ import annotations

from dataclasses import replace

from rrgdb.board.devices.clock.counter import Counter
from rrgdb.board.devices.clock.pl031 import Pl031
from rrgdb.board.devices.entropy import Entropy
from rrgdb.board.devices.power.debug_exit import ExitRegister
from rrgdb.board.devices.uart.pl011 import Pl011
from rrgdb.board.devices.virtio.mmio import DenseVirtioMmio
from rrgdb.board.spec import GIB, MIB, BoardSpec, Placement

AARCH64_VIRT = BoardSpec(
    name="aarch64-virt",
    arches=("aarch64",),
    description="QEMU virt, 64-bit Arm",
    ram_base=0x40000000,
    default_ram=128 * MIB,
    max_ram=4 * GIB,
    placements=(
        Placement(Pl011, "serial0", 0x09000000, 0x1000),
        Placement(Pl031, "rtc", 0x09010000, 0x1000),
        Placement(DenseVirtioMmio, "virtio", 0x0A000000, 0x4000, slots=tuple(reversed(range(32)))),
        Placement(Entropy, "entropy", 0x0B000000, 0x1000),
        Placement(Counter, "counter", 0x0B001000, 0x1000),
        Placement(ExitRegister, "exit", 0x0B002000, 0x1000),
    ),
    serial="serial0",
    psci=True,
    revision=2,
)

ARM_VIRT = replace(AARCH64_VIRT, name="arm-virt", arches=("arm",), description="QEMU virt, 32-bit Arm", max_ram=3 * GIB)
