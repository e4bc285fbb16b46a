"""The one thread: H, T, qC, thread lists."""

from __future__ import annotations

from rrgdb.rsp.commands.base import Command
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import PacketError


def describe(session: Session) -> str:
    """What ``info threads`` shows beside the thread: where in time it stands."""
    info = session.debuggee.replay_info()
    return f"{info.mode}, icount {info.icount}"


def _select(session: Session, arguments: bytes) -> bytes:
    if arguments[:1] not in (b"g", b"c", b"m"):
        raise PacketError("bad H packet: g or c expected")
    session.check_thread(arguments[1:])
    return b"OK"


def _alive(session: Session, arguments: bytes) -> bytes:
    session.check_thread(arguments)
    return b"OK"


def _current(session: Session, _: bytes) -> bytes:
    return b"QC" + session.thread_id()


def _first(session: Session, _: bytes) -> bytes:
    return b"l" if session.gone else b"m" + session.thread_id()


def _next(_: Session, __: bytes) -> bytes:
    return b"l"


def _extra(session: Session, arguments: bytes) -> bytes:
    session.check_thread(arguments)
    return describe(session).encode().hex().encode()


COMMANDS = (
    Command(b"H", _select, brief=True),
    Command(b"T", _alive, brief=True),
    Command(b"qC", _current, brief=True),
    Command(b"qfThreadInfo", _first, brief=True),
    Command(b"qsThreadInfo", _next, brief=True),
    Command(b"qThreadExtraInfo", _extra, b",", brief=True),
)
