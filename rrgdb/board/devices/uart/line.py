"""The receiving line that UARTs share: what has come and is not in the receiver yet."""

from __future__ import annotations

from rrgdb.board.device import Machine
from rrgdb.board.devices.state import StatefulDevice

LINE_BYTES = 1 << 20
"""that wait for room in the receiver; a guest that takes none loses what comes beyond"""


class ReceivingLine(StatefulDevice):
    """``rx`` and ``line`` are among the device's ``BUFFERS``: what the receiver holds, and what waits for it. Its input
    is the source of its own name. A ``Console`` but for ``take``."""

    rx: bytearray
    line: bytearray

    def __init__(self, name: str, machine: Machine) -> None:
        self.line = bytearray()
        super().__init__(name, machine)
        machine.host.attach_input(name, self.receive)

    def reset(self) -> None:
        """What waits on the line is outside the device, and stays."""
        waits = self.line
        super().reset()
        self.line = waits

    def receive(self, data: bytes) -> None:
        """Bytes arrive on the line."""
        self.line += data
        self._refill()
        if len(self.line) > LINE_BYTES:
            del self.line[LINE_BYTES:]
            self._overrun()

    def peek(self, most: int) -> bytes:
        """See ``Console``."""
        return bytes(self.rx[:most]) + bytes(self.line[: max(most - len(self.rx), 0)])

    def _consume(self, count: int) -> None:
        """The next ``count`` bytes are taken, the receiver's first."""
        of_line = max(count - len(self.rx), 0)
        del self.rx[:count], self.line[:of_line]
        self._refill()

    def _refill(self) -> None:
        """Bytes of the line enter the receiver as far as there is room."""
        raise NotImplementedError

    def _overrun(self) -> None:
        """The guest can tell that bytes were lost."""
        raise NotImplementedError
