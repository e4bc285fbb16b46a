"""The timeline as a debuggee: what GDB asks for in terms of seek, run and search."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rrgdb.arch.cpu import MemoryFault
from rrgdb.arch.target_xml import target_xml
from rrgdb.engine.base import Engine, EngineError, Stops, Watch, armed
from rrgdb.habits import Habits
from rrgdb.inspection import WATCH_KINDS, MachineParts, PhysicalMemory, Watching
from rrgdb.opening import Opened
from rrgdb.rsp.debuggee import (
    DebuggeeError,
    Faces,
    MemoryRegion,
    RegisterInfo,
    Resume,
    StopReason,
    StopReply,
    ZPoint,
    ZType,
)
from rrgdb.text import shown
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.conditions import agent_condition
from rrgdb.timeline.stop import Condition, Points, Stop, StopKind
from rrgdb.travel import Travel, mode, told

EFAULT = 14
SIGTRAP, SIGINT = 5, 2
NO_SIGNAL = 0
"""of a stop that GDB has no reason for: at any other than SIGTRAP it stops also within a step of its own"""
MAX_READ = 1 << 20
MAX_WATCH = 4096
"""bytes of one watchpoint"""
_WATCH_STOPS = {"w": StopReason.WATCH, "r": StopReason.RWATCH, "a": StopReason.AWATCH}


class Target:
    """Implements ``rrgdb.rsp.debuggee.Debuggee`` on one opened recording.

    ``report_exit``: the guest's end is told as W or X instead of the end of history. ``running``: a live guest that no
    debugger holds runs on its own (see ``idle``). ``strict``: it stops where
    the guest leaves what is modelled, and one that runs on its own is over then.
    """

    def __init__(
        self, opened: Opened, *, report_exit: bool = False, running: bool = False, strict: bool = False
    ) -> None:
        self.opened = opened
        self.timeline = opened.timeline
        self.engine = opened.timeline.engine
        self.arch = self.engine.arch
        self.byteorder = self.arch.byteorder
        self.running = running
        self.on_end: Callable[[], None] = lambda: None
        """called when a guest that ran on its own has ended (``ended_alone``)"""
        self.ended_alone = False
        self._report_exit = report_exit
        self._backward = Backward(self.timeline, opened.workers)
        self._habits = Habits(self.timeline, self._backward)
        self._held = self._left = False
        if strict:
            opened.guest.notices.added = self._leave
        self._points: dict[tuple[ZType, int, int], ZPoint] = {}
        self._watching = Watching(self.timeline)
        self.replay_break: int | None = None
        self.stopped = ""
        self._last = StopReply(StopReason.SIGNAL, SIGTRAP)
        self._registers = tuple(RegisterInfo(r.name, r.bits, r.name in self.arch.expedite) for r in self.arch.registers)
        self._system = tuple(RegisterInfo(r.name, r.bits, False) for r in self.arch.shown_registers)
        self._executable = _executable(opened)
        self._names = {i: r.name for i, r in enumerate(self.arch.registers)}
        self._sizes = {i: (r.name, r.bits + 7 >> 3) for i, r in enumerate(self.arch.registers)}

    # -- description -----------------------------------------------------------------------------

    @property
    def faces(self) -> Faces:
        travel, hardware = Travel(self), self.timeline.guest.hardware
        return Faces(
            time=travel,
            snapshots=travel,
            # A debugger that knows of RAM asks for nothing else, and RAM may be mapped anywhere.
            memory_map=self if self.engine.ram.regions and not self.engine.may_translate else None,
            physical=PhysicalMemory(self.timeline),
            watching=self._watching,
            hardware=None if hardware is None else MachineParts(hardware),
            executable=self if self._executable else None,
        )

    @property
    def registers(self) -> Sequence[RegisterInfo]:
        return self._registers

    @property
    def system_registers(self) -> Sequence[RegisterInfo]:
        return self._system

    def target_xml(self) -> str:
        return target_xml(self.arch)

    def memory_map(self) -> Sequence[MemoryRegion]:
        return [MemoryRegion(r.base, r.size, "ram") for r in self.engine.ram.regions]

    def executable(self) -> str:
        return self._executable

    def threads(self) -> Sequence[int]:
        return range(1, len(self.timeline.guest.cpus) + 1)

    def describe(self, thread: int) -> str:
        which = f"CPU {thread - 1}, " if len(self.threads()) > 1 else ""
        return f"{which}{mode(self.timeline)}, icount {self.timeline.icount}"

    def _cpu(self, thread: int) -> Engine:
        return self.timeline.guest.cpus[thread - 1]

    def _check_writable(self, thread: int) -> None:
        """What a debugger writes is logged without a CPU."""
        if self._cpu(thread) is not self.engine:
            raise DebuggeeError(f"thread {thread}: only what the CPU of thread 1 sees can be written")

    # -- registers and memory --------------------------------------------------------------------

    def read_registers(self, thread: int) -> bytes:
        return self._cpu(thread).read_registers()

    def _size(self, number: int) -> int:
        """Bytes of a register."""
        known = len(self._registers)
        if not 0 <= number < known + len(self._system):
            raise DebuggeeError(f"register {number}: {self.arch.name} has {known + len(self._system)}")
        r = self._registers[number] if number < known else self._system[number - known]
        return r.bits + 7 >> 3

    def read_register(self, thread: int, number: int) -> bytes:
        cpu, known = self._cpu(thread), self._sizes.get(number)
        if known is not None:  # some are asked for at each stop
            name, size = known
            value = cpu.read(name)
        else:
            size, value = self._size(number), self.arch.read_numbered(cpu, number)
        return (value & (1 << 8 * size) - 1).to_bytes(size, self.arch.byteorder)

    def write_register(self, thread: int, number: int, data: bytes) -> None:
        self._check_writable(thread)
        size = self._size(number)
        if len(data) != size:
            raise DebuggeeError(f"register {number}: expected {size} bytes, got {len(data)}")
        value = int.from_bytes(data, self.arch.byteorder)
        if value == self.arch.read_numbered(self.engine, number):
            return
        if not self.arch.is_writable(number):
            raise DebuggeeError(f"{self._system[number - len(self._registers)].name} cannot be written")
        with told():
            self.timeline.write_register(number, value)

    def write_registers(self, thread: int, data: bytes) -> None:
        at = 0
        values: list[tuple[int, bytes]] = []
        for number in range(len(self._registers)):
            size = self._size(number)
            values.append((number, data[at : at + size]))
            at += size
        if at != len(data):
            raise DebuggeeError(f"expected {at} bytes of registers, got {len(data)}")
        values.sort(key=lambda v: self._names[v[0]] not in self.arch.written_first)
        for number, value in values:
            self.write_register(thread, number, value)

    def read_memory(self, thread: int, address: int, length: int) -> bytes:
        try:
            return self._cpu(thread).read_memory(address, min(length, MAX_READ))
        except MemoryFault as e:
            raise DebuggeeError(str(e), EFAULT) from None

    def write_memory(self, thread: int, address: int, data: bytes) -> None:
        self._check_writable(thread)
        try:
            with told():
                self.timeline.write_memory(address, data)
        except MemoryFault as e:
            raise DebuggeeError(str(e), EFAULT) from None

    # -- points ----------------------------------------------------------------------------------

    def insert(self, point: ZPoint) -> None:
        if point.type in WATCH_KINDS:
            if point.length > MAX_WATCH:
                raise DebuggeeError(f"a watchpoint of {point.length} bytes: at most {MAX_WATCH}")
            try:
                with armed(self.engine, Stops(watches=(*self._watches(), self._watch(point)))):
                    pass
            except EngineError as e:
                raise DebuggeeError(str(e)) from None
        self._points[point.type, point.address, point.length] = point

    def remove(self, point: ZPoint) -> None:
        self._points.pop((point.type, point.address, point.length), None)

    def _watch(self, p: ZPoint) -> Watch:
        return Watch(p.address, p.length, WATCH_KINDS[p.type], space=self._watching.space)

    def _watches(self) -> list[Watch]:
        known = (self._watch(p) for p in self._points.values() if p.type in WATCH_KINDS)
        return [*known, *self._watching.physical]

    def _armed(self) -> Points:
        breakpoints: dict[int, Condition | None] = {}
        codes: dict[int, tuple[bytes, ...] | None] = {}
        for p in self._points.values():
            if p.type in WATCH_KINDS or p.address % self.arch.instruction_alignment:
                continue  # no instruction can stand there
            known = codes.get(p.address, ())
            codes[p.address] = None if known is None or not p.conditions else (*known, *p.conditions)
        for address, conditions in codes.items():
            breakpoints[address] = None if conditions is None else agent_condition(self.engine, conditions)
        return Points(breakpoints, tuple(self._watches()), self.replay_break)

    # -- moves -----------------------------------------------------------------------------------

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
        """A step is the machine's next instruction, whichever CPU's it is."""
        if alone:
            raise DebuggeeError("all CPUs run as they did: `set scheduler-locking off`")
        self.timeline.clear_interrupt()
        self._left = False
        points = self._armed()
        with told():
            stop = self._habits.move(how, points, start, end, separately=separately)
        if stop.kind is StopKind.BREAKPOINT and stop.address is not None:
            self._explain(stop.address, points.breakpoints.get(stop.address))
        told_hits = self._watching.told(stop.hits)
        if told_hits:
            self.timeline.say(told_hits)
        self.stopped = "; ".join(told_hits.splitlines())
        self._last = self._told_stop(stop)
        return self._last

    @property
    def steps_at_once(self) -> bool:
        """In history, where answers and inputs are in the log. A watch may have to be told from before its access."""
        return self.timeline.in_history and not self._watches()

    def _explain(self, address: int, condition: Condition | None) -> None:
        """Tell why a breakpoint has stopped whose condition cannot be evaluated."""
        failure = condition.failure() if condition is not None else None
        if failure is not None:
            self.timeline.say(f"breakpoint at {address:#x}: its condition cannot be evaluated: {failure}\n")

    def _told_stop(self, stop: Stop) -> StopReply:
        kind = stop.kind
        if kind is StopKind.BREAKPOINT and stop.address is not None:
            software = any(p.type is ZType.SOFTWARE and p.address == stop.address for p in self._points.values())
            return StopReply(StopReason.SWBREAK if software else StopReason.HWBREAK, SIGTRAP)
        if kind is StopKind.WATCHPOINT:
            told = [(_WATCH_STOPS[hit.kind], hit.place) for hit in stop.hits if not hit.hidden]
            if not told:
                return StopReply(StopReason.SIGNAL, NO_SIGNAL)
            return StopReply(told[0][0], SIGTRAP, told[0][1], also=tuple(told[1:]))
        if kind is StopKind.SIGNAL:
            return StopReply(StopReason.SIGNAL, stop.value)
        if kind is StopKind.HISTORY_BEGIN:
            return StopReply(StopReason.HISTORY_BEGIN, SIGTRAP)
        if kind in (StopKind.EXIT, StopKind.HISTORY_END):
            return self._told_end()
        if kind is StopKind.INTERRUPT:
            return StopReply(StopReason.INTERRUPT, SIGINT)
        return StopReply(StopReason.STEP, SIGTRAP)

    def _told_end(self) -> StopReply:
        end = self.timeline.guest.end
        if self._report_exit and end is not None:
            if end.kind == "signal":
                return StopReply(StopReason.TERMINATED, end.value)
            return StopReply(StopReason.EXITED, status=end.value)
        return StopReply(StopReason.HISTORY_END, SIGTRAP)

    def last_stop(self) -> StopReply:
        return self._last

    def interrupt(self) -> None:
        self.timeline.interrupt()

    def attached(self, console: Callable[[str], None]) -> None:
        self.timeline.say = lambda text: console(shown(text.rstrip("\n")) + "\n")
        self._held = self.timeline.forward.debugged = True
        if self.running:
            self.running = False
            self._last = StopReply(StopReason.INTERRUPT, SIGINT)

    def detached(self, *, resume: bool) -> None:
        self._points.clear()
        self._watching.forget()
        self._habits.forget()
        self.replay_break = None
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
        if stop.kind in (StopKind.EXIT, StopKind.SIGNAL, StopKind.HISTORY_END) or self._left:
            self._last = self._told_stop(stop)
            self.running = False
            self.ended_alone = True
            self.on_end()
        return 0.0 if self.running else None

    def _leave(self) -> None:
        self._left = True
        self.timeline.interrupt()

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

    def go(self, icount: int) -> StopReply:
        """Seek; the debugger is told of no hit on the way."""
        self.timeline.clear_interrupt()
        self._habits.forget()
        self.stopped = ""
        with told():
            self.timeline.seek(icount)
        interrupted = self.timeline.interrupted
        self.timeline.clear_interrupt()
        self._last = StopReply(StopReason.INTERRUPT, SIGINT) if interrupted else StopReply(StopReason.STEP, SIGTRAP)
        return self._last


QUIET = 0.02
"""seconds without a call after which rrgdb prepares for the next steps back"""
IDLE_STEPS = 1_000_000
"""instructions that a guest without a debugger runs between two looks at the queue of calls"""


def _executable(opened: Opened) -> str:
    """Absolute path of the program's ELF file; '' if the guest's first image is none."""
    for kernel in opened.recording.manifest.guest.images[:1]:
        if kernel.load_address is None:
            return str(opened.recording.image_path(kernel.name).resolve())
    return ""
