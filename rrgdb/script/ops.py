"""What a script does to its machine, as bytes in the event log.

An operation is one byte kind, u32 length, then its fields and its data; all integers are little-endian. An input of
source ``script`` is one operation between two instructions. An answer is one call of a hook within an instruction:
u32 number of the call within the instruction, u32 hook, u8 whether this is the last part of the answer, u64 the value
that the hook returned (two's complement), then the operations that it did.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple

SOURCE = "script"
MAX_DATA = 1 << 19
"""bytes of one write to memory; longer ones are several operations"""
MAX_ANSWER = 3 << 18
"""bytes of operations in one part of an answer"""


class Kind(IntEnum):
    """REGISTER: Unicorn's id, then the value as Unicorn takes it. WRITE: physical address, then the bytes. MAP: base,
    size, permissions, offset in the mapping of RAM. UNMAP: base, size. PROTECT: base, size, permissions. DEVICE: base,
    size, hook for reads, hook for writes (0: none). HOOK: number, type, begin, end, two auxiliary values. UNHOOK:
    number. CONTEXT: a whole CPU state. STOP: the run is to end. START: a run begins at the first address; the second
    ends it. END: the run is over; Unicorn's error."""

    REGISTER = 1
    WRITE = 2
    MAP = 3
    UNMAP = 4
    PROTECT = 5
    DEVICE = 6
    HOOK = 7
    UNHOOK = 8
    CONTEXT = 9
    STOP = 10
    START = 11
    END = 12


FIELDS = {
    Kind.REGISTER: struct.Struct("<i"),
    Kind.WRITE: struct.Struct("<Q"),
    Kind.MAP: struct.Struct("<QQIQ"),
    Kind.UNMAP: struct.Struct("<QQ"),
    Kind.PROTECT: struct.Struct("<QQI"),
    Kind.DEVICE: struct.Struct("<QQII"),
    Kind.HOOK: struct.Struct("<IIQQqq"),
    Kind.UNHOOK: struct.Struct("<I"),
    Kind.CONTEXT: struct.Struct("<"),
    Kind.STOP: struct.Struct("<"),
    Kind.START: struct.Struct("<QQ"),
    Kind.END: struct.Struct("<i"),
}
_WITH_DATA = (Kind.REGISTER, Kind.WRITE, Kind.CONTEXT)
_HEAD = struct.Struct("<BI")
_ANSWER = struct.Struct("<IIBQ")
_MASK = (1 << 64) - 1


class Op(NamedTuple):
    """One operation; ``fields`` as its kind says."""

    kind: Kind
    fields: tuple[int, ...] = ()
    data: bytes = b""

    def encode(self) -> bytes:
        """ValueError for a field that does not fit."""
        try:
            body = FIELDS[self.kind].pack(*self.fields) + self.data
        except struct.error as e:
            raise ValueError(f"{self.kind.name}: {e}") from None
        return _HEAD.pack(self.kind, len(body)) + body


def decode(raw: bytes) -> Iterator[Op]:
    """The operations in ``raw``; ValueError where it is none."""
    at = 0
    while at < len(raw):
        if len(raw) < at + _HEAD.size:
            raise ValueError("an operation ends inside its head")
        number, length = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        body = raw[at : at + length]
        at += length
        if number not in FIELDS:
            raise ValueError(f"operation {number} is unknown to this version of rrgdb")
        kind, fields = Kind(number), FIELDS[Kind(number)]
        if len(body) != length or length < fields.size or (length > fields.size and kind not in _WITH_DATA):
            raise ValueError(f"{kind.name}: an operation of {len(body)} bytes")
        yield Op(kind, fields.unpack_from(body), body[fields.size :])


class Answer(NamedTuple):
    """One part of what a call of a hook did within an instruction."""

    call: int
    hook: int
    last: bool
    value: int
    ops: bytes

    @classmethod
    def decode(cls, raw: bytes) -> Answer:
        if len(raw) < _ANSWER.size:
            raise ValueError(f"an answer of {len(raw)} bytes")
        call, hook, last, value = _ANSWER.unpack_from(raw)
        return cls(call, hook, bool(last), value, raw[_ANSWER.size :])


def encode_answer(call: int, hook: int, value: int, ops: list[bytes]) -> Iterable[bytes]:
    """The payloads, in order, of one call of a hook."""
    if not ops:
        return (_ANSWER.pack(call, hook, 1, value & _MASK),)
    return _encode_parts(call, hook, value, ops)


def _encode_parts(call: int, hook: int, value: int, ops: list[bytes]) -> Iterator[bytes]:
    part: list[bytes] = []
    size = 0
    for op in ops:
        if size + len(op) > MAX_ANSWER and part:
            yield _ANSWER.pack(call, hook, 0, 0) + b"".join(part)
            part, size = [], 0
        part.append(op)
        size += len(op)
    yield _ANSWER.pack(call, hook, 1, value & _MASK) + b"".join(part)
