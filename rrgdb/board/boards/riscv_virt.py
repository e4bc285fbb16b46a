"""QEMU's ``virt`` machine for RISC-V, one hart."""

from __future__ import annotations

from rrgdb.board.devices.clock.clint import Clint
from rrgdb.board.devices.clock.counter import Counter
from rrgdb.board.devices.clock.goldfish_rtc import GoldfishRtc
from rrgdb.board.devices.entropy import Entropy
from rrgdb.board.devices.power.syscon import Syscon
from rrgdb.board.devices.uart.ns16550 import Ns16550
from rrgdb.board.devices.virtio.mmio import VirtioMmio
from rrgdb.board.spec import GIB, MIB, BoardSpec, Placement

PLACEMENTS = (
    Placement(Syscon, "syscon", 0x00100000, 0x1000),
    Placement(GoldfishRtc, "rtc", 0x00101000, 0x1000),
    Placement(Clint, "clint", 0x02000000, 0x10000),
    Placement(Ns16550, "serial0", 0x10000000, 0x1000),
    Placement(VirtioMmio, "virtio", 0x10001000, 0x8000, slots=tuple(reversed(range(8)))),
    Placement(Entropy, "entropy", 0x10200000, 0x1000),
    Placement(Counter, "counter", 0x10201000, 0x1000),
)

RISCV64_VIRT = BoardSpec(
    name="riscv64-virt",
    arches=("riscv64",),
    description="QEMU virt, 64-bit RISC-V",
    ram_base=0x80000000,
    default_ram=128 * MIB,
    max_ram=4 * GIB,
    placements=PLACEMENTS,
    serial="serial0",
    revision=2,
)

RISCV32_VIRT = BoardSpec(
    name="riscv32-virt",
    arches=("riscv32",),
    description="QEMU virt, 32-bit RISC-V",
    ram_base=0x80000000,
    default_ram=128 * MIB,
    max_ram=2 * GIB,
    placements=PLACEMENTS,
    serial="serial0",
    revision=2,
)
