"""Memory: m, M in hex, x, X in binary. A read may return less than was asked for."""

from __future__ import annotations

from rrgdb.rsp.commands.base import Command, always
from rrgdb.rsp.debuggee import Debuggee
from rrgdb.rsp.faces import BASE
from rrgdb.rsp.packets import PACKET_SIZE
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import PacketError, address_and_length, data, split

_HEX_LIMIT = PACKET_SIZE // 2
# every byte of a binary reply may need an escape
_BINARY_LIMIT = PACKET_SIZE // 2 - 1


def _read_hex(session: Session, _: Debuggee, arguments: bytes) -> bytes:
    address, length = address_and_length(arguments, "memory read")
    if length == 0:
        raise PacketError("memory read of no bytes")
    return session.read_memory(address, min(length, _HEX_LIMIT)).hex().encode()


def _read_binary(session: Session, _: Debuggee, arguments: bytes) -> bytes:
    address, length = address_and_length(arguments, "memory read")
    return b"b" + (session.read_memory(address, min(length, _BINARY_LIMIT)) if length else b"")


def _write(session: Session, header: bytes, content: bytes) -> bytes:
    address, length = address_and_length(header, "memory write")
    if len(content) != length:
        raise PacketError(f"memory write of {length} bytes carries {len(content)}")
    if content:
        session.write_memory(address, content)
    return b"OK"


def _write_hex(session: Session, _: Debuggee, arguments: bytes) -> bytes:
    header, content = split(arguments, b":", "M packet")
    return _write(session, header, data(content, "memory contents"))


def _write_binary(session: Session, _: Debuggee, arguments: bytes) -> bytes:
    header, content = split(arguments, b":", "X packet")
    return _write(session, header, content)


COMMANDS = (
    Command(b"m", BASE, _read_hex, needs_process=True, brief=True),
    Command(b"M", BASE, _write_hex, needs_process=True),
    Command(b"x", BASE, _read_binary, advertises=always("binary-upload+"), needs_process=True, brief=True),
    Command(b"X", BASE, _write_binary, needs_process=True),
)
