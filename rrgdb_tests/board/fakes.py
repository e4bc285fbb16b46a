"""A host, a machine and a CPU that are plain data."""

from __future__ import annotations

from collections.abc import Callable

from rrgdb.arch.cpu import MemoryFault
from rrgdb.board.timers import Timer, Timers


class FakeHost:
    """Wall clock and random bytes are set by the test or count up; outputs are collected."""

    def __init__(self, clock_ns: int = 1_700_000_000 * 10**9) -> None:
        self.clock_ns = clock_ns
        self.clock_step_ns = 0
        self.random = 0
        self.asked: list[str] = []
        self.outputs: list[tuple[str, bytes]] = []
        self.sinks: dict[str, Callable[[bytes], None]] = {}

    def wall_clock_ns(self, source: str) -> int:
        self.asked.append(source)
        now = self.clock_ns
        self.clock_ns += self.clock_step_ns
        return now

    def entropy(self, source: str, length: int) -> bytes:
        self.asked.append(source)
        self.random += 1
        return bytes((self.random * 37 + i) & 0xFF for i in range(length))

    def sleep(self, source: str, icount: int, ns: int | None) -> int:
        """Nobody wakes it."""
        return ns or 0

    def attach_input(self, source: str, sink: Callable[[bytes], None]) -> None:
        assert source not in self.sinks
        self.sinks[source] = sink

    def output(self, source: str, data: bytes) -> None:
        self.outputs.append((source, data))

    @property
    def text(self) -> bytes:
        return b"".join(data for _, data in self.outputs)


class FakeMachine:
    """Virtual time and icount are set by the test; RAM is of one piece."""

    def __init__(
        self, host: FakeHost | None = None, base: int = 0x1000, size: int = 0x4000, line: int | None = 0
    ) -> None:
        """``line``: that devices get; None if there is none."""
        self.line = line
        self.ram = FakeCpu(base, size)
        self.host = host or FakeHost()
        self.cpu = self.ram
        self.icount = 0
        self.now_ns = 0
        self.status: int | None = None
        self.notices: list[str] = []
        self.timers = Timers(lambda _ns: None)
        self.levels: dict[int, bool] = {}
        self.lines: dict[str, int] = {}
        """of devices; that of all others is 0"""
        self.inputs: dict[str, bool] = {}
        self.restarts = 0
        self._receiver: Callable[[int, bool], None] = lambda _line, _level: None
        self.memory: dict[str, FakeMemory] = {}
        self.configuration: dict[int, bytes] = {}

    def virtual_ns(self) -> int:
        return self.now_ns

    def power_off(self, status: int) -> None:
        if self.status is None:
            self.status = status

    def restart(self) -> None:
        self.restarts += 1

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def after_instruction(self, work: Callable[[], None]) -> None:
        work()

    def timer(self, name: str, callback: Callable[[int], None]) -> Timer:
        return self.timers.add(name, callback)

    def memory_behind(
        self, device: str, read: Callable[[int, int], int], write: Callable[[int, int, int], None]
    ) -> FakeMemory:
        return self.memory.setdefault(device, FakeMemory())

    def line_of(self, device: str) -> int:
        line = self.lines.get(device, self.line)
        if line is None:
            raise ValueError(f"no interrupt line for {device}")
        return line

    def irq(self, line: int, level: bool) -> None:
        self.levels[line] = level
        self._receiver(line, level)

    def interrupt(self, line: str, level: bool) -> None:
        self.inputs[line] = level

    def is_raised(self, line: int) -> bool:
        return self.levels.get(line, False)

    def attach_irqs(self, receiver: Callable[[int, bool], None], *, repeated: bool = False) -> None:
        self._receiver = receiver

    def check_physical(self, address: int, length: int) -> None:
        self.ram.read_memory(address, length)

    def read_physical(self, address: int, length: int) -> bytes:
        return self.ram.read_memory(address, length)

    def write_physical(self, address: int, data: bytes) -> None:
        self.ram.write_memory(address, data)


class FakeMemory:
    """Bytes, and whether they are shown."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.size = size
        self.held = bytearray(size)
        self.shown = True

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.held[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        assert offset + len(data) <= self.size
        self.held[offset : offset + len(data)] = data

    def show(self, shown: bool) -> None:
        self.shown = shown


class FakeDisk:
    """Bytes, each of which counts as what it is in the digest."""

    def __init__(self, content: bytes, name: str = "dev", *, readonly: bool = False) -> None:
        self.name = name
        self.size = len(content)
        self.readonly = readonly
        self.held = bytearray(content)

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= self.size - length
        return bytes(self.held[offset : offset + length])

    def write(self, offset: int, data: bytes) -> int:
        assert not self.readonly
        assert 0 <= offset <= self.size - len(data)
        change = sum(data) - sum(self.held[offset : offset + len(data)])
        self.held[offset : offset + len(data)] = data
        return change


class FakeCpu:
    """Registers by name, and memory of one piece."""

    icount = 0

    def __init__(self, base: int = 0x1000, size: int = 0x2000) -> None:
        self.registers: dict[str, int] = {}
        self.base = base
        self.memory = bytearray(size)

    def read(self, name: str) -> int:
        return self.registers.get(name, 0)

    def write(self, name: str, value: int) -> None:
        assert 0 <= value < 1 << 64
        self.registers[name] = value

    def _index(self, address: int, length: int) -> int:
        index = address - self.base
        if not 0 <= index <= len(self.memory) - length:
            raise MemoryFault(address)
        return index

    def read_memory(self, address: int, length: int) -> bytes:
        index = self._index(address, length)
        return bytes(self.memory[index : index + length])

    def write_memory(self, address: int, data: bytes) -> None:
        index = self._index(address, len(data))
        self.memory[index : index + len(data)] = data
