"""UART of the Cortex-M System Design Kit (ARM DDI 0479, section 4.3; where it is open, QEMU's ``cmsdk-apb-uart``).

Transmission takes no virtual time. A received byte takes the time of ten bits on the line, so that a handler can
acknowledge one before the next one comes; the others wait on the line. What is sent while sending is off fills the
transmitter for good, as on QEMU.
"""

from __future__ import annotations

from rrgdb.board.device import Machine
from rrgdb.board.devices.state import Buffer, Field
from rrgdb.board.devices.uart.line import LINE_BYTES, ReceivingLine

CLOCK_NS = 40
DATA, STATE, CTRL, INTSTATUS, BAUDDIV = 0x0, 0x4, 0x8, 0xC, 0x10
TX_FULL, RX_FULL, TX_OVERRUN = 1, 2, 4
TX_EN, RX_EN, TX_INTEN, RX_INTEN = 1, 2, 4, 8
TX, RX, OVERRUN = 1, 2, 4
OVERRUN_LINES = {0: 33, 2: 34, 4: 35}
"""by the line of receiving; the rest have none"""
LEAST_DIVISOR, BITS = 16, 10
ID_BASE = 0xFD0
ID = (0x04, 0x00, 0x00, 0x00, 0x21, 0xB8, 0x1B, 0x00, 0x0D, 0xF0, 0x05, 0xB1)


class CmsdkUart(ReceivingLine):
    """Input and output go by the device's name. Its line is that of receiving; the next one is that of sending."""

    FIELDS = (
        Field("ctrl", 8, mask=0x7F),
        Field("status", 8, mask=TX | RX),
        Field("sender", 8, mask=TX_FULL | TX_OVERRUN),
        Field("divisor", 32, mask=0xFFFFF),
        Field("last", 8),
    )
    BUFFERS = (Buffer("rx", 1), Buffer("line", LINE_BYTES))

    ctrl: int
    status: int
    sender: int
    divisor: int
    last: int

    def __init__(self, name: str, machine: Machine) -> None:
        self._arrives = machine.timer(f"{name}.rx", lambda _due: self._accept())
        super().__init__(name, machine)

    def reset(self) -> None:
        super().reset()
        self._arrives.cancel()

    def _update(self) -> None:
        line = self.machine.line_of(self.name)
        self.machine.irq(line, bool(self.status & RX))
        self.machine.irq(line + 1, bool(self.status & TX))
        if line in OVERRUN_LINES:
            self.machine.irq(OVERRUN_LINES[line], bool(self._status() & OVERRUN))

    def _status(self) -> int:
        return self.status | self.sender & self.ctrl >> 2 & OVERRUN

    def _refill(self) -> None:
        if self._arrives.when is None:
            self._accept()

    def _overrun(self) -> None:
        pass

    def _accept(self) -> None:
        """The next byte of the line enters the receiver."""
        if not self.ctrl & RX_EN or self.rx or not self.line:
            return
        self.rx += self.line[:1]
        del self.line[:1]
        self.last = self.rx[0]
        if self.ctrl & RX_INTEN:
            self.status |= RX
        self._update()

    def take(self, count: int) -> None:
        if count:
            self._consume(count)

    def read(self, offset: int, size: int) -> int:
        if ID_BASE <= offset < ID_BASE + 4 * len(ID):
            return ID[offset - ID_BASE >> 2]
        match offset:
            case 0x0:
                if self.rx:
                    self.rx.clear()
                    self._arrives.at(self.machine.virtual_ns() + BITS * max(self.divisor, LEAST_DIVISOR) * CLOCK_NS)
                return self.last
            case 0x4:
                return self.sender | (RX_FULL if self.rx else 0)
            case 0x8:
                return self.ctrl
            case 0xC:
                return self._status()
            case 0x10:
                return self.divisor
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        match offset:
            case 0x0:
                self._send(value & 0xFF)
            case 0x4:
                self.sender &= ~(value & TX_OVERRUN)
                self._update()
            case 0x8:
                self.ctrl = value & 0x7F
                self._update()
                self._refill()
            case 0xC:
                self.sender &= ~(value & TX_OVERRUN)
                self.status &= ~value
                self._update()
            case 0x10:
                self.divisor = value & 0xFFFFF

    def _send(self, byte: int) -> None:
        if self.sender & TX_FULL:
            self.sender |= TX_OVERRUN
        elif not self.ctrl & TX_EN:
            self.sender |= TX_FULL
        else:
            self.machine.host.output(self.name, bytes([byte]))
            if self.ctrl & TX_INTEN:
                self.status |= TX
        self._update()

    def check(self, values: dict[str, int], buffers: dict[str, bytes]) -> None:
        if buffers["rx"] and buffers["rx"][0] != values["last"]:
            raise ValueError(f"{self.name}: the byte received last is {values['last']:#x}, not {buffers['rx'][0]:#x}")
