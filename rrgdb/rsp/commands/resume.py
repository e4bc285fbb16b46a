"""Running, in both directions: vCont, c, s, C, S, bc, bs."""

from __future__ import annotations

from functools import partial

from rrgdb.rsp.commands.base import Command, Handler, always
from rrgdb.rsp.debuggee import Resume
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import PacketError, is_ours, number, split

_ACTIONS = b"vCont;c;C;s;S;t;r"


def _run(session: Session, how: Resume, start: int = 0, end: int = 0) -> bytes:
    separately = "multi-wp-addr" not in session.offered
    return session.stop_reply(session.debuggee.resume(how, start, end, separately=separately))


def _check_address(field: bytes) -> None:
    if field:
        raise PacketError("resuming at another address is not supported: write the pc register")


def _plain(how: Resume) -> Handler:
    def handle(session: Session, arguments: bytes) -> bytes:
        _check_address(arguments)
        return _run(session, how)

    return handle


def _with_signal(how: Resume) -> Handler:
    """The signal is checked and dropped: a replayed guest gets the signals of its recording."""

    def handle(session: Session, arguments: bytes) -> bytes:
        signal, _, address = arguments.partition(b";")
        number(signal, "signal")
        _check_address(address)
        return _run(session, how)

    return handle


def _actions(_: Session, __: bytes) -> bytes:
    return _ACTIONS


def _vcont(session: Session, arguments: bytes) -> bytes:
    """The first action that covers the one thread counts (GDB manual, "vCont")."""
    for entry in arguments.split(b";"):
        action, _, thread = entry.partition(b":")
        if thread and not is_ours(thread):
            continue
        return _act(session, action)
    raise PacketError("vCont without an action for thread p1.1")


def _act(session: Session, action: bytes) -> bytes:
    letter, argument = action[:1], action[1:]
    if letter == b"r":
        start, end = split(argument, b",", "vCont;r range")
        return _run(session, Resume.RANGE_STEP, number(start, "range start"), number(end, "range end"))
    if letter in (b"C", b"S"):
        number(argument, "signal")
    elif argument:
        raise PacketError("bad vCont action")
    if letter in (b"c", b"C"):
        return _run(session, Resume.CONTINUE)
    if letter in (b"s", b"S"):
        return _run(session, Resume.STEP)
    if letter == b"t":
        # all-stop: a debugger can say this only while everything stands
        return b"OK"
    raise PacketError("unknown vCont action")


_command = partial(Command, needs_process=True, console=True, resumes=True)

COMMANDS = (
    Command(b"vCont?", _actions),
    _command(b"vCont", _vcont, b";", always("vContSupported+")),
    _command(b"c", _plain(Resume.CONTINUE)),
    _command(b"s", _plain(Resume.STEP)),
    _command(b"C", _with_signal(Resume.CONTINUE)),
    _command(b"S", _with_signal(Resume.STEP)),
    _command(b"bc", _plain(Resume.REVERSE_CONTINUE), advertises=always("ReverseContinue+")),
    _command(b"bs", _plain(Resume.REVERSE_STEP), advertises=always("ReverseStep+")),
)
