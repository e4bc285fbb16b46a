"""Breakpoints and watchpoints: Z0-Z4, z0-z4, with conditions as agent expressions."""

from __future__ import annotations

import re
from dataclasses import replace

from rrgdb.rsp.commands.base import Command, always
from rrgdb.rsp.debuggee import Debuggee, ZPoint, ZType
from rrgdb.rsp.faces import BASE
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import PacketError, address_and_length, data, number, split

_EXPRESSION = re.compile(rb"X([0-9a-fA-F]{1,4}),")
_WATCHPOINTS = (ZType.WRITE, ZType.READ, ZType.ACCESS)


def _parse(arguments: bytes) -> tuple[ZPoint, bytes]:
    """``type,addr,kind`` and what follows."""
    digit, rest = split(arguments, b",", "Z packet")
    if digit not in (b"0", b"1", b"2", b"3", b"4"):
        raise PacketError("bad Z packet: type 0 to 4 expected")
    position, _, more = rest.partition(b";")
    address, length = address_and_length(position, "breakpoint")
    point = ZPoint(ZType(int(digit)), address, length)
    if point.type in _WATCHPOINTS and length == 0:
        raise PacketError("watchpoint of no bytes")
    return point, more


def _conditions(options: bytes) -> tuple[bytes, ...]:
    """``X len,expr`` one after the other, with or without ``;`` between; ``cmds:…`` behind them is ignored."""
    codes = []
    at = 0
    while at < len(options) and not options.startswith(b"cmds:", at):
        if options.startswith(b";", at):
            at += 1
            continue
        match = _EXPRESSION.match(options, at)
        if match is None:
            raise PacketError("bad breakpoint condition: X expected")
        end = match.end() + 2 * number(match[1], "condition length")
        code = data(options[match.end() : end], "breakpoint condition")
        if 2 * len(code) != end - match.end():
            raise PacketError("breakpoint condition is cut off")
        codes.append(code)
        at = end
    return tuple(codes)


def _insert(session: Session, _: Debuggee, arguments: bytes) -> bytes:
    point, options = _parse(arguments)
    session.insert(replace(point, conditions=_conditions(options)))
    return b"OK"


def _remove(session: Session, __: Debuggee, arguments: bytes) -> bytes:
    point, _ = _parse(arguments)
    session.remove(point)
    return b"OK"


COMMANDS = (
    Command(b"Z", BASE, _insert, advertises=always("ConditionalBreakpoints+"), needs_process=True, brief=True),
    Command(b"z", BASE, _remove, needs_process=True, brief=True),
)
