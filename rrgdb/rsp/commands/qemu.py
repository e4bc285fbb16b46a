"""QEMU's own packets (QEMU documentation, "GDB usage", "Advanced debugging options")."""

from __future__ import annotations

from rrgdb.rsp.commands.base import Command
from rrgdb.rsp.debuggee import Debuggee, DebuggeeError, Physical
from rrgdb.rsp.faces import BASE, PHYSICAL
from rrgdb.rsp.session import Session

_ENABLE = 1
"""A single step goes into the handlers of interrupts, and timers run: under QEMU's record and replay, too, nothing else
is to be had."""


def _supported(_: Session, debuggee: Debuggee, __: bytes) -> bytes:
    return b"sstepbits;sstep" + (b";PhyMemMode" if PHYSICAL.of(debuggee) is not None else b"")


def _step_bits(*_: object) -> bytes:
    return b"ENABLE=%x" % _ENABLE


def _step(*_: object) -> bytes:
    return b"0x%x" % _ENABLE


def _set_step(_: Session, __: Debuggee, arguments: bytes) -> bytes:
    if _number(arguments) != _ENABLE:
        raise DebuggeeError(f"a single step is {_ENABLE} alone: it is exact")
    return b"OK"


def _physical(session: Session, *_: object) -> bytes:
    return b"%d" % session.physical


def _set_physical(session: Session, _: Physical, arguments: bytes) -> bytes:
    session.physical = bool(_number(arguments))
    return b"OK"


def _number(field: bytes) -> int:
    try:
        return int(field, 16)
    except ValueError:
        raise DebuggeeError("a hexadecimal number is expected") from None


COMMANDS = (
    Command(b"qqemu.Supported", BASE, _supported),
    Command(b"qqemu.sstepbits", BASE, _step_bits),
    Command(b"qqemu.sstep", BASE, _step),
    Command(b"Qqemu.sstep", BASE, _set_step, b":="),
    Command(b"qqemu.PhyMemMode", PHYSICAL, _physical),
    Command(b"Qqemu.PhyMemMode", PHYSICAL, _set_physical, b":"),
)
