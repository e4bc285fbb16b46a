"""Registers: g, G, p, P. Numbers are the target description's, in ``Debuggee.registers`` order."""

from __future__ import annotations

from rrgdb.rsp.commands.base import Command
from rrgdb.rsp.debuggee import Debuggee
from rrgdb.rsp.faces import BASE
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import PacketError, data, number, split


def _read_all(session: Session, debuggee: Debuggee, _: bytes) -> bytes:
    return debuggee.read_registers(session.thread).hex().encode()


def _write_all(session: Session, debuggee: Debuggee, arguments: bytes) -> bytes:
    values = data(arguments, "register values")
    expected = sum(register.bits + 7 >> 3 for register in debuggee.registers)
    if len(values) != expected:
        raise PacketError(f"{len(values)} bytes of registers; {expected} expected")
    debuggee.write_registers(session.thread, values)
    return b"OK"


def _number(debuggee: Debuggee, field: bytes) -> int:
    index = number(field, "register number")
    if index >= len(debuggee.registers):
        raise PacketError(f"no register {index}: there are {len(debuggee.registers)}")
    return index


def _read(session: Session, debuggee: Debuggee, arguments: bytes) -> bytes:
    return debuggee.read_register(session.thread, _number(debuggee, arguments)).hex().encode()


def _write(session: Session, debuggee: Debuggee, arguments: bytes) -> bytes:
    left, right = split(arguments, b"=", "P packet")
    index, value = _number(debuggee, left), data(right, "register value")
    register = debuggee.registers[index]
    if len(value) != register.bits + 7 >> 3:
        raise PacketError(f"{len(value)} bytes for register {register.name} of {register.bits} bits")
    debuggee.write_register(session.thread, index, value)
    return b"OK"


COMMANDS = (
    Command(b"g", BASE, _read_all, needs_process=True, brief=True),
    Command(b"G", BASE, _write_all, needs_process=True),
    Command(b"p", BASE, _read, needs_process=True, brief=True),
    Command(b"P", BASE, _write, needs_process=True),
)
