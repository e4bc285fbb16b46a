"""The monitor on the serial line: rrgdb's keys under ``--serial mon:stdio``, and gdb's ``monitor`` commands."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from rrgdb.backends.keys import Monitored
from rrgdb.errors import one_line
from rrgdb.rsp import monitor
from rrgdb.rsp.session import Session
from rrgdb.target import Target
from rrgdb.text import shown

QUIT = ("quit", "q")
"""QEMU's; all other commands are those of gdb's `monitor`"""
Post = Callable[[Callable[[], None]], None]
"""have a function called soon by the thread that owns the guest; returns at once"""


def connect(backend: Monitored, target: Target, post: Post) -> None:
    """Serve the keys of a backend from now on."""
    session = Session(target, lambda _text: None)

    def command(line: str, reply: Callable[[str], None]) -> None:
        if line in QUIT:
            end()
        else:
            post(lambda: reply(_answer(session, line)))

    backend.connect(end, command)


def end() -> None:
    """End rrgdb as whoever stops the process does: what was recorded is whole."""
    os.kill(os.getpid(), signal.SIGTERM)


def _answer(session: Session, line: str) -> str:
    try:
        return "".join(f"{shown(said)}\n" for said in monitor.run(session, line, moving=False).splitlines())
    except Exception as e:  # whatever it is, the guest goes on
        return f"{shown(one_line(e))}\n"
