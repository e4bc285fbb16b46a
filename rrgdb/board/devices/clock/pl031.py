"""PrimeCell real-time clock PL031 (ARM DDI 0224). The match register is stored; it raises no interrupt."""

from __future__ import annotations

from rrgdb.board.devices.state import Field, StatefulDevice

MASK32 = (1 << 32) - 1
ID_BASE = 0xFE0
ID = (0x31, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1)


class Pl031(StatefulDevice):
    """Seconds since the Unix epoch, 32 bits. The clock always runs: RTCCR reads 1."""

    FIELDS = (
        Field("offset_s", 32),
        Field("match", 32),
        Field("load_s", 32),
        Field("imsc", 8, mask=1),
        Field("ris", 8, mask=1),
    )

    offset_s: int
    match: int
    load_s: int
    imsc: int
    ris: int

    def _now(self) -> int:
        return (self.machine.host.wall_clock_ns(self.name) // 1_000_000_000 + self.offset_s) & MASK32

    def read(self, offset: int, size: int) -> int:
        if ID_BASE <= offset < ID_BASE + 4 * len(ID):
            return ID[(offset - ID_BASE) >> 2]
        match offset:
            case 0x00:
                return self._now()
            case 0x04:
                return self.match
            case 0x08:
                return self.load_s
            case 0x0C:
                return 1
            case 0x10:
                return self.imsc
            case 0x14:
                return self.ris
            case 0x18:
                return self.ris & self.imsc
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        match offset:
            case 0x04:
                self.match = value & MASK32
            case 0x08:
                self.load_s = value & MASK32
                self.offset_s = (self.offset_s + value - self._now()) & MASK32
            case 0x10:
                self.imsc = value & 1
            case 0x1C:
                self.ris &= ~value
