"""Keys that are rrgdb's and not the guest's: Ctrl-A and one more, and a line editor for the monitor, as QEMU's ``mon:``
has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

ESCAPE = 0x01
PROMPT = "(rrgdb) "
HELP = "\r\nCtrl-A h  this help\r\nCtrl-A x  end rrgdb\r\nCtrl-A c  the monitor, and back\r\nCtrl-A Ctrl-A  Ctrl-A\r\n"
LINE_LIMIT = 500
"""characters of a command; what is typed behind them is dropped"""
_BACKSPACE = (0x08, 0x7F)
_KILL = 0x15
Reply = Callable[[str], None]


@runtime_checkable
class Monitored(Protocol):
    """A backend that has such keys."""

    def connect(self, end: Callable[[], None], command: Callable[[str, Reply], None]) -> None:
        """What is typed from now on, or was typed before: ``end`` ends rrgdb, ``command`` gets a line for the monitor,
        and a function that takes what the monitor says to it, on any thread, once. Both return at once."""


class Keys:
    """Takes what is typed apart. ``show`` gets what the user sees."""

    def __init__(self, show: Callable[[bytes], None]) -> None:
        self._show = show
        self._escaped = False
        self._in_monitor = False
        self._line = bytearray()
        self._end: Callable[[], None] | None = None
        self._command: Callable[[str, Reply], None] | None = None
        self._waiting: list[str | None] = []
        """commands, and None for the end, that came before anybody was there for them"""

    def connect(self, end: Callable[[], None], command: Callable[[str, Reply], None]) -> None:
        self._end, self._command = end, command
        while self._waiting:
            self._do(self._waiting.pop(0))

    def feed(self, data: bytes) -> bytes:
        """What is for the guest of what was typed. For one thread."""
        passed = bytearray()
        for byte in data:
            if self._escaped:
                self._escaped = False
                if byte != ESCAPE:
                    self._key(chr(byte))
                    continue
            elif byte == ESCAPE:
                self._escaped = True
                continue
            if self._in_monitor:
                self._edit(byte)
            else:
                passed.append(byte)
        return bytes(passed)

    def _key(self, key: str) -> None:
        if key in "h?":
            self._say(HELP)
        elif key == "x":
            self._do(None)
        elif key == "c":
            self._in_monitor = not self._in_monitor
            self._line.clear()
            self._say(f"\r\n{PROMPT}" if self._in_monitor else "\r\n")

    def _edit(self, byte: int) -> None:
        if byte in b"\r\n":
            line, self._line = self._line.decode(errors="replace").strip(), bytearray()
            self._say("\r\n")
            if line:
                self._do(line)
            else:
                self._say(PROMPT)
        elif byte in _BACKSPACE:
            if self._line:
                self._line.pop()
                self._say("\b \b")
        elif byte == _KILL:
            self._say("\b \b" * len(self._line))
            self._line.clear()
        elif byte >= 0x20 and len(self._line) < LINE_LIMIT:
            self._line.append(byte)
            self._show(bytes((byte,)))

    def _do(self, line: str | None) -> None:
        if self._end is None or self._command is None:
            self._waiting.append(line)
        elif line is None:
            self._end()
        else:
            self._command(line, self._reply)

    def _reply(self, text: str) -> None:
        self._say(text.replace("\n", "\r\n") + (PROMPT if self._in_monitor else ""))

    def _say(self, text: str) -> None:
        self._show(text.encode())
