"""A script's machine as a guest: live, the script's hooks are called and what they do is written down; in history it is
done again, and they are not called."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from operator import index
from typing import Any

from rrgdb.arch.base import IllegalInstruction, Signal
from rrgdb.engine.base import EngineError, Exit, ExitKind
from rrgdb.engine.unicorn.scripted import ScriptEngine
from rrgdb.guest import End, Notices
from rrgdb.host import Journal
from rrgdb.script.machine import Layout, Machine
from rrgdb.script.ops import SOURCE, Answer, Kind, Op, decode, encode_answer

_STATE = struct.Struct("<BBBQ")
_VERSION = 1
_ILLEGAL = 10
"""Unicorn's error for an instruction that does not exist"""
_NEVER = (1 << 63) - 1
MAX_CALLS = 1 << 16
"""of hooks, while one instruction of history executes: beyond that it would never end"""


def _number(value: Any) -> int:
    """What a hook returned."""
    return index(value) if hasattr(value, "__index__") else int(bool(value))


class RunOver(BaseException):
    """The live guest cannot go on: it is the script's turn. No error; whoever runs the guest passes it on."""


class ScriptGuest:
    """Part of ``rrgdb.guest.Guest``."""

    def __init__(self, engine: ScriptEngine, journal: Journal) -> None:
        self.engine = engine
        self.arch = engine.arch
        self.machine = Machine(engine, self._stop_in_hook)
        self.end: End | None = None
        """of a diversion: history of a script's machine has no end of its own"""
        self.idle: Callable[[], None] = lambda: None
        self.consoles: tuple[str, ...] = ()
        self.cause = ""
        self.notices = Notices()
        self.hardware = None
        self.debugged = False
        self.uc: Any = None
        """what the script's hooks are called with"""
        self.callbacks: dict[int, tuple[Callable[..., Any], Any]] = {}
        """the script's hooks, and what it wants each to get"""
        self.running = False
        """between START and END"""
        self.ending: int | None = None
        """the live run has ended with this error of Unicorn's, and END is not written yet"""
        self.error: BaseException | None = None
        """what a hook of the script raised in this run"""
        self.last_error = 0
        """Unicorn's error of the live run that ended last"""
        self._journal = journal
        self._until = 0
        self._limit = _NEVER
        self._stop_asked = False
        self._frame: list[bytes] | None = None
        self._call = (-1, 0)
        self._resumed = self._began = -1
        self._failure: Exception | None = None
        self.early = False
        """in a hook that is called before its instruction begins"""
        engine.bind = self._bind
        journal.attach_input(SOURCE, self._deliver)

    # -- what the script does --------------------------------------------------------------------

    @property
    def cpus(self) -> Sequence[ScriptEngine]:
        return (self.engine,)

    @property
    def in_hook(self) -> bool:
        return self._frame is not None or self.engine.running

    def did(self, op: Op) -> None:
        """The script has done this to the machine."""
        if self._frame is not None:
            self._frame.append(op.encode())
        else:
            self._journal.noted(SOURCE, self.engine.icount, op.encode())

    def start(self, begin: int, until: int, count: int) -> None:
        """A run begins, live."""
        self.error = self.ending = None
        self.last_error = 0
        self._stop_asked = False
        self._limit = self.engine.icount + count if count else _NEVER
        op = Op(Kind.START, (begin, until))
        self._perform(op)
        self.did(op)

    def ask_stop(self) -> None:
        """Thread-safe: end the live run before its next instruction."""
        self._stop_asked = True
        self.engine.interrupt()

    def _stop_in_hook(self) -> None:
        self.engine.stop()

    def stop(self) -> None:
        """From within a hook: end the live run."""
        self.engine.stop()
        if self._frame is not None:
            self._frame.append(Op(Kind.STOP).encode())

    def _perform(self, op: Op) -> None:
        if op.kind is Kind.START:
            self.running = True
            self._until = op.fields[1]
            self.engine.begin(*op.fields)
            self._resumed = -1
            self._began = self.engine.icount
        elif op.kind is Kind.END:
            self.running = False
            if self.engine.icount == self._began:
                self._resumed = -1  # in history it is not even begun
        else:
            self.machine.perform(op)

    def _deliver(self, payload: bytes) -> None:
        """An input of history."""
        try:
            for op in decode(payload):
                self._perform(op)
        except ValueError as e:
            raise EngineError(f"an input of the script at icount {self.engine.icount}: {e}") from e

    # -- hooks -----------------------------------------------------------------------------------

    def _bind(self, number: int, early: bool) -> Callable[..., int]:
        """See ``ScriptEngine.bind``: an exception ends the run and is raised behind it."""
        engine, journal, uc = self.engine, self._journal, self.uc
        function, data = self.callbacks.get(number, (_number, None))

        def come_early(told: bool, *args: Any) -> int:
            # What it does enters before the next instruction, as inputs do. After a stop there Unicorn tells again.
            if not journal.recording or (told and self._resumed >= 0):
                return 0
            self.early = True
            try:
                value = function(uc, *args, data)
                return value if type(value) is int else _number(value)
            except BaseException as e:
                return self._raised(e)
            finally:
                self.early = False

        def come_within(*args: Any) -> int:
            try:
                at = (engine.icount or 1) - 1
                last, call = self._call
                call = call + 1 if last == at else 0
                self._call = (at, call)
                if not journal.recording:
                    return self._replay(number, at, call) if journal.replaying else 0
                outer = self._frame
                ops: list[bytes] = []
                self._frame = ops
                try:
                    told = function(uc, *args, data)
                    value = told if type(told) is int else _number(told)
                except BaseException as e:
                    value = self._raised(e)
                self._frame = outer
                if ops or value:
                    for payload in encode_answer(call, number, value, ops):
                        journal.answered(SOURCE, at, payload)
                return value
            except Exception as e:
                self._failure = self._failure or e
                engine.stop()
                return 0

        return come_early if early else come_within

    def _raised(self, error: BaseException) -> int:
        """By a hook of the script's."""
        if self.error is None:
            self.error = error
        self.stop()
        return 0

    def _replay(self, hook: int, at: int, call: int) -> int:
        if call > MAX_CALLS:
            raise EngineError(f"replay diverges at icount {at}: the instruction there does not come to an end")
        value = 0
        while (due := self._journal.next_answer(SOURCE)) is not None and due[0] == at:
            answer = Answer.decode(due[1])
            if (answer.call, answer.hook) != (call, hook):
                break
            self._journal.take_answer()
            for op in decode(answer.ops):
                self._perform(op)
            value = answer.value
            if answer.last:
                break
        return value

    # -- running ---------------------------------------------------------------------------------

    def run_until(self, icount: int) -> Exit:
        """As the engine's. RunOver if the live guest needs the script to go on."""
        self._call = (-1, 0)
        if self._journal.recording:
            return self._run_live(icount)
        if self._journal.replaying and not self.running and icount > self.engine.icount:
            raise EngineError(f"replay diverges at icount {self.engine.icount}: the script's run is over there")
        while self.end is None:
            exit_ = self._run(icount)
            if exit_.kind is not ExitKind.HALT:
                return exit_
            if self._journal.replaying:
                raise EngineError(
                    f"replay diverges at icount {self.engine.icount}: the script's run ends, the recording goes on"
                )
            signal = Signal.SIGILL if self.engine.ended == _ILLEGAL else Signal.SIGSEGV
            self.end = End("signal", signal) if self.engine.ended else End("halt", 0)
        return Exit(ExitKind.LIMIT)

    def _run(self, icount: int) -> Exit:
        engine = self.engine
        while True:
            exit_ = engine.run_until(icount)
            self._resumed = engine.icount
            if self._failure is not None:
                failure, self._failure = self._failure, None
                if isinstance(failure, ValueError):
                    raise EngineError(f"an answer of the script before icount {engine.icount}: {failure}") from failure
                raise failure
            if exit_.kind is not ExitKind.TRAP or exit_.trap is None:
                return exit_
            engine.count_one()
            try:
                self.arch.emulate(engine, exit_.trap, exit_.code, self)
            except IllegalInstruction:
                engine.ended = _ILLEGAL
                return Exit(ExitKind.LIMIT) if engine.icount >= icount else Exit(ExitKind.HALT)

    def _run_live(self, icount: int) -> Exit:
        engine = self.engine
        if self._stop_asked and self.ending is None:
            # Between two slices of the run: the interrupt may have been cleared since.
            self.ending = 0
        if self.ending is not None:
            self._finish()
        if not self.running:
            raise RunOver
        exit_ = self._run(min(icount, self._limit))
        if engine.ended is not None:
            self.ending = engine.ended
        elif (exit_.kind is ExitKind.LIMIT and engine.icount >= self._limit) or (
            exit_.kind is ExitKind.INTERRUPT and self._stop_asked
        ):
            self.ending = 0
        if self.ending is None or exit_.kind is ExitKind.WATCHPOINT:
            return exit_
        if engine.icount >= icount:
            return Exit(ExitKind.LIMIT)
        self._finish()
        raise RunOver

    def finish(self) -> None:
        """The live run does not go on, whatever ended it."""
        if self.running:
            self._finish()

    def _finish(self) -> None:
        """The run is over, for history as well."""
        op = Op(Kind.END, (self.ending or 0,))
        self._perform(op)
        self.did(op)
        self.last_error, self.ending = self.ending or 0, None

    def entropy(self, length: int) -> bytes:
        return self._journal.entropy("cpu", length)

    def virtual_ns(self) -> int:
        """One nanosecond an instruction."""
        return self.engine.icount

    # -- state -----------------------------------------------------------------------------------

    def resurrect(self) -> None:
        self.end = None

    def save_devices(self) -> bytes:
        told = self._resumed == self.engine.icount
        return _STATE.pack(_VERSION, self.running, told, self._until) + self.machine.layout.encode()

    def load_devices(self, state: bytes) -> None:
        """ValueError if the bytes are not what ``save_devices`` returns; EngineError if the machine cannot be made."""
        if len(state) < _STATE.size or state[0] != _VERSION:
            raise ValueError(f"a script's machine: expected state version {_VERSION}")
        _, running, told, until = _STATE.unpack_from(state)
        self.machine.become(Layout.decode(state[_STATE.size :]))
        self.running = bool(running)
        self._until = until
        self.engine.set_until(until)
        self.end = None
        self._resumed = self.engine.icount if told else -1
