"""SiFive test finisher: ends the machine, or restarts it (QEMU's ``sifive_test``)."""

from __future__ import annotations

from rrgdb.board.devices.state import StatefulDevice


class Syscon(StatefulDevice):
    """Register 0: low half the command (0x5555 pass, 0x3333 fail, 0x7777 reset), high half the code of a failure.

    A failure ends with the low 8 bits of its code, as a process does.
    """

    REGISTERS = (range(4),)

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if offset != 0 or size < 2:
            return
        match value & 0xFFFF:
            case 0x5555:
                self.machine.power_off(0)
            case 0x3333:
                self.machine.power_off(value >> 16 & 0xFF)
            case 0x7777:
                self.machine.restart()
