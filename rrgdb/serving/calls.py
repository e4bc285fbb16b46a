"""The engine thread, which owns the debuggee, and the door to it from trio."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

import trio

from rrgdb.errors import one_line

log = logging.getLogger("rrgdb.rsp")

_T = TypeVar("_T")
INSIST_SECONDS = 0.02
"""how often an interrupt is repeated until the running call has returned"""
IN_PLACE_SECONDS = 0.001
"""how long trio waits for a call and does nothing else: most are over in less, and to be told of the end by trio's own
means takes longer than they do"""


def tell(token: trio.lowlevel.TrioToken, function: Callable[[], object]) -> None:
    """Thread-safe: call ``function`` soon on trio's thread. Nothing happens if that run of trio has ended: nobody is
    there then who waits for it, and a thread cannot know beforehand."""
    with suppress(trio.RunFinishedError):
        token.run_sync_soon(function)


class Again(BaseException):
    """A call cannot be finished now; it is to be made once more later. For ``CallQueue.serve`` alone."""


class _Call(Generic[_T]):
    """One call on its way; ``done`` is set on trio's side once ``result`` or ``error`` is there."""

    def __init__(self, function: Callable[[], _T], token: trio.lowlevel.TrioToken) -> None:
        self.function = function
        self.token = token
        self.done = trio.Event()
        self.error: BaseException | None = None
        self.result: list[_T] = []
        self._running = threading.Lock()
        self._running.acquire()
        self._lock = threading.Lock()
        self._over = False
        self._told = False

    def run(self) -> None:
        """``Again`` from the function leaves the call as it is."""
        try:
            self.result.append(self.function())
        except Again:
            raise
        except BaseException as error:  # carried over to the caller, whatever it is
            self.error = error
        with self._lock:
            self._over = True
            told = self._told
        self._running.release()
        if told:
            tell(self.token, self.done.set)

    def wait_in_place(self) -> None:
        """On trio's thread: ``done`` is set if the call is over in a moment, or it will be."""
        self._running.acquire(timeout=IN_PLACE_SECONDS)
        with self._lock:
            self._told = not self._over
        if not self._told:
            self.done.set()


