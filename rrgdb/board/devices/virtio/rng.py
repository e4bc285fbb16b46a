"""A source of random bytes (virtio 1.2, section 5.4, "Entropy Device"; as QEMU's ``virtio-rng-device``).

The bytes are the host's, drawn and logged when the driver asks for them. A buffer gets no more than ``MOST`` of them.
"""

from __future__ import annotations

from rrgdb.board.devices.virtio.mmio import DRIVER_OK, VirtioDevice

MOST = 4096
"""bytes that the host gives at once"""


class VirtioRng(VirtioDevice):
    """One queue, no configuration."""

    DEVICE_ID = 4
    QUEUES = (8,)

    def status_changes(self, status: int) -> None:
        # What was made available before the driver was ready is served now.
        if status & DRIVER_OK:
            self.machine.after_instruction(lambda: self._notified(0))

    def serve(self, index: int) -> None:
        if not self.status & DRIVER_OK:
            return
        for chain in self.chains(index):
            written = 0
            for address, length in chain.writable:
                count = min(length, MOST - written)
                if count:
                    self.machine.write_physical(address, self.machine.host.entropy(self.name, count))
                    written += count
            self.give_back(index, chain, written)
