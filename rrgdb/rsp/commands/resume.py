"""Running, in both directions: vCont, c, s, C, S, bc, bs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from rrgdb.rsp.commands.base import Command, always
from rrgdb.rsp.debuggee import Debuggee, Resume
from rrgdb.rsp.faces import BASE, TIME
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import PacketError, is_ours, number, split


@dataclass(frozen=True, slots=True)
class _Action:
    """What a thread does; ``start`` and ``end`` are those of RANGE_STEP."""

    how: Resume
    start: int = 0
    end: int = 0


_Handler: TypeAlias = Callable[[Session, object, bytes], bytes]


def _run(session: Session, action: _Action) -> bytes:
    separately = "multi-wp-addr" not in session.offered
    stop = session.debuggee.resume(action.how, action.start, action.end, separately=separately)
    return session.stop_reply(stop)


def _check_address(field: bytes) -> None:
    if field:
        raise PacketError("resuming at another address is not supported: write the pc register")


def _plain(how: Resume) -> _Handler:
    def handle(session: Session, _: object, arguments: bytes) -> bytes:
        _check_address(arguments)
        return _run(session, _Action(how))

    return handle


def _with_signal(how: Resume) -> _Handler:
    """The signal is checked and dropped: a replayed guest gets the signals of its recording."""

    def handle(session: Session, _: object, arguments: bytes) -> bytes:
        signal, _, address = arguments.partition(b";")
        number(signal, "signal")
        _check_address(address)
        return _run(session, _Action(how))

    return handle


def _bare(action: _Action | None, argument: bytes) -> _Action | None:
    if argument:
        raise PacketError("bad vCont action")
    return action


def _signalled(action: _Action, argument: bytes) -> _Action:
    number(argument, "signal")
    return action


def _range(argument: bytes) -> _Action:
    start, end = split(argument, b",", "vCont;r range")
    return _Action(Resume.RANGE_STEP, number(start, "range start"), number(end, "range end"))


_ACTIONS: dict[bytes, Callable[[bytes], _Action | None]] = {
    b"c": partial(_bare, _Action(Resume.CONTINUE)),
    b"C": partial(_signalled, _Action(Resume.CONTINUE)),
    b"s": partial(_bare, _Action(Resume.STEP)),
    b"S": partial(_signalled, _Action(Resume.STEP)),
    # all-stop: a debugger can say this only while everything stands
    b"t": partial(_bare, None),
    b"r": _range,
}
"""letter -> its argument -> the action; None: to stay"""


def _actions(*_: object) -> bytes:
    return b"vCont;" + b";".join(_ACTIONS)


def _action(field: bytes) -> _Action | None:
    parse = _ACTIONS.get(field[:1])
    if parse is None:
        raise PacketError("unknown vCont action")
    return parse(field[1:])


def _vcont(session: Session, __: Debuggee, arguments: bytes) -> bytes:
    """The first action that covers the one thread counts (GDB manual, "vCont")."""
    for entry in arguments.split(b";"):
        field, _, thread = entry.partition(b":")
        if thread and not is_ours(thread):
            continue
        action = _action(field)
        return b"OK" if action is None else _run(session, action)
    raise PacketError("vCont without an action for thread p1.1")


_resume = partial(Command, needs_process=True, console=True, resumes=True)

COMMANDS = (
    Command(b"vCont?", BASE, _actions),
    _resume(b"vCont", BASE, _vcont, b";", always("vContSupported+")),
    _resume(b"c", BASE, _plain(Resume.CONTINUE)),
    _resume(b"s", BASE, _plain(Resume.STEP)),
    _resume(b"C", BASE, _with_signal(Resume.CONTINUE)),
    _resume(b"S", BASE, _with_signal(Resume.STEP)),
    _resume(b"bc", TIME, _plain(Resume.REVERSE_CONTINUE), advertises=always("ReverseContinue+")),
    _resume(b"bs", TIME, _plain(Resume.REVERSE_STEP), advertises=always("ReverseStep+")),
)
