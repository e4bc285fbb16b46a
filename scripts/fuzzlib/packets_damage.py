"""Damage to the sessions of debuggers that knows what packets are made of."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from rrgdb.rsp.packets import encode

_OPENING = 8
"""packets of a session that come first in most cases: what both sides can do"""
_NUMBER = re.compile(rb"[0-9a-f]{1,16}")
_SEPARATOR = re.compile(rb"[,;:=]")
_NUMBERS = (
    b"0", b"1", b"2", b"3", b"4", b"8", b"f", b"10", b"7f", b"80", b"ff", b"100", b"fff", b"1000", b"10000", b"20000",
    b"20001", b"7fffffff", b"80000000", b"ffffffff", b"100000000", b"7fffffffffffffff", b"8000000000000000",
    b"ffffffffffffffff", b"fffffffffffffff0", b"10000000000000000", b"-1", b"-0", b"+1", b" 1", b"0x10", b"", b"g",
)  # fmt: skip
_NAMES = (
    b"!", b"?", b"bc", b"bs", b"C05", b"c", b"D", b"D;1", b"G", b"g", b"Hg", b"Hc", b"M", b"m", b"P", b"p",
    b"qAttached", b"qC", b"qCRC:", b"qfThreadInfo", b"qOffsets", b"qRcmd,", b"qSearch:memory:", b"QStartNoAckMode",
    b"qsThreadInfo", b"qSupported:", b"qSymbol:", b"qThreadExtraInfo,", b"qXfer:", b"R00", b"S05", b"s", b"T",
    b"vAttach;", b"vCont;", b"vCont?", b"vKill;", b"vMustReplyEmpty", b"vRun;", b"X", b"x", b"Z0,", b"Z1,", b"Z2,",
    b"Z3,", b"Z4,", b"z0,", b"z2,", b"k", b"QNonStop:1", b"vFile:open:", b"qGetTLSAddr:", b"t", b"i", b"r", b"A",
    b"vStopped",
)  # fmt: skip
_MONITOR = (
    "help", "when", "seek", "back", "forward", "history", "savevm", "loadvm", "delvm", "info", "replay", "snapshots",
    "events", "registers", "replay_seek", "replay_break", "replay_delete_break", "start", "end", "s1",
    "gva2gpa", "watch-physical", "unwatch-physical", "watch-space", "current", "any", "all", "a", "4", "0x80001000",
    "s2", "0", "1", "50", "1000", "-1", "0x10", "1e3", "99999999999999999999", "\u2603", "'", "a" * 65, "h", "i r",
)  # fmt: skip
# opcode -> bytes of operand; what the manual lists, supported or not
_OPERANDS = {0x16: 1, 0x2A: 1, 0x20: 2, 0x21: 2, 0x22: 1, 0x23: 2, 0x24: 4, 0x25: 8, 0x26: 2, 0x32: 1, 0x30: 2, 0x2C: 2}
_CONSTANTS = (0x22, 0x23, 0x24, 0x25, 0x26)


def damage(sessions: list[list[bytes]], base: int, rng: random.Random) -> bytes:
    """What a peer sends: packets of sound sessions, most of them changed or framed badly. ``base``: where code is."""
    session = rng.choice(sessions)
    packets = session[:_OPENING] if rng.random() < 0.8 else []
    for _ in range(rng.randrange(1, 4)):
        source = rng.choice((session, rng.choice(sessions)))
        start = rng.randrange(len(source))
        packets = packets + source[start : start + rng.randrange(1, 9)]
    stream = bytearray(rng.choice((b"+", b"+", b"+", b"", b"-", b"\x03")))
    for packet in packets:
        changed = packet
        while rng.random() < 0.45:
            changed = rng.choice(_CHANGES)(changed, base, rng)
        stream += _framed(changed, rng)
    return bytes(stream)


# -- one packet ----------------------------------------------------------------------------------


def _number(packet: bytes, base: int, rng: random.Random) -> bytes:
    places = list(_NUMBER.finditer(packet))
    if not places:
        return packet + rng.choice(_NUMBERS)
    place = rng.choice(places)
    match rng.randrange(4):
        case 0:
            new = b"%x" % ((int(place[0], 16) + rng.choice((-1, 1, 2, -4, 4, 4095, 4096))) % (1 << 64))
        case 1:
            new = b"%x" % (base + rng.choice((0, 1, 2, 0x14, 0x18, 0x28, 0x46, 0x1000, 0x3FFFFF, 0x400000)))
        case _:
            new = rng.choice(_NUMBERS)
    return packet[: place.start()] + new + packet[place.end() :]


def _separator(packet: bytes, _: int, rng: random.Random) -> bytes:
    places = list(_SEPARATOR.finditer(packet))
    if not places:
        return packet + rng.choice((b",", b";", b":", b"="))
    place = rng.choice(places)
    new = rng.choice((b"", b",", b";", b":", b"=", place[0] * 2, b";;;;"))
    return packet[: place.start()] + new + packet[place.end() :]


def _bytes(packet: bytes, _: int, rng: random.Random) -> bytes:
    raw = bytearray(packet)
    at = rng.randrange(len(raw) + 1)
    match rng.randrange(3):
        case 0:
            raw[at:at] = rng.randbytes(rng.randrange(1, 5))
        case 1:
            del raw[at : at + rng.randrange(1, 5)]
        case _ if at < len(raw):
            raw[at] ^= 1 << rng.randrange(8)
    return bytes(raw)


def _length(packet: bytes, _: int, rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return packet[: rng.randrange(len(packet) + 1)]
    start = rng.randrange(len(packet) + 1)
    piece = packet[start : start + rng.randrange(1, 20)]
    return packet[:start] + piece * rng.choice((2, 3, 50, 3000)) + packet[start:]


def _name(packet: bytes, _: int, rng: random.Random) -> bytes:
    rest = packet[1:] if rng.random() < 0.5 else re.sub(rb"^[A-Za-z]+[,;:]?", b"", packet)
    return rng.choice(_NAMES) + rest


def _fresh(_: bytes, base: int, rng: random.Random) -> bytes:
    fields = (*_NUMBERS, b"%x" % base, b"%x" % (base + 0x1000), b"p1.1", b"c", b"s", b"r", b"X3,220127")
    words = [rng.choice(fields) + rng.choice((b"", b",", b";", b":", b"=")) for _ in range(rng.randrange(5))]
    return rng.choice(_NAMES) + b"".join(words)


def _write(_: bytes, base: int, rng: random.Random) -> bytes:
    """One that is mostly sound: code, data, registers and the program counter."""
    size = rng.choice((1, 2, 4, 4, 8, 64, 5000))
    data = rng.choice((rng.randbytes(size), bytes(size), b"\xff" * size))
    address = base + rng.choice((0, 0x14, 0x18, 0x28, 0x30, 0x1000, 0x1008, 0x1FFE, 0x3FFFFF))
    match rng.randrange(4):
        case 0:
            return b"M%x,%x:%b" % (address, size, data.hex().encode())
        case 1:
            return b"X%x,%x:%b" % (address, size, data)
        case 2:
            value = rng.choice((address, base + 0x1000, 0, rng.getrandbits(64)))
            width = rng.choice((4, 8, 8, 16))
            return b"P%x=%b" % (rng.randrange(40), (value % (1 << 8 * width)).to_bytes(width, "little").hex().encode())
        case _:
            return rng.choice((b"s", b"c", b"bs", b"bc", b"vCont;s:p1.1", b"vCont;r%x,%x:p1.1" % (base, address)))


def _monitor(_: bytes, __: int, rng: random.Random) -> bytes:
    text = " ".join(rng.choice(_MONITOR) for _ in range(rng.randrange(1, 4)))
    return b"qRcmd," + text.encode().hex().encode()


def _condition(_packet: bytes, base: int, rng: random.Random) -> bytes:
    listed = []
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        code = _expression(base, rng)
        listed.append(b"X%x,%b" % (len(code) if rng.random() < 0.9 else rng.randrange(70), code.hex().encode()))
    address = base + rng.choice((0, 0x10, 0x14, 0x18, 0x11, 0x28, 0x30, 0x46))
    head = b"Z%d,%x,%d;" % (rng.choice((0, 0, 1)), address, rng.choice((1, 2, 4)))
    return head + rng.choice((b"", b";")).join(listed)


def _expression(base: int, rng: random.Random) -> bytes:
    """Bytecode: mostly constants and registers first, then operations; jumps often go to an instruction."""
    code = bytearray()
    starts = [0]
    for _ in range(rng.randrange(1, 12)):
        opcode = rng.choice(_CONSTANTS) if rng.random() < 0.4 else rng.randrange(0x36)
        size = _OPERANDS.get(opcode, 0)
        operand = rng.choice((0, 1, 8, 64, base, base + 0x1000, (1 << 64) - 16, rng.choice(starts)))
        code += bytes((opcode,)) + (operand & (1 << 8 * size) - 1).to_bytes(size, "big")
        starts.append(len(code))
    return bytes(code) + (b"\x27" if rng.random() < 0.9 else b"")


_Change = Callable[[bytes, int, random.Random], bytes]
_CHANGES: tuple[_Change, ...] = (
    *(_number,) * 5, _separator, _bytes, _length, _name, _fresh, _write, _write, _monitor, _condition, _condition,
)  # fmt: skip


# -- frames --------------------------------------------------------------------------------------


def _framed(packet: bytes, rng: random.Random) -> bytes:
    frame = encode(packet)
    if rng.random() < 0.85:
        return frame + rng.choice((b"+", b"+", b"", b"", b"\x03"))
    raw = bytearray(frame)
    at = rng.randrange(len(raw))
    match rng.randrange(8):
        case 0:
            raw[-2:] = b"%02x" % rng.randrange(256)
        case 1:
            raw[at:at] = rng.choice((b"$", b"#", b"}", b"*", b"\x03", b"%", b"-", b"* ", b"*~*~", b"}*"))
        case 2:
            del raw[at:]
        case 3:
            return bytes(raw) + b"%Stop:T05#00" + rng.randbytes(4)
        case 4:
            body = packet.replace(b"}", b"") + rng.choice((b"*~" * 2000, b"0*", b"}", b"0*\x1c", b"0*~" * 9))
            return b"$" + body + b"#%02x" % (sum(body) & 0xFF)
        case 5:
            return bytes(raw) * rng.choice((2, 20, 100))
        case 6:
            return rng.choice((b"-", b"\x03", b"++", b"\r\n", b"GET / HTTP/1.1\r\n")) + bytes(raw)
        case _:
            raw[at] = rng.randrange(256)
    return bytes(raw)
