"""Timers of the Cortex-M System Design Kit (ARM DDI 0479, chapter 4; where it is open, QEMU's ``cmsdk-apb-timer``,
``-dualtimer`` and ``-watchdog``): the plain one, the dual one, and the watchdog."""

from __future__ import annotations

from rrgdb.board.device import Machine
from rrgdb.board.devices.clock.countdown import Countdown
from rrgdb.board.devices.state import Field, StatefulDevice

CLOCK_NS = 40
ID_BASE = 0xFD0
_TAIL = (0xB8, 0x1B, 0x00, 0x0D, 0xF0, 0x05, 0xB1)
_MASK = 0xFFFFFFFF


def identification(part: int, offset: int) -> int | None:
    """PID4 to CID3 of a component with that number in PID0; None elsewhere."""
    values = (0x04, 0x00, 0x00, 0x00, part, *_TAIL)
    return values[offset - ID_BASE >> 2] if ID_BASE <= offset < ID_BASE + 4 * len(values) else None


class OneCounter(StatefulDevice):
    """A device with one counter of 32 bits and one interrupt."""

    def __init__(self, name: str, machine: Machine) -> None:
        self.name, self.machine = name, machine
        self._counter = Countdown(self, "count_", lambda: CLOCK_NS, self._expired)
        super().__init__(name, machine)

    def reset(self) -> None:
        super().reset()
        self._counter.cancel()

    def _expired(self) -> None:
        raise NotImplementedError

    def _set_line(self, level: bool) -> None:
        self.machine.irq(self.machine.line_of(self.name), level)


class CmsdkTimer(OneCounter):
    """Counts, and interrupts where it expires."""

    FIELDS = (Field("ctrl", 8, mask=0xF), Field("status", 8, mask=1), *Countdown.fields("count_"))

    ctrl: int
    status: int

    def _expired(self) -> None:
        if self.ctrl & 8:
            self.status = 1
            self._update()

    def _update(self) -> None:
        self._set_line(bool(self.status))

    def read(self, offset: int, size: int) -> int:
        match offset:
            case 0x0:
                return self.ctrl
            case 0x4:
                return self._counter.count
            case 0x8:
                return self._counter.limit
            case 0xC:
                return self.status
        return identification(0x22, offset) or 0

    def write(self, offset: int, size: int, value: int) -> None:
        counter = self._counter
        match offset:
            case 0x0:
                self.ctrl = value & 0xF
                if value & 1:
                    counter.run(one_shot=not counter.limit)
                else:
                    counter.stop()
            case 0x4:
                if not value and not counter.limit:
                    counter.stop()
                counter.set_count(value)
                if value and self.ctrl & 1:
                    counter.run(one_shot=not counter.limit)
            case 0x8:
                if not value:
                    counter.stop()
                counter.set_limit(value, reload=True)
                if value and self.ctrl & 1:
                    counter.run()
            case 0xC:
                self.status &= ~value & 1
                self._update()


class CmsdkWatchdog(OneCounter):
    """The first time that it expires is an interrupt (NMI), the second one a reset."""

    FIELDS = (
        Field("control", 8, mask=3),
        Field("status", 8, mask=1),
        Field("reset_status", 8, mask=1),
        Field("locked", 8, mask=1),
        Field("test", 8, mask=1),
        Field("outputs", 8, mask=3),
        *Countdown.fields("count_"),
    )

    control: int
    status: int
    reset_status: int
    locked: int
    test: int
    outputs: int

    def reset(self) -> None:
        super().reset()
        self._counter.set_limit(_MASK, reload=True)

    def _expired(self) -> None:
        if self.status:
            self.reset_status = 1
            self._counter.stop()
        self.status = 1
        self._update()

    def _masked(self) -> int:
        return self.status & self.control

    def _update(self) -> None:
        interrupt, resets = self._masked(), self.reset_status & self.control >> 1
        if self.test:
            interrupt, resets = self.outputs >> 1 & 1, self.outputs & 1
        self._set_line(bool(interrupt))
        if resets:
            self.machine.restart()

    def read(self, offset: int, size: int) -> int:
        match offset:
            case 0x0:
                return self._counter.limit
            case 0x4:
                return self._counter.count
            case 0x8:
                return self.control
            case 0x10:
                return self.status
            case 0x14:
                return self._masked()
            case 0xC00:
                return self.locked
            case 0xF00:
                return self.test
        return identification(0x24, offset) or 0

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == 0xC00:
            self.locked = int(value != 0x1ACCE551)
        if self.locked:
            return
        match offset:
            case 0x0:
                self._counter.set_limit(value, reload=True)
            case 0x8:
                self._set_control(value & 3)
            case 0xC:
                self.status = 0
                self._counter.set_count(self._counter.limit)
                self._update()
            case 0xF00:
                self.test = value & 1
                self._update()
            case 0xF04:
                self.outputs = value & 3
                self._update()

    def _set_control(self, value: int) -> None:
        changed = self.control ^ value
        self.control = value
        if changed & value & 1:
            self._counter.set_count(self._counter.limit)
            self._counter.run()
        elif changed & 1:
            self._counter.stop()
        self._update()
