"""QEMU's firmware configuration device, memory-mapped as on its ``virt`` machines.

QEMU's ``docs/specs/fw_cfg.rst``; what that leaves open, as its ``hw/nvram/fw_cfg.c``. The items are what the machine
was started with, and cannot be written.
"""

from __future__ import annotations

import struct

from rrgdb.arch.cpu import MemoryFault
from rrgdb.board.devices.state import Field, StatefulDevice

DATA, SELECTOR, DMA = 0x00, 0x08, 0x10
DMA_SIGNATURE = b"QEMU CFG"
SIGNATURE, INTERFACE, UUID, NO_GRAPHICS, CPUS, BOOT_MENU = 0x00, 0x01, 0x02, 0x04, 0x05, 0x0E
KERNEL_SIZE, INITRD_SIZE, KERNEL_DATA, INITRD_DATA, CMDLINE_SIZE, CMDLINE_DATA = 0x08, 0x0B, 0x11, 0x12, 0x14, 0x15
DIRECTORY, FIRST_FILE, FILES = 0x19, 0x20, 0x20
ARCH_LOCAL, KEY_MASK = 0x8000, 0x3FFF
NOTHING = 0xFFFF
"""selected after a key that cannot be"""
ERROR, READ, SKIP, SELECT, WRITE = 1, 2, 4, 8, 16
_DESCRIPTOR = struct.Struct(">IIQ")
_FILE = struct.Struct(">IHH56s")
_PIECE = 1 << 20
"""bytes of zeros that are written at a time"""


def directory(files: dict[str, bytes]) -> dict[int, bytes]:
    """The items of named files, sorted by name, and of their directory. Names have at most 55 characters."""
    listed = sorted(files.items())
    entries = [_FILE.pack(len(data), FIRST_FILE + i, 0, name.encode()) for i, (name, data) in enumerate(listed)]
    table = struct.pack(">I", len(listed)) + b"".join(entries)
    return {
        DIRECTORY: table.ljust(4 + FILES * _FILE.size, b"\0"),
        **{FIRST_FILE + i: data for i, (_, data) in enumerate(listed)},
    }


class FwCfg(StatefulDevice):
    """``key``, ``offset``: the item that is read, and how far; ``address``: the half of the DMA address that was
    written first."""

    FIELDS = (Field("key", 16), Field("offset", 32), Field("address", 64))

    key: int
    offset: int
    address: int

    def read(self, offset: int, size: int) -> int:
        if offset < SELECTOR:
            # Accesses of eight bytes come as two.
            return int.from_bytes(self._take(size), "little")
        if DMA <= offset < DMA + len(DMA_SIGNATURE):
            return int.from_bytes(DMA_SIGNATURE[offset - DMA :][:size], "little")
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        big_endian = int.from_bytes(value.to_bytes(size, "little"), "big")
        if offset == SELECTOR and size == 2:
            self._select(big_endian)
        elif offset == DMA and size == 4:
            self.address = big_endian << 32
        elif offset == DMA + 4 and size == 4:
            at, self.address = self.address | big_endian, 0
            self.machine.after_instruction(lambda: self._transfer(at))

    def _select(self, key: int) -> None:
        self.key = key if key & KEY_MASK < FIRST_FILE + FILES else NOTHING
        self.offset = 0

    def _item(self) -> bytes:
        # The bit that once asked for writing does not tell items apart.
        return self.machine.configuration.get(self.key & (ARCH_LOCAL | KEY_MASK), b"")

    def _take(self, most: int) -> bytes:
        """The next bytes of the item; nothing more at its end."""
        data = self._item()[self.offset : self.offset + most]
        self.offset += len(data)
        return data

    def _transfer(self, at: int) -> None:
        try:
            self.machine.write_physical(at, struct.pack(">I", self._perform(at)))
        except MemoryFault:
            return

    def _perform(self, at: int) -> int:
        """Do what the descriptor there says; what its control word becomes."""
        try:
            control, length, address = _DESCRIPTOR.unpack(self.machine.read_physical(at, _DESCRIPTOR.size))
        except MemoryFault:
            return ERROR
        if control & SELECT:
            self._select(control >> 16)
        if control & READ:
            return self._read_into(address, length)
        if control & WRITE:
            self.offset += min(length, max(len(self._item()) - self.offset, 0))
            return ERROR if length else 0
        if control & SKIP:
            self._take(length)
        return 0

    def _read_into(self, address: int, length: int) -> int:
        data = self._take(length)
        try:
            self.machine.check_physical(address, length)
            self.machine.write_physical(address, data)
            for done in range(len(data), length, _PIECE):
                self.machine.write_physical(address + done, bytes(min(_PIECE, length - done)))
        except MemoryFault:
            return ERROR
        return 0
