"""qRcmd: ``monitor`` commands."""

from __future__ import annotations

from rrgdb.rsp.commands.base import Command
from rrgdb.rsp.debuggee import Debuggee, DebuggeeError
from rrgdb.rsp.faces import BASE
from rrgdb.rsp.packets import PACKET_SIZE
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import data

# in characters: up to four bytes, each two hex digits
_REPLY_LIMIT = PACKET_SIZE // 8


def _command(session: Session, _: Debuggee, arguments: bytes) -> bytes:
    from rrgdb.rsp import monitor  # noqa: PLC0415 - a table of all that it can say: for those who ask

    line = data(arguments, "monitor command").decode("utf-8", "replace")
    try:
        text = monitor.run(session, line)
    except DebuggeeError as error:
        # before error-message+ a debugger shows only "Protocol error with Rcmd"
        if "error-message" in session.offered:
            raise
        text = f"error: {error}\n"
    *before, last = (text[at : at + _REPLY_LIMIT] for at in range(0, max(len(text), 1), _REPLY_LIMIT))
    for part in before:
        session.console(part)
    # A path of the host may hold what is no UTF-8.
    return last.encode("utf-8", "backslashreplace").hex().encode() or b"OK"


COMMANDS = (Command(b"qRcmd", BASE, _command, b",", console=True),)
