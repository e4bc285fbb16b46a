"""Framing of the remote serial protocol, sans-IO (GDB manual, "Overview" and "Packet Acknowledgment").

``$`` payload ``#`` two hex digits of the payload's sum modulo 256. In the payload ``}`` escapes the next byte (xor
0x20), and ``c*n`` repeats ``c`` another ``n - 29`` times. Run lengths belong to the frame, escapes to what is inside:
a decoder expands first and unescapes after.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from rrgdb.errors import Error

PACKET_SIZE = 0x20000
"""bytes of one payload in either direction; qSupported's PacketSize"""

ACK = b"+"
NACK = b"-"
_INTERRUPT = 0x03
_DOLLAR, _HASH, _PERCENT, _STAR = b"$#%*"
_REPEAT_BASE = 29
_MAX_RUN = 98
"""one byte and the 97 repeats that the last printable count (126) can say"""
_FORBIDDEN_REPEATS = frozenset(c - _REPEAT_BASE for c in b"#$+-")

_TO_ESCAPE = re.compile(rb"[#$}*]")
_ESCAPED = re.compile(rb"}(.)", re.DOTALL)
_RUN = re.compile(rb"(.)\1{3,%d}" % (_MAX_RUN - 1), re.DOTALL)
_REPEAT = re.compile(rb"(.)\*(.)", re.DOTALL)
_START = re.compile(rb"[\x03$%+-]")
_FRAME_END = re.compile(rb"[#$]")


@dataclass(frozen=True, slots=True)
class Packet:
    """A whole packet with a good checksum; ``payload`` is expanded and unescaped."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """A frame that arrived whole but cannot be a packet: too long, bad run length, bad escape."""

    reason: str


class Signal(Enum):
    """What may stand between packets, and a frame that was damaged on its way."""

    INTERRUPT = auto()
    ACK = auto()
    NACK = auto()
    BAD_CHECKSUM = auto()
    JUNK = auto()
    """bytes that mean nothing there, however many"""


Event: TypeAlias = Packet | Rejected | Signal

_SIGNALS = {_INTERRUPT: Signal.INTERRUPT, ACK[0]: Signal.ACK, NACK[0]: Signal.NACK}


class FramingError(Error):
    """A payload with a run length or an escape that means nothing."""


def _escape(match: re.Match[bytes]) -> bytes:
    return bytes((0x7D, match[0][0] ^ 0x20))


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes((match[1][0] ^ 0x20,))


def _shorten(match: re.Match[bytes]) -> bytes:
    run = match[0]
    repeats = len(run) - 1
    while repeats in _FORBIDDEN_REPEATS:
        repeats -= 1
    return run[:1] + bytes((_STAR, repeats + _REPEAT_BASE)) + run[repeats + 1 :]


def encode(payload: bytes) -> bytes:
    """The frame of ``payload``, escaped, and run-length encoded where that is shorter."""
    body = _RUN.sub(_shorten, _TO_ESCAPE.sub(_escape, payload))
    return b"$%b#%02x" % (body, sum(body) & 0xFF)


def expand(body: bytes, limit: int = PACKET_SIZE) -> bytes:
    """Undo run lengths and escapes of a frame's body; at most ``limit`` bytes. Raises FramingError."""
    if b"*" in body:
        body = _expand_runs(body, limit)
    if len(body) > limit:
        raise FramingError(f"packet longer than {limit} bytes")
    if b"}" in body:
        if b"}" in _ESCAPED.sub(b"", body):
            raise FramingError("escape at the end of a packet")
        body = _ESCAPED.sub(_unescape, body)
    return body


def _expand_runs(body: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    total = start = 0
    for match in _REPEAT.finditer(body):
        repeats = match[2][0] - _REPEAT_BASE
        if not 3 <= repeats < _MAX_RUN or match[1] == b"*":
            raise FramingError("bad run length")
        parts += (body[start : match.start() + 1], match[1] * repeats)
        total += match.start() + 1 - start + repeats
        if total > limit:
            raise FramingError(f"packet longer than {limit} bytes")
        start = match.end()
    rest = body[start:]
    if b"*" in rest:
        raise FramingError("bad run length")
    parts.append(rest)
    return b"".join(parts)


class _State(Enum):
    BETWEEN = auto()
    BODY = auto()
    CHECKSUM = auto()


class Decoder:
    """Bytes in, events out; holds at most ``limit`` bytes and a checksum, however much arrives.

    A ``$`` inside a frame begins a new one (the sender gave up on the old). 0x03 inside a frame is data.
    """

    def __init__(self, limit: int = PACKET_SIZE) -> None:
        self._limit = limit
        self._state = _State.BETWEEN
        self._body = bytearray()
        self._checksum = b""
        self._notification = False
        self._oversized = False
        self._in_junk = False

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        at = 0
        while at < len(data):
            if self._state is _State.BETWEEN:
                at = self._between(data, at, events)
            elif self._state is _State.BODY:
                at = self._fill(data, at)
            else:
                taken = data[at : at + 2 - len(self._checksum)]
                self._checksum += taken
                at += len(taken)
                if len(self._checksum) == 2:
                    self._finish(events)
        return events

    def _between(self, data: bytes, at: int, events: list[Event]) -> int:
        match = _START.search(data, at)
        start = len(data) if match is None else match.start()
        if start > at and not self._in_junk:
            events.append(Signal.JUNK)
        self._in_junk = match is None and (self._in_junk or start > at)
        if match is None:
            return len(data)
        byte = match[0][0]
        if byte in (_DOLLAR, _PERCENT):
            self._begin(notification=byte == _PERCENT)
        else:
            events.append(_SIGNALS[byte])
        return match.end()

    def _begin(self, *, notification: bool) -> None:
        self._state = _State.BODY
        self._notification = notification
        self._oversized = False
        self._body.clear()
        self._checksum = b""

    def _fill(self, data: bytes, at: int) -> int:
        match = _FRAME_END.search(data, at)
        end = len(data) if match is None else match.start()
        if len(self._body) + end - at > self._limit:
            self._oversized = True
            self._body.clear()
        elif not self._oversized:
            self._body += data[at:end]
        if match is None:
            return end
        if match[0][0] == _HASH:
            self._state = _State.CHECKSUM
        else:
            self._begin(notification=False)
        return match.end()

    def _finish(self, events: list[Event]) -> None:
        self._state = _State.BETWEEN
        body = bytes(self._body)
        self._body.clear()
        if self._notification:
            return
        if self._oversized:
            events.append(Rejected(f"packet longer than {self._limit} bytes"))
        elif self._checksum.lower() != b"%02x" % (sum(body) & 0xFF):
            events.append(Signal.BAD_CHECKSUM)
        else:
            try:
                events.append(Packet(expand(body, self._limit)))
            except FramingError as error:
                events.append(Rejected(str(error)))