class _Posted:
    """A call that nobody waits for; it raises nothing."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.run = run


class CallQueue:
    """Calls for the thread that owns the debuggee, one at a time, in order. ``interrupt`` makes the running one return
    early; thread-safe. While that thread waits for a call, trio's may make a brief one itself.

    ``idle`` is what the thread does while no call waits: a live guest without a debugger runs there. It returns after
    how many seconds without a call it wants to be called again (0: at once), and is called with True then; None: not
    before the next call, with False. It too must return soon after ``interrupt``.
    """

    def __init__(
        self, interrupt: Callable[[], None] = lambda: None, idle: Callable[[bool], float | None] | None = None
    ) -> None:
        self._interrupt = interrupt
        self._idle = idle
        self._idling = False
        self._resting = False
        """the serving thread waits for a call; it goes on under ``_lock``"""
        self._asleep = False
        """it waits without asking ``idle`` again"""
        self._moves = 0
        """brief calls that moved the debuggee"""
        self._lock = threading.Lock()
        self._made = 0
        """calls on their way; trio's side alone"""
        self._calls: queue.SimpleQueue[_Call[object] | _Posted | None] = queue.SimpleQueue()
        self._unfinished: _Call[object] | _Posted | None = None

    def serve(self, over: Callable[[], bool]) -> None:
        """Serve calls on the calling thread until ``over``, which is asked after each and after each ``idle``."""
        while not over():
            call, self._unfinished = self._unfinished, None
            call = call or self._next(over)
            if call is None:
                continue
            try:
                call.run()
            except Again:
                self._unfinished = call

    def wake(self) -> None:
        """Thread-safe: let ``serve`` ask ``over`` again."""
        self._calls.put(None)

    def _next(self, over: Callable[[], bool] = lambda: False) -> _Call[object] | _Posted | None:
        quiet = False
        while self._idle is not None:
            with self._lock:
                if not self._calls.empty():
                    break
                self._idling = True
            try:
                pause = self._idle(quiet)
            finally:
                with self._lock:
                    self._idling = False
            if over():
                return None
            if pause is None:
                break
            before = self._moves
            if pause:
                with suppress(queue.Empty):
                    return self._wait(pause)
            quiet = self._moves == before
        return self._wait()

    def _wait(self, seconds: float | None = None) -> _Call[object] | _Posted | None:
        """Raises queue.Empty if no call comes for so long."""
        self._asleep = seconds is None and self._idle is not None
        self._resting = True
        try:
            return self._calls.get(timeout=seconds)
        finally:
            with self._lock:
                self._resting = False

    def _rouse(self) -> bool:
        """Interrupt ``idle`` if it runs, and never a call: that is what the lock is for."""
        with self._lock:
            if self._idling:
                self._interrupt()
            return self._idling

    def post(self, function: Callable[[], None]) -> None:
        """Thread-safe: run ``function``, which raises nothing, on the engine thread in its turn."""
        self._calls.put(_Posted(function))
        self._rouse()

    async def call(self, function: Callable[..., _T], *args: object) -> _T:
        """Run ``function`` on the engine thread and return or raise what it does.

        A cancelled call is interrupted, and still waited for: it never runs on behind the caller's back.
        """
        call: _Call[_T] = _Call(lambda: function(*args), trio.lowlevel.current_trio_token())
        self._made += 1
        self._calls.put(call)  # type: ignore[arg-type]  # the queue does not care what a call returns
        try:
            self._rouse()
            call.wait_in_place()
            while not call.done.is_set() and self._rouse():
                with trio.move_on_after(INSIST_SECONDS):
                    await call.done.wait()
            if not call.done.is_set():
                await call.done.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self.insist(call.done)
            raise
        finally:
            self._made -= 1
        if call.error is not None:
            raise call.error
        return call.result[0]

    async def call_briefly(self, function: Callable[..., _T], *args: object, moves: bool = False) -> _T:
        """The same for a function that takes microseconds: made here and now if the serving thread rests. To wake that
        thread, and this one again, takes longer than most such calls. ``moves``: as a call of that thread, it begins
        what ``idle`` waits for anew."""
        if not self._made:
            with self._lock:
                if self.rests:
                    if moves:
                        self._moves += 1
                        if self._asleep:
                            self._asleep = False
                            self._calls.put(_Posted(lambda: None))
                    return function(*args)
        return await self.call(function, *args)

    @property
    def rests(self) -> bool:
        """No call is on its way, and the serving thread waits for one. On trio's thread."""
        return not self._made and self._resting and self._calls.empty()

    async def insist(self, done: trio.Event) -> None:
        """Interrupt, again and again, until ``done``.

        Once may be lost: the call may be between taking note of its start and running.
        """
        while not done.is_set():
            self._interrupt()
            with trio.move_on_after(INSIST_SECONDS):
                await done.wait()


class EngineThread(CallQueue):
    """A thread of its own for the calls. A context manager; ``close`` waits for the call that runs."""

    def __init__(
        self, interrupt: Callable[[], None] = lambda: None, idle: Callable[[bool], float | None] | None = None
    ) -> None:
        super().__init__(interrupt, None if idle is None else lambda quiet: self._told_idle(idle, quiet))
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    def _told_idle(self, idle: Callable[[bool], float | None], quiet: bool) -> float | None:
        try:
            return idle(quiet)
        except Exception as error:  # calls must still be served
            log.error("%s", one_line(error))
            log.debug("idle", exc_info=error)
            self._idle = None
            return None

    def _loop(self) -> None:
        while (call := self._next()) is not None:
            call.run()

    def close(self) -> None:
        """End the thread after the calls that were made. Idempotent."""
        self._calls.put(None)
        while self._thread.is_alive():
            self._rouse()
            self._thread.join(INSIST_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
