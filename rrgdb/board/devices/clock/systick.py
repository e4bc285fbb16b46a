"""SysTick, the timer of the M profile (DDI 0403, section B3.3; QEMU's ``armv7m_systick``).

It counts the CPU's clock, or the reference clock of 1 MHz that QEMU's machines have.
"""

from __future__ import annotations

from collections.abc import Callable

from rrgdb.board.device import Machine
from rrgdb.board.devices.clock.countdown import Countdown
from rrgdb.board.devices.state import Field, StatefulDevice

ENABLE, TICKINT, CLKSOURCE, COUNTFLAG = 1, 2, 4, 1 << 16
CSR, RVR, CVR, CALIB = 0x0, 0x4, 0x8, 0xC
_REFERENCE_NS = 1000
_TEN_MS = 10_000_000 // _REFERENCE_NS - 1
_COUNTER = 0xFFFFFF


class SysTick(StatefulDevice):
    """Registers from 0xe000e010; ``pend`` makes its exception pending."""

    FIELDS = (Field("control", 32, mask=COUNTFLAG | 7), *Countdown.fields("count_", 24))

    control: int

    def __init__(self, name: str, machine: Machine, clock_ns: int, pend: Callable[[], None]) -> None:
        self.machine = machine
        self._clock_ns = clock_ns
        self._pend = pend
        self.name = name
        self._counter = Countdown(self, "count_", self._period, self._expired)
        super().__init__(name, machine)

    def reset(self) -> None:
        super().reset()
        self._counter.cancel()

    def _period(self) -> int:
        return self._clock_ns if self.control & CLKSOURCE else _REFERENCE_NS

    def _expired(self) -> None:
        self.control |= COUNTFLAG
        if self.control & TICKINT:
            self._pend()
        if not self._counter.limit:
            self._counter.stop()

    def read(self, offset: int, size: int) -> int:
        if size != 4:
            return 0
        match offset:
            case 0x0:
                value = self.control
                self.control &= ~COUNTFLAG
                return value
            case 0x4:
                return self._counter.limit
            case 0x8:
                return self._counter.count
            case 0xC:
                return _TEN_MS
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if size != 4:
            return
        match offset:
            case 0x0:
                self._set_control(value)
            case 0x4:
                self._counter.set_limit(value & _COUNTER)
            case 0x8:
                if not self._counter.limit:
                    self._counter.stop()
                self._counter.set_count(0)
                self.control &= ~COUNTFLAG

    def _set_control(self, value: int) -> None:
        changed = self.control ^ value

        def change() -> None:
            self.control = self.control & ~7 | value & 7

        if changed & CLKSOURCE:
            self._counter.change_period(change)
        else:
            change()
        if changed & ENABLE:
            if value & ENABLE:
                self._counter.run()
            else:
                self._counter.stop()
        if changed & CLKSOURCE:
            self._counter.go_on()
