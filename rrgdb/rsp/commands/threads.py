"""Threads: H, T, qC, thread lists."""

from __future__ import annotations

from rrgdb.rsp.commands.base import Command
from rrgdb.rsp.debuggee import Debuggee
from rrgdb.rsp.faces import BASE
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import PacketError, thread_id


def _select(session: Session, _: Debuggee, arguments: bytes) -> bytes:
    """g: the thread of the packets that follow; c: the only one that they resume."""
    letter, field = arguments[:1], arguments[1:]
    if letter not in (b"g", b"c", b"m"):
        raise PacketError("bad H packet: g or c expected")
    thread = session.find_thread(field)
    if letter == b"c":
        session.resumed = thread if thread_id(field)[1] > 0 else None
    else:
        session.thread = thread
    return b"OK"


def _alive(session: Session, _: Debuggee, arguments: bytes) -> bytes:
    session.find_thread(arguments)
    return b"OK"


def _current(session: Session, *_: object) -> bytes:
    return b"QC" + session.thread_id(session.thread)


def _first(session: Session, debuggee: Debuggee, _: bytes) -> bytes:
    return b"l" if session.gone else b"m" + b",".join(map(session.thread_id, debuggee.threads()))


def _next(*_: object) -> bytes:
    return b"l"


def _extra(session: Session, debuggee: Debuggee, arguments: bytes) -> bytes:
    return debuggee.describe(session.find_thread(arguments)).encode().hex().encode()


COMMANDS = (
    Command(b"H", BASE, _select, brief=True),
    Command(b"T", BASE, _alive, brief=True),
    Command(b"qC", BASE, _current, brief=True),
    Command(b"qfThreadInfo", BASE, _first, brief=True),
    Command(b"qsThreadInfo", BASE, _next, brief=True),
    Command(b"qThreadExtraInfo", BASE, _extra, b",", brief=True),
)
