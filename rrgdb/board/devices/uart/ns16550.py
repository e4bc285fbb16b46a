"""16550A UART (National Semiconductor PC16550D data sheet; behaviour where it is open: QEMU's ``serial``).

Transmission takes no virtual time. Received bytes wait on the line until the FIFO has room, so that none is lost.
Every access touches the one register at its offset, whatever its size.
"""

from __future__ import annotations

import struct
from typing import ClassVar

from rrgdb.board.device import Machine
from rrgdb.board.devices.state import Buffer, Field
from rrgdb.board.devices.uart.line import LINE_BYTES, ReceivingLine

FIFO_BYTES = 16

IER_RDI, IER_THRI, IER_RLSI, IER_ALL = 1, 2, 4, 0x0F
IIR_NONE, IIR_THRI, IIR_RDI, IIR_RLSI, IIR_TIMEOUT, IIR_FIFOS = 1, 2, 4, 6, 0xC, 0xC0
IIR_CAUSE = 0x0F
FCR_ENABLE, FCR_CLEAR_RX, FCR_CLEAR_TX = 1, 2, 4
LCR_DLAB = 0x80
LCR_PARITY, LCR_TWO_STOPS, LCR_WORD = 8, 4, 3
MCR_LOOP = 0x10
LSR_DR, LSR_OE, LSR_EMPTY = 1, 2, 0x60
MSR_CONNECTED = 0xB0
TRIGGER_LEVELS = (1, 4, 8, 14)
TIMEOUT_CHARACTERS = 4
CHARACTER_NS_AT_RESET = 1_041_660
"""of 10 bits at 9600 baud, as QEMU counts it"""
BAUD_WITHOUT_DIVISOR = 3500.0
NS_PER_S = 1_000_000_000.0


