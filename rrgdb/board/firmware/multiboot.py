"""Multiboot 1 ("Multiboot Specification version 0.6.96"): header and information block."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from rrgdb.errors import Error

HEADER_MAGIC = 0x1BADB002
BOOT_MAGIC = 0x2BADB002
SEARCH_BYTES = 8192
NEEDS_PAGE_ALIGN, NEEDS_MEMORY_INFO, NEEDS_VIDEO, HAS_ADDRESSES = 1, 2, 4, 1 << 16
REQUIREMENTS = 0xFFFF
INFO_BYTES = 4096
INFO_ADDRESS = 0x9F000
"""of the information block, if the image leaves this page free"""
INFO_MEMORY, INFO_COMMAND_LINE, INFO_MEMORY_MAP, INFO_LOADER_NAME = 1, 1 << 2, 1 << 6, 1 << 9
MAX_ARGS = 2048
MEMORY_AVAILABLE = 1
LOADER_NAME = b"rrgdb\0"


class ImageError(Error):
    """An image that cannot be run; ``offset`` is the place in the file (bytes)."""

    def __init__(self, name: str, offset: int, what: str, expected: str) -> None:
        super().__init__(f"{name}: offset {offset:#x}: {what}; expected {expected}")
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Addresses:
    """The address fields of a header that has flag 16."""

    header: int
    load: int
    load_end: int
    bss_end: int
    entry: int


@dataclass(frozen=True, slots=True)
class Header:
    """``offset`` in the file; ``addresses`` is None if the ELF headers count."""

    offset: int
    flags: int
    addresses: Addresses | None


def find_header(data: bytes, name: str) -> Header | None:
    """The header in the first 8192 bytes, None if there is none. Raises ``ImageError`` if it asks for what a loader
    that has neither modules nor a screen cannot do."""
    magic = struct.pack("<I", HEADER_MAGIC)
    end = min(len(data), SEARCH_BYTES)
    offset = data.find(magic, 0, end)
    while offset >= 0:
        if offset % 4 == 0 and offset + 12 <= end:
            _, flags, checksum = struct.unpack_from("<III", data, offset)
            if (HEADER_MAGIC + flags + checksum) & 0xFFFFFFFF == 0:
                return _header(data, name, offset, flags)
        offset = data.find(magic, offset + 1, end)
    return None


def _header(data: bytes, name: str, offset: int, flags: int) -> Header:
    unknown = flags & REQUIREMENTS & ~(NEEDS_PAGE_ALIGN | NEEDS_MEMORY_INFO | NEEDS_VIDEO)
    if unknown:
        raise ImageError(name, offset + 4, f"Multiboot header requires features {unknown:#x}", "features 0x7 at most")
    if not flags & HAS_ADDRESSES:
        return Header(offset, flags, None)
    if offset + 32 > len(data):
        raise ImageError(name, offset, "Multiboot header is cut off", "32 bytes")
    return Header(offset, flags, Addresses(*struct.unpack_from("<5I", data, offset + 12)))


def extent(addresses: Addresses, offset: int, file_size: int, name: str) -> tuple[int, int, int, int]:
    """(load address, offset in the file, bytes in the file, bytes in memory) of the one segment that the header at
    file ``offset`` describes. Raises ``ImageError``."""
    start = offset - (addresses.header - addresses.load)
    if start < 0 or start > offset:
        what = f"Multiboot header_addr {addresses.header:#x} and load_addr {addresses.load:#x}"
        raise ImageError(name, offset + 12, what, "load_addr at or below header_addr, within the file")
    length = addresses.load_end - addresses.load if addresses.load_end else file_size - start
    if not 0 < length <= file_size - start:
        what = f"Multiboot load_end_addr {addresses.load_end:#x}"
        raise ImageError(name, offset + 20, what, f"1 to {file_size - start} bytes from load_addr {addresses.load:#x}")
    memsz = max(length, addresses.bss_end - addresses.load) if addresses.bss_end else length
    return addresses.load, start, length, memsz


def info_block(
    name: str, regions: Sequence[tuple[int, int]], taken: Sequence[tuple[int, int]], args: str
) -> tuple[int, bytes]:
    """(physical address, bytes) of the information block: memory sizes and map, command line, loader name.

    ``regions`` are (base, bytes) of RAM, ``taken`` the (start, end) that the image occupies. Raises ``ImageError``.
    """
    # Boot loaders put the image's path first; here it would make the guest depend on where the file lies.
    command_line = args.encode() + b"\0"
    if len(command_line) > MAX_ARGS:
        raise ImageError(name, 0, f"command line of {len(command_line)} bytes", f"at most {MAX_ARGS}")
    behind = max(end for _, end in taken) + INFO_BYTES - 1 & -INFO_BYTES
    for address in (INFO_ADDRESS, behind):
        free = all(address + INFO_BYTES <= start or end <= address for start, end in taken)
        if free and any(base <= address and address + INFO_BYTES <= base + size for base, size in regions):
            return address, _info(address, regions, command_line)
    raise ImageError(name, 0, "no room for the Multiboot information block", f"a free page at {INFO_ADDRESS:#x}")


def _info(address: int, regions: Sequence[tuple[int, int]], command_line: bytes) -> bytes:
    memory_map = b"".join(struct.pack("<IQQI", 20, base, size, MEMORY_AVAILABLE) for base, size in regions)
    map_address = address + 128
    line_address = map_address + len(memory_map)
    name_address = line_address + len(command_line)
    lower = regions[0][1] // 1024
    upper = sum(size for base, size in regions if base >= 1 << 20) // 1024
    block = bytearray(128)
    flags = INFO_MEMORY | INFO_COMMAND_LINE | INFO_MEMORY_MAP | INFO_LOADER_NAME
    struct.pack_into("<III", block, 0, flags, lower, upper)
    struct.pack_into("<I", block, 16, line_address)
    struct.pack_into("<II", block, 44, len(memory_map), map_address)
    struct.pack_into("<I", block, 64, name_address)
    return bytes(block) + memory_map + command_line + LOADER_NAME
