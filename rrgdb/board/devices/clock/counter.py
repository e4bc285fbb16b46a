"""Virtual time and icount as registers: what a guest measures with it is the same in every replay.

0x00 TIME_LOW, 0x04 TIME_HIGH: virtual nanoseconds; 0x08 ICOUNT_LOW, 0x0C ICOUNT_HIGH: number of the executing
instruction. A read of a low half latches its high half.
"""

from __future__ import annotations

from rrgdb.board.devices.state import Field, StatefulDevice

MASK32 = (1 << 32) - 1


class Counter(StatefulDevice):
    """Four read-only registers of 32 bits."""

    REGISTERS = (range(0x10),)
    FIELDS = (Field("time_high", 32), Field("icount_high", 32))

    time_high: int
    icount_high: int

    def read(self, offset: int, size: int) -> int:
        match offset:
            case 0x00:
                now = self.machine.virtual_ns()
                self.time_high = now >> 32 & MASK32
                return now & MASK32
            case 0x04:
                return self.time_high
            case 0x08:
                icount = self.machine.icount
                self.icount_high = icount >> 32 & MASK32
                return icount & MASK32
            case 0x0C:
                return self.icount_high
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        pass
