"""QEMU's ``virt`` machine for RISC-V, one hart."""

from __future__ import annotations

from dataclasses import replace

from rrgdb.board.boards.riscv_tree import riscv_tree
from rrgdb.board.devices.clock.clint import Clint, SilentClint
from rrgdb.board.devices.clock.counter import Counter
from rrgdb.board.devices.clock.goldfish_rtc import GoldfishRtc, SilentGoldfishRtc
from rrgdb.board.devices.entropy import Entropy
from rrgdb.board.devices.intc.plic import SOURCES, Plic
from rrgdb.board.devices.memory.flash import Flash
from rrgdb.board.devices.memory.fw_cfg import FwCfg
from rrgdb.board.devices.memory.rom import Rom
from rrgdb.board.devices.power.syscon import Syscon
from rrgdb.board.devices.uart.ns16550 import InterruptingNs16550, Ns16550
from rrgdb.board.devices.virtio.earlier import EarlierVirtioMmio
from rrgdb.board.devices.virtio.slots import VirtioMmio
from rrgdb.board.spec import GIB, MIB, BoardSpec, Placement

OWN = (
    Placement(Entropy, "entropy", 0x10200000, 0x1000),
    Placement(Counter, "counter", 0x10201000, 0x1000),
)
"""devices that QEMU's machine lacks"""
SLOTS = tuple(reversed(range(8)))

RISCV64_VIRT = BoardSpec(
    name="riscv64-virt",
    arches=("riscv64",),
    description="QEMU virt, 64-bit RISC-V",
    ram_base=0x80000000,
    default_ram=128 * MIB,
    max_ram=4 * GIB,
    placements=(
        Placement(Rom, "mrom", 0x00001000, 0xF000, "rom"),
        Placement(Syscon, "syscon", 0x00100000, 0x1000),
        Placement(GoldfishRtc, "rtc", 0x00101000, 0x1000, line=11),
        Placement(Clint, "clint", 0x02000000, 0x10000),
        Placement(Plic, "plic", 0x0C000000, 0x600000),
        Placement(InterruptingNs16550, "serial0", 0x10000000, 0x1000, line=10),
        Placement(VirtioMmio, "virtio", 0x10001000, 0x8000, slots=SLOTS, line=1),
        Placement(FwCfg, "fw-cfg", 0x10100000, 0x1000),
        Placement(Flash, "flash0", 0x20000000, 32 * MIB, "rom"),
        Placement(Flash, "flash1", 0x22000000, 32 * MIB, "rom"),
        *OWN,
    ),
    serial="serial0",
    lines=SOURCES,
    sleeps=True,
    restarts=True,
    tree=riscv_tree,
    revision=3,
)

RISCV32_VIRT = replace(
    RISCV64_VIRT,
    name="riscv32-virt",
    arches=("riscv32",),
    description="QEMU virt, 32-bit RISC-V",
    max_ram=2 * GIB,
)

_UNTIL_2 = (
    Placement(Syscon, "syscon", 0x00100000, 0x1000),
    Placement(SilentGoldfishRtc, "rtc", 0x00101000, 0x1000),
    Placement(SilentClint, "clint", 0x02000000, 0x10000),
    Placement(Ns16550, "serial0", 0x10000000, 0x1000),
    Placement(EarlierVirtioMmio, "virtio", 0x10001000, 0x8000, slots=SLOTS),
    *OWN,
)
_REVISION_2 = tuple(
    replace(board, placements=_UNTIL_2, lines=0, sleeps=False, restarts=False, tree=None, revision=2)
    for board in (RISCV32_VIRT, RISCV64_VIRT)
)
EARLIER = (*(replace(board, semihosting_input=True, revision=1) for board in _REVISION_2), *_REVISION_2)
"""revision 1: semihosting has an input of its own; until revision 2: no interrupts"""
