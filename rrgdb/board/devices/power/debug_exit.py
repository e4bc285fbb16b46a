"""Registers whose only use is to end the machine with a status."""

from __future__ import annotations

from rrgdb.board.devices.state import StatefulDevice


class DebugExit(StatefulDevice):
    """QEMU's ``isa-debug-exit``: a write of ``value`` ends with ``(value << 1) | 1``, so never with 0."""

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        self.machine.power_off((value << 1 | 1) & 0xFF)


class ExitRegister(StatefulDevice):
    """A write of ``value`` to offset 0 ends with its low 8 bits."""

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == 0:
            self.machine.power_off(value & 0xFF)
