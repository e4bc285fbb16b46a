"""Registers: g, G, p, P. Numbers are the target description's, in the order of ``Debuggee.registers`` and then
``system_registers``."""

from __future__ import annotations

from rrgdb.rsp.commands.base import Command
from rrgdb.rsp.debuggee import Debuggee, RegisterInfo
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


def _find(debuggee: Debuggee, field: bytes) -> tuple[int, RegisterInfo]:
    """Number and description of a register."""
    index = number(field, "register number")
    plain = len(debuggee.registers)
    if index < plain:
        return index, debuggee.registers[index]
    system = debuggee.system_registers
    if index >= plain + len(system):
        raise PacketError(f"no register {index}: there are {plain + len(system)}")
    return index, system[index - plain]


def _read(session: Session, debuggee: Debuggee, arguments: bytes) -> bytes:
    return debuggee.read_register(session.thread, _find(debuggee, arguments)[0]).hex().encode()


def _write(session: Session, debuggee: Debuggee, arguments: bytes) -> bytes:
    left, right = split(arguments, b"=", "P packet")
    (index, register), value = _find(debuggee, left), data(right, "register value")
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
