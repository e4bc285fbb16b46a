"""Split virtqueues (virtio 1.2, section 2.7), as the device sees them.

Everything in a queue is the guest's to write: what a chain may be is checked before anything of it is done.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from rrgdb.arch.cpu import MemoryFault
from rrgdb.board.device import Machine

MAX_SIZE = 1024
"""entries of a queue, and descriptors of a chain, indirect ones included (QEMU's limit)"""
_DESCRIPTOR = struct.Struct("<QIHH")
_NEXT, _WRITE, _INDIRECT = 1, 2, 4
_NO_INTERRUPT = 1
_WRAP = 0xFFFF


class QueueError(Exception):
    """The guest broke the rules of the queue: the device needs a reset. One line."""


class Piece(NamedTuple):
    """``length`` bytes of guest-physical RAM, at least one."""

    address: int
    length: int


class Chain(NamedTuple):
    """One buffer: what the device reads, and what it writes, in order. All of it is in RAM."""

    head: int
    readable: list[Piece]
    writable: list[Piece]


class Rings(NamedTuple):
    """Where the guest has put a queue of ``size`` entries (guest-physical addresses)."""

    machine: Machine
    size: int
    descriptors: int
    available: int
    used: int

    def check(self) -> None:
        """QueueError if it cannot be a queue."""
        if not 0 < self.size <= MAX_SIZE or self.size & (self.size - 1):
            raise QueueError(f"a queue of {self.size} entries, expected a power of two up to {MAX_SIZE}")

    def waiting(self, taken: int) -> int:
        """How many chains wait when ``taken`` (modulo 65536) have been taken."""
        index = int.from_bytes(self._read(self.available + 2, 2), "little")
        count = index - taken & _WRAP
        if count > self.size:
            raise QueueError(f"{count} chains wait in a queue of {self.size}")
        return count

    def take(self, number: int) -> Chain:
        """Chain ``number`` (modulo 65536) since the queue was set up."""
        head = self._read(self.available + 4 + 2 * (number % self.size), 2)
        return self._chain(int.from_bytes(head, "little"))

    def give_back(self, number: int, head: int, written: int) -> None:
        """Chain ``head`` is the used one of this ``number`` (modulo 65536); the device has written so many bytes."""
        self._write(self.used + 4 + 8 * (number % self.size), struct.pack("<II", head, written & 0xFFFFFFFF))
        self._write(self.used + 2, struct.pack("<H", number + 1 & _WRAP))

    @property
    def wants_interrupts(self) -> bool:
        return not self._read(self.available, 2)[0] & _NO_INTERRUPT

    def _chain(self, head: int) -> Chain:
        chain = Chain(head, [], [])
        table, size, index = self.descriptors, self.size, head
        seen = 0
        while True:
            if index >= size:
                raise QueueError(f"descriptor {index} of {size}")
            seen += 1
            if seen > MAX_SIZE:
                raise QueueError(f"a chain of more than {MAX_SIZE} descriptors")
            address, length, flags, following = _DESCRIPTOR.unpack(self._read(table + 16 * index, 16))
            if flags & _INDIRECT:
                # Only as the last of a chain in the queue's own table.
                if table != self.descriptors or flags & _NEXT or not length or length % 16:
                    raise QueueError(f"an indirect table of {length} bytes with flags {flags:#x}")
                table, size, index = address, length // 16, 0
                continue
            self._add(chain, Piece(address, length), bool(flags & _WRITE))
            if not flags & _NEXT:
                return chain
            index = following

    def _add(self, chain: Chain, piece: Piece, writable: bool) -> None:
        if not piece.length:
            raise QueueError("a buffer of 0 bytes")
        if chain.writable and not writable:
            raise QueueError("a buffer to be read behind one to be written")
        try:
            self.machine.check_physical(*piece)
        except MemoryFault as e:
            raise QueueError(f"a buffer outside RAM: {e}") from None
        (chain.writable if writable else chain.readable).append(piece)

    def _read(self, address: int, length: int) -> bytes:
        try:
            return self.machine.read_physical(address & (1 << 64) - 1, length)
        except MemoryFault as e:
            raise QueueError(f"a queue outside RAM: {e}") from None

    def _write(self, address: int, data: bytes) -> None:
        try:
            self.machine.write_physical(address & (1 << 64) - 1, data)
        except MemoryFault as e:
            raise QueueError(f"a queue outside RAM: {e}") from None
