"""A console (virtio 1.2, section 5.3, "Console Device"; as QEMU's ``virtio-serial-device`` with one ``virtconsole``).

Port 0 is the console; there are no others, though there are queues for them, as in QEMU. What the guest writes goes
out, and what the user types comes in, by the device's name. Bytes wait until the driver has made a buffer available.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import ClassVar

from rrgdb.board.device import Machine
from rrgdb.board.devices.state import Buffer, Field
from rrgdb.board.devices.virtio.mmio import ANY_LAYOUT, DRIVER_OK, VirtioDevice
from rrgdb.board.devices.virtio.queue import EVENT_IDX, Chain, Piece, QueueError

PORTS = 31
LINE_BYTES = 1 << 20
"""that wait for a buffer; a guest that gives none loses what comes beyond"""
MAX_TRANSFER = 1 << 20
"""bytes that one notification may send"""
MAX_CONTROL = 4096
AT_ONCE = 4096
"""bytes that come in as one"""
MULTIPORT, EMERGENCY_WRITE = 1 << 1, 1 << 2
RECEIVE, TRANSMIT, CONTROL_IN, CONTROL_OUT = range(4)
DEVICE_READY, PORT_ADD, _, PORT_READY, CONSOLE_PORT, _, PORT_OPEN = range(7)
"""events of control messages"""
_EMERGENCY_AT = 8
_CONFIG = struct.Struct("<HHII")
_MESSAGE = struct.Struct("<IHH")


class VirtioConsole(VirtioDevice):
    """``opened``: the driver has opened the port, or has a port that needs no opening."""

    DEVICE_ID = 3
    QUEUES = (128, 128, 32, 32, *(128,) * (2 * (PORTS - 1)))
    FIELDS: ClassVar[tuple[Field, ...]] = (*VirtioDevice.FIELDS, Field("opened", 8, mask=1))
    BUFFERS: ClassVar[tuple[Buffer, ...]] = (*VirtioDevice.BUFFERS, Buffer("incoming", LINE_BYTES))

    opened: int
    incoming: bytearray

    def __init__(self, name: str, machine: Machine, line: int, *, legacy: bool = False) -> None:
        # What has come is put into RAM behind an instruction, as everything is that devices write.
        self._timer = machine.timer(name, lambda _due: self._deliver())
        super().__init__(name, machine, line, legacy=legacy)
        machine.host.attach_input(name, self._receive)

    def features(self) -> int:
        return ANY_LAYOUT | MULTIPORT | EMERGENCY_WRITE

    def config(self) -> bytes:
        return _CONFIG.pack(0, 0, PORTS, 0)

    def configure(self, offset: int, data: bytes) -> None:
        """Virtio 1.2, section 5.3.4: a byte goes out whatever the state of the device is."""
        field = bytearray(4)
        for at, byte in enumerate(data, offset - _EMERGENCY_AT):
            if 0 <= at < len(field):
                field[at] = byte
        if any(field):
            self.machine.host.output(self.name, bytes(field[:1]))

    def reset(self) -> None:
        super().reset()
        self._timer.cancel()

    def restart(self) -> None:
        super().restart()
        self.opened = 0

    def status_changes(self, status: int) -> None:
        if not status & DRIVER_OK:
            self.opened = 0
        elif not self.has(MULTIPORT):
            self.opened = 1

    def serve(self, index: int) -> None:
        match index:
            case 0:
                self._deliver()
            case 1:
                self._transmit()
            case 3:
                self.serve_all(index, lambda chain: self._hear(self._gather(chain.readable, MAX_CONTROL)))
            case _ if index & 1:
                # Of a port that is not there.
                self.serve_all(index, lambda _chain: None)

    def _transmit(self) -> None:
        left = MAX_TRANSFER

        def send(chain: Chain) -> None:
            nonlocal left
            data = self._gather(chain.readable, left)
            left -= len(data)
            if data:
                self.machine.host.output(self.name, data)

        self.serve_all(TRANSMIT, send)

    def _gather(self, pieces: Sequence[Piece], most: int) -> bytes:
        if sum(piece.length for piece in pieces) > most:
            raise QueueError(f"more than {most} bytes in one notification")
        return b"".join(self.machine.read_physical(*piece) for piece in pieces)

    def _receive(self, data: bytes) -> None:
        """The user has typed."""
        self.incoming += data
        del self.incoming[LINE_BYTES:]
        self._timer.at(self.machine.virtual_ns())

    def _deliver(self) -> None:
        """What has come goes into the buffers that there are."""
        queue = self.queues[RECEIVE]
        if self.broken or not queue.desc or not self.status & DRIVER_OK or not self.opened:
            return
        try:
            while self.incoming and (room := queue.room(AT_ONCE)):
                rest = min(room, len(self.incoming))
                while rest and queue.waiting():
                    chain = queue.take(tell=self.has(EVENT_IDX))
                    written = self._scatter(chain.writable, bytes(self.incoming[:rest]))
                    del self.incoming[:written]
                    rest -= written
                    self.give_back(RECEIVE, chain, written)
                self.tell(RECEIVE)
        except QueueError:
            self.fail()

    def _scatter(self, pieces: Sequence[Piece], data: bytes) -> int:
        """Returns how many bytes there was room for."""
        at = 0
        for address, length in pieces:
            part = data[at : at + length]
            if part:
                self.machine.write_physical(address, part)
            at += len(part)
        return at

    def _hear(self, message: bytes) -> None:
        """A control message of the driver."""
        if len(message) < _MESSAGE.size:
            return
        port, event, value = _MESSAGE.unpack_from(message)
        if event == DEVICE_READY:
            if value:
                self._say(PORT_ADD)
        elif port == 0 and event == PORT_READY:
            if value:
                self._say(CONSOLE_PORT)
                self._say(PORT_OPEN)
        elif port == 0 and event == PORT_OPEN:
            self.opened = int(bool(value))
            self._deliver()

    def _say(self, event: int) -> None:
        """A control message of the device on port 0; lost if the driver has no buffer for it, as in QEMU."""
        queue = self.queues[CONTROL_IN]
        if queue.desc and queue.waiting():
            chain = queue.take(tell=self.has(EVENT_IDX))
            self._scatter(chain.writable, _MESSAGE.pack(0, event, 1))
            self.give_back(CONTROL_IN, chain, _MESSAGE.size)
            self.tell(CONTROL_IN)
