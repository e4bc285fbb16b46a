"""Intel HEX files (Intel, "Hexadecimal Object File Format Specification", revision A), as QEMU's loader takes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rrgdb.board.firmware.image import ImageError
from rrgdb.board.firmware.kernels import File

MAX_PIECES = 1 << 16
DATA, END, SEGMENT, SEGMENT_START, LINEAR, LINEAR_START = range(6)
_FIRST = re.compile(rb"\s*:(?:[0-9A-Fa-f]{2}){5,260}\s")
_LENGTHS = {SEGMENT: 2, SEGMENT_START: 4, LINEAR: 2, LINEAR_START: 4}
_UPPER = 0xFFFF0000


@dataclass(frozen=True, slots=True)
class Hex:
    """``pieces`` are (address, contents); ``start``: where the CPU starts, the first piece if the file does not say."""

    start: int
    pieces: tuple[tuple[int, bytes], ...]


def intel_hex(file: File) -> Hex | None:
    """None if the file does not begin with a record. Raises ``ImageError`` for one that is damaged."""
    if not _FIRST.match(file.data):
        return None
    pieces: list[tuple[int, bytearray]] = []
    at, start = 0, None
    for number, line in enumerate(file.data.splitlines(), 1):
        if not line.strip():
            continue
        record = _record(line.strip())
        if record is None:
            raise ImageError(file.name, 0, f"line {number}: {line[:20]!r}", "a record of Intel HEX with its checksum")
        address, kind, data = record
        if kind == DATA:
            begin = at & _UPPER | address
            if not pieces or begin != at:
                pieces.append((begin, bytearray()))
            pieces[-1][1].extend(data)
            at = begin + len(data)
            if len(pieces) > MAX_PIECES:
                raise ImageError(file.name, 0, f"line {number}: piece {len(pieces)}", f"at most {MAX_PIECES}")
        elif kind == END:
            found = tuple((begin, bytes(data)) for begin, data in pieces if data)
            first = found[0][0] if found else 0
            return Hex(first if start is None else start, found)
        elif kind in (SEGMENT, LINEAR):
            at = int.from_bytes(data, "big") << (4 if kind == SEGMENT else 16)
            pieces.append((at, bytearray()))
        elif kind == SEGMENT_START:
            start = (int.from_bytes(data[:2], "big") << 4) + int.from_bytes(data[2:], "big")
        else:
            start = int.from_bytes(data, "big")
    raise ImageError(file.name, len(file.data), "Intel HEX without an end", "a record :00000001FF")


def _record(line: bytes) -> tuple[int, int, bytes] | None:
    """(address, type, data); None if it is none."""
    try:
        record = bytes.fromhex(line[1:].decode("ascii")) if line[:1] == b":" else b""
    except ValueError:
        return None
    if len(record) < 5 or len(record) != record[0] + 5 or sum(record) & 0xFF:
        return None
    kind, data = record[3], record[4:-1]
    if kind > LINEAR_START or _LENGTHS.get(kind, len(data)) != len(data):
        return None
    return int.from_bytes(record[1:3], "big"), kind, data
