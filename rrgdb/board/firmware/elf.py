"""The headers of an ELF file, as far as a loader asks for them (System V ABI, "Object Files")."""

from __future__ import annotations

import struct
from typing import NamedTuple

from rrgdb.arch.cpu import ByteOrder
from rrgdb.board.firmware.multiboot import ImageError

IDENT_BYTES = 16
MAX_SEGMENTS = 256
ET_EXEC = 2
PT_LOAD, PT_INTERP, PT_NOTE = 1, 3, 4
_CLASSES = {1: 32, 2: 64}
_ORDERS: dict[int, ByteOrder] = {1: "little", 2: "big"}
_HEADERS = {32: "HHI3II6H", 64: "HHI3QI6H"}
_PROGRAM_HEADERS = {32: "8I", 64: "2I6Q"}
_FLAGS_PLACE = {32: 6, 64: 1}
"""of p_flags in a program header"""
_MACHINES = {3: "EM_386", 40: "EM_ARM", 62: "EM_X86_64", 183: "EM_AARCH64", 243: "EM_RISCV"}


class Header(NamedTuple):
    """``bits``: 32 or 64; the fields of the file behind it."""

    bits: int
    byteorder: ByteOrder
    type: int
    machine: int
    entry: int
    phoff: int
    ehsize: int
    phentsize: int
    phnum: int

    @property
    def _packing(self) -> str:
        return "<" if self.byteorder == "little" else ">"


class ProgramHeader(NamedTuple):
    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int


def read_header(data: bytes, name: str) -> Header:
    """``name`` is for messages. Raises ImageError."""
    if len(data) < IDENT_BYTES:
        raise ImageError(name, len(data), "ELF header is cut off", f"{IDENT_BYTES} bytes of e_ident")
    bits, order = _CLASSES.get(data[4]), _ORDERS.get(data[5])
    if bits is None:
        raise ImageError(name, 4, f"ELF class {data[4]}", "1 (32-bit) or 2 (64-bit)")
    if order is None:
        raise ImageError(name, 5, f"ELF data encoding {data[5]}", "1 (little-endian)")
    layout = struct.Struct(("<" if order == "little" else ">") + _HEADERS[bits])
    if len(data) < IDENT_BYTES + layout.size:
        raise ImageError(name, 0, "ELF header is cut off or malformed", f"an ELF{bits} header")
    type_, machine, _, entry, phoff, _, _, ehsize, phentsize, phnum, *_ = layout.unpack_from(data, IDENT_BYTES)
    return Header(bits, order, type_, machine, entry, phoff, ehsize, phentsize, phnum)


def read_program_headers(data: bytes, name: str, header: Header) -> list[ProgramHeader]:
    """Raises ImageError."""
    count, offset, size = header.phnum, header.phoff, header.phentsize
    if not 0 < count <= MAX_SEGMENTS:
        raise ImageError(name, 0x2C if header.bits == 32 else 0x38, f"{count} segments", f"1 to {MAX_SEGMENTS}")
    layout = struct.Struct(header._packing + _PROGRAM_HEADERS[header.bits])
    if size < layout.size:
        raise ImageError(name, 0x2A if header.bits == 32 else 0x36, f"e_phentsize {size}", f"at least {layout.size}")
    if offset + count * size > len(data):
        raise ImageError(name, offset, f"{count} program headers are cut off", f"{count * size} bytes there")
    found = []
    for index in range(count):
        fields = list(layout.unpack_from(data, offset + index * size))
        flags = fields.pop(_FLAGS_PLACE[header.bits])
        found.append(ProgramHeader(fields[0], flags, *fields[1:6]))
    return found


def machine_name(machine: int) -> str:
    """What pyelftools calls it; the number where that knows none."""
    return _MACHINES.get(machine) or _name("ENUM_E_MACHINE", machine)


def type_name(type_: int) -> str:
    """As ``machine_name``, of the type of a file."""
    return _name("ENUM_E_TYPE", type_)


def _name(table: str, number: int) -> str:
    from elftools.elf import enums  # noqa: PLC0415 - hundreds of names, for what cannot be loaded

    names = {value: name for name, value in getattr(enums, table).items() if name != "_default_"}
    return str(names.get(number, number))
