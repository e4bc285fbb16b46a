"""PrimeCell real-time clock PL031 (ARM DDI 0224), as QEMU's ``pl031``."""

from __future__ import annotations

from typing import ClassVar

from rrgdb.board.device import Machine
from rrgdb.board.devices.state import Field, StatefulDevice

MASK32 = (1 << 32) - 1
MASK64 = (1 << 64) - 1
SECOND = 1_000_000_000
DR, MR, LR, IMSC, RIS, MIS, ICR = 0x00, 0x04, 0x08, 0x10, 0x14, 0x18, 0x1C
ID_BASE = 0xFE0
ID = (0x31, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1)


class SilentPl031(StatefulDevice):
    """Seconds since the Unix epoch, 32 bits. The clock always runs: RTCCR reads 1.

    The match register is stored, and nothing else comes of it: so was the clock of earlier revisions of the boards.
    """

    REGISTERS = (range(0x20), range(0xFE0, 0x1000))
    FIELDS: ClassVar[tuple[Field, ...]] = (
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

    def _now_ns(self) -> int:
        return self.machine.host.wall_clock_ns(self.name)

    def _count(self, now_ns: int) -> int:
        return (now_ns // SECOND + self.offset_s) & MASK32

    def read(self, offset: int, size: int) -> int:
        if ID_BASE <= offset < ID_BASE + 4 * len(ID):
            return ID[(offset - ID_BASE) >> 2]
        match offset:
            case 0x00:
                return self._count(self._now_ns())
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
                self._load(value, self._now_ns())
            case 0x10:
                self.imsc = value & 1
            case 0x1C:
                self.ris &= ~value

    def _load(self, value: int, now_ns: int) -> None:
        self.load_s = value & MASK32
        self.offset_s = (self.offset_s + value - self._count(now_ns)) & MASK32


class Pl031(SilentPl031):
    """With its alarm: as many whole seconds behind a write of the match or load register as the clock is short of the
    match register, which may be 136 years.

    The alarm stands at a time of the wall clock. That is asked for whenever a register is accessed that the alarm may
    have changed, and when as much virtual time has gone by: then the alarm goes off, and where the wall clock is not
    there yet, as after a sleep that took no time outside, the count is put on. A reset of the machine does nothing to
    it.
    """

    RESETS = False
    FIELDS = (*SilentPl031.FIELDS, Field("alarm_is_set", 8, mask=1), Field("alarm_ns", 64))

    alarm_is_set: int
    alarm_ns: int
    """wall clock"""

    def __init__(self, name: str, machine: Machine) -> None:
        self._timer = machine.timer(name, self._run_out)
        super().__init__(name, machine)

    def reset(self) -> None:
        super().reset()
        self._timer.cancel()

    def read(self, offset: int, size: int) -> int:
        if self.alarm_is_set and offset in (DR, RIS, MIS):
            now_ns = self._look()
            if offset == DR:
                return self._count(now_ns)
        return super().read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        if offset in (MR, LR):
            now_ns = self._look()
            if offset == LR:
                self._load(value, now_ns)
            else:
                self.match = value & MASK32
            self._set_alarm(now_ns)
        elif offset in (IMSC, ICR):
            if self.alarm_is_set:
                self._look()
            super().write(offset, size, value)
        self._tell()

    def _tell(self) -> None:
        self.machine.irq(self.machine.line_of(self.name), bool(self.ris & self.imsc))

    def _set_alarm(self, now_ns: int) -> None:
        seconds = (self.match - self._count(now_ns)) & MASK32
        if seconds:
            self.alarm_is_set = 1
            self.alarm_ns = (now_ns + seconds * SECOND) & MASK64
            self._timer.at(self.machine.virtual_ns() + seconds * SECOND)
        else:
            self._alarm()

    def _alarm(self) -> None:
        self.alarm_is_set = self.alarm_ns = 0
        self._timer.cancel()
        self.ris = 1

    def _look(self) -> int:
        """The wall clock, in nanoseconds; the alarm goes off if its time has come."""
        now_ns = self._now_ns()
        if self.alarm_is_set and now_ns >= self.alarm_ns:
            self._alarm()
            self._tell()
        return now_ns

    def _run_out(self, _due_ns: int) -> None:
        now_ns = self._look()
        if self.alarm_is_set:
            self.offset_s = (self.match - now_ns // SECOND) & MASK32
            self._alarm()
            self._tell()
