"""A source of random bytes (virtio 1.2, section 5.4, "Entropy Device"; as QEMU's ``virtio-rng-device``).

The bytes are the host's, drawn and logged when the driver asks for them. A buffer gets no more than ``MOST`` of them.
"""

from __future__ import annotations

from rrgdb.board.devices.virtio.mmio import ANY_LAYOUT, DRIVER_OK, VirtioDevice
from rrgdb.board.devices.virtio.queue import EVENT_IDX, Chain, QueueError

MOST = 4096
"""bytes that the host gives at once"""
MOST_ASKED = 0xFFFFFFFF
"""bytes that QEMU asks its source for at once"""


class VirtioRng(VirtioDevice):
    """One queue, no configuration."""

    DEVICE_ID = 4
    QUEUES = (8,)

    def features(self) -> int:
        return ANY_LAYOUT

    def status_changes(self, status: int) -> None:
        # What was made available before the driver was ready is served now.
        if status & DRIVER_OK:
            self.machine.after_instruction(lambda: self._notified(0))

    def serve(self, index: int) -> None:
        if not self.status & DRIVER_OK:
            return
        queue = self.queues[index]
        # Buffers without room wait for one behind them that has some.
        while not self.broken and (room := queue.room(MOST_ASKED)):
            try:
                while room > 0 and queue.waiting():
                    room -= self._fill(index, queue.take(tell=self.has(EVENT_IDX)))
            except QueueError:
                self.fail()
            self.tell(index)

    def _fill(self, index: int, chain: Chain) -> int:
        """Returns how many bytes there was room for."""
        written = 0
        for address, length in chain.writable:
            count = min(length, MOST - written)
            if count:
                self.machine.write_physical(address, self.machine.host.entropy(self.name, count))
                written += count
        self.give_back(index, chain, written)
        return sum(piece.length for piece in chain.writable)