class Ns16550(ReceivingLine):
    """Eight byte registers. Input and output go by the device's name. There is no interrupt line, and the character
    time-out of the FIFO elapses at once."""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("ier", 8, mask=0x0F),
        Field("lcr", 8),
        Field("mcr", 8, reset=0x08, mask=0x1F),
        Field("scr", 8),
        Field("fcr", 8, mask=0xC9),
        Field("divisor", 16, reset=0x0C),
        Field("rbr", 8),
        Field("overrun", 8, mask=1),
        Field("thr_pending", 8, mask=1),
    )
    BUFFERS: ClassVar[tuple[Buffer, ...]] = (Buffer("rx", FIFO_BYTES), Buffer("line", LINE_BYTES))

    ier: int
    lcr: int
    mcr: int
    scr: int
    fcr: int
    divisor: int
    rbr: int
    overrun: int
    thr_pending: int

    def _overrun(self) -> None:
        self.overrun = 1

    def peek(self, most: int) -> bytes:
        """See ``Console``. In loopback the line is cut off."""
        return b"" if self.mcr & MCR_LOOP else super().peek(most)

    def take(self, count: int) -> None:
        if not count:
            return
        if not self.fcr & FCR_ENABLE:
            self.rbr = self.peek(count)[-1]
        self._consume(count)

    def _capacity(self) -> int:
        return FIFO_BYTES if self.fcr & FCR_ENABLE else 1

    def _refill(self) -> None:
        if self.mcr & MCR_LOOP:
            return
        room = self._room()
        if room > 0 and self.line:
            self._put(bytes(self.line[:room]))
            del self.line[:room]

    def _room(self) -> int:
        """For bytes of the line."""
        return self._capacity() - len(self.rx)

    def _put(self, data: bytes) -> None:
        """Received bytes enter the FIFO, or replace what the one buffer register holds."""
        if self.fcr & FCR_ENABLE:
            self.rx += data
        else:
            self.rx[:] = data
            self.rbr = data[-1]

    @property
    def iir(self) -> int:
        """Interrupt identification."""
        if self.ier & IER_RLSI and self.overrun:
            cause = IIR_RLSI
        elif self.ier & IER_RDI and self._received:
            cause = self._received
        elif self.ier & IER_THRI and self.thr_pending:
            cause = IIR_THRI
        else:
            cause = IIR_NONE
        return cause | (IIR_FIFOS if self.fcr & FCR_ENABLE else 0)

    @property
    def _level(self) -> int:
        """Bytes in the receiver that are worth an interrupt."""
        return TRIGGER_LEVELS[self.fcr >> 6] if self.fcr & FCR_ENABLE else 1

    @property
    def _received(self) -> int:
        """The cause that received bytes are, 0 if none."""
        if not self.rx:
            return 0
        return IIR_RDI if len(self.rx) >= self._level else IIR_TIMEOUT

    def read(self, offset: int, size: int) -> int:
        match offset:
            case 0 if self.lcr & LCR_DLAB:
                return self.divisor & 0xFF
            case 0:
                return self._read_rbr()
            case 1:
                return self.divisor >> 8 if self.lcr & LCR_DLAB else self.ier
            case 2:
                value = self.iir
                if value & 0x0F == IIR_THRI:
                    self.thr_pending = 0
                return value
            case 3:
                return self.lcr
            case 4:
                return self.mcr
            case 5:
                value = LSR_EMPTY | (LSR_OE if self.overrun else 0) | (LSR_DR if self.rx else 0)
                self.overrun = 0
                return value
            case 6:
                return self._msr()
            case 7:
                return self.scr
        return 0

    def _read_rbr(self) -> int:
        if self.fcr & FCR_ENABLE:
            value = self.rx.pop(0) if self.rx else 0
        else:
            value = self.rbr
            self.rx.clear()
        self._refill()
        return value

    def _msr(self) -> int:
        if not self.mcr & MCR_LOOP:
            return MSR_CONNECTED
        # Data sheet, "Modem control register": DTR, RTS, OUT1, OUT2 appear as DSR, CTS, RI, DCD.
        return (self.mcr & 0x0C) << 4 | (self.mcr & 0x02) << 3 | (self.mcr & 0x01) << 5

    def write(self, offset: int, size: int, value: int) -> None:
        value &= 0xFF
        match offset:
            case 0 if self.lcr & LCR_DLAB:
                self.divisor = self.divisor & 0xFF00 | value
            case 0:
                self._transmit(value)
            case 1 if self.lcr & LCR_DLAB:
                self.divisor = self.divisor & 0xFF | value << 8
            case 1:
                if (self.ier ^ value) & IER_THRI:
                    self.thr_pending = int(bool(value & IER_THRI))
                self.ier = value & 0x0F
            case 2:
                self._write_fcr(value)
            case 3:
                self.lcr = value
            case 4:
                self.mcr = value & 0x1F
                self._refill()
            case 7:
                self.scr = value

    def _transmit(self, value: int) -> None:
        self.thr_pending = 1
        if not self.mcr & MCR_LOOP:
            self.machine.host.output(self.name, bytes([value]))
        else:
            full = len(self.rx) == self._capacity()
            self.overrun |= full
            if not (full and self.fcr & FCR_ENABLE):
                self._put(bytes([value]))

    def _write_fcr(self, value: int) -> None:
        if (self.fcr ^ value) & FCR_ENABLE:
            value |= FCR_CLEAR_RX | FCR_CLEAR_TX
        if value & FCR_CLEAR_RX:
            self.rx.clear()
        if value & FCR_CLEAR_TX:
            self.thr_pending = 1
        self.fcr = value & 0xC9
        self._refill()

    def check(self, values: dict[str, int], buffers: dict[str, bytes]) -> None:
        if not values["fcr"] & FCR_ENABLE and len(buffers["rx"]) > 1:
            raise ValueError(f"{self.name}: rx has {len(buffers['rx'])} bytes, expected at most 1 without FIFO")
        if not values["fcr"] & FCR_ENABLE and buffers["rx"] not in (b"", bytes([values["rbr"]])):
            raise ValueError(f"{self.name}: rx holds {buffers['rx']!r}, expected the byte of rbr without FIFO")


