"""Every packet that the stub serves: prefix -> handler. What is not in the table gets the empty reply."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rrgdb.rsp.commands import (
    breakpoints,
    features,
    memory,
    monitor,
    process,
    registers,
    resume,
    search,
    threads,
    xfer,
)
from rrgdb.rsp.commands.base import Command
from rrgdb.rsp.wire import PacketError

_FAMILIES = (features, process, threads, resume, registers, memory, breakpoints, xfer, search, monitor)
# A long name ends where its letters end; a single letter is followed by its arguments at once.
_LONG_NAME = re.compile(rb"(?:[qQv][A-Za-z]+\??|b[sc])")

COMMANDS: tuple[Command, ...] = tuple(command for family in _FAMILIES for command in family.COMMANDS)


def index(commands: Iterable[Command]) -> dict[bytes, Command]:
    """Name -> command; a name may be registered once."""
    table: dict[bytes, Command] = {}
    for command in commands:
        if command.name in table:
            raise ValueError(f"packet {command.name!r} is registered twice")
        table[command.name] = command
    return table


_TABLE = index(COMMANDS)


def find(packet: bytes) -> tuple[Command, bytes] | None:
    """The command that serves ``packet``, and its arguments behind the separator. Raises PacketError."""
    command = _TABLE.get(packet[:1])
    if command is not None:
        return command, packet[1:]
    match = _LONG_NAME.match(packet)
    command = _TABLE.get(match[0]) if match else None
    if match is None or command is None:
        return None
    rest = packet[match.end() :]
    if rest and (not command.separator or rest[:1] not in command.separator):
        raise PacketError(f"bad arguments of {command.name.decode()}")
    return command, rest[1:]


def is_brief(packet: bytes) -> bool:
    """Whether the packet's command is ``Command.brief``; not if there is none."""
    try:
        found = find(packet)
    except PacketError:
        return False
    return found is not None and found[0].brief
