"""Parallel NOR flash with Intel's command set, as on QEMU's ``virt`` machines: two chips of 16 bits side by side.

Common Flash Memory Interface Specification (JESD68.01, what a query tells) and the data sheet of Intel's StrataFlash J3
(commands). As QEMU's ``hw/block/pflash_cfi01.c``: programming sets bits as well as it clears them, a block is erased
with the first command of two, a buffer takes what lies in the block where its length was written, locks are accepted
and not kept. The chips show what they hold while they are in read-array mode; what they hold is part of the machine's
memory.
"""

from __future__ import annotations

from functools import partial

from rrgdb.board.devices.memory.rom import Rom
from rrgdb.board.devices.state import Buffer, Field

SECTOR = 256 << 10
"""bytes of a block of both chips"""
CHIPS = 2
IDENTITIES = (0x89, 0x18)
"""manufacturer and device code of a chip"""
READY, FAILED = 0x80, 0x10
"""of the status"""
BUFFER_BYTES = 2048 * CHIPS
ARRAY, PROGRAM_10, ERASE, PROGRAM, CLEAR, LOCK = 0x00, 0x10, 0x20, 0x40, 0x50, 0x60
STATUS, IDENTITY, QUERY, CONFIRM, BUFFER, READ_ARRAY = 0x70, 0x90, 0x98, 0xD0, 0xE8, 0xFF
LOCK_CONFIRM = 0x01
_CONFIRMS = {ERASE: (CONFIRM,), LOCK: (CONFIRM, LOCK_CONFIRM)}
QUERY_BYTES = 0x52
_MODES = (ARRAY, PROGRAM_10, ERASE, PROGRAM, LOCK, STATUS, IDENTITY, QUERY, BUFFER)
_CYCLES = {BUFFER: 3, PROGRAM_10: 1, PROGRAM: 1, ERASE: 1, LOCK: 1, QUERY: 1}
"""mode -> how many of its writes can have come and leave it waiting for the next"""


def query(size: int) -> bytes:
    """What each of two chips answers to a query, if ``size`` is that of both."""
    chip, blocks = size // CHIPS, size // SECTOR
    table = bytearray(QUERY_BYTES)
    table[0x10:0x17] = b"QRY\x01\0\x31\0"  # Intel's commands; their table at 0x31
    table[0x1B:0x1D] = b"\x45\x55"  # supply voltage
    table[0x1F:0x28] = bytes((7, 7, 10, 0, 4, 4, 4, 0, chip.bit_length() - 1))  # times, and the size
    table[0x28:0x2C] = b"\x02\0\x0b\0"  # 16 bits wide; buffers of 2048 bytes
    table[0x2C:0x31] = bytes(
        (1, blocks - 1 & 0xFF, blocks - 1 >> 8, SECTOR // CHIPS >> 8 & 0xFF, SECTOR // CHIPS >> 16)
    )
    table[0x31:0x36] = b"PRI10"
    table[0x3F] = 1
    return bytes(table)


class Flash(Rom):
    """``command``: the mode, one of ``_MODES``; ``cycle``: how many writes of a sequence have come; ``buffer``: what
    the bytes from offset ``block`` on will be, or nothing."""

    FIELDS = (
        Field("command", 8),
        Field("cycle", 8, mask=3),
        Field("status", 8, READY, mask=READY | FAILED),
        Field("counter", 16),
        Field("block", 32),
    )
    BUFFERS = (Buffer("buffer", BUFFER_BYTES),)

    command: int
    cycle: int
    status: int
    counter: int
    block: int
    buffer: bytearray

    def reset(self) -> None:
        super().reset()
        self.memory.show(True)

    def load(self, state: bytes) -> None:
        super().load(state)
        self.memory.show(self.command == ARRAY)

    def check(self, values: dict[str, int], buffers: dict[str, bytes]) -> None:
        command, cycle = values["command"], values["cycle"]
        if command not in _MODES or cycle > _CYCLES.get(command, 0):
            raise ValueError(f"{self.name}: write {cycle} of command {command:#x}, expected a command that it has")
        held, block = len(buffers["buffer"]), values["block"]
        if (
            held not in (0, BUFFER_BYTES)
            or block % BUFFER_BYTES
            or block > (self.memory.size - BUFFER_BYTES if held else 0)
        ):
            raise ValueError(f"{self.name}: a buffer of {held} bytes for offset {block:#x}")

    def read(self, offset: int, size: int) -> int:
        if self.command == ARRAY:
            return super().read(offset, size)
        if self.command == IDENTITY:
            word = offset >> 2 & 0xFF
            value = IDENTITIES[word] if word < len(IDENTITIES) else 0
        elif self.command == QUERY:
            table, word = query(self.memory.size), offset >> 2
            value = table[word] if word < len(table) else 0
        else:
            value = self.status
        return (value | value << 16) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        if self.cycle == 0:
            self._begin(value & 0xFF, offset)
        elif self.cycle == 1:
            self._second(offset, size, value)
        elif self.cycle == 2:
            self._fill(offset, size, value)
            self.status |= READY
            self.cycle += not self.counter
            self.counter = self.counter - 1 & 0xFFFF
        else:
            if value & 0xFF == CONFIRM and not self.status & FAILED:
                self._put(self.block, bytes(self.buffer))
                self.cycle, self.status = 0, self.status | READY
            else:
                self.command = self.cycle = 0
            self.block, self.buffer = 0, bytearray()
        self.machine.after_instruction(self._follow)

    def _fill(self, offset: int, size: int, value: int) -> None:
        """A write to the buffer, or beside it."""
        at = offset - self.block
        if 0 <= at <= BUFFER_BYTES - size:
            self.buffer[at : at + size] = value.to_bytes(size, "little")
        else:
            self.status |= FAILED

    def _begin(self, command: int, offset: int) -> None:
        if command not in _MODES or command == ARRAY:
            if command == CLEAR:
                self.status = 0
            command = ARRAY
        elif command == ERASE:
            self._put(offset & -SECTOR, b"\xff" * SECTOR)
        if command in (ERASE, BUFFER):
            self.status |= READY
        self.command, self.cycle = command, int(command in _CYCLES)

    def _second(self, offset: int, size: int, value: int) -> None:
        confirm = value & 0xFF
        if self.command in (PROGRAM, PROGRAM_10):
            self._program(offset, size, value)
            self.cycle, self.status = 0, self.status | READY
        elif self.command == BUFFER:
            self.cycle, self.counter = 2, value & 0xFFFF
            self.block = offset & -BUFFER_BYTES
            self.buffer = bytearray(self.memory.read(self.block, BUFFER_BYTES))
        elif confirm in _CONFIRMS.get(self.command, ()):
            self.cycle, self.status = 0, self.status | READY
        elif self.command != QUERY or confirm == READ_ARRAY:
            self.command = self.cycle = 0

    def _program(self, offset: int, size: int, value: int) -> None:
        self._put(offset, value.to_bytes(size, "little"))

    def _put(self, offset: int, data: bytes) -> None:
        self.machine.after_instruction(partial(self.memory.write, offset, data))

    def _follow(self) -> None:
        self.memory.show(self.command == ARRAY)