class InterruptingNs16550(Ns16550):
    """As QEMU's, which drives the line anew, for an edge or an interrupt controller that latches, with what changes a
    cause alone: bytes that are fewer than the trigger level are told of when none has come or has been read for the
    time of four characters, and the line fills the FIFO up to that level only.

    QEMU receives in loopback as well; here, as in the data sheet, the line is cut off."""

    FIELDS = (*Ns16550.FIELDS, Field("timed_out", 8, mask=1), Field("character_ns", 64, reset=CHARACTER_NS_AT_RESET))
    BAUD_BASE: ClassVar[float] = 399_193.0
    """baud with a divisor of 1, on the ``virt`` machine for RISC-V"""

    timed_out: int
    character_ns: int

    def __init__(self, name: str, machine: Machine) -> None:
        self._timer = machine.timer(name, self._time_out)
        self._irq = machine.line_of(name)
        super().__init__(name, machine)

    def reset(self) -> None:
        super().reset()
        self._timer.cancel()
        self._refill()
        self._update()

    def _update(self) -> None:
        self.machine.irq(self._irq, not self.iir & IIR_NONE)

    def _time_out(self, due: int) -> None:
        self.timed_out = int(bool(self.fcr & FCR_ENABLE and self.rx))
        self._update()

    @property
    def _received(self) -> int:
        if self.timed_out:
            return IIR_TIMEOUT
        return IIR_RDI if self.rx and len(self.rx) >= self._level else 0

    def _room(self) -> int:
        held = len(self.rx)
        return self._level - held if held <= self._level else self._capacity() - held

    def _put(self, data: bytes) -> None:
        super()._put(data)
        if self.fcr & FCR_ENABLE:
            self._wait()
        self._update()

    def _wait(self) -> None:
        self._timer.at(self.machine.virtual_ns() + TIMEOUT_CHARACTERS * self.character_ns)

    def _transmit(self, value: int) -> None:
        super()._transmit(value)
        if self.mcr & MCR_LOOP and self.fcr & FCR_ENABLE:
            self._wait()

    def _heard(self) -> None:
        """The bytes that were waited with are read, or dropped."""
        self.timed_out = 0
        self._timer.cancel()

    def _read_rbr(self) -> int:
        if self.fcr & FCR_ENABLE:
            self._heard()
            if len(self.rx) > 1:
                self._wait()
        return super()._read_rbr()

    def _write_fcr(self, value: int) -> None:
        if value & FCR_CLEAR_RX or (self.fcr ^ value) & FCR_ENABLE:
            self._heard()
        super()._write_fcr(value)

    def take(self, count: int) -> None:
        for _ in range(count):
            self._read_rbr()
        self._update()

    def read(self, offset: int, size: int) -> int:
        drives = {
            0: not self.lcr & LCR_DLAB,
            2: self.iir & IIR_CAUSE == IIR_THRI,
            5: bool(self.overrun),
        }.get(offset, False)
        value = super().read(offset, size)
        if drives:
            self._update()
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        latched = bool(self.lcr & LCR_DLAB)
        drives = {
            0: not latched,
            1: not latched and bool((self.ier ^ value) & IER_ALL),
            2: True,
        }.get(offset, False)
        super().write(offset, size, value)
        if offset == 3 or (offset in (0, 1) and latched):
            self.character_ns = self._character_ns(self.lcr, self.divisor)
        if drives:
            self._update()

    def _character_ns(self, lcr: int, divisor: int) -> int:
        bits = 1 + 5 + (lcr & LCR_WORD) + bool(lcr & LCR_PARITY) + (2 if lcr & LCR_TWO_STOPS else 1)
        baud = _single(self.BAUD_BASE / divisor) if divisor else BAUD_WITHOUT_DIVISOR
        return int(_single(_single(NS_PER_S / baud) * bits))

    def check(self, values: dict[str, int], buffers: dict[str, bytes]) -> None:
        super().check(values, buffers)
        times = (CHARACTER_NS_AT_RESET, self._character_ns(values["lcr"], values["divisor"]))
        if values["character_ns"] not in times:
            raise ValueError(f"{self.name}: character_ns is {values['character_ns']}, expected one of {times}")
        if values["timed_out"] and not (values["fcr"] & FCR_ENABLE and buffers["rx"]):
            raise ValueError(f"{self.name}: a time-out without bytes in the FIFO")


def _single(value: float) -> float:
    """Rounded to the single precision that QEMU counts in."""
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded
