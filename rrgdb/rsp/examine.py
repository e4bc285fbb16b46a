"""What QEMU's monitor commands ``x`` and ``xp`` print."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rrgdb.rsp.debuggee import DebuggeeError

_FORMAT = re.compile(r"/([0-9]{0,9})([xduoc]?)([bhwg]?)([xduoc]?)")
_SIZES = {"b": 1, "h": 2, "w": 4, "g": 8}
_LINE, _LINE_OF_BYTES = 16, 8
COUNT_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class Format:
    """``count`` numbers of ``size`` bytes in the notation ``letter``."""

    count: int = 1
    letter: str = "x"
    size: int = 4


def parse(text: str) -> Format:
    """``/8xw`` and its like; what is left out is as in QEMU. DebuggeeError."""
    match = _FORMAT.fullmatch(text)
    if match is None or (match[2] and match[4]):
        raise DebuggeeError(f"bad format {text!r}: /COUNT, one of x d u o c, one of b h w g are expected")
    count = int(match[1]) if match[1] else 1
    if count > COUNT_LIMIT:
        raise DebuggeeError(f"bad format {text}: at most {COUNT_LIMIT} numbers")
    letter = match[2] or match[4] or "x"
    return Format(count, letter, 1 if letter == "c" else _SIZES[match[3] or "w"])


def dump(
    form: Format, address: int, digits: int, read: Callable[[int, int], bytes], byteorder: Literal["little", "big"]
) -> str:
    """Memory in lines, addresses in ``digits``; ``read(address, length)`` may return less, and raises DebuggeeError
    where there is none."""
    left, lines = form.count * form.size, []
    while left:
        length = min(left, _LINE_OF_BYTES if form.size == 1 else _LINE)
        try:
            data = read(address, length)
        except DebuggeeError:
            data = b""
        whole = len(data) // form.size * form.size
        values = (data[at : at + form.size] for at in range(0, whole, form.size))
        numbers = "".join(f" {_shown(form, int.from_bytes(value, byteorder))}" for value in values)
        cut = " Cannot access memory" if whole < length else ""
        lines.append(f"{address:0{digits}x}:{numbers}{cut}\n")
        if cut:
            break
        address += length
        left -= length
    return "".join(lines)


def _shown(form: Format, value: int) -> str:
    bits = 8 * form.size
    if form.letter == "x":
        return f"0x{value:0{bits // 4}x}"
    if form.letter == "o":
        return f"0{value:o}".rjust(-(-bits // 3)) if value else "0".rjust(-(-bits // 3))
    if form.letter == "c":
        return f"'{_character(value)}'"
    if form.letter == "d" and value >> bits - 1:
        value -= 1 << bits
    return str(value).rjust(-(-bits * 10 // 33))


_ESCAPES = {0x27: "\\'", 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r"}


def _character(value: int) -> str:
    if value in _ESCAPES:
        return _ESCAPES[value]
    return chr(value) if 0x20 <= value < 0x7F else f"\\x{value:02x}"
