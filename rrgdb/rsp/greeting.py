"""The first words of a peer: whether it is a debugger at all."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from rrgdb.errors import Error
from rrgdb.rsp.packets import NACK, Decoder, Event, Packet, Rejected, Signal

RECEIVE_SIZE = 65536
SILENT_SECONDS = 30.0
"""how long a peer may take for its first packet"""
_FIRST_BYTES = b"+-$\x03"
_SHOWN = 16
"""bytes of what a stranger says that the user is shown"""


class StrangerError(Error):
    """The peer is no debugger; the text says how that shows."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """``events``: what has come and is to be served, from the first packet on; ``decoder`` takes what comes next."""

    decoder: Decoder
    events: list[Event]


async def greet(stream: trio.abc.Stream, seconds: float = SILENT_SECONDS) -> Greeting | None:
    """Wait for the first packet. None if the peer leaves before. Raises StrangerError.

    A page in a browser can make it send what begins with an HTTP method, or with a TLS handshake, with packets behind
    that: so nothing may come before the first packet but what debuggers send there. A stranger gets no answer.
    """
    decoder = Decoder()
    begun = False
    with trio.move_on_after(seconds):
        try:
            while data := bytes(await stream.receive_some(RECEIVE_SIZE)):
                strange = not begun and data[0] not in _FIRST_BYTES
                begun = True
                events: list[Event] = [Signal.JUNK] if strange else decoder.feed(data)
                for number, event in enumerate(events):
                    if event is Signal.JUNK:
                        raise StrangerError(f"{data[:_SHOWN]!r} is nothing that a debugger sends")
                    if isinstance(event, Packet | Rejected):
                        return Greeting(decoder, events[number:])
                    if event is Signal.BAD_CHECKSUM:
                        await stream.send_all(NACK)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        return None
    raise StrangerError(f"no packet came within {seconds:g} s")
