"""The first words of a peer, sans-IO: whether it is a debugger at all."""

from __future__ import annotations

from dataclasses import dataclass

from rrgdb.errors import Error
from rrgdb.rsp.packets import NACK, Decoder, Event, Packet, Rejected, Signal

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


class FirstWords:
    """Waits for the first packet.

    A page in a browser can make it send what begins with an HTTP method, or with a TLS handshake, with packets behind
    that: so nothing may come before the first packet but what debuggers send there. A stranger gets no answer.
    """

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._begun = False

    def feed(self, data: bytes) -> tuple[bytes, Greeting | None]:
        """What is to be sent for ``data`` (not b""), and the greeting if it is complete. Raises StrangerError."""
        strange = not self._begun and data[0] not in _FIRST_BYTES
        self._begun = True
        events: list[Event] = [Signal.JUNK] if strange else self._decoder.feed(data)
        answer = b""
        for number, event in enumerate(events):
            if event is Signal.JUNK:
                raise StrangerError(f"{data[:_SHOWN]!r} is nothing that a debugger sends")
            if isinstance(event, Packet | Rejected):
                return answer, Greeting(self._decoder, events[number:])
            if event is Signal.BAD_CHECKSUM:
                answer += NACK
        return answer, None
