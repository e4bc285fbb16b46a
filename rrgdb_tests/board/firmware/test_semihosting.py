"""Semihosting calls on a CPU of plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrgdb.arch import ARCHES
from rrgdb.arch.cpu import ByteOrder
from rrgdb.board.device import Console, Machine
from rrgdb.board.devices.uart.ns16550 import InterruptingNs16550, Ns16550
from rrgdb.board.devices.uart.pl011 import InterruptingPl011
from rrgdb.board.firmware.semihosting import ABIS, MAX_HANDLES, MAX_INPUT, Semihosting
from rrgdb_tests.board.fakes import FakeCpu, FakeMachine

PC, BLOCK, TEXT, BUFFER = 0x1000, 0x1100, 0x1200, 0x1800
OPEN, CLOSE, WRITEC, WRITE0, WRITE, READ, READC, ISERROR, ISTTY, SEEK = range(1, 11)
FLEN, TMPNAM, REMOVE, RENAME, CLOCK, TIME, SYSTEM, ERRNO = range(0x0C, 0x14)
GET_CMDLINE, HEAPINFO, EXIT, EXIT_EXTENDED, ELAPSED, TICKFREQ = 0x15, 0x16, 0x18, 0x20, 0x30, 0x31
REGISTERS = {
    "aarch64": ("x0", "x1"),
    "arm": ("r0", "r1"),
    "armv7m": ("r0", "r1"),
    "riscv32": ("a0", "a1"),
    "riscv64": ("a0", "a1"),
}


class Guest:
    """Calls as a guest makes them."""

    def __init__(
        self,
        arch: str,
        args: str = "",
        byteorder: ByteOrder = "little",
        console: Callable[[str, Machine], Console] | None = InterruptingNs16550,
    ) -> None:
        """``console``: of the board; None: semihosting has input of its own."""
        self.machine = FakeMachine()
        self.console = None if console is None else console("serial0", self.machine)
        self.cpu = FakeCpu()
        self.width = ARCHES[arch].bits // 8
        self.byteorder: ByteOrder = byteorder
        self.operation, self.parameter = REGISTERS[arch]
        family = replace(ARCHES[arch], byteorder=byteorder)
        self.server = Semihosting(self.machine.host, family, args, (0x5000, 0x6000), (0x7000, 0x8000), self.console)

    def raw(self, operation: int, parameter: int) -> int:
        self.cpu.registers |= {"pc": PC, self.operation: operation, self.parameter: parameter}
        self.server.serve(self.cpu, self.machine)
        assert self.cpu.registers["pc"] == PC + 4
        value = self.cpu.registers[self.operation]
        assert value < 1 << 8 * self.width
        return value - (1 << 8 * self.width) if value >> (8 * self.width - 1) else value

    def call(self, operation: int, *fields: int) -> int:
        block = b"".join(f.to_bytes(self.width, self.byteorder) for f in fields)
        self.cpu.write_memory(BLOCK, block)
        return self.raw(operation, BLOCK)

    def put(self, text: bytes) -> None:
        self.cpu.write_memory(TEXT, text + b"\0")

    def open(self, name: bytes, mode: int) -> int:
        self.put(name)
        return self.call(OPEN, TEXT, mode, len(name))

    def field(self, index: int) -> int:
        return int.from_bytes(self.cpu.read_memory(BLOCK + index * self.width, self.width), self.byteorder)

    @property
    def errno(self) -> int:
        return self.raw(ERRNO, 0)

    def type(self, data: bytes) -> None:
        assert self.machine.host.sinks.keys() == {"serial0" if self.console else "semihosting"}
        for sink in self.machine.host.sinks.values():
            sink(data)


@pytest.fixture(params=[*sorted(ABIS), "arm big", "aarch64 big"])
def guest(request: pytest.FixtureRequest) -> Guest:
    arch, _, big = request.param.partition(" ")
    return Guest(arch, "kernel --fast", "big" if big else "little")


@pytest.fixture(params=[InterruptingNs16550, InterruptingPl011, None], ids=["16550", "pl011", "input of its own"])
def reader(request: pytest.FixtureRequest) -> Guest:
    return Guest("arm", console=request.param)


@pytest.mark.parametrize(
    ("arch", "code", "pc", "expected"),
    [
        ("aarch64", "00005ed4", PC, True),
        ("aarch64", "20005ed4", PC, False),
        ("arm", "563412ef", PC, True),
        ("arm", "573412ef", PC, False),
        ("arm", "70000fe1", PC, True),
        ("arm", "abdf", PC, True),
        ("arm", "bcba", PC, True),
        ("arm", "aadf", PC, False),
        ("riscv64", "1310f0017300100013507040", PC + 4, True),
        ("riscv32", "1310f0017300100013507040", PC + 4, True),
        ("riscv64", "1310f0017300100013507040", PC, False),
        ("riscv64", "130000007300100013507040", PC + 4, False),
        ("riscv64", "1310f0017300100013000000", PC + 4, False),
        ("riscv64", "", 0xFF8, False),
        ("riscv64", "", 0, False),
    ],
)
def test_the_neighbours_mark_the_call(arch: str, code: str, pc: int, expected: bool) -> None:
    guest = Guest(arch)
    guest.cpu.write_memory(PC, bytes.fromhex(code))
    guest.cpu.registers["pc"] = pc
    assert guest.server.is_semihosting_call(guest.cpu) is expected


def test_console_output(guest: Guest) -> None:
    out, err = guest.open(b":tt", 4), guest.open(b":tt", 8)
    assert (out, err) == (1, 2)
    guest.put(b"hello\0world")
    assert guest.call(WRITE, out, TEXT, 11) == 0
    assert guest.call(WRITE, err, TEXT, 2) == 0
    assert guest.call(WRITE, out, TEXT, 0) == 0
    guest.raw(WRITE0, TEXT)
    guest.raw(WRITEC, TEXT + 4)
    assert guest.machine.host.text == b"hello\0worldhehelloo"
    assert {source for source, _ in guest.machine.host.outputs} == {"semihosting"}
    assert guest.call(ISTTY, out) == 1
    assert guest.call(FLEN, out) == 0
    assert guest.call(SEEK, out, 0) == -1
    assert guest.errno == 29


def test_write0_stops_at_the_end_of_memory(guest: Guest) -> None:
    guest.cpu.memory[-600:] = b"x" * 600
    guest.raw(WRITE0, guest.cpu.base + len(guest.cpu.memory) - 600)
    assert guest.machine.host.text == b"x" * 600


def test_console_input(reader: Guest) -> None:
    guest = reader
    handle = guest.open(b":tt", 0)
    assert guest.call(READ, handle, BUFFER, 8) == 8
    assert guest.raw(READC, 0) == -1
    guest.type(b"abcdef")
    assert guest.raw(READC, 0) == ord("a")
    assert guest.call(READ, handle, BUFFER, 2) == 0
    assert guest.cpu.read_memory(BUFFER, 3) == b"bc\0"
    assert guest.call(READ, handle, BUFFER, 8) == 5
    assert guest.cpu.read_memory(BUFFER, 3) == b"def"


def test_input_is_kept_if_it_cannot_be_stored(reader: Guest) -> None:
    guest = reader
    handle = guest.open(b":tt", 0)
    guest.type(b"ab")
    assert guest.call(READ, handle, 0x10, 2) == -1
    assert guest.errno == 14
    assert guest.raw(READC, 0) == ord("a")


def test_what_is_read_by_either_way_is_read_once() -> None:
    guest = Guest("riscv64")
    uart = guest.console
    assert isinstance(uart, Ns16550)
    handle = guest.open(b":tt", 0)
    guest.type(b"abcdefgh")
    assert guest.raw(READC, 0) == ord("a")
    assert (uart.read(5, 1) & 1, uart.read(0, 1)) == (1, ord("b"))
    assert guest.call(READ, handle, BUFFER, 3) == 0
    assert guest.cpu.read_memory(BUFFER, 3) == b"cde"
    assert bytes(uart.read(0, 1) for _ in range(3)) == b"fgh"
    assert (uart.read(5, 1) & 1, guest.raw(READC, 0)) == (0, -1)


def test_pending_input_is_bounded() -> None:
    guest = Guest("arm", console=None)
    guest.type(bytes(MAX_INPUT + 5))
    guest.type(b"x")
    assert len(guest.server.pending) == MAX_INPUT


class Moving(bytearray):
    """Counts the bytes that taking one out of the front moves."""

    moved = 0

    def pop(self, index: Any = -1) -> int:
        self.moved += len(self) if index == 0 else 0
        return super().pop(index)


def test_taking_a_character_moves_none_of_the_others() -> None:
    guest = Guest("arm", console=None)
    guest.server.pending = Moving(b"abc" * 1000)
    assert bytes(guest.raw(READC, 0) for _ in range(3000)) == b"abc" * 1000
    assert guest.raw(READC, 0) not in range(256)
    assert guest.server.pending.moved == 0


def test_directions(guest: Guest) -> None:
    inp, out = guest.open(b":tt", 0), guest.open(b":tt", 4)
    assert guest.call(WRITE, inp, TEXT, 3) == 3
    assert guest.errno == 9
    assert guest.call(READ, out, BUFFER, 3) == 3
    assert guest.machine.host.outputs == []


def test_features(guest: Guest) -> None:
    handle = guest.open(b":semihosting-features", 0)
    assert guest.call(FLEN, handle) == 5
    assert guest.call(ISTTY, handle) == 0
    assert guest.call(READ, handle, BUFFER, 100) == 95
    assert guest.cpu.read_memory(BUFFER, 5) == b"SHFB\x03"
    assert guest.call(READ, handle, BUFFER, 4) == 4
    assert guest.call(SEEK, handle, 4) == 0
    assert guest.call(READ, handle, BUFFER, 1) == 0
    assert guest.cpu.read_memory(BUFFER, 1) == b"\x03"
    assert guest.call(SEEK, handle, 6) == -1
    assert guest.call(WRITE, handle, BUFFER, 1) == 1
    assert guest.open(b":semihosting-features", 4) == -1


@pytest.mark.parametrize("name", [b"/etc/passwd", b"a.txt", b"", b":tt\0", b":TT", b"../x"])
def test_files_of_the_host_are_out_of_reach(guest: Guest, name: bytes) -> None:
    assert guest.open(name, 0) == -1
    assert guest.errno == 2
    assert guest.open(name, 4) == -1
    for operation in (TMPNAM, REMOVE, RENAME, SYSTEM):
        assert guest.call(operation, TEXT, len(name), TEXT, len(name)) == -1
        assert guest.errno == 13


def test_bad_opens(guest: Guest) -> None:
    guest.put(b":tt")
    assert guest.call(OPEN, TEXT, 12, 3) == -1
    assert guest.call(OPEN, TEXT, 0, 1 << 30) == -1
    assert guest.errno == 22
    assert guest.call(OPEN, 0x10, 0, 3) == -1
    assert guest.errno == 14


def test_handles(guest: Guest) -> None:
    handles = [guest.open(b":tt", 4) for _ in range(MAX_HANDLES)]
    assert handles == list(range(1, MAX_HANDLES + 1))
    assert guest.open(b":tt", 4) == -1
    assert guest.errno == 24
    assert guest.call(CLOSE, 3) == 0
    for operation in (CLOSE, ISTTY, FLEN):
        assert guest.call(operation, 3) == -1
        assert guest.errno == 9
    assert guest.call(WRITE, 3, TEXT, 1) == -1
    assert guest.call(CLOSE, 0) == -1
    assert guest.call(CLOSE, MAX_HANDLES + 1) == -1
    assert guest.open(b":tt", 0) == 3


def test_iserror(guest: Guest) -> None:
    top = 1 << (8 * guest.width - 1)
    assert [guest.call(ISERROR, value) for value in (0, 5, top - 1, top, 2 * top - 1)] == [0, 0, 0, 1, 1]


def test_clocks(guest: Guest) -> None:
    guest.machine.now_ns = 0x1_23456789
    assert guest.raw(CLOCK, 0) == 0x1_23456789 // 10_000_000
    assert guest.raw(TIME, 0) == 1_700_000_000
    assert guest.machine.host.asked == ["semihosting"]
    assert guest.raw(TICKFREQ, 0) == 10**9
    assert guest.call(ELAPSED, 0, 0) == 0
    assert guest.cpu.read_memory(BLOCK, 8) == (0x1_23456789).to_bytes(8, guest.byteorder)


def test_command_line(guest: Guest) -> None:
    assert guest.call(GET_CMDLINE, BUFFER, 13) == -1
    assert guest.call(GET_CMDLINE, BUFFER, 14) == 0
    assert guest.cpu.read_memory(BUFFER, 14) == b"kernel --fast\0"
    assert guest.field(1) == 13


def test_heapinfo(guest: Guest) -> None:
    assert guest.call(HEAPINFO, BLOCK + 0x40) == 0
    values = [guest.field(0x40 // guest.width + i) for i in range(4)]
    assert values == [0x5000, 0x6000, 0x8000, 0x7000]


def test_exit(guest: Guest) -> None:
    if guest.width == 4:
        guest.raw(EXIT, 0x20026)
        assert guest.machine.status == 0
        guest.machine.status = None
        guest.raw(EXIT, 0x20023)
        assert guest.machine.status == 1
    else:
        guest.call(EXIT, 0x20026, 7)
        assert guest.machine.status == 7


@pytest.mark.parametrize(("reason", "code", "status"), [(0x20026, 3, 3), (0x20026, 0x1FF, 255), (0x20023, 0, 1)])
def test_exit_extended(guest: Guest, reason: int, code: int, status: int) -> None:
    guest.call(EXIT_EXTENDED, reason, code)
    assert guest.machine.status == status


@pytest.mark.parametrize("operation", [0, 0x0B, 0x14, 0x17, 0x100, 0xFFFFFFFF])
def test_unknown_operations(guest: Guest, operation: int) -> None:
    assert guest.raw(operation, BLOCK) == -1
    assert guest.errno == 38


def test_no_semihosting_on_x86() -> None:
    with pytest.raises(ValueError, match="no semihosting on i386, expected one of aarch64"):
        Semihosting(FakeMachine().host, ARCHES["i386"])


WORDS = st.one_of(st.integers(0, 0x20), st.integers(0xF00, 0x3100), st.integers(0, 2**32 - 1), st.just(2**32 - 4))
CALLS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 0x32), st.lists(WORDS, min_size=4, max_size=4)),
        st.tuples(st.just(-1), st.binary(max_size=20)),
    ),
    max_size=25,
)


def perform(guest: Guest, calls: list[tuple[int, object]]) -> list[int]:
    results = []
    for operation, argument in calls:
        if isinstance(argument, bytes):
            guest.type(argument)
        elif isinstance(argument, list):
            results.append(guest.call(operation, *argument))
            results.append(guest.raw(operation, argument[0]))
    return results


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(ABIS)), CALLS, CALLS)
def test_any_calls_then_save_is_total(
    arch: str, before: list[tuple[int, object]], after: list[tuple[int, object]]
) -> None:
    guest = Guest(arch, "x", console=None)
    guest.put(b":tt")
    guest.open(b":tt", 0)
    guest.open(b":semihosting-features", 0)
    perform(guest, before)
    state = guest.server.save()
    other = Guest(arch, "x", console=None)
    other.server.load(state)
    assert other.server.save() == state
    other.cpu.memory[:] = guest.cpu.memory
    other.cpu.registers |= guest.cpu.registers
    sent = len(guest.machine.host.outputs)
    assert perform(guest, after) == perform(other, after)
    assert other.server.save() == guest.server.save()
    assert other.cpu.memory == guest.cpu.memory
    assert other.machine.host.outputs == guest.machine.host.outputs[sent:]


@given(st.binary(max_size=80))
def test_load_of_any_bytes(state: bytes) -> None:
    server = Guest("aarch64", console=None).server
    before = server.save()
    try:
        server.load(state)
    except ValueError:
        assert server.save() == before
    else:
        assert server.save() == state


def test_nothing_is_pending_beside_a_console() -> None:
    guest = Guest("arm", console=None)
    guest.type(b"abc")
    with pytest.raises(ValueError, match="3 bytes are pending, expected none beside a console"):
        Guest("arm").server.load(guest.server.save())


@given(st.integers(0, 31), st.integers(0, 255))
def test_load_refuses_impossible_handles(index: int, value: int) -> None:
    server = Guest("aarch64").server
    state = bytearray(server.save())
    state[8 + index] = value
    if (index % 2 == 0 and value <= 3) or value == 0:
        server.load(bytes(state))
        assert server.save() == state
    else:
        with pytest.raises(ValueError, match="semihosting: handle of kind"):
            server.load(bytes(state))
