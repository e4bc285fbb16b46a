"""The one thread: H, T, qC, thread lists."""

from __future__ import annotations

from rrgdb.rsp.commands.base import Command
from rrgdb.rsp.debuggee import Debuggee
from rrgdb.rsp.faces import BASE
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import PacketError


def _select(session: Session, _: Debuggee, arguments: bytes) -> bytes:
    if arguments[:1] not in (b"g", b"c", b"m"):
        raise PacketError("bad H packet: g or c expected")
    session.check_thread(arguments[1:])
    return b"OK"


def _alive(session: Session, _: Debuggee, arguments: bytes) -> bytes:
    session.check_thread(arguments)
    return b"OK"


def _current(session: Session, *_: object) -> bytes:
    return b"QC" + session.thread_id()


def _first(session: Session, *_: object) -> bytes:
    return b"l" if session.gone else b"m" + session.thread_id()


def _next(*_: object) -> bytes:
    return b"l"


def _extra(session: Session, debuggee: Debuggee, arguments: bytes) -> bytes:
    session.check_thread(arguments)
    return debuggee.describe().encode().hex().encode()


COMMANDS = (
    Command(b"H", BASE, _select, brief=True),
    Command(b"T", BASE, _alive, brief=True),
    Command(b"qC", BASE, _current, brief=True),
    Command(b"qfThreadInfo", BASE, _first, brief=True),
    Command(b"qsThreadInfo", BASE, _next, brief=True),
    Command(b"qThreadExtraInfo", BASE, _extra, b",", brief=True),
)
