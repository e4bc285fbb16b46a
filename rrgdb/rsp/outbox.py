"""What waits to be sent, sans-IO: frames in order, and console output in front of the reply that it belongs to."""

from __future__ import annotations

import logging
from collections import deque

from rrgdb.rsp import packets

log = logging.getLogger("rrgdb.rsp")

CONSOLE_LIMIT = 4 << 20
"""bytes of console output that wait for a slow peer; what comes beyond is dropped, and said"""
_CHUNK = packets.PACKET_SIZE // 8
"""characters: up to four bytes, each two hex digits"""


class Outbox:
    """Replies are bounded by the packets that ask for them, console output by CONSOLE_LIMIT: a peer may be slow, and
    the guest does not wait for it."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._said: deque[str] = deque()
        self._console_size = 0
        self._dropping = False

    def say(self, text: str) -> None:
        """Console output. Thread-safe; on its way from the next ``put`` or ``gather`` on."""
        self._said.append(text)

    def put(self, frame: bytes) -> None:
        """A frame that goes out behind all that was said before."""
        self.gather()
        self._frames.append(frame)

    def gather(self) -> None:
        """Frame what was said, as ``O`` packets (GDB manual, "Stop Reply Packets")."""
        while self._said:
            self._frame(self._said.popleft())

    def _frame(self, text: str) -> None:
        for start in range(0, len(text), _CHUNK):
            if self._console_size > CONSOLE_LIMIT:
                if not self._dropping:
                    log.warning("console output dropped: the debugger does not read it")
                self._dropping = True
                return
            frame = packets.encode(b"O" + text[start : start + _CHUNK].encode("utf-8", "replace").hex().encode())
            self._frames.append(frame)
            self._console_size += len(frame)

    def take(self) -> bytes:
        """All that waits, which the caller sends now; b"" if nothing does."""
        if not self._frames:
            return b""
        frames = b"".join(self._frames)
        self._frames.clear()
        self._console_size = 0
        self._dropping = False
        return frames
