"""A remote-protocol client without a gdb: packets out, packets in, nothing hidden."""

from __future__ import annotations

import re
import socket
from typing import Self

_RUN = re.compile(rb"(.)\*([ -~])", re.DOTALL)


class RspClient:
    """Over a connected socket; ``stray`` holds packets that came without being asked for."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._buffer = b""
        self.stray: list[bytes] = []

    def send(self, packet: bytes) -> None:
        self._link.sendall(b"$" + packet + b"#%02x" % (sum(packet) & 0xFF))

    def receive(self) -> bytes:
        """The next packet's contents, acknowledged, run lengths expanded."""
        while True:
            start = self._buffer.find(b"$")
            end = self._buffer.find(b"#", start + 1)
            if start >= 0 and 0 <= end <= len(self._buffer) - 3:
                packet = self._buffer[start + 1 : end]
                self._buffer = self._buffer[end + 3 :]
                self._link.sendall(b"+")
                return _RUN.sub(lambda run: run[1] * (run[2][0] - 28), packet)
            data = self._link.recv(65536)
            if not data:
                raise EOFError(f"the stub closed the connection; left over: {self._buffer!r}")
            self._buffer += data

    def ask(self, packet: bytes) -> bytes:
        self.send(packet)
        return self.receive()

    def monitor(self, line: str) -> tuple[str, bytes]:
        """A ``monitor`` command: its console output, and the packet that ended it."""
        self.send(b"qRcmd," + line.encode().hex().encode())
        text = b""
        while True:
            packet = self.receive()
            if packet.startswith(b"O") and packet != b"OK":
                text += bytes.fromhex(packet[1:].decode())
            elif packet == b"OK" or packet.startswith(b"E") or not packet:
                return text.decode(), packet
            else:
                try:
                    text += bytes.fromhex(packet.decode())
                except ValueError:
                    self.stray.append(packet)
                else:
                    return text.decode(), packet

    def close(self) -> None:
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
