"""What both sides can do: qSupported, QStartNoAckMode, vMustReplyEmpty, ``!``."""

from __future__ import annotations

from collections.abc import Sequence

from rrgdb.rsp.commands.base import Command, always
from rrgdb.rsp.packets import PACKET_SIZE
from rrgdb.rsp.session import Session

_ECHOED = ("multiprocess", "swbreak", "hwbreak")


def supported(commands: Sequence[Command]) -> Command:
    """qSupported of a stub that serves ``commands``: the reply is what they advertise."""

    def handle(session: Session, arguments: bytes) -> bytes:
        features = arguments.decode("ascii", "replace").split(";")
        session.offered = frozenset(feature[:-1] for feature in features if feature.endswith("+"))
        entries = [*_advertised(session), *(entry for command in commands for entry in command.advertises(session))]
        return ";".join(entries).encode()

    return Command(b"qSupported", handle, b":", _advertised)


def _advertised(session: Session) -> Sequence[str]:
    return f"PacketSize={PACKET_SIZE:x}", *(f"{name}+" for name in _ECHOED if name in session.offered)


def _start_no_ack(session: Session, _: bytes) -> bytes:
    session.no_ack = True
    return b"OK"


def _must_reply_empty(_: Session, __: bytes) -> bytes:
    return b""


def _extended(session: Session, _: bytes) -> bytes:
    session.extended = True
    return b"OK"


COMMANDS = (
    Command(b"QStartNoAckMode", _start_no_ack, advertises=always("QStartNoAckMode+")),
    Command(b"vMustReplyEmpty", _must_reply_empty),
    Command(b"!", _extended),
)
