"""What a board has and rrgdb does not model: it reads 0 and ignores writes, as QEMU's ``unimplemented-device``."""

from __future__ import annotations

from rrgdb.board.devices.state import StatefulDevice


class Unimplemented(StatefulDevice):
    """Of any size."""

    REGISTERS = (range(0),)

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        pass
