"""``rrgdb.attach``: a script that drives Unicorn gets a recording, the GDB server and the way back.

The script's thread is the engine thread: debuggers are served while the script is in ``emu_start``, and at its end.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rrgdb import opening
from rrgdb.api import Recording
from rrgdb.arch import ARCHES
from rrgdb.engine.base import EngineError
from rrgdb.engine.unicorn import recorded, scripted
from rrgdb.opening import Opened
from rrgdb.recording.directory import default_path
from rrgdb.rsp.address import parse_address
from rrgdb.rsp.background import Background
from rrgdb.rsp.debuggee import Resume, StopReason, StopReply
from rrgdb.script.guest import RunOver, ScriptGuest
from rrgdb.script.machine import Hook
from rrgdb.script.ops import MAX_DATA, Kind, Op
from rrgdb.serving.calls import Again, CallQueue
from rrgdb.target import Target
from rrgdb.text import shown
from rrgdb.timeline.stop import Stop, StopKind

MEMORY = 1 << 30
"""bytes that a script can map altogether, unless it says otherwise"""


class _ScriptTarget(Target):
    """A resume that needs the script to go on is made again in the script's next run."""

    def __init__(self, opened: Opened, *, running: bool) -> None:
        super().__init__(opened, running=running)
        self.final = False
        """the script is over: nothing runs on"""
        self._moved = False

    def resume(
        self,
        how: Resume,
        start: int = 0,
        end: int = 0,
        *,
        thread: int = 1,
        alone: bool = False,
        separately: bool = False,
    ) -> StopReply:
        if self._moved:
            self._moved = False
            self.timeline.stop_where_it_starts()
        try:
            return super().resume(how, start, end, thread=thread, alone=alone, separately=separately)
        except RunOver:
            if not self.final:
                self._moved = True
                raise Again from None
            self._last = StopReply(StopReason.HISTORY_END)
            return self._last

    def kill(self) -> None:
        """The script goes on without a debugger."""
        self.running = True


class _History(Recording):
    """A recording that is still being made: it ends at the present, which only the script moves."""

    def step(self, count: int = 1) -> Stop:
        return self._forward(lambda: super(_History, self).step(count))

    def cont(
        self,
        breakpoints: Iterable[int] = (),
        watch: Iterable[tuple[int, int]] = (),
        watch_physical: Iterable[tuple[int, int]] = (),
    ) -> Stop:
        return self._forward(lambda: super(_History, self).cont(breakpoints, watch, watch_physical))

    def _forward(self, move: Callable[[], Stop]) -> Stop:
        try:
            return move()
        except RunOver:
            return Stop(StopKind.HISTORY_END, self.icount)

    def close(self) -> None:
        """Nothing: the session closes it."""


