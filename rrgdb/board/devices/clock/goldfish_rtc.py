"""Goldfish real-time clock (Android emulator's goldfish hardware documentation; QEMU's ``goldfish_rtc``)."""

from __future__ import annotations

from typing import ClassVar

from rrgdb.board.device import Machine
from rrgdb.board.devices.state import Field, StatefulDevice, merge

MASK64 = (1 << 64) - 1
IRQ_ENABLED, CLEAR_ALARM, ALARM_STATUS, CLEAR_INTERRUPT = 0x10, 0x14, 0x18, 0x1C


class SilentGoldfishRtc(StatefulDevice):
    """Nanoseconds since the Unix epoch. A read of TIME_LOW latches TIME_HIGH. An alarm in the future never comes, and
    there is no interrupt."""

    REGISTERS = (range(0x20),)
    FIELDS: ClassVar[tuple[Field, ...]] = (
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

    def _wall(self) -> int:
        return self.machine.host.wall_clock_ns(self.name)

    def _now(self) -> int:
        return (self._wall() + self.offset_ns) & MASK64

    def _set_alarm(self, now: int) -> None:
        due = self.alarm_ns <= now
        self.alarm_running = int(not due)
        self.irq_pending |= int(due)

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
                self._set_alarm(self._now())
            case 0x0C:
                self.alarm_ns = merge(self.alarm_ns, 4, 4, value)
            case 0x10:
                self.irq_enabled = value & 1
            case 0x14:
                self.alarm_running = 0
            case 0x1C:
                self.irq_pending = 0


class GoldfishRtc(SilentGoldfishRtc):
    """With alarms. One comes when the wall clock has reached it, which is looked at whenever the guest looks, or when
    as much virtual time has gone by: a guest that sleeps until then sleeps no time outside, and its clock is put on."""

    FIELDS: ClassVar[tuple[Field, ...]] = (*SilentGoldfishRtc.FIELDS, Field("due_ns", 64))

    due_ns: int
    """of the host's clock: when the alarm comes, if it runs. Whether it is set follows ALARM_LOW alone; a change of the
    time, or of ALARM_HIGH, moves nothing."""

    def __init__(self, name: str, machine: Machine) -> None:
        self._timer = machine.timer(name, self._run_out)
        self._line = machine.line_of(name)
        super().__init__(name, machine)

    def reset(self) -> None:
        super().reset()
        self._timer.cancel()
        self._update()

    def _update(self) -> None:
        self.machine.irq(self._line, bool(self.irq_pending & self.irq_enabled))

    def _set_alarm(self, now: int) -> None:
        super()._set_alarm(now)
        left = self.alarm_ns - now
        if self.alarm_running:
            self.due_ns = min(((now - self.offset_ns) & MASK64) + left, MASK64)
            self._timer.at(self.machine.virtual_ns() + left)
        else:
            self._timer.cancel()
            self._update()

    def _come(self) -> None:
        self._timer.cancel()
        self.alarm_running, self.irq_pending = 0, 1
        self._update()

    def _run_out(self, _due: int) -> None:
        self.offset_ns = (self.offset_ns + max(self.due_ns - self._wall(), 0)) & MASK64
        self._come()

    def _now(self) -> int:
        wall = self._wall()
        if self.alarm_running and self.due_ns <= wall:
            self._come()
        return (wall + self.offset_ns) & MASK64

    def read(self, offset: int, size: int) -> int:
        if offset == ALARM_STATUS and self.alarm_running:
            self._now()
        return super().read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        super().write(offset, size, value)
        if offset == CLEAR_ALARM:
            self._timer.cancel()
        elif offset in (IRQ_ENABLED, CLEAR_INTERRUPT):
            self._update()
