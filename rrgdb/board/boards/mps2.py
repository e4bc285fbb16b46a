"""Arm's MPS2 board with the FPGA image AN385: a Cortex-M3 at 25 MHz (Application Note 385), as QEMU's ``mps2-an385``.

Its memory has one size. It starts at the vector table at 0.
"""

from __future__ import annotations

from rrgdb.board.devices.clock.cmsdk import CmsdkTimer, CmsdkWatchdog
from rrgdb.board.devices.clock.cmsdk_dual import CmsdkDualTimer
from rrgdb.board.devices.intc.nvic import Mps2Nvic
from rrgdb.board.devices.system.mps2 import Mps2FpgaIo, Mps2Scc
from rrgdb.board.devices.system.unimplemented import Unimplemented
from rrgdb.board.devices.uart.cmsdk import CmsdkUart
from rrgdb.board.spec import MIB, BoardSpec, Placement

_UARTS = ((0x40004000, 0), (0x40005000, 2), (0x40006000, 4), (0x40007000, 18), (0x40009000, 20))
_WATCHDOG_LINE = 32
_LINES = 36
_UNIMPLEMENTED = (
    ("reserved1", 0x00800000, 0x00800000),
    ("reserved2", 0x01010000, 0x1EFF0000),
    ("reserved3", 0x20800000, 0x00800000),
    ("apb3", 0x40003000, 0x1000),
    ("apb", 0x4000A000, 0x6000),
    ("ahb", 0x40010000, 0x10000),
    ("extra", 0x40020000, 0x8000),
    ("extra-io", 0x40029000, 0x6000),
    ("reserved4", 0x40030000, 0x1D0000),
    ("ethernet", 0x40200000, 0x1000),
    ("vga", 0x41000000, 0x200000),
    ("ppb", 0xE0000000, 0xE000),
    ("ppb-rest", 0xE000F000, 0xF1000),
)

MPS2_AN385 = BoardSpec(
    name="mps2-an385",
    arches=("armv7m",),
    description="QEMU mps2-an385, Cortex-M3",
    ram_base=0x21000000,
    default_ram=16 * MIB,
    max_ram=16 * MIB,
    banks=((0x00000000, 4 * MIB), (0x01000000, 0x4000), (0x20000000, 4 * MIB)),
    placements=(
        Placement(Mps2Nvic, "nvic", 0xE000E000, 0x1000),
        *(Placement(CmsdkUart, f"serial{n}", base, 0x1000, line=line) for n, (base, line) in enumerate(_UARTS)),
        Placement(CmsdkTimer, "timer0", 0x40000000, 0x1000, line=8),
        Placement(CmsdkTimer, "timer1", 0x40001000, 0x1000, line=9),
        Placement(CmsdkDualTimer, "dualtimer", 0x40002000, 0x1000, line=10),
        Placement(CmsdkWatchdog, "watchdog", 0x40008000, 0x1000, line=_WATCHDOG_LINE),
        Placement(Mps2FpgaIo, "fpgaio", 0x40028000, 0x1000),
        Placement(Mps2Scc, "scc", 0x4002F000, 0x1000),
        *(Placement(Unimplemented, name, base, size) for name, base, size in _UNIMPLEMENTED),
    ),
    serial="serial0",
    lines=_LINES,
    sleeps=True,
    restarts=True,
)
