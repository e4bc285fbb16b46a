"""System control of Arm's MPS2 board (ARM 100112, "SCC"; Application Note 385; QEMU's ``mps2-scc`` and
``mps2-fpgaio``)."""

from __future__ import annotations

from typing import ClassVar

from rrgdb.board.devices.state import Field, StatefulDevice

_MASK = 0xFFFFFFFF
_START, _WRITE, _FUNCTION = 1 << 31, 1 << 30, 0x3F << 20
_DONE, _ERROR = 1, 2


class Mps2Scc(StatefulDevice):
    """Serial communication controller of the FPGA image AN385."""

    FIELDS = (
        Field("cfg0", 32),
        Field("cfg1", 32),
        Field("data_in", 32),
        Field("data_out", 32),
        Field("cfg_control", 32, 0x100000),
        Field("cfg_status", 8, mask=_DONE | _ERROR),
        Field("dll", 32, 0xFFFF0001),
        Field("clock0", 32, 50_000_000),
        Field("clock1", 32, 24_576_000),
        Field("clock2", 32, 25_000_000),
    )
    CONSTANTS: ClassVar[dict[int, int]] = {0x10: 0x2, 0xFF8: 0x00200008, 0xFFC: 0x41043850}
    STORED: ClassVar[dict[int, str]] = {0x0: "cfg0", 0x4: "cfg1", 0xA4: "data_out"}
    CLOCKS: ClassVar[tuple[str, ...]] = ("clock0", "clock1", "clock2")

    data_in: int
    data_out: int
    cfg_control: int
    cfg_status: int
    dll: int

    def read(self, offset: int, size: int) -> int:
        if offset in self.STORED:
            return int(getattr(self, self.STORED[offset]))
        match offset:
            case 0xA0:
                return self.data_in
            case 0xA8:
                return self.cfg_control
            case 0xAC:
                return self.cfg_status
            case 0x100:
                return self.dll
        return self.CONSTANTS.get(offset, 0)

    def write(self, offset: int, size: int, value: int) -> None:
        if offset in self.STORED:
            setattr(self, self.STORED[offset], value)
        elif offset == 0xA8:
            self._transfer(value)
        elif offset == 0x100:
            self.dll = self.dll & 0xFFFFFF | value & 0xFF000000

    def _transfer(self, value: int) -> None:
        """A register of a clock generator is read or written at once."""
        self.cfg_control = value & (_WRITE | _FUNCTION | 0xFFF)
        self.cfg_status = 0
        if not value & _START:
            return
        self.cfg_status, device = _DONE, value & 0xFFF
        if value & _FUNCTION != 1 << 20 or device >= len(self.CLOCKS):
            self.cfg_status |= _ERROR
        elif value & _WRITE:
            setattr(self, self.CLOCKS[device], self.data_out)
        else:
            self.data_in = int(getattr(self, self.CLOCKS[device]))


class Mps2FpgaIo(StatefulDevice):
    """Two LEDs, two buttons that nobody presses, and counters of virtual time."""

    FIELDS = (
        Field("led", 8, mask=3),
        Field("misc", 32),
        Field("prescale", 32),
        Field("counter", 32),
        Field("countdown", 32),
        Field("counted", 64),
        Field("seconds", 64),
        Field("hundredths", 64),
    )
    CLOCK_NS: ClassVar[int] = 40
    OFFSETS: ClassVar[dict[int, tuple[str, int]]] = {0x10: ("seconds", 10**9), 0x14: ("hundredths", 10**7)}

    led: int
    misc: int
    prescale: int
    counter: int
    countdown: int
    counted: int
    seconds: int
    hundredths: int

    def _count(self) -> None:
        """Bring the counter, and what counts down to its next step, to the present."""
        ticks = (self.machine.virtual_ns() - self.counted) // self.CLOCK_NS
        if ticks <= 0:
            return
        self.counted += ticks * self.CLOCK_NS
        if ticks < self.countdown:
            self.countdown -= ticks
        elif not self.prescale:
            self.counter = self.counter + ticks - self.countdown & _MASK
            self.countdown = 0
        else:
            passed = ticks - self.countdown + self.prescale
            self.countdown = self.prescale - passed % (self.prescale + 1)
            self.counter = self.counter + passed // (self.prescale + 1) & _MASK

    def read(self, offset: int, size: int) -> int:
        if offset in self.OFFSETS:
            name, ns = self.OFFSETS[offset]
            started = int(getattr(self, name))
            # A count that was written may begin before time does.
            started -= (started >> 63) << 64
            return (self.machine.virtual_ns() - started) // ns & _MASK
        match offset:
            case 0x00:
                return self.led
            case 0x18:
                self._count()
                return self.counter
            case 0x1C:
                return self.prescale
            case 0x20:
                self._count()
                return self.countdown
            case 0x4C:
                return self.misc
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if offset in self.OFFSETS:
            name, ns = self.OFFSETS[offset]
            setattr(self, name, self.machine.virtual_ns() - value * ns & (1 << 64) - 1)
            return
        match offset:
            case 0x00:
                self.led = value & 3
            case 0x18:
                self._count()
                self.counter = value
            case 0x1C:
                self._count()
                self.prescale = value
            case 0x20:
                self._count()
                self.countdown = value
            case 0x4C:
                self.misc = value
