"""Registers: g, G, p, P. Numbers are the target description's, in ``Debuggee.registers`` order."""

from __future__ import annotations

from rrgdb.rsp.commands.base import Command
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import PacketError, data, number, split


def _read_all(session: Session, _: bytes) -> bytes:
    return session.debuggee.read_registers().hex().encode()


def _write_all(session: Session, arguments: bytes) -> bytes:
    values = data(arguments, "register values")
    expected = sum(register.bits + 7 >> 3 for register in session.debuggee.registers)
    if len(values) != expected:
        raise PacketError(f"{len(values)} bytes of registers; {expected} expected")
    session.debuggee.write_registers(values)
    return b"OK"


def _number(session: Session, field: bytes) -> int:
    index = number(field, "register number")
    if index >= len(session.debuggee.registers):
        raise PacketError(f"no register {index}: there are {len(session.debuggee.registers)}")
    return index


def _read(session: Session, arguments: bytes) -> bytes:
    return session.debuggee.read_register(_number(session, arguments)).hex().encode()


def _write(session: Session, arguments: bytes) -> bytes:
    left, right = split(arguments, b"=", "P packet")
    index, value = _number(session, left), data(right, "register value")
    register = session.debuggee.registers[index]
    if len(value) != register.bits + 7 >> 3:
        raise PacketError(f"{len(value)} bytes for register {register.name} of {register.bits} bits")
    session.debuggee.write_register(index, value)
    return b"OK"


COMMANDS = (
    Command(b"g", _read_all, needs_process=True, brief=True),
    Command(b"G", _write_all, needs_process=True),
    Command(b"p", _read, needs_process=True, brief=True),
    Command(b"P", _write, needs_process=True),
)
