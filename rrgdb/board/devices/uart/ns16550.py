"""16550A UART (National Semiconductor PC16550D data sheet; behaviour where it is open: QEMU's ``serial``).

Transmission takes no virtual time. Received bytes wait on the line until the FIFO has room, so that none is lost.
Every access touches the one register at its offset, whatever its size.
"""

from __future__ import annotations

from rrgdb.board.devices.state import Buffer, Field
from rrgdb.board.devices.uart.line import LINE_BYTES, ReceivingLine

FIFO_BYTES = 16

IER_RDI, IER_THRI, IER_RLSI = 1, 2, 4
IIR_NONE, IIR_THRI, IIR_RDI, IIR_RLSI, IIR_TIMEOUT, IIR_FIFOS = 1, 2, 4, 6, 0xC, 0xC0
FCR_ENABLE, FCR_CLEAR_RX, FCR_CLEAR_TX = 1, 2, 4
LCR_DLAB = 0x80
MCR_LOOP = 0x10
LSR_DR, LSR_OE, LSR_EMPTY = 1, 2, 0x60
MSR_CONNECTED = 0xB0
TRIGGER_LEVELS = (1, 4, 8, 14)


class Ns16550(ReceivingLine):
    """Eight byte registers. Input and output go by the device's name."""

    FIELDS = (
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
    BUFFERS = (Buffer("rx", FIFO_BYTES), Buffer("line", LINE_BYTES))

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
        room = self._capacity() - len(self.rx)
        if room > 0 and self.line:
            self._put(bytes(self.line[:room]))
            del self.line[:room]

    def _put(self, data: bytes) -> None:
        """Received bytes enter the FIFO, or replace what the one buffer register holds."""
        if self.fcr & FCR_ENABLE:
            self.rx += data
        else:
            self.rx[:] = data
            self.rbr = data[-1]

    @property
    def iir(self) -> int:
        """Interrupt identification. The character timeout of the FIFO elapses at once."""
        fifos = IIR_FIFOS if self.fcr & FCR_ENABLE else 0
        if self.ier & IER_RLSI and self.overrun:
            cause = IIR_RLSI
        elif self.ier & IER_RDI and self.rx:
            full = not fifos or len(self.rx) >= TRIGGER_LEVELS[self.fcr >> 6]
            cause = IIR_RDI if full else IIR_TIMEOUT
        elif self.ier & IER_THRI and self.thr_pending:
            cause = IIR_THRI
        else:
            cause = IIR_NONE
        return cause | fifos

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
