"""Questions about memory as a whole: qCRC, qSearch; and the two that a bare stub answers with nothing to say."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from rrgdb.rsp.commands.base import Command
from rrgdb.rsp.debuggee import Debuggee, DebuggeeError
from rrgdb.rsp.faces import BASE
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import ADDRESS_LIMIT, EFAULT, PacketError, address_and_length, number

_CHUNK = 1 << 20
_RANGE_LIMIT = 1 << 32
_MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _chunks(session: Session, address: int, length: int) -> Iterator[bytes]:
    """All of a range, piece by piece; DebuggeeError where it is not memory."""
    if length > _RANGE_LIMIT:
        raise PacketError(f"range of {length} bytes; at most {_RANGE_LIMIT}")
    while length:
        part = session.read_memory(address, min(length, _CHUNK))
        if not part:
            raise DebuggeeError(f"no memory at {address:#x}", EFAULT)
        yield part
        address += len(part)
        length -= len(part)


def crc32(parts: Iterator[bytes]) -> int:
    """GDB's CRC-32: polynomial 0x04c11db7, most significant bit first, starts at all ones, no final inversion.

    That is zlib's with the bits of every byte and of the result mirrored.
    """
    crc = 0
    for part in parts:
        crc = zlib.crc32(part.translate(_MIRROR), crc)
    return int(f"{crc ^ 0xFFFFFFFF:032b}"[::-1], 2)


def _crc(session: Session, _: Debuggee, arguments: bytes) -> bytes:
    address, length = address_and_length(arguments, "qCRC")
    return b"C%08x" % crc32(_chunks(session, address, length))


def _search(session: Session, _: Debuggee, arguments: bytes) -> bytes:
    parts = arguments.split(b";", 2)
    if not parts[0].startswith(b"memory:"):
        return b""
    if len(parts) != 3 or not parts[2]:
        raise PacketError("bad qSearch: memory:address;length;pattern expected")
    address, length = number(parts[0].removeprefix(b"memory:"), "address"), number(parts[1], "length")
    if address + length > ADDRESS_LIMIT:
        raise PacketError("bad qSearch: range ends beyond the address space")
    pattern = parts[2]
    tail = b""
    for part in _chunks(session, address, length):
        window = tail + part
        found = window.find(pattern)
        if found >= 0:
            return b"1,%x" % (address - len(tail) + found)
        address += len(part)
        tail = window[len(window) - len(pattern) + 1 :] if len(window) >= len(pattern) else window
    return b"0"


def _offsets(*_: object) -> bytes:
    """Not relocated: symbols are where the file says."""
    return b""


def _symbol(*_: object) -> bytes:
    """No symbol is wanted."""
    return b"OK"


COMMANDS = (
    Command(b"qCRC", BASE, _crc, b":", needs_process=True),
    Command(b"qSearch", BASE, _search, b":", needs_process=True),
    Command(b"qOffsets", BASE, _offsets),
    Command(b"qSymbol", BASE, _symbol, b":"),
)
