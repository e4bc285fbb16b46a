"""Stopping at system calls: QCatchSyscalls. For programs, which no debuggee of rrgdb is yet."""

from __future__ import annotations

from rrgdb.rsp.commands.base import Command, always
from rrgdb.rsp.debuggee import DebuggeeError, Syscalls
from rrgdb.rsp.faces import SYSCALLS
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import ENOSPC, PacketError, number

NUMBERS_LIMIT = 4096


def _catch(_: Session, syscalls: Syscalls, arguments: bytes) -> bytes:
    """``0``: none; ``1``: all; ``1;number;…``: these. What was said before holds no more."""
    if arguments == b"0":
        syscalls.catch_syscalls(frozenset())
    elif arguments == b"1":
        syscalls.catch_syscalls(None)
    elif arguments.startswith(b"1;"):
        fields = arguments[2:].split(b";", NUMBERS_LIMIT)
        if len(fields) > NUMBERS_LIMIT:
            raise DebuggeeError(f"more than {NUMBERS_LIMIT} system calls", ENOSPC)
        syscalls.catch_syscalls(frozenset(number(field, "system call") for field in fields))
    else:
        raise PacketError("bad QCatchSyscalls: 0, 1 or 1;number;... expected")
    return b"OK"


COMMANDS = (Command(b"QCatchSyscalls", SYSCALLS, _catch, b":", always("QCatchSyscalls+"), needs_process=True),)
