"""Attach, detach, kill, run again; the state of the one process."""

from __future__ import annotations

from rrgdb.rsp.commands.base import Command
from rrgdb.rsp.debuggee import Debuggee, DebuggeeError, Time
from rrgdb.rsp.faces import BASE, TIME
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import ESRCH, PacketError, number


def _status(session: Session, debuggee: Debuggee, _: bytes) -> bytes:
    if session.gone and session.extended:
        return b"W00"
    return session.stop_reply(debuggee.last_stop())


def _attached(*_: object) -> bytes:
    """1: GDB detaches on quit, it does not kill."""
    return b"1"


def _check_pid(field: bytes) -> None:
    if field and number(field, "process id") != 1:
        raise DebuggeeError("no such process: there is one, 1", ESRCH)


def _detach(session: Session, debuggee: Debuggee, arguments: bytes) -> bytes:
    _check_pid(arguments.removeprefix(b";"))
    session.detached = session.gone = True
    session.points.clear()
    session.close_files()
    debuggee.detached(resume=True)
    return b"OK"


def _kill(session: Session, debuggee: Debuggee, arguments: bytes) -> None:
    """An extended-remote GDB kills before each ``run``: the guest then waits for vRun."""
    if arguments:
        raise PacketError("bad arguments of k")
    if session.extended:
        session.gone = True
    else:
        session.killed = True
        debuggee.kill()


def _vkill(session: Session, debuggee: Debuggee, arguments: bytes) -> bytes:
    _check_pid(arguments)
    _kill(session, debuggee, b"")
    return b"OK"


def _run(session: Session, time: Time, _: bytes) -> bytes:
    """Whatever file is named: there is one guest, and it starts from the beginning of its recording."""
    session.gone = False
    _come_back(session)
    return session.stop_reply(time.seek("start"))


def _restart(session: Session, time: Time, _: bytes) -> None:
    session.gone = False
    _come_back(session)
    time.seek("start")


def _attach(session: Session, debuggee: Debuggee, arguments: bytes) -> bytes:
    _check_pid(arguments)
    session.gone = False
    _come_back(session)
    return session.stop_reply(debuggee.last_stop())


def _come_back(session: Session) -> None:
    if session.detached:
        session.detached = False
        session.debuggee.attached(session.console)


COMMANDS = (
    Command(b"?", BASE, _status, brief=True),
    Command(b"qAttached", BASE, _attached, b":"),
    Command(b"D", BASE, _detach),
    Command(b"k", BASE, _kill),
    Command(b"vKill", BASE, _vkill, b";"),
    Command(b"vRun", TIME, _run, b";"),
    Command(b"R", TIME, _restart),
    Command(b"vAttach", BASE, _attach, b";"),
)
