"""PrimeCell GPIO PL061 (ARM DDI 0190), as QEMU's ``pl061``, and the power key of QEMU's virt machine at one pin.

Nothing but the key is connected: outputs go nowhere, and the other inputs stay low.
"""

from __future__ import annotations

from rrgdb.board.device import Machine
from rrgdb.board.devices.state import Field, StatefulDevice

DATA_END = 0x400
"""addresses below it are the data register, of which bits 2 to 9 of the address choose the pins"""
STORED = {0x400: "dir", 0x404: "isense", 0x408: "ibe", 0x40C: "iev", 0x410: "im", 0x420: "afsel"}
RIS, MIS, IC = 0x414, 0x418, 0x41C
ID_BASE = 0xFD0
ID = (0x00, 0x00, 0x00, 0x00, 0x61, 0x10, 0x04, 0x00, 0x0D, 0xF0, 0x05, 0xB1)
POWER_KEY = 3
"""pin"""
PRESSED_NS = 100_000_000
"""for as long as QEMU's ``gpio-key`` is held down"""


class Pl061(StatefulDevice):
    """Eight pins. Any input by the device's name presses the power key."""

    REGISTERS = (range(0x424), range(0xFD0, 0x1000))
    FIELDS = tuple(Field(name, 8) for name in ("data", "dir", "isense", "ibe", "iev", "im", "afsel", "istate", "seen"))

    data: int
    dir: int
    """pins that are outputs"""
    isense: int
    """those that interrupt by their level, and not by an edge"""
    ibe: int
    """both edges"""
    iev: int
    """rising edge or high level"""
    im: int
    afsel: int
    istate: int
    seen: int
    """the data when a change of an input was last looked for"""

    def __init__(self, name: str, machine: Machine) -> None:
        self._timer = machine.timer(name, lambda _due_ns: self.set_pin(POWER_KEY, False))
        super().__init__(name, machine)
        machine.host.attach_input(name, lambda _data: self.press())

    def reset(self) -> None:
        super().reset()
        self._timer.cancel()

    def press(self) -> None:
        """Press the power key; it comes up again by itself."""
        self.set_pin(POWER_KEY, True)
        self._timer.at(self.machine.virtual_ns() + PRESSED_NS)

    def set_pin(self, pin: int, level: bool) -> None:
        """An input has this level; a pin that is an output does not hear of it."""
        if not self.dir >> pin & 1:
            self.data = self.data & ~(1 << pin) | level << pin
            self._update()

    def read(self, offset: int, size: int) -> int:
        if offset < DATA_END:
            return self.data & offset >> 2
        if offset in STORED:
            value: int = getattr(self, STORED[offset])
            return value
        if ID_BASE <= offset < ID_BASE + 4 * len(ID):
            return ID[(offset - ID_BASE) >> 2]
        if offset == RIS:
            return self.istate
        return self.istate & self.im if offset == MIS else 0

    def write(self, offset: int, size: int, value: int) -> None:
        if offset < DATA_END:
            pins = offset >> 2 & self.dir
            self.data = self.data & ~pins | value & pins
        elif offset in STORED:
            setattr(self, STORED[offset], value & 0xFF)
        elif offset == IC:
            self.istate &= ~value
        else:
            return
        self._update()

    def _update(self) -> None:
        changed = (self.seen ^ self.data) & ~self.dir
        if changed:
            self.seen = self.data
            self.istate |= changed & ~self.isense & (self.ibe | ~(self.data ^ self.iev))
        self.istate |= ~(self.data ^ self.iev) & self.isense
        self.machine.irq(self.machine.line_of(self.name), bool(self.istate & self.im))
