"""Read-only memory: what stands there was put there before the machine started. Writes are ignored."""

from __future__ import annotations

from rrgdb.board.device import Machine
from rrgdb.board.devices.state import StatefulDevice


class Rom(StatefulDevice):
    """Reads come here only while the memory is hidden, which this one never is."""

    def __init__(self, name: str, machine: Machine) -> None:
        self.memory = machine.memory_behind(name, self.read, self.write)
        super().__init__(name, machine)

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(self.memory.read(offset, size), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        pass
