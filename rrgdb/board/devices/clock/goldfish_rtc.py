"""Goldfish real-time clock (Android emulator's goldfish hardware documentation; QEMU's ``goldfish_rtc``).

The alarm is stored; it raises no interrupt.
"""

from __future__ import annotations

from rrgdb.board.devices.state import Field, StatefulDevice, merge

MASK64 = (1 << 64) - 1


class GoldfishRtc(StatefulDevice):
    """Nanoseconds since the Unix epoch. A read of TIME_LOW latches TIME_HIGH."""

    FIELDS = (
        Field("offset_ns", 64),
        Field("alarm_ns", 64),
        Field("time_high", 32),
        Field("irq_enabled", 8, mask=1),
        Field("irq_pending", 8, mask=1),
        Field("alarm_running", 8, mask=1),
    )

    offset_ns: int
    alarm_ns: int
    time_high: int
    irq_enabled: int
    irq_pending: int
    alarm_running: int

    def _now(self) -> int:
        return (self.machine.host.wall_clock_ns(self.name) + self.offset_ns) & MASK64

    def read(self, offset: int, size: int) -> int:
        match offset:
            case 0x00:
                now = self._now()
                self.time_high = now >> 32
                return now & 0xFFFFFFFF
            case 0x04:
                return self.time_high
            case 0x08:
                return self.alarm_ns & 0xFFFFFFFF
            case 0x0C:
                return self.alarm_ns >> 32
            case 0x10:
                return self.irq_enabled
            case 0x18:
                return self.alarm_running
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        match offset:
            case 0x00 | 0x04:
                now = self._now()
                self.offset_ns = (self.offset_ns + merge(now, offset, 4, value) - now) & MASK64
            case 0x08:
                self.alarm_ns = merge(self.alarm_ns, 0, 4, value)
                due = self.alarm_ns <= self._now()
                self.alarm_running = int(not due)
                self.irq_pending |= int(due)
            case 0x0C:
                self.alarm_ns = merge(self.alarm_ns, 4, 4, value)
            case 0x10:
                self.irq_enabled = value & 1
            case 0x14:
                self.alarm_running = 0
            case 0x1C:
                self.irq_pending = 0