class Session:
    """A recording in the making. Use it as a context manager, or leave the end to the end of the script.

    ``path``: the recording. ``history``: the recording so far, as ``rrgdb.open`` gives it; whatever the script does to
    the machine next is done at the present.
    """

    def __init__(self, uc: Any, path: Path, memory: int, address: str | None) -> None:
        recorded.fresh(uc)
        arch = scripted.family_of(uc, ARCHES.values())
        if memory <= 0 or memory % 4096:
            raise EngineError(f"rrgdb.attach: memory={memory}: expected a positive multiple of 4096 bytes")
        where = None if address is None else parse_address(address)
        self.uc = uc
        self._plain = scripted.same_handle(uc)
        before = [(b, e - b + 1, p, bytes(self._plain.mem_read(b, e - b + 1))) for b, e, p in self._plain.mem_regions()]
        if sum(size for _, size, _, _ in before) > memory:
            raise EngineError(
                f"rrgdb.attach: the Uc has more than {memory} bytes of memory: rrgdb.attach(uc, memory=…)"
            )
        self.path = path
        self._opened = opening.record_script(path, self._plain, arch, memory, say=_say)
        assert isinstance(self._opened.guest, ScriptGuest)
        self._guest = self._opened.guest
        self._engine = self._guest.machine.engine
        self._memory = self._engine.ram.view()
        """keeps what the script mapped, as long as it can read it"""
        self._timeline = self._opened.timeline
        self._guest.uc = uc
        self._numbers = 0
        self._thread = threading.get_ident()
        self._guest.did(Op(Kind.CONTEXT, (), self._engine.save_context()))
        for base, size, _, _ in before:
            self._plain.mem_unmap(base, size)
        for base, size, perms, data in before:
            self.map(base, size, perms)
            self.write_memory(base, data)
        self._target = _ScriptTarget(self._opened, running=where is None)
        self._calls = CallQueue(self._target.interrupt, self._idle)
        self.history: Recording = _History(self._opened)
        recorded.record(uc, self)
        self._server: Background | None = None
        try:
            if where is not None:
                self._server = Background(self._target, where, self._calls)
                _say(f"{self._server.name}; the script waits there for a debugger")
        except BaseException:
            self.close()
            raise
        atexit.register(self.close)

    @property
    def icount(self) -> int:
        """The present position: attempts at instructions so far."""
        return self._timeline.icount

    # -- runs ------------------------------------------------------------------------------------

    def run(self, begin: int, until: int, timeout: int, count: int) -> None:
        """``emu_start``; ``timeout`` in microseconds."""
        if self._guest.in_hook:
            raise EngineError("emu_start: not inside a hook: rrgdb does not record a run within a run")
        self.check("emu_start")
        guest = self._guest
        guest.start(begin, until, count)
        timer = threading.Timer(timeout / 1e6, guest.ask_stop) if timeout else None
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            self._calls.serve(lambda: not guest.running and self._timeline.at_present)
        finally:
            if timer is not None:
                timer.cancel()
            self._to_present()
            guest.finish()
        recorder = self._timeline.recorder
        if recorder is not None:
            recorder.slice_done()
        if guest.error is not None:
            error, guest.error = guest.error, None
            raise error
        if guest.last_error:
            raise scripted.UcError(guest.last_error)

    def _idle(self, quiet: bool) -> float | None:
        if self._server is not None and not self._server.alive:
            self._target.running = True
        try:
            return self._target.idle(quiet)
        except RunOver:
            return 0.0

    def stop(self) -> None:
        if threading.get_ident() != self._thread:
            self._guest.ask_stop()
        elif self._guest.in_hook:
            self._guest.stop()

    def _to_present(self) -> None:
        t = self._timeline
        t.drop_diversion()
        if not t.at_present:
            t.seek_regardless(t.end)

    # -- what the script does: see ``rrgdb.engine.unicorn.recorded.Scribe`` --------------------------------

    def check(self, what: str) -> None:
        if self._opened.closed:
            raise EngineError(f"{what}: the recording is closed")
        if threading.get_ident() != self._thread:
            raise EngineError(f"{what}: only the thread that attached can use the Uc (emu_stop excepted)")
        if not self._guest.in_hook:
            self._to_present()

    def wrote_register(self, number: int, value: bytes) -> None:
        self._engine.wrote_register(number)
        self._guest.did(Op(Kind.REGISTER, (number,), value))

    def write_memory(self, address: int, data: bytes) -> None:
        if any(d.base < address + len(data) and address < d.base + d.size for d in self._guest.machine.layout.devices):
            raise EngineError(f"mem_write: {address:#x} belongs to a device of mmio_map: rrgdb does not record that")
        self._plain.mem_write(address, data)
        self._engine.wrote_memory(address, len(data))
        if self._guest.early and self._engine.watches(address, len(data)):
            self._engine.rearm()
        for at in range(0, len(data), MAX_DATA):
            self._guest.did(Op(Kind.WRITE, (address + at,), data[at : at + MAX_DATA]))

    def map(self, address: int, size: int, perms: int) -> None:
        offset = self._engine.place(size)
        self._guest.machine.map(address, size, perms, offset)
        self._guest.did(Op(Kind.MAP, (address, size, perms, offset)))

    def unmap(self, address: int, size: int) -> None:
        self._guest.machine.unmap(address, size)
        self._guest.did(Op(Kind.UNMAP, (address, size)))

    def protect(self, address: int, size: int, perms: int) -> None:
        self._guest.machine.protect(address, size, perms)
        self._guest.did(Op(Kind.PROTECT, (address, size, perms)))

    def _hook(self, callback: Callable[..., Any] | None, data: Any) -> int:
        if callback is None:
            return 0
        self._numbers += 1
        self._guest.callbacks[self._numbers] = (callback, data)
        return self._numbers

    def map_device(self, address: int, size: int, read: Any, read_data: Any, write: Any, write_data: Any) -> None:
        device = (address, size, self._hook(read, read_data), self._hook(write, write_data))
        self._guest.machine.map_device(*device)
        self._guest.did(Op(Kind.DEVICE, device))

    def add_hook(self, kind: int, callback: Any, data: Any, begin: int, end: int, aux1: int, aux2: int) -> int:
        mask = (1 << 64) - 1
        number = self._hook(callback, data)
        hook = Hook(number, kind, begin & mask, end & mask, aux1, aux2)
        self._guest.machine.add_hook(hook)
        self._guest.did(Op(Kind.HOOK, hook))
        return number

    def delete_hook(self, handle: int) -> None:
        self._guest.machine.delete_hook(handle)
        self._guest.did(Op(Kind.UNHOOK, (handle,)))

    def context_restored(self) -> None:
        self._engine.context_restored()
        self._guest.did(Op(Kind.CONTEXT, (), self._engine.save_context()))

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Serve the debugger that is attached until it leaves, and finish the recording. The Uc can only be read then.
        Idempotent."""
        if self._opened.closed:
            return
        atexit.unregister(self.close)
        with contextlib.ExitStack() as stack:
            stack.callback(self._opened.close)
            server = self._server
            if server is not None:
                self._target.final = True
                server.finish()
                self._calls.serve(lambda: not server.alive)
            self._to_present()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _say(line: str) -> None:
    print(f"rrgdb: {shown(line)}", file=sys.stderr, flush=True)


def attach(
    uc: Any, path: str | os.PathLike[str] | None = None, *, serve: str | None = None, memory: int = MEMORY
) -> Session:
    """Record everything that a script does with ``uc``, a ``unicorn.Uc`` without hooks, from here on.

    ``path``: the new recording (default: the script's name with ``.rrgdb``, here). ``serve``: where a debugger may
    connect, as ``--gdb`` takes it (``":1234"``): the first ``emu_start`` then waits for one. ``memory``: bytes that
    the script can map altogether.

    Raises EngineError, AddressError, OSError, RecordingError, StoreError: one line each.
    """
    name = Path(sys.argv[0] or "script").name
    return Session(uc, Path(path) if path is not None else default_path(name, Path.cwd()), memory, serve)
