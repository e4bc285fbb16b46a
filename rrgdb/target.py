"""The timeline as a debuggee: what GDB asks for in terms of seek, run and search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rrgdb.arch.base import MemoryFault
from rrgdb.arch.disassemble import disassemble
from rrgdb.arch.target_xml import target_xml
from rrgdb.engine.base import EngineError, Stops, Watch, armed
from rrgdb.habits import Habits
from rrgdb.opening import Opened
from rrgdb.recording.door import Divergence
from rrgdb.recording.log import LogError
from rrgdb.rsp import debuggee as rsp
from rrgdb.rsp.debuggee import DebuggeeError, Point, PointKind, Resume
from rrgdb.snapshots import naming
from rrgdb.snapshots.entries import Stored
from rrgdb.snapshots.errors import StoreError
from rrgdb.snapshots.naming import START
from rrgdb.text import shown
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.conditions import agent_condition
from rrgdb.timeline.stop import Condition, Points, Stop, StopKind
from rrgdb.timeline.timeline import TimelineError

EFAULT, EEXIST, ENOENT, EBUSY, EIO = 14, 17, 2, 16, 5
SIGTRAP, SIGINT = 5, 2
MAX_HISTORY = 10_000
MAX_READ = 1 << 20
MAX_WATCH = 4096
"""bytes of one watchpoint"""
_WATCH_KINDS = {PointKind.WRITE: "w", PointKind.READ: "r", PointKind.ACCESS: "a"}
_WATCH_STOPS = {"w": rsp.StopKind.WATCH, "r": rsp.StopKind.RWATCH, "a": rsp.StopKind.AWATCH}
# x87: the stack registers are relative to the top that fstat holds, so it goes first.
_WRITE_FIRST = ("fctrl", "fstat", "ftag")


class Target:
    """Implements ``rrgdb.rsp.debuggee.Debuggee`` on one opened recording.

    ``report_exit``: the guest's end is told as W or X instead of the end of history. ``running``: a live guest that no
    debugger holds runs on its own (see ``idle``).
    """

    def __init__(self, opened: Opened, *, report_exit: bool = False, running: bool = False) -> None:
        self.opened = opened
        self.timeline = opened.timeline
        self.engine = opened.timeline.engine
        self.arch = self.engine.arch
        self.running = running
        self.on_end: Callable[[], None] = lambda: None
        """called when a guest that ran on its own has ended (``ended_alone``)"""
        self.ended_alone = False
        self._report_exit = report_exit
        self._backward = Backward(self.timeline, opened.workers)
        self._habits = Habits(self.timeline, self._backward)
        self._held = False
        self._points: dict[tuple[PointKind, int, int], Point] = {}
        self._replay_break: int | None = None
        self._last = rsp.Stop(rsp.StopKind.SIGNAL, SIGTRAP)
        self._registers = tuple(
            rsp.RegisterInfo(r.name, r.bits, r.name in self.arch.expedite) for r in self.arch.registers
        )
        self._names = {i: r.name for i, r in enumerate(self.arch.registers)}

    # -- description -----------------------------------------------------------------------------

    @property
    def registers(self) -> Sequence[rsp.RegisterInfo]:
        return self._registers

    def target_xml(self) -> str:
        return target_xml(self.arch)

    def memory_map(self) -> Sequence[rsp.MemoryRegion]:
        return [rsp.MemoryRegion(r.base, r.size, "ram") for r in self.engine.ram.regions]

    def executable(self) -> str:
        for kernel in self.opened.recording.manifest.guest.images[:1]:
            if kernel.load_address is None:
                return str(self.opened.recording.image_path(kernel.name).resolve())
        return ""

    # -- registers and memory --------------------------------------------------------------------

    def read_registers(self) -> bytes:
        return self.engine.read_registers()

    def _register(self, number: int) -> tuple[str, int]:
        if not 0 <= number < len(self._registers):
            raise DebuggeeError(f"register {number}: {self.arch.name} has {len(self._registers)}")
        r = self.arch.registers[number]
        return r.name, r.bits + 7 >> 3

    def read_register(self, number: int) -> bytes:
        name, size = self._register(number)
        return self.engine.read(name).to_bytes(size, "little")

    def write_register(self, number: int, data: bytes) -> None:
        name, size = self._register(number)
        if len(data) != size:
            raise DebuggeeError(f"register {name}: expected {size} bytes, got {len(data)}")
        value = int.from_bytes(data, "little")
        if value != self.engine.read(name):
            with _told():
                self.timeline.write_register(number, value)

    def write_registers(self, data: bytes) -> None:
        at = 0
        values: list[tuple[int, bytes]] = []
        for number in range(len(self._registers)):
            _, size = self._register(number)
            values.append((number, data[at : at + size]))
            at += size
        if at != len(data):
            raise DebuggeeError(f"expected {at} bytes of registers, got {len(data)}")
        values.sort(key=lambda v: self._names[v[0]] not in _WRITE_FIRST)
        for number, value in values:
            self.write_register(number, value)

    def read_memory(self, address: int, length: int) -> bytes:
        try:
            return self.engine.read_memory(address, min(length, MAX_READ))
        except MemoryFault as e:
            raise DebuggeeError(str(e), EFAULT) from None

    def write_memory(self, address: int, data: bytes) -> None:
        try:
            with _told():
                self.timeline.write_memory(address, data)
        except MemoryFault as e:
            raise DebuggeeError(str(e), EFAULT) from None

    # -- points ----------------------------------------------------------------------------------

    def insert(self, point: Point) -> None:
        if point.kind in _WATCH_KINDS:
            if point.length > MAX_WATCH:
                raise DebuggeeError(f"a watchpoint of {point.length} bytes: at most {MAX_WATCH}")
            try:
                with armed(self.engine, Stops(watches=(*self._watches(), self._watch(point)))):
                    pass
            except EngineError as e:
                raise DebuggeeError(str(e)) from None
        self._points[point.kind, point.address, point.length] = point

    def remove(self, point: Point) -> None:
        self._points.pop((point.kind, point.address, point.length), None)

    def _watch(self, p: Point) -> Watch:
        return Watch(p.address, p.length, _WATCH_KINDS[p.kind])

    def _watches(self) -> list[Watch]:
        return [self._watch(p) for p in self._points.values() if p.kind in _WATCH_KINDS]

    def _armed(self) -> Points:
        breakpoints: dict[int, Condition | None] = {}
        codes: dict[int, tuple[bytes, ...] | None] = {}
        for p in self._points.values():
            if p.kind in _WATCH_KINDS or p.address % self.arch.instruction_alignment:
                continue  # no instruction can stand there
            known = codes.get(p.address, ())
            codes[p.address] = None if known is None or not p.conditions else (*known, *p.conditions)
        for address, conditions in codes.items():
            breakpoints[address] = None if conditions is None else agent_condition(self.engine, conditions)
        return Points(breakpoints, tuple(self._watches()), self._replay_break)

    # -- moves -----------------------------------------------------------------------------------

    def resume(self, how: Resume, start: int = 0, end: int = 0, *, separately: bool = False) -> rsp.Stop:
        self.timeline.clear_interrupt()
        points = self._armed()
        with _told():
            stop = self._habits.move(how, points, start, end, separately=separately)
        if stop.kind is StopKind.BREAKPOINT and stop.address is not None:
            self._explain(stop.address, points.breakpoints.get(stop.address))
        self._last = self._told_stop(stop)
        return self._last

    def _explain(self, address: int, condition: Condition | None) -> None:
        """Tell why a breakpoint has stopped whose condition cannot be evaluated."""
        failure = condition.failure() if condition is not None else None
        if failure is not None:
            self.timeline.say(f"breakpoint at {address:#x}: its condition cannot be evaluated: {failure}\n")

    def _told_stop(self, stop: Stop) -> rsp.Stop:
        kind = stop.kind
        if kind is StopKind.BREAKPOINT and stop.address is not None:
            software = any(p.kind is PointKind.SOFTWARE and p.address == stop.address for p in self._points.values())
            return rsp.Stop(rsp.StopKind.SWBREAK if software else rsp.StopKind.HWBREAK, SIGTRAP)
        if kind is StopKind.WATCHPOINT:
            told = [(_WATCH_STOPS[hit.kind], hit.place) for hit in stop.hits]
            return rsp.Stop(told[0][0], SIGTRAP, told[0][1], also=tuple(told[1:]))
        if kind is StopKind.SIGNAL:
            return rsp.Stop(rsp.StopKind.SIGNAL, stop.value)
        if kind is StopKind.HISTORY_BEGIN:
            return rsp.Stop(rsp.StopKind.HISTORY_BEGIN, SIGTRAP)
        if kind in (StopKind.EXIT, StopKind.HISTORY_END):
            return self._told_end()
        if kind is StopKind.INTERRUPT:
            return rsp.Stop(rsp.StopKind.INTERRUPT, SIGINT)
        return rsp.Stop(rsp.StopKind.STEP, SIGTRAP)

    def _told_end(self) -> rsp.Stop:
        end = self.timeline.guest.end
        if self._report_exit and end is not None:
            if end.kind == "signal":
                return rsp.Stop(rsp.StopKind.TERMINATED, end.value)
            return rsp.Stop(rsp.StopKind.EXITED, status=end.value)
        return rsp.Stop(rsp.StopKind.HISTORY_END, SIGTRAP)

    def last_stop(self) -> rsp.Stop:
        return self._last

    def interrupt(self) -> None:
        self.timeline.interrupt()

    def attached(self, console: Callable[[str], None]) -> None:
        self.timeline.say = lambda text: console(shown(text.rstrip("\n")) + "\n")
        self._held = self.timeline.forward.debugged = True
        if self.running:
            self.running = False
            self._last = rsp.Stop(rsp.StopKind.INTERRUPT, SIGINT)

    def detached(self, *, resume: bool) -> None:
        self._points.clear()
        self._habits.forget()
        self._replay_break = None
        self.timeline.say = lambda _text: None
        self._held = self.timeline.forward.debugged = False
        if resume and self.timeline.live:
            self.running = True

    def idle(self, quiet: bool) -> float | None:
        """Run a live guest that nobody holds, for a moment; or prepare for steps back while a debugger thinks.

        See ``EngineThread`` for ``quiet`` and what it returns."""
        if not self.running:
            return self._prepare(quiet)
        self.timeline.clear_interrupt()
        stop = self.timeline.run(Points({}), steps=IDLE_STEPS)
        if stop.kind in (StopKind.EXIT, StopKind.SIGNAL, StopKind.HISTORY_END):
            self._last = self._told_stop(stop)
            self.running = False
            self.ended_alone = True
            self.on_end()
        return 0.0 if self.running else None

    def _prepare(self, quiet: bool) -> float | None:
        preparation = self._backward.preparation
        if not self._held or not preparation.due:
            return None
        if quiet:
            self.timeline.clear_interrupt()
            preparation.work()
            self.timeline.clear_interrupt()
        return QUIET

    def kill(self) -> None:
        self.running = False

    def restart(self) -> rsp.Stop:
        return self.seek(START)

    # -- time ------------------------------------------------------------------------------------

    def replay_info(self) -> rsp.ReplayInfo:
        t = self.timeline
        mode = "diversion" if t.diverted_from is not None else "record" if t.at_present else "replay"
        return rsp.ReplayInfo(mode, t.icount, t.start, t.end, shown(str(self.opened.recording.path)), t.diverted_from)

    def _go(self, icount: int) -> rsp.Stop:
        self.timeline.clear_interrupt()
        self._habits.forget()
        with _told():
            self.timeline.seek(icount)
        interrupted = self.timeline.interrupted
        self.timeline.clear_interrupt()
        self._last = rsp.Stop(rsp.StopKind.INTERRUPT, SIGINT) if interrupted else rsp.Stop(rsp.StopKind.STEP, SIGTRAP)
        return self._last

    def seek(self, where: str) -> rsp.Stop:
        t = self.timeline
        if where == START:
            return self._go(t.start)
        if where == "end":
            return self._go(t.end)
        stored = self._find(where)
        if stored is not None:
            return self._go(stored.icount)
        try:
            icount = int(where, 0)
        except ValueError:
            raise DebuggeeError(f"{where}: expected an icount, start, end, or the name of a snapshot", ENOENT) from None
        return self._go(icount)

    def seek_relative(self, delta: int) -> rsp.Stop:
        t = self.timeline
        here = t.icount if t.diverted_from is None else t.diverted_from
        return self._go(max(t.start, min(t.end, here + delta)))

    def history(self, count: int) -> Sequence[rsp.HistoryLine]:
        t = self.timeline
        if t.diverted_from is not None:
            raise DebuggeeError("a diversion has no history: go back to the recording first", EBUSY)
        here = t.icount
        first = max(t.start, here - min(count, MAX_HISTORY))
        lines: list[rsp.HistoryLine] = []
        t.clear_interrupt()
        with _told():
            t.seek(first)
            while t.icount < here and not t.interrupted:
                pc = self.engine.pc
                code = self._bytes_at(pc, self.arch.max_instruction_length)
                size, text = disassemble(self.arch, code, pc, self.arch.in_second_set(self.engine))
                lines.append(rsp.HistoryLine(t.icount, pc, f"{code[:size].hex()}  {text}"))
                t.advance(t.icount + 1)
            t.clear_interrupt()
            t.seek(here)
        return lines

    def _bytes_at(self, address: int, length: int) -> bytes:
        try:
            return self.engine.read_memory(address, length)
        except MemoryFault:
            return b""

    # -- snapshots and events --------------------------------------------------------------------

    def _find(self, name: str) -> Stored | None:
        stored = self.timeline.marks.stored
        return next((s for s in stored if s.name == name), None) or next(
            (s for s in stored if shown(s.name) == name), None
        )

    def save_snapshot(self, name: str) -> None:
        problem = naming.problem(name)
        if problem is not None:
            raise DebuggeeError(problem, EEXIST)
        t = self.timeline
        if t.diverted_from is not None:
            raise DebuggeeError("a diversion is thrown away: it takes no snapshots", EBUSY)
        with _told():
            if t.at_present and t.recorder is not None and t.guest.end is None:
                t.recorder.close_chunk()
            old = self._find(name)
            if old is not None:
                t.marks.delete_snapshot(old)
            t.marks.take_snapshot(name)
            t.marks.flush()

    def load_snapshot(self, name: str) -> rsp.Stop:
        return self._go(self._known(name).icount)

    def delete_snapshot(self, name: str) -> None:
        stored = self._known(name)
        with _told():
            self.timeline.marks.delete_snapshot(stored)
            self.timeline.marks.flush()

    def _known(self, name: str) -> Stored:
        stored = self._find(name)
        if stored is None:
            raise DebuggeeError(f"there is no snapshot {name}", ENOENT)
        return stored

    def snapshots(self) -> Sequence[rsp.SnapshotInfo]:
        sizes = self.timeline.marks.sizes(lambda line: self.timeline.say(f"{line}\n"))
        return [rsp.SnapshotInfo(shown(s.name), s.icount, sizes[s.id], s.automatic) for s in self.timeline.marks.stored]

    def events(self, limit: int) -> Sequence[rsp.EventInfo]:
        log, here = self.timeline.log, self.timeline.icount
        found = []
        for events in (log.answers, log.inputs, log.digests):
            first = events.index_at(here)
            found += [
                rsp.EventInfo(e.icount, f"{e.kind.name.lower()} {shown(e.source)}", len(e.payload))
                for e in events[first : first + limit]
            ]
        if log.end is not None:
            found.append(rsp.EventInfo(log.end.icount, "end", len(log.end.payload)))
        return sorted(found, key=lambda e: e.icount)[:limit]

    def replay_break(self, icount: int) -> None:
        self._replay_break = icount

    def replay_delete_break(self) -> None:
        self._replay_break = None


QUIET = 0.02
"""seconds without a call after which rrgdb prepares for the next steps back"""
IDLE_STEPS = 1_000_000
"""instructions that a guest without a debugger runs between two looks at the queue of calls"""


@contextmanager
def _told() -> Iterator[None]:
    """What the timeline cannot do, in the debugger's terms."""
    try:
        yield
    except (TimelineError, EngineError, StoreError, LogError, Divergence) as e:
        raise DebuggeeError(shown(str(e)), EIO) from e
