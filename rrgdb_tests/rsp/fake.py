"""A deterministic machine whose every state is a function of the icount: a RISC-V loop that counts in memory.

80000000: addi a0, a0, 1
80000004: sw   a0, 0(a1)      (a1 = 80001000)
80000008: j    80000000

``TwoCpus`` has a second CPU, in the same loop at 80000100 with a1 = 80001100; they take turns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

from rrgdb.agent.evaluate import judge
from rrgdb.rsp.debuggee import (
    BusArea,
    DebuggeeError,
    EventInfo,
    Faces,
    HistoryLine,
    MemoryRegion,
    PhysicalWatch,
    RegisterInfo,
    ReplayInfo,
    Resume,
    SnapshotInfo,
    StopReason,
    StopReply,
    Translated,
    ZPoint,
    ZType,
)

BASE = 0x8000_0000
SIZE = 0x1_0000
COUNTER = BASE + 0x1000
BETWEEN = 0x100
"""bytes from what belongs to one CPU to what belongs to the next"""
CODE = bytes.fromhex("1305150023a0a5006ff09fff")
TEXTS = ("addi a0, a0, 1", "sw a0, 0(a1)", "j 0x80000000")
NAMES = ("zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "fp", "s1", *(f"a{n}" for n in range(8)),
         *(f"s{n}" for n in range(2, 12)), "t3", "t4", "t5", "t6", "pc")  # fmt: skip
A0, A1, SP, PC, MCAUSE = 10, 11, 2, 32, 33
FOREVER = 1 << 62

_WATCH_STOPS = {ZType.WRITE: StopReason.WATCH, ZType.ACCESS: StopReason.AWATCH}
_BREAK_STOPS = {ZType.SOFTWARE: StopReason.SWBREAK, ZType.HARDWARE: StopReason.HWBREAK}


class FakeDebuggee:
    byteorder: Literal["little", "big"] = "little"
    at_once = False
    """whether steps are made on trio's thread"""
    faceless = False
    """nothing but what every debuggee can"""

    def __init__(self, end: int = 30_000) -> None:
        self.end = end
        self.icount = 0
        self.image = ""
        self.points: set[ZPoint] = set()
        self.written: dict[int, int] = {}
        self.registers_written: dict[tuple[int, int], bytes] = {}
        self.saved: dict[str, int] = {}
        self.break_at: int | None = None
        self.calls: list[str] = []
        self.console: Callable[[str], None] | None = None
        self.interrupted = threading.Event()
        self.running = threading.Event()
        self.say: str = ""
        self.stop = StopReply(StopReason.SIGNAL)
        self.called_on: set[str] = set()
        self.separately: bool | None = None
        self.watched: list[PhysicalWatch] = []
        self.bound: int | None = None
        self.stopped = ""

    # state as a function of the icount

    def threads(self) -> Sequence[int]:
        return (1,)

    def _executed(self, thread: int) -> int:
        """Instructions that this CPU has executed."""
        return self.icount

    def _value(self, thread: int, number: int) -> int:
        n, at = self._executed(thread), BETWEEN * (thread - 1)
        return {A0: (n + 2) // 3, A1: COUNTER + at, SP: BASE + SIZE, PC: BASE + at + n % 3 * 4, MCAUSE: 2}.get(
            number, 0
        )

    def _byte(self, address: int) -> int:
        if address in self.written:
            return self.written[address]
        for thread in self.threads():
            at = BETWEEN * (thread - 1)
            if BASE + at <= address < BASE + at + len(CODE):
                return CODE[address - BASE - at]
            if COUNTER + at <= address < COUNTER + at + 4:
                return ((self._executed(thread) + 1) // 3).to_bytes(4, "little")[address - COUNTER - at]
        return 0

    @property
    def faces(self) -> Faces:
        if self.faceless:
            return Faces()
        return Faces(
            time=self,
            snapshots=self,
            memory_map=self,
            physical=self,
            watching=self,
            hardware=self,
            executable=self if self.image else None,
        )

    @property
    def registers(self) -> Sequence[RegisterInfo]:
        return [RegisterInfo(name, 64, name in ("pc", "sp")) for name in NAMES]

    @property
    def system_registers(self) -> Sequence[RegisterInfo]:
        return [RegisterInfo("mcause", 64, False)]

    def target_xml(self) -> str:
        regs = "".join(
            f'<reg name="{name}" bitsize="64" type="{"code_ptr" if name == "pc" else "int"}" regnum="{n}"/>'
            for n, name in enumerate(NAMES)
        )
        return (
            '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0">'
            "<architecture>riscv:rv64</architecture>"
            f'<feature name="org.gnu.gdb.riscv.cpu">{regs}</feature></target>'
        )

    def memory_map(self) -> Sequence[MemoryRegion]:
        return [MemoryRegion(BASE, SIZE, "ram")]

    def executable(self) -> str:
        return self.image

    def describe(self, thread: int) -> str:
        return f"replay, icount {self.icount}"

    def read_registers(self, thread: int) -> bytes:
        return b"".join(self.read_register(thread, number) for number in range(len(NAMES)))

    def read_register(self, thread: int, number: int) -> bytes:
        return self.registers_written.get((thread, number), self._value(thread, number).to_bytes(8, "little"))

    def write_registers(self, thread: int, data: bytes) -> None:
        for number in range(len(NAMES)):
            self.write_register(thread, number, data[8 * number : 8 * number + 8])

    def write_register(self, thread: int, number: int, data: bytes) -> None:
        self.called_on.add(threading.current_thread().name)
        assert len(data) == 8
        self.registers_written[thread, number] = data

    def read_memory(self, thread: int, address: int, length: int) -> bytes:
        if not BASE <= address < BASE + SIZE:
            raise DebuggeeError(f"no memory at {address:#x}", 14)
        length = min(length, BASE + SIZE - address)
        return bytes(self._byte(at) for at in range(address, address + length))

    def write_memory(self, thread: int, address: int, data: bytes) -> None:
        if not BASE <= address <= address + len(data) <= BASE + SIZE:
            raise DebuggeeError(f"no memory at {address:#x}", 14)
        self.written.update(zip(range(address, address + len(data)), data, strict=True))

    # the machine

    def read_physical(self, address: int, length: int) -> bytes:
        return self.read_memory(1, address + BASE, length)

    def write_physical(self, address: int, data: bytes) -> None:
        self.write_memory(1, address + BASE, data)

    def translate(self, thread: int, address: int) -> int | None:
        return address - BASE if BASE <= address < BASE + SIZE else None

    def translations(self, thread: int) -> Iterator[Translated] | None:
        return iter([Translated(BASE, SIZE, 0, "rwx ---")])

    def watch_physical(self, watch: PhysicalWatch) -> None:
        self.watched.append(watch)

    def unwatch_physical(self, address: int | None) -> int:
        kept = [w for w in self.watched if address is not None and w.address != address]
        removed, self.watched = len(self.watched) - len(kept), kept
        return removed

    def physical_watches(self) -> Sequence[PhysicalWatch]:
        return self.watched

    def bind_watches(self, bind: bool) -> None:
        self.bound = 0x1000 if bind else None

    def bound_to(self) -> int | None:
        return self.bound

    def areas(self) -> Sequence[BusArea]:
        return [BusArea(0, SIZE - 1, "ram", "ram"), BusArea(0x70, 0x71, "port", "cmos")]

    def interrupts(self) -> Sequence[str]:
        return ["lines that are high: none"]

    # points and running

    def insert(self, point: ZPoint) -> None:
        self.remove(point)
        self.points.add(point)

    def remove(self, point: ZPoint) -> None:
        key = (point.type, point.address, point.length)
        self.points = {p for p in self.points if (p.type, p.address, p.length) != key}

    def _holds(self, thread: int, point: ZPoint) -> bool:
        return judge(point.conditions, partial(self._value, thread), partial(self.read_memory, thread))[0]

    def _hit(self, thread: int, back: bool) -> StopReply | None:
        """What the instruction that this CPU has executed, or undone, stops at."""
        counter = COUNTER + BETWEEN * (thread - 1)
        # RISC-V in GDB: reported before the store, in reverse after it; GDB steps over it by itself
        at_store = self._executed(thread) % 3 == (2 if back else 1)
        for point in sorted(self.points, key=lambda p: p.type.value):
            if point.type in _BREAK_STOPS and point.address == self._value(thread, PC) and self._holds(thread, point):
                return StopReply(_BREAK_STOPS[point.type], thread=thread)
            overlaps = point.address < counter + 4 and point.address + point.length > counter
            if at_store and point.type in _WATCH_STOPS and overlaps and self._holds(thread, point):
                return StopReply(_WATCH_STOPS[point.type], address=counter, thread=thread)
        return None

    def _step(self, back: bool, alone: int | None) -> int:
        """One instruction forward or back; the CPU whose it is. ``alone``: the only one that may run."""
        self._move(self.icount + (-1 if back else 1))
        return 1

    def _move(self, icount: int) -> None:
        self.icount = icount
        self.written.clear()
        self.registers_written.clear()

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
        self.called_on.add(threading.current_thread().name)
        self.separately = separately
        self.interrupted.clear()
        self.calls.append(how.value)
        if self.say and self.console:
            self.console(self.say)
        self.running.set()
        try:
            self.stop = self._run(how, start, end, thread, alone)
        finally:
            self.running.clear()
        return self.stop

    def _run(self, how: Resume, start: int, end: int, thread: int, alone: bool) -> StopReply:
        back = how in (Resume.REVERSE_CONTINUE, Resume.REVERSE_STEP)
        edge, kind = (0, StopReason.HISTORY_BEGIN) if back else (self.end, StopReason.HISTORY_END)
        while True:
            if self.icount == edge:
                return StopReply(kind, thread=thread)
            if self.interrupted.is_set():
                return StopReply(StopReason.INTERRUPT, thread=thread)
            moved = self._step(back, thread if alone else None)
            if how in (Resume.STEP, Resume.REVERSE_STEP) and moved == thread:
                return StopReply(StopReason.STEP, thread=thread)
            if hit := self._hit(moved, back):
                return hit
            left = how is Resume.RANGE_STEP and moved == thread and not start <= self._value(thread, PC) < end
            if left or self.icount == self.break_at:
                return StopReply(StopReason.STEP, thread=thread)

    @property
    def steps_at_once(self) -> bool:
        return self.at_once

    def last_stop(self) -> StopReply:
        return self.stop

    def interrupt(self) -> None:
        self.interrupted.set()

    # the debugger's coming and going

    def attached(self, console: Callable[[str], None]) -> None:
        self.calls.append("attached")
        self.console = console

    def detached(self, *, resume: bool) -> None:
        self.calls.append(f"detached resume={resume}")
        self.points.clear()

    def kill(self) -> None:
        self.calls.append("kill")

    # time travel

    def engine_info(self) -> list[str]:
        return ["instructions executed here: 7"]

    def replay_info(self) -> ReplayInfo:
        return ReplayInfo("replay", self.icount, 0, self.end, "fake.rrgdb", stopped=self.stopped)

    def _go(self, icount: int) -> StopReply:
        self._move(max(0, min(icount, self.end)))
        edges = {icount < 0: StopReason.HISTORY_BEGIN, icount > self.end: StopReason.HISTORY_END}
        self.stop = StopReply(edges.get(True, StopReason.SIGNAL))
        return self.stop

    def seek(self, where: str) -> StopReply:
        named = {"start": 0, "end": self.end, **self.saved}
        if where in named:
            return self._go(named[where])
        try:
            return self._go(int(where, 0))
        except ValueError:
            raise DebuggeeError(f"no snapshot is called {where!r}", 2) from None

    def seek_relative(self, delta: int) -> StopReply:
        return self._go(self.icount + delta)

    def history(self, count: int) -> Sequence[HistoryLine]:
        first = max(0, self.icount - count)
        return [HistoryLine(n, BASE + n % 3 * 4, TEXTS[n % 3]) for n in range(first, self.icount)]

    def save_snapshot(self, name: str) -> None:
        self.saved[name] = self.icount

    def load_snapshot(self, name: str) -> StopReply:
        if name not in self.saved:
            raise DebuggeeError(f"no snapshot is called {name!r}", 2)
        return self._go(self.saved[name])

    def delete_snapshot(self, name: str) -> None:
        if self.saved.pop(name, None) is None:
            raise DebuggeeError(f"no snapshot is called {name!r}", 2)

    def snapshots(self) -> Sequence[SnapshotInfo]:
        return [SnapshotInfo(name, icount, 4096, False) for name, icount in self.saved.items()]

    def events(self, limit: int) -> Sequence[EventInfo]:
        return [EventInfo(n, "serial0", 1) for n in range(100, 1000, 100) if n >= self.icount][:limit]

    def replay_break(self, icount: int) -> None:
        self.break_at = icount

    def replay_delete_break(self) -> None:
        self.break_at = None


class TwoCpus(FakeDebuggee):
    """Two CPUs that execute one instruction each in turn, unless a debugger lets one run alone."""

    def __init__(self, end: int = 30_000) -> None:
        self._who: list[int] = []
        """the CPU of each instruction so far"""
        super().__init__(end)

    def threads(self) -> Sequence[int]:
        return (1, 2)

    def describe(self, thread: int) -> str:
        return f"CPU {thread - 1}, {super().describe(thread)}"

    def _executed(self, thread: int) -> int:
        return self._who.count(thread)

    def _step(self, back: bool, alone: int | None) -> int:
        if back:
            thread = self._who.pop()
        else:
            thread = alone or (1 if not self._who else 3 - self._who[-1])
            self._who.append(thread)
        super()._move(len(self._who))
        return thread

    def _move(self, icount: int) -> None:
        while len(self._who) != icount:
            self._step(icount < len(self._who), None)
        super()._move(icount)
