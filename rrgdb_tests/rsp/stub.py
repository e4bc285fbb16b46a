"""A dispatcher and its session without a connection."""

from __future__ import annotations

from collections.abc import Callable

from rrgdb.rsp.debuggee import Debuggee
from rrgdb.rsp.dispatcher import Dispatcher
from rrgdb.rsp.session import Session


class Stub:
    def __init__(self, debuggee: Debuggee, console: Callable[[str], None] = lambda _: None) -> None:
        self.session = Session(debuggee, console)
        self.dispatcher = Dispatcher(self.session)

    def handle(self, packet: bytes) -> bytes | None:
        return self.dispatcher.handle(self.dispatcher.look_up(packet))
