"""A deterministic machine whose every state is a function of the icount: a RISC-V loop that counts in memory.

80000000: addi a0, a0, 1
80000004: sw   a0, 0(a1)      (a1 = 80001000)
80000008: j    80000000
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from rrgdb.agent.evaluate import judge
from rrgdb.rsp.debuggee import (
    DebuggeeError,
    EventInfo,
    Faces,
    HistoryLine,
    MemoryRegion,
    RegisterInfo,
    ReplayInfo,
    Resume,
    SnapshotInfo,
    StopReason,
    StopReply,
    ZPoint,
    ZType,
)

BASE = 0x8000_0000
SIZE = 0x1_0000
COUNTER = BASE + 0x1000
CODE = bytes.fromhex("1305150023a0a5006ff09fff")
TEXTS = ("addi a0, a0, 1", "sw a0, 0(a1)", "j 0x80000000")
NAMES = ("zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "fp", "s1", *(f"a{n}" for n in range(8)),
         *(f"s{n}" for n in range(2, 12)), "t3", "t4", "t5", "t6", "pc")  # fmt: skip
A0, A1, SP, PC = 10, 11, 2, 32
FOREVER = 1 << 62

_WATCH_STOPS = {ZType.WRITE: StopReason.WATCH, ZType.ACCESS: StopReason.AWATCH}
_BREAK_STOPS = {ZType.SOFTWARE: StopReason.SWBREAK, ZType.HARDWARE: StopReason.HWBREAK}


class FakeDebuggee:
    faceless = False
    """nothing but what every debuggee can"""

    def __init__(self, end: int = 30_000) -> None:
        self.end = end
        self.icount = 0
        self.image = ""
        self.points: set[ZPoint] = set()
        self.written: dict[int, int] = {}
        self.registers_written: dict[int, bytes] = {}
        self.saved: dict[str, int] = {}
        self.break_at: int | None = None
        self.calls: list[str] = []
        self.console: Callable[[str], None] | None = None
        self.interrupted = threading.Event()
        self.running = threading.Event()
        self.say: str = ""
        self.stop = StopReply(StopReason.SIGNAL)
        self.threads: set[str] = set()
        self.separately: bool | None = None

    # state as a function of the icount

    def _value(self, number: int) -> int:
        return {A0: (self.icount + 2) // 3, A1: COUNTER, SP: BASE + SIZE, PC: BASE + self.icount % 3 * 4}.get(number, 0)

    def _byte(self, address: int) -> int:
        if address in self.written:
            return self.written[address]
        if BASE <= address < BASE + len(CODE):
            return CODE[address - BASE]
        if COUNTER <= address < COUNTER + 4:
            return ((self.icount + 1) // 3).to_bytes(4, "little")[address - COUNTER]
        return 0

    @property
    def faces(self) -> Faces:
        if self.faceless:
            return Faces()
        return Faces(time=self, snapshots=self, memory_map=self, executable=self if self.image else None)

    @property
    def registers(self) -> Sequence[RegisterInfo]:
        return [RegisterInfo(name, 64, name in ("pc", "sp")) for name in NAMES]

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

    def describe(self) -> str:
        return f"replay, icount {self.icount}"

    def read_registers(self) -> bytes:
        return b"".join(self.read_register(number) for number in range(len(NAMES)))

    def read_register(self, number: int) -> bytes:
        return self.registers_written.get(number, self._value(number).to_bytes(8, "little"))

    def write_registers(self, data: bytes) -> None:
        for number in range(len(NAMES)):
            self.write_register(number, data[8 * number : 8 * number + 8])

    def write_register(self, number: int, data: bytes) -> None:
        self.threads.add(threading.current_thread().name)
        assert len(data) == 8
        self.registers_written[number] = data

    def read_memory(self, address: int, length: int) -> bytes:
        if not BASE <= address < BASE + SIZE:
            raise DebuggeeError(f"no memory at {address:#x}", 14)
        length = min(length, BASE + SIZE - address)
        return bytes(self._byte(at) for at in range(address, address + length))

    def write_memory(self, address: int, data: bytes) -> None:
        if not BASE <= address <= address + len(data) <= BASE + SIZE:
            raise DebuggeeError(f"no memory at {address:#x}", 14)
        self.written.update(zip(range(address, address + len(data)), data, strict=True))

    # points and running

    def insert(self, point: ZPoint) -> None:
        self.remove(point)
        self.points.add(point)

    def remove(self, point: ZPoint) -> None:
        key = (point.type, point.address, point.length)
        self.points = {p for p in self.points if (p.type, p.address, p.length) != key}

    def _holds(self, point: ZPoint) -> bool:
        return judge(point.conditions, self._value, self.read_memory)[0]

    def _hit(self, at_store: bool) -> StopReply | None:
        for point in sorted(self.points, key=lambda p: p.type.value):
            if point.type in _BREAK_STOPS and point.address == self._value(PC) and self._holds(point):
                return StopReply(_BREAK_STOPS[point.type])
            overlaps = point.address < COUNTER + 4 and point.address + point.length > COUNTER
            if at_store and point.type in _WATCH_STOPS and overlaps and self._holds(point):
                return StopReply(_WATCH_STOPS[point.type], address=COUNTER)
        return None

    def _move(self, icount: int) -> None:
        self.icount = icount
        self.written.clear()
        self.registers_written.clear()

    def resume(self, how: Resume, start: int = 0, end: int = 0, *, separately: bool = False) -> StopReply:
        self.threads.add(threading.current_thread().name)
        self.separately = separately
        self.interrupted.clear()
        self.calls.append(how.value)
        if self.say and self.console:
            self.console(self.say)
        self.running.set()
        try:
            self.stop = self._run(how, start, end)
        finally:
            self.running.clear()
        return self.stop

    def _run(self, how: Resume, start: int, end: int) -> StopReply:
        back = how in (Resume.REVERSE_CONTINUE, Resume.REVERSE_STEP)
        edge, kind = (0, StopReason.HISTORY_BEGIN) if back else (self.end, StopReason.HISTORY_END)
        while True:
            if self.icount == edge:
                return StopReply(kind)
            if self.interrupted.is_set():
                return StopReply(StopReason.INTERRUPT)
            self._move(self.icount + (-1 if back else 1))
            if how in (Resume.STEP, Resume.REVERSE_STEP):
                return StopReply(StopReason.STEP)
            # RISC-V in GDB: reported before the store, in reverse after it; GDB steps over it by itself
            if hit := self._hit(self.icount % 3 == (2 if back else 1)):
                return hit
            if self.icount == self.break_at or (how is Resume.RANGE_STEP and not start <= self._value(PC) < end):
                return StopReply(StopReason.STEP)

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

    def replay_info(self) -> ReplayInfo:
        return ReplayInfo("replay", self.icount, 0, self.end, "fake.rrgdb")

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
