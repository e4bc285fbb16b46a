"""A source of random numbers: every read of register 0 returns fresh random bytes of the host."""

from __future__ import annotations

from rrgdb.board.devices.state import StatefulDevice


class Entropy(StatefulDevice):
    """One register at offset 0, read at any size. It has no state."""

    def read(self, offset: int, size: int) -> int:
        if offset != 0:
            return 0
        return int.from_bytes(self.machine.host.entropy(self.name, size), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        pass
