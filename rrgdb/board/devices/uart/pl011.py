"""PrimeCell UART PL011 (ARM DDI 0183; behaviour where it is open: QEMU's ``pl011``).

Transmission takes no virtual time, and the enable bits of UARTCR are stored but gate nothing, so that a guest may
print without set-up. Received bytes wait on the line until the FIFO has room.
"""

from __future__ import annotations

from typing import ClassVar

from rrgdb.board.device import Machine
from rrgdb.board.devices.state import Buffer, Field
from rrgdb.board.devices.uart.line import LINE_BYTES, ReceivingLine

FIFO_BYTES = 16

FR_TXFE, FR_RXFF, FR_RXFE = 0x80, 0x40, 0x10
LCR_FEN = 0x10
INT_RX, INT_TX, INT_OVERRUN = 0x10, 0x20, 0x400
INT_ALL = INT_RX | INT_TX | INT_OVERRUN
RSR_OVERRUN = 0x08
FR, LCR_H = 0x18, 0x2C
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
    """Registers of 32 bits. Input and output go by the device's name. On a board that gives it an interrupt line it is
    an ``InterruptingPl011``."""

    REGISTERS = (range(0x08), range(0x18, 0x1C), range(0x20, 0x4C), range(0xFE0, 0x1000))
    FIELDS: ClassVar[tuple[Field, ...]] = (
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
    BUFFERS: ClassVar[tuple[Buffer, ...]] = (Buffer("rx", FIFO_BYTES), Buffer("line", LINE_BYTES))
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


class InterruptingPl011(Pl011):
    """As QEMU 7.2's: RXRIS rises with the first byte, whatever UARTIFLS says; registers keep all bits that are written;
    an access touches the register of its word; the FIFO is a ring whose places keep what stood in them, so that reading
    it while it is empty shows the place that is filled next; switching FIFOs empties it without a word in UARTFR or
    UARTRIS; a reset of the machine does nothing to it."""

    RESETS = False
    FIELDS = (
        *(Field(field.name, 32, field.reset) for field in Pl011.FIELDS if field.name in STORED.values()),
        Field("ris", 16, mask=INT_ALL),
        Field("rsr", 32),
        Field("flags", 8, reset=FR_TXFE | FR_RXFE, mask=FR_TXFE | FR_RXFF | FR_RXFE),
        Field("first", 8, mask=FIFO_BYTES - 1),
        Field("held", 8, mask=0x1F),
    )
    BUFFERS = (Buffer("ring", FIFO_BYTES), Buffer("line", LINE_BYTES))

    flags: int
    first: int
    held: int
    ring: bytearray

    def __init__(self, name: str, machine: Machine) -> None:
        self._irq = machine.line_of(name)
        super().__init__(name, machine)

    def reset(self) -> None:
        super().reset()
        self.ring = bytearray(FIFO_BYTES)
        self._update()

    def _update(self) -> None:
        self.machine.irq(self._irq, bool(self.ris & self.imsc))

    def peek(self, most: int) -> bytes:
        held = bytes(self.ring[(self.first + at) % FIFO_BYTES] for at in range(min(self.held, most)))
        return held + bytes(self.line[: most - len(held)])

    def take(self, count: int) -> None:
        for _ in range(count):
            self._read_dr()
        self._update()

    def receive(self, data: bytes) -> None:
        super().receive(data)
        self._update()

    def _refill(self) -> None:
        while self.line and self.held < self._capacity():
            self.ring[(self.first + self.held) % FIFO_BYTES] = self.line.pop(0)
            self.held += 1
            self.flags &= ~FR_RXFE
            if self.held == self._capacity():
                self.flags |= FR_RXFF
            if self.held == 1:
                self.ris |= INT_RX

    def _read_dr(self) -> int:
        value = self.ring[self.first]
        self.flags &= ~FR_RXFF
        self.rsr = 0
        if self.held:
            self.held -= 1
            self.first = (self.first + 1) % FIFO_BYTES
        if not self.held:
            self.flags |= FR_RXFE
            self.ris &= ~INT_RX
        self._refill()
        return value

    def read(self, offset: int, size: int) -> int:
        register = offset & ~3
        value = self.flags if register == FR else super().read(register, 4)
        self._update()
        return value & ((1 << 8 * size) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        register = offset & ~3
        if register == LCR_H:
            if (self.lcr ^ value) & LCR_FEN:
                self.first = self.held = 0
            self.lcr = value
            self._refill()
        elif register in STORED:
            setattr(self, STORED[register], value)
        else:
            super().write(register, size, value)
        self._update()

    def check(self, values: dict[str, int], buffers: dict[str, bytes]) -> None:
        most = FIFO_BYTES if values["lcr"] & LCR_FEN else 1
        if values["held"] > most:
            raise ValueError(f"{self.name}: {values['held']} bytes in the FIFO, expected at most {most}")
        if len(buffers["ring"]) != FIFO_BYTES:
            raise ValueError(f"{self.name}: ring has {len(buffers['ring'])} bytes, expected {FIFO_BYTES}")
