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
from rrgdb.rsp.wire import PacketError, number, split


@dataclass(frozen=True, slots=True)
class _Action:
    """What a thread does; ``start`` and ``end`` are those of RANGE_STEP."""

    how: Resume
    start: int = 0
    end: int = 0


_Handler: TypeAlias = Callable[[Session, object, bytes], bytes]


def _run(session: Session, action: _Action, thread: int, *, alone: bool) -> bytes:
    separately = "multi-wp-addr" not in session.offered
    stop = session.debuggee.resume(
        action.how, action.start, action.end, thread=thread, alone=alone, separately=separately
    )
    return session.stop_reply(stop)


def _run_selected(session: Session, action: _Action) -> bytes:
    """As Hc has said."""
    if session.resumed is None:
        return _run(session, action, session.thread, alone=False)
    return _run(session, action, session.resumed, alone=len(session.debuggee.threads()) > 1)


def _check_address(field: bytes) -> None:
    if field:
        raise PacketError("resuming at another address is not supported: write the pc register")


def _plain(how: Resume) -> _Handler:
    def handle(session: Session, _: object, arguments: bytes) -> bytes:
        _check_address(arguments)
        return _run_selected(session, _Action(how))

    return handle


def _with_signal(how: Resume) -> _Handler:
    """The signal is checked and dropped: a replayed guest gets the signals of its recording."""

    def handle(session: Session, _: object, arguments: bytes) -> bytes:
        signal, _, address = arguments.partition(b";")
        number(signal, "signal")
        _check_address(address)
        return _run_selected(session, _Action(how))

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


def _vcont(session: Session, debuggee: Debuggee, arguments: bytes) -> bytes:
    """The first action that covers a thread is the thread's; one without any stays (GDB manual, "vCont")."""
    fields = [entry.partition(b":")[::2] for entry in arguments.split(b";")]
    threads = debuggee.threads()
    resumed: dict[int, _Action] = {}
    stay = False
    for thread in threads:
        found = next((field for field, which in fields if not which or thread in session.covered(which)), None)
        action = None if found is None else _action(found)
        stay = stay or found is not None
        if action is not None:
            resumed[thread] = action
    if not resumed:
        if stay:
            return b"OK"
        raise PacketError(f"vCont without an action for {'any thread' if len(threads) > 1 else 'thread p1.1'}")
    if 1 < len(resumed) < len(threads):
        raise PacketError("vCont for some of the threads: one or all expected")
    stepping = [thread for thread, action in resumed.items() if action.how is not Resume.CONTINUE]
    candidates = stepping or list(resumed)
    thread = session.thread if session.thread in candidates else candidates[0]
    return _run(session, resumed[thread], thread, alone=len(resumed) < len(threads))


_ONE_STEP = frozenset((b"s:p1.1;c:p1.-1", b"s:1;c", b"s:p1.1", b"s:1", b"s"))
"""as GDB (with and without multiprocess) and LLDB say it"""
_resume = partial(Command, needs_process=True, console=True, resumes=True)

COMMANDS = (
    Command(b"vCont?", BASE, _actions),
    _resume(b"vCont", BASE, _vcont, b";", always("vContSupported+"), steps=_ONE_STEP),
    _resume(b"c", BASE, _plain(Resume.CONTINUE)),
    _resume(b"s", BASE, _plain(Resume.STEP), steps=frozenset((b"",))),
    _resume(b"C", BASE, _with_signal(Resume.CONTINUE)),
    _resume(b"S", BASE, _with_signal(Resume.STEP)),
    _resume(b"bc", TIME, _plain(Resume.REVERSE_CONTINUE), advertises=always("ReverseContinue+")),
    _resume(b"bs", TIME, _plain(Resume.REVERSE_STEP), advertises=always("ReverseStep+")),
)
