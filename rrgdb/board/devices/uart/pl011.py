"""PrimeCell UART PL011 (ARM DDI 0183; behaviour where it is open: QEMU's ``pl011``).

Transmission takes no virtual time, and the enable bits of UARTCR are stored but gate nothing, so that a guest may
print without set-up. Received bytes wait on the line until the FIFO has room.
"""

from __future__ import annotations

from typing import ClassVar

from rrgdb.board.devices.state import Buffer, Field
from rrgdb.board.devices.uart.line import LINE_BYTES, ReceivingLine

FIFO_BYTES = 16

FR_TXFE, FR_RXFF, FR_RXFE = 0x80, 0x40, 0x10
LCR_FEN = 0x10
INT_RX, INT_TX, INT_OVERRUN = 0x10, 0x20, 0x400
RSR_OVERRUN = 0x08
STORED = {
    0x20: "ilpr",
    0x24: "ibrd",
    0x28: "fbrd",
    0x2C: "lcr",
    0x30: "cr",
    0x34: "ifls",
    0x38: "imsc",
    0x48: "dmacr",
}
ID_BASE = 0xFE0
ID = (0x11, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1)


class Pl011(ReceivingLine):
    """Registers of 32 bits. Input and output go by the device's name."""

    FIELDS = (
        Field("ilpr", 8),
        Field("ibrd", 16),
        Field("fbrd", 8, mask=0x3F),
        Field("lcr", 8),
        Field("cr", 16, reset=0x300, mask=0xFF87),
        Field("ifls", 8, reset=0x12, mask=0x3F),
        Field("imsc", 16, mask=0x7FF),
        Field("dmacr", 8, mask=0x07),
        Field("ris", 16, mask=0x7FF),
        Field("rsr", 8, mask=0x0F),
        Field("last", 8),
    )
    BUFFERS = (Buffer("rx", FIFO_BYTES), Buffer("line", LINE_BYTES))
    MASKS: ClassVar[dict[str, int]] = {field.name: field.valid for field in FIELDS}

    ilpr: int
    ibrd: int
    fbrd: int
    lcr: int
    cr: int
    ifls: int
    imsc: int
    dmacr: int
    ris: int
    rsr: int
    last: int

    def _overrun(self) -> None:
        self.rsr |= RSR_OVERRUN
        self.ris |= INT_OVERRUN

    def take(self, count: int) -> None:
        if not count:
            return
        self.last = self.peek(count)[-1]
        ris = self.ris
        self._consume(count)
        if not self.rx:
            self.ris &= ~INT_RX
        elif self.lcr & LCR_FEN:
            # Read one by one, the FIFO would not have been empty meanwhile.
            self.ris = ris

    def _capacity(self) -> int:
        return FIFO_BYTES if self.lcr & LCR_FEN else 1

    def _refill(self) -> None:
        room = self._capacity() - len(self.rx)
        if room > 0 and self.line:
            if not self.rx:
                self.ris |= INT_RX
            self.rx += self.line[:room]
            del self.line[:room]

    def read(self, offset: int, size: int) -> int:
        if offset in STORED:
            value: int = getattr(self, STORED[offset])
            return value
        if ID_BASE <= offset < ID_BASE + 4 * len(ID):
            return ID[(offset - ID_BASE) >> 2]
        match offset:
            case 0x00:
                return self._read_dr()
            case 0x04:
                return self.rsr
            case 0x18:
                full = FR_RXFF if len(self.rx) >= self._capacity() else 0
                return FR_TXFE | full | (0 if self.rx else FR_RXFE)
            case 0x3C:
                return self.ris
            case 0x40:
                return self.ris & self.imsc
        return 0

    def _read_dr(self) -> int:
        if self.rx:
            self.last = self.rx.pop(0)
        if not self.rx:
            self.ris &= ~INT_RX
        value = self.last
        self._refill()
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        match offset:
            case 0x00:
                self.ris |= INT_TX
                self.machine.host.output(self.name, bytes([value & 0xFF]))
            case 0x04:
                self.rsr = 0
            case 0x44:
                self.ris &= ~value
            case 0x2C:
                if (self.lcr ^ value) & LCR_FEN:
                    self.rx.clear()
                    self.ris &= ~INT_RX
                self.lcr = value & 0xFF
                self._refill()
            case _ if offset in STORED:
                name = STORED[offset]
                setattr(self, name, value & self.MASKS[name])

    def check(self, values: dict[str, int], buffers: dict[str, bytes]) -> None:
        if not values["lcr"] & LCR_FEN and len(buffers["rx"]) > 1:
            raise ValueError(f"{self.name}: rx has {len(buffers['rx'])} bytes, expected at most 1 without FIFO")
