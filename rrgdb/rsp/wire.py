"""Fields of packets: hex numbers, hex data, thread ids. Everything raises PacketError on malformed input."""

from __future__ import annotations

import re
from binascii import Error, unhexlify

from rrgdb.rsp.debuggee import DebuggeeError

# GDB's File-I/O error numbers
ENOENT, ESRCH, EIO, EBADF, EFAULT, EINVAL, EMFILE, ENOSPC, EROFS, ENAMETOOLONG = 2, 3, 5, 9, 14, 22, 24, 28, 30, 91
ADDRESS_LIMIT = 1 << 64

_NUMBER = re.compile(rb"[0-9a-fA-F]{1,16}")
_THREAD = re.compile(rb"(?:p(-1|[0-9a-fA-F]{1,8})(?:\.(-1|[0-9a-fA-F]{1,8}))?|(-1|[0-9a-fA-F]{1,8}))")
ALL, ANY = -1, 0
"""of processes or threads"""


class PacketError(DebuggeeError):
    """A packet whose arguments cannot be read; EINVAL."""

    def __init__(self, text: str) -> None:
        super().__init__(text, EINVAL)


def number(field: bytes, what: str) -> int:
    """A hexadecimal number of at most 64 bits."""
    if not _NUMBER.fullmatch(field):
        raise PacketError(f"bad {what}: hexadecimal digits expected")
    return int(field, 16)


def data(field: bytes, what: str) -> bytes:
    """Bytes in hex."""
    try:
        return unhexlify(field)
    except Error:
        raise PacketError(f"bad {what}: pairs of hexadecimal digits expected") from None


def split(fields: bytes, separator: bytes, what: str) -> tuple[bytes, bytes]:
    """The two sides of the first ``separator``."""
    left, found, right = fields.partition(separator)
    if not found:
        raise PacketError(f"bad {what}: {separator.decode()!r} expected")
    return left, right


def address_and_length(fields: bytes, what: str) -> tuple[int, int]:
    """``addr,length``; the range may not wrap around."""
    left, right = split(fields, b",", what)
    address, length = number(left, f"{what} address"), number(right, f"{what} length")
    if address + length > ADDRESS_LIMIT:
        raise PacketError(f"bad {what}: range ends beyond the address space")
    return address, length


def thread_id(field: bytes) -> tuple[int, int]:
    """Process and thread of a thread-id (``1``, ``-1``, ``p1.1``, ``p1`` …), each a number, ALL or ANY."""
    match = _THREAD.fullmatch(field)
    if not match:
        raise PacketError("bad thread id")
    process, thread, lone = (None if part is None else int(part, 16) for part in match.groups())
    if lone is not None:
        return ANY, lone
    return ALL if process is None else process, ALL if thread is None else thread
