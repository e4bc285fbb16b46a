"""What both sides can do: qSupported, QStartNoAckMode, vMustReplyEmpty, ``!``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rrgdb.rsp.commands.base import Command, always
from rrgdb.rsp.debuggee import Debuggee
from rrgdb.rsp.faces import BASE
from rrgdb.rsp.packets import PACKET_SIZE
from rrgdb.rsp.session import Session

_ECHOED = ("multiprocess", "swbreak", "hwbreak")


def supported(commands: Sequence[Command[Any]]) -> Command[Debuggee]:
    """qSupported of a stub that serves ``commands``: the reply is what they advertise."""

    def handle(session: Session, debuggee: Debuggee, arguments: bytes) -> bytes:
        features = arguments.decode("ascii", "replace").split(";")
        session.offered = frozenset(feature[:-1] for feature in features if feature.endswith("+"))
        served = (command for command in commands if command.face.of(debuggee) is not None)
        entries = [*_advertised(session), *(entry for command in served for entry in command.advertises(session))]
        return ";".join(entries).encode()

    return Command(b"qSupported", BASE, handle, b":", _advertised)


def _advertised(session: Session) -> Sequence[str]:
    return f"PacketSize={PACKET_SIZE:x}", *(f"{name}+" for name in _ECHOED if name in session.offered)


def _start_no_ack(session: Session, *_: object) -> bytes:
    session.no_ack = True
    return b"OK"


def _must_reply_empty(*_: object) -> bytes:
    return b""


def _extended(session: Session, *_: object) -> bytes:
    session.extended = True
    return b"OK"


COMMANDS = (
    Command(b"QStartNoAckMode", BASE, _start_no_ack, advertises=always("QStartNoAckMode+")),
    Command(b"vMustReplyEmpty", BASE, _must_reply_empty),
    Command(b"!", BASE, _extended),
)
