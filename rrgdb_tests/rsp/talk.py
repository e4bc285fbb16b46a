"""A connection's protocol without a socket, and what a peer may say to it."""

from __future__ import annotations

from rrgdb.rsp.dispatcher import Dispatcher
from rrgdb.rsp.greeting import Greeting
from rrgdb.rsp.packets import Decoder, Event, encode
from rrgdb.rsp.protocol import Action, Protocol, Serve
from rrgdb.rsp.session import Session
from rrgdb_tests.rsp.fake import FakeDebuggee

DISPATCHER = Dispatcher(Session(FakeDebuggee(), lambda _: None))
"""for what it says of packets and errors; it serves none"""
C, S, G, QC, D = (encode(payload) for payload in (b"c", b"s", b"g", b"qC", b"D"))
INT = b"\x03"
DAMAGED = b"$qC#00"
UNREADABLE = b"$x*#a2"
"""a good checksum, and a run without a length"""


def start(events: list[Event] | None = None) -> Protocol:
    return Protocol(Greeting(Decoder(), events or []), DISPATCHER.look_up, DISPATCHER.error)


def serve(payload: bytes) -> Serve:
    return Serve(DISPATCHER.look_up(payload))


class Talk:
    """A protocol whose peer says what a test says, and whose packets get the results that a test gives them."""

    def __init__(self, *, no_ack: bool = True) -> None:
        self.protocol = start()
        self.no_ack = no_ack
        if no_ack:
            self.hear(encode(b"QStartNoAckMode"))
            self.reply(b"OK")

    def hear(self, data: bytes, now: float = 0.0) -> list[Action]:
        return [action for actions in self.protocol.received(data, now) for action in actions]

    def reply(self, payload: bytes | None, *, last: bool = False) -> list[Action]:
        frame = None if payload is None else encode(payload)
        return self.protocol.served(frame, no_ack=self.no_ack, last=last)
