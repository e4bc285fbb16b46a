"""A socket that is written to at once."""

from __future__ import annotations

import os

import trio


class StraightStream(trio.abc.HalfCloseableStream):
    """``stream``, but what the system takes at once is sent without a turn of trio's scheduler. For one sender at a
    time, which waits for something else between two packets."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        sent = 0
        try:
            if self._stream.socket.fileno() >= 0:
                sent = os.write(self._stream.socket.fileno(), data)
        except OSError:  # whatever it is, trio says it in its own way
            pass
        if sent < len(data):
            await self._stream.send_all(data[sent:])

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
