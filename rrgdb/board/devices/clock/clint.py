"""Core-local interruptor of one hart (SiFive FU540-C000 manual, "CLINT"): its timer and its registers.

``mtime`` is virtual time at 10 MHz, as on QEMU's virt machine. No interrupt is raised.
"""

from __future__ import annotations

from rrgdb.board.devices.state import Field, StatefulDevice, merge, part

TICK_NS = 100
MSIP = 0x0000
MASK64 = (1 << 64) - 1


class Clint(StatefulDevice):
    """msip at 0, mtimecmp at 0x4000, mtime at 0xBFF8; any aligned part of a register can be accessed."""

    FIELDS = (Field("msip", 8, mask=1), Field("mtimecmp", 64), Field("mtime_delta", 64))

    msip: int
    mtimecmp: int
    mtime_delta: int

    @property
    def mtime(self) -> int:
        return (self.machine.virtual_ns() // TICK_NS + self.mtime_delta) & MASK64

    def read(self, offset: int, size: int) -> int:
        if offset == MSIP:
            return self.msip
        match offset & ~7:
            case 0x4000:
                return part(self.mtimecmp, offset & 7, size)
            case 0xBFF8:
                return part(self.mtime, offset & 7, size)
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == MSIP:
            self.msip = value & 1
            return
        match offset & ~7:
            case 0x4000:
                self.mtimecmp = merge(self.mtimecmp, offset & 7, size, value)
            case 0xBFF8:
                now = self.mtime
                self.mtime_delta = (self.mtime_delta + merge(now, offset & 7, size, value) - now) & MASK64
