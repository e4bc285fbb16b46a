"""The PC without firmware: flat segments, no paging; 32-bit images may carry a Multiboot header."""

from __future__ import annotations

from rrgdb.board.devices.clock.cmos_rtc import CmosRtc
from rrgdb.board.devices.clock.counter import Counter
from rrgdb.board.devices.entropy import Entropy
from rrgdb.board.devices.power.debug_exit import DebugExit
from rrgdb.board.devices.uart.ns16550 import Ns16550
from rrgdb.board.spec import GIB, MIB, BoardSpec, Placement

PLACEMENTS = (
    Placement(CmosRtc, "rtc", 0x70, 2, "port"),
    Placement(DebugExit, "debug-exit", 0xF4, 4, "port"),
    Placement(Ns16550, "serial0", 0x3F8, 8, "port"),
    Placement(Entropy, "entropy", 0xE80, 4, "port"),
    Placement(Counter, "counter", 0xE90, 16, "port"),
)
HOLE = (0xA0000, 0x100000)

I386_PC = BoardSpec(
    name="i386-pc",
    arches=("i386",),
    description="PC, 32-bit x86, Multiboot or plain ELF",
    ram_base=0,
    default_ram=128 * MIB,
    max_ram=3 * GIB,
    placements=PLACEMENTS,
    serial="serial0",
    holes=(HOLE,),
    multiboot=True,
)

X86_64_PC = BoardSpec(
    name="x86_64-pc",
    arches=("x86_64",),
    description="PC, 64-bit x86, plain ELF",
    ram_base=0,
    default_ram=128 * MIB,
    max_ram=3 * GIB,
    placements=PLACEMENTS,
    serial="serial0",
    holes=(HOLE,),
)
