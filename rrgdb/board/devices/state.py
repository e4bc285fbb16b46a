"""Total saving of device state, driven by a table of its fields."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

from rrgdb.board.device import Machine

_CODES = {8: "B", 16: "H", 32: "I", 64: "Q"}


@dataclass(frozen=True, slots=True)
class Field:
    """One unsigned register of a device: attribute ``name``, value at reset, and the bits that it can hold."""

    name: str
    bits: int
    reset: int = 0
    mask: int | None = None

    @property
    def valid(self) -> int:
        return (1 << self.bits) - 1 if self.mask is None else self.mask


@dataclass(frozen=True, slots=True)
class Buffer:
    """A byte queue of a device: attribute ``name`` (a bytearray), at most ``capacity`` bytes, empty at reset."""

    name: str
    capacity: int


class Stateful:
    """Reset, save and load by the tables ``FIELDS`` and ``BUFFERS``.

    State format, little-endian: every field in the order of the table at its width, then every buffer as a 32-bit
    length and its bytes.
    """

    FIELDS: ClassVar[tuple[Field, ...]] = ()
    BUFFERS: ClassVar[tuple[Buffer, ...]] = ()

    def __init__(self, name: str) -> None:
        self.name = name
        self._struct = struct.Struct("<" + "".join(_CODES[f.bits] for f in self.FIELDS))
        # Steps back put the same states back again and again: what was the last one is not looked at twice.
        self._loaded: bytes | None = None
        self._values: dict[str, int] = {}
        self._contents: dict[str, bytes] = {}
        self.reset()

    def reset(self) -> None:
        """Power-on state."""
        for field in self.FIELDS:
            setattr(self, field.name, field.reset)
        for buffer in self.BUFFERS:
            setattr(self, buffer.name, bytearray())

    def save(self) -> bytes:
        parts = [self._struct.pack(*(getattr(self, f.name) for f in self.FIELDS))]
        for buffer in self.BUFFERS:
            held: bytearray = getattr(self, buffer.name)
            parts += (struct.pack("<I", len(held)), bytes(held))
        return b"".join(parts)

    def load(self, state: bytes) -> None:
        """Raises ``ValueError``, with nothing changed, on bytes that ``save`` cannot have returned."""
        if state != self._loaded:
            self._values, self._contents = self._parse(state)
            self._loaded = bytes(state)
        self.__dict__.update(self._values)
        for name, data in self._contents.items():
            setattr(self, name, bytearray(data))

    def _parse(self, state: bytes) -> tuple[dict[str, int], dict[str, bytes]]:
        """The fields, and what the buffers hold."""
        if len(state) < self._struct.size:
            raise ValueError(f"{self.name}: state of {len(state)} bytes, expected at least {self._struct.size}")
        found = self._struct.unpack_from(state)
        for field, value in zip(self.FIELDS, found, strict=True):
            if value & ~field.valid:
                raise ValueError(f"{self.name}: {field.name} is {value:#x}, expected bits {field.valid:#x} only")
        values = {field.name: value for field, value in zip(self.FIELDS, found, strict=True)}
        buffers: dict[str, bytes] = {}
        offset = self._struct.size
        for buffer in self.BUFFERS:
            if len(state) - offset < 4:
                raise ValueError(f"{self.name}: state ends at {len(state)}, expected the length of {buffer.name}")
            (length,) = struct.unpack_from("<I", state, offset)
            offset += 4
            if length > min(buffer.capacity, len(state) - offset):
                raise ValueError(
                    f"{self.name}: {buffer.name} has {length} bytes at offset {offset}, "
                    f"expected at most {min(buffer.capacity, len(state) - offset)}"
                )
            buffers[buffer.name] = bytes(state[offset : offset + length])
            offset += length
        if offset != len(state):
            raise ValueError(f"{self.name}: {len(state) - offset} bytes after the state, expected none")
        self.check(values, buffers)
        return values, buffers

    def check(self, values: dict[str, int], buffers: dict[str, bytes]) -> None:
        """Raise ``ValueError`` if these fields cannot stand together."""


class StatefulDevice(Stateful):
    """A device on a machine; its registers are up to the subclass.

    ``REGISTERS``: offsets at which there are some, where that is not everywhere. An access elsewhere is told."""

    REGISTERS: ClassVar[tuple[range, ...]] = ()

    RESETS: ClassVar[bool] = True
    """a reset of the machine is one of the device; else it goes on, as QEMU's device that has none"""

    def __init__(self, name: str, machine: Machine) -> None:
        self.machine = machine
        super().__init__(name)


def part(register: int, offset: int, size: int) -> int:
    """``size`` bytes at byte ``offset`` of a little-endian register."""
    return register >> (8 * offset) & ((1 << (8 * size)) - 1)


def merge(register: int, offset: int, size: int, value: int, width: int = 8) -> int:
    """The ``width``-byte register with ``size`` bytes at ``offset`` replaced; bytes beyond it are dropped."""
    mask = ((1 << (8 * size)) - 1) << (8 * offset)
    return (register & ~mask | value << (8 * offset) & mask) & ((1 << (8 * width)) - 1)
