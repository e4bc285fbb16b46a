"""Semihosting: "Semihosting for AArch32 and AArch64" (Arm) and "RISC-V Semihosting" (RISC-V International).

A guest reaches the console and nothing else of the host: of files there are ``:tt`` and ``:semihosting-features``.
Console bytes go out by the source ``semihosting``, and are read from what the board's console has received. Reads never
wait: with no input there, SYS_READ reads nothing (which a guest sees as the end of the file) and SYS_READC returns -1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rrgdb.arch.base import Arch
from rrgdb.arch.cpu import ByteOrder, Cpu, MemoryFault
from rrgdb.board.device import Console, Machine
from rrgdb.board.devices.state import Buffer, Field, Stateful
from rrgdb.host import Host

SOURCE = "semihosting"
FEATURES = b"SHFB\x03"
"""magic; SYS_EXIT_EXTENDED works, and :tt opened to append is stderr"""
MAX_HANDLES = 16
MAX_TRANSFER = 16 << 20
"""bytes that one call moves; the rest counts as not moved"""
MAX_INPUT = 1 << 20
MAX_NAME = 4096
CLOSED, INPUT, OUTPUT, FEATURE_FILE = range(4)
ENOENT, EBADF, EACCES, EFAULT, EINVAL, EMFILE, ESPIPE, ENOSYS = 2, 9, 13, 14, 22, 24, 29, 38
APPLICATION_EXIT = 0x20026
TICK_HZ = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Abi:
    """How a family calls: operation, parameter and result registers, and the code around the trap."""

    operation: str
    parameter: str
    codes: tuple[bytes, ...]
    """any of these"""
    before: int = 0
    """bytes of a code before the trap instruction"""


_RISCV = Abi("a0", "a1", (bytes.fromhex("1310f001 73001000 13507040"),), 4)
_ARM = ("563412ef", "70000fe1", "abdf", "bcba")  # svc 0x123456, hlt 0xf000; Thumb: svc 0xab, hlt 0x3c
ABIS = {
    "aarch64": Abi("x0", "x1", (bytes.fromhex("00005ed4"),)),
    "arm": Abi("r0", "r1", tuple(bytes.fromhex(code) for code in _ARM)),
    "armv7m": Abi("r0", "r1", (bytes.fromhex("abbe"),)),  # bkpt 0xab
    "riscv32": _RISCV,
    "riscv64": _RISCV,
}


class Failure(Exception):
    """The call returns -1 and leaves ``errno``."""

    def __init__(self, errno: int) -> None:
        super().__init__(f"errno {errno}")
        self.errno = errno


class Semihosting(Stateful):
    """Serves the calls of one guest. ``heap`` and ``stack`` are (lowest, highest) addresses for SYS_HEAPINFO.

    ``console``: whose bytes are read. None: those that come by the source ``semihosting``, to nobody else."""

    FIELDS = (Field("errno", 32),)
    BUFFERS = (Buffer("handles", 2 * MAX_HANDLES), Buffer("pending", MAX_INPUT))

    errno: int
    handles: bytearray
    """two bytes a handle, from handle 1 on: kind and position"""
    pending: bytearray

    def __init__(
        self,
        host: Host,
        arch: Arch,
        args: str = "",
        heap: tuple[int, int] = (0, 0),
        stack: tuple[int, int] = (0, 0),
        console: Console | None = None,
    ) -> None:
        """Raises ``ValueError`` for an architecture that has no semihosting."""
        if arch.name not in ABIS:
            raise ValueError(f"no semihosting on {arch.name}, expected one of {', '.join(ABIS)}")
        self.arch = arch
        self.abi = ABIS[arch.name]
        self.width = arch.bits // 8
        self.args = args.encode() + b"\0"
        self.heap = heap
        self.stack = stack
        self._console = console or self
        super().__init__(SOURCE)
        if console is None:
            host.attach_input(SOURCE, self.receive)

    def reset(self) -> None:
        super().reset()
        self.handles = bytearray(2 * MAX_HANDLES)

    def check(self, values: dict[str, int], buffers: dict[str, bytes]) -> None:
        handles = buffers["handles"]
        if len(handles) != 2 * MAX_HANDLES:
            raise ValueError(f"{SOURCE}: handles has {len(handles)} bytes, expected {2 * MAX_HANDLES}")
        for kind, position in zip(handles[::2], handles[1::2], strict=True):
            if kind > FEATURE_FILE or position > (len(FEATURES) if kind == FEATURE_FILE else 0):
                raise ValueError(f"{SOURCE}: handle of kind {kind} at position {position} cannot be")

        if buffers["pending"] and self._console is not self:
            raise ValueError(f"{SOURCE}: {len(buffers['pending'])} bytes are pending, expected none beside a console")

    def receive(self, data: bytes) -> None:
        """Input of its own; what is beyond ``MAX_INPUT`` pending bytes is lost."""
        self.pending += data[: MAX_INPUT - len(self.pending)]

    def peek(self, most: int) -> bytes:
        """See ``Console``."""
        return bytes(self.pending[:most])

    def take(self, count: int) -> None:
        del self.pending[:count]

    def is_semihosting_call(self, cpu: Cpu) -> bool:
        """Whether the instruction at pc is a semihosting trap, with the neighbours that mark it as one."""
        try:
            start = cpu.read("pc") - self.abi.before
            return any(cpu.read_memory(start, len(code)) == code for code in self.abi.codes)
        except (MemoryFault, ValueError):
            return False

    def serve(self, cpu: Cpu, machine: Machine, length: int = 4) -> None:
        """Perform the call at pc: write its results and go behind the trap instruction of ``length`` bytes."""
        operation = cpu.read(self.abi.operation) & 0xFFFFFFFF
        call = Call(cpu, machine, cpu.read(self.abi.parameter), self.width, self.arch.byteorder)
        try:
            result = _CALLS.get(operation, Semihosting._unknown)(self, call)
        except Failure as failure:
            self.errno = failure.errno
            result = -1
        except MemoryFault:
            self.errno = EFAULT
            result = -1
        if result is not None:
            cpu.write(self.abi.operation, result & call.mask)
        self.arch.step_over(cpu, length)

    def _unknown(self, call: Call) -> int:
        raise Failure(ENOSYS)

    def _refuse(self, call: Call) -> int:
        raise Failure(EACCES)

    def _open(self, call: Call) -> int:
        address, mode, length = call.field(0), call.field(1), call.field(2)
        if mode > 11 or length > MAX_NAME:
            raise Failure(EINVAL)
        name = call.cpu.read_memory(address, length)
        if name == b":tt":
            kind = INPUT if mode < 4 else OUTPUT
        elif name == b":semihosting-features":
            if mode > 1:
                raise Failure(EACCES)
            kind = FEATURE_FILE
        else:
            raise Failure(ENOENT)
        for handle in range(1, MAX_HANDLES + 1):
            if self.handles[2 * handle - 2] == CLOSED:
                self.handles[2 * handle - 2 : 2 * handle] = bytes([kind, 0])
                return handle
        raise Failure(EMFILE)

    def _slot(self, call: Call) -> int:
        """Index into ``handles`` of the handle in field 0."""
        handle = call.field(0)
        if not 1 <= handle <= MAX_HANDLES or self.handles[2 * handle - 2] == CLOSED:
            raise Failure(EBADF)
        return 2 * handle - 2

    def _close(self, call: Call) -> int:
        slot = self._slot(call)
        self.handles[slot : slot + 2] = bytes(2)
        return 0

    def _writec(self, call: Call) -> None:
        call.machine.host.output(SOURCE, call.cpu.read_memory(call.parameter, 1))

    def _write0(self, call: Call) -> None:
        call.machine.host.output(SOURCE, call.string(call.parameter))

    def _write(self, call: Call) -> int:
        slot, address, length = self._slot(call), call.field(1), call.field(2)
        if self.handles[slot] != OUTPUT:
            self.errno = EBADF
            return length
        data = call.cpu.read_memory(address, min(length, MAX_TRANSFER))
        if data:
            call.machine.host.output(SOURCE, data)
        return length - len(data)

    def _read(self, call: Call) -> int:
        slot, address, length = self._slot(call), call.field(1), call.field(2)
        kind, position = self.handles[slot], self.handles[slot + 1]
        if kind == OUTPUT:
            self.errno = EBADF
            return length
        most = min(length, MAX_TRANSFER)
        data = self._console.peek(most) if kind == INPUT else FEATURES[position:][:most]
        if data:
            call.cpu.write_memory(address, data)
        if kind == INPUT:
            self._console.take(len(data))
        else:
            self.handles[slot + 1] += len(data)
        return length - len(data)

    def _readc(self, call: Call) -> int:
        data = self._console.peek(1)
        self._console.take(len(data))
        return data[0] if data else -1

    def _iserror(self, call: Call) -> int:
        return int(call.field(0) > call.mask >> 1)

    def _istty(self, call: Call) -> int:
        return int(self.handles[self._slot(call)] != FEATURE_FILE)

    def _seek(self, call: Call) -> int:
        slot, position = self._slot(call), call.field(1)
        if self.handles[slot] != FEATURE_FILE:
            raise Failure(ESPIPE)
        if position > len(FEATURES):
            raise Failure(EINVAL)
        self.handles[slot + 1] = position
        return 0

    def _flen(self, call: Call) -> int:
        return len(FEATURES) if self.handles[self._slot(call)] == FEATURE_FILE else 0

    def _clock(self, call: Call) -> int:
        return call.machine.virtual_ns() // 10_000_000 & call.mask >> 1

    def _time(self, call: Call) -> int:
        return call.machine.host.wall_clock_ns(SOURCE) // 1_000_000_000

    def _errno(self, call: Call) -> int:
        return self.errno

    def _get_cmdline(self, call: Call) -> int:
        address, room = call.field(0), call.field(1)
        if room < len(self.args):
            raise Failure(EINVAL)
        call.cpu.write_memory(address, self.args)
        call.set_field(1, len(self.args) - 1)
        return 0

    def _heapinfo(self, call: Call) -> int:
        block = Call(call.cpu, call.machine, call.field(0), self.width, self.arch.byteorder)
        for index, value in enumerate((*self.heap, self.stack[1], self.stack[0])):
            block.set_field(index, value)
        return 0

    def _exit(self, call: Call) -> int | None:
        if self.width == 4:
            call.machine.power_off(0 if call.parameter == APPLICATION_EXIT else 1)
            return None
        return self._exit_extended(call)

    def _exit_extended(self, call: Call) -> int | None:
        reason, code = call.field(0), call.field(1)
        call.machine.power_off(code & 0xFF if reason == APPLICATION_EXIT else 1)
        return None

    def _elapsed(self, call: Call) -> int:
        ticks = call.machine.virtual_ns() & 0xFFFFFFFF_FFFFFFFF
        call.cpu.write_memory(call.parameter, ticks.to_bytes(8, self.arch.byteorder))
        return 0

    def _tickfreq(self, call: Call) -> int:
        return TICK_HZ


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its parameter register and the fields of the block that it points to."""

    cpu: Cpu
    machine: Machine
    parameter: int
    width: int
    byteorder: ByteOrder

    @property
    def mask(self) -> int:
        return (1 << 8 * self.width) - 1

    def field(self, index: int) -> int:
        return int.from_bytes(self.cpu.read_memory(self._address(index), self.width), self.byteorder)

    def set_field(self, index: int, value: int) -> None:
        self.cpu.write_memory(self._address(index), (value & self.mask).to_bytes(self.width, self.byteorder))

    def _address(self, index: int) -> int:
        return (self.parameter + index * self.width) & self.mask

    def string(self, address: int) -> bytes:
        """The bytes up to a NUL, to memory that is not there, or to ``MAX_TRANSFER`` bytes."""
        text = bytearray()
        while len(text) < MAX_TRANSFER:
            try:
                piece = self.cpu.read_memory(address + len(text), 256 - (address + len(text)) % 256)
            except MemoryFault:
                break
            end = piece.find(0)
            if end >= 0:
                return bytes(text + piece[:end])
            text += piece
        return bytes(text)


_CALLS: dict[int, Callable[[Semihosting, Call], int | None]] = {
    0x01: Semihosting._open,
    0x02: Semihosting._close,
    0x03: Semihosting._writec,
    0x04: Semihosting._write0,
    0x05: Semihosting._write,
    0x06: Semihosting._read,
    0x07: Semihosting._readc,
    0x08: Semihosting._iserror,
    0x09: Semihosting._istty,
    0x0A: Semihosting._seek,
    0x0C: Semihosting._flen,
    0x0D: Semihosting._refuse,  # SYS_TMPNAM
    0x0E: Semihosting._refuse,  # SYS_REMOVE
    0x0F: Semihosting._refuse,  # SYS_RENAME
    0x10: Semihosting._clock,
    0x11: Semihosting._time,
    0x12: Semihosting._refuse,  # SYS_SYSTEM
    0x13: Semihosting._errno,
    0x15: Semihosting._get_cmdline,
    0x16: Semihosting._heapinfo,
    0x18: Semihosting._exit,
    0x20: Semihosting._exit_extended,
    0x30: Semihosting._elapsed,
    0x31: Semihosting._tickfreq,
}
