"""From packets to commands: each is looked up once, and served. Knows no threads and no sockets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rrgdb.rsp.commands import COMMANDS
from rrgdb.rsp.commands.base import Command
from rrgdb.rsp.debuggee import DebuggeeError
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import ESRCH, PacketError

_ERROR_LIMIT = 400
_SHORT = 32
"""bytes of packets whose look-up is kept"""
# A long name ends where its letters end; a single letter is followed by its arguments at once. qXfer's names are those
# of its objects and operations, vFile's those of its operations.
_LONG_NAME = re.compile(rb"(?:qXfer:[a-z0-9-]+:[a-z]+|vFile:[a-z]+|[qQ]qemu\.[A-Za-z]+|[qQv][A-Za-z]+\??|b[sc])")


@dataclass(frozen=True, slots=True)
class Call:
    """One packet as the table reads it. ``command`` is None if it is for none; ``error``: its arguments cannot be told
    from its name."""

    payload: bytes
    command: Command[Any] | None = None
    arguments: bytes = b""
    error: PacketError | None = None

    @property
    def brief(self) -> bool:
        """Served in microseconds, and the guest does not move."""
        return self.command is not None and self.command.brief

    @property
    def steps(self) -> bool:
        """One step forward, if there is but one thread."""
        return self.command is not None and self.arguments in self.command.steps

    @property
    def resumes(self) -> bool:
        """The guest runs, forward or backward, until it stops or is interrupted."""
        return self.command is not None and self.command.resumes

    @property
    def console(self) -> bool:
        """GDB shows console output that arrives before the reply."""
        return self.command is not None and self.command.console


def index(commands: Iterable[Command[Any]]) -> dict[bytes, Command[Any]]:
    """Name -> command; a name may be registered once."""
    table: dict[bytes, Command[Any]] = {}
    for command in commands:
        if command.name in table:
            raise ValueError(f"packet {command.name!r} is registered twice")
        table[command.name] = command
    return table


_TABLE = index(COMMANDS)


def _look_up(payload: bytes) -> Call:
    command = _TABLE.get(payload[:1])
    if command is not None:
        return Call(payload, command, payload[1:])
    match = _LONG_NAME.match(payload)
    command = _TABLE.get(match[0]) if match else None
    if match is None or command is None:
        return Call(payload)
    rest = payload[match.end() :]
    if rest and (not command.separator or rest[:1] not in command.separator):
        return Call(payload, error=PacketError(f"bad arguments of {command.name.decode()}"))
    return Call(payload, command, rest[1:])


# A debugger says the same few short packets again and again.
_look_up_short = lru_cache(256)(_look_up)


class Dispatcher:
    """Payload in, payload out, for one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def look_up(self, payload: bytes) -> Call:
        """What the packet asks for. Raises nothing."""
        return _look_up_short(payload) if len(payload) <= _SHORT else _look_up(payload)

    def at_once(self, call: Call) -> bool:
        """Whether a packet is served in microseconds, and waits for nothing. Asked while nothing is served."""
        debuggee = self.session.debuggee
        return call.brief or (call.steps and debuggee.steps_at_once and len(debuggee.threads()) == 1)

    def handle(self, call: Call) -> bytes | None:
        """Serve one packet. None: no reply (``k``, ``R``). Raises nothing for any bytes, unless rrgdb has a bug."""
        if call.error is not None:
            return self.error(call.error)
        command, session = call.command, self.session
        if command is None or (face := command.face.of(session.debuggee)) is None:
            return b""
        try:
            if session.gone and command.needs_process:
                raise DebuggeeError("the process is gone: use run or attach", ESRCH)
            session.attach()
            session.console_open = command.console
            return command.handle(session, face, call.arguments)
        except DebuggeeError as error:
            return self.error(error)
        finally:
            session.console_open = False

    def error(self, error: DebuggeeError) -> bytes:
        """The error reply that this debugger understands."""
        if "error-message" not in self.session.offered:
            return b"E%02x" % (error.errno & 0xFF)
        text = str(error).encode("ascii", "replace")[:_ERROR_LIMIT]
        return b"E." + bytes(c if 0x20 <= c < 0x7F and c not in b"#$}*" else 0x3F for c in text)
