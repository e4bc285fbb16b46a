"""Fields of packets: hex numbers, hex data, thread ids. Everything raises PacketError on malformed input."""

from __future__ import annotations

import re
from binascii import Error, unhexlify

from rrgdb.rsp.debuggee import DebuggeeError

# GDB's File-I/O error numbers
ENOENT, ESRCH, EIO, EFAULT, EINVAL, ENOSPC = 2, 3, 5, 14, 22, 28
ADDRESS_LIMIT = 1 << 64

_NUMBER = re.compile(rb"[0-9a-fA-F]{1,16}")
_THREAD = re.compile(rb"(?:p(-1|[0-9a-fA-F]{1,8})(?:\.(-1|[0-9a-fA-F]{1,8}))?|(-1|[0-9a-fA-F]{1,8}))")
_OURS = (-1, 0, 1)


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


def is_ours(thread: bytes) -> bool:
    """Whether a thread-id (``1``, ``-1``, ``p1.1``, ``p1.-1`` …) covers the one thread that there is."""
    match = _THREAD.fullmatch(thread)
    if not match:
        raise PacketError("bad thread id")
    pid, tid, lone = (int(part, 16) if part else -1 for part in match.groups())
    return pid in _OURS and tid in _OURS and lone in _OURS
