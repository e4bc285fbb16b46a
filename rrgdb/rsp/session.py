"""What the stub knows of one debugger: what it offered, what it inserted, whether it is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from rrgdb.rsp.debuggee import Debuggee, DebuggeeError, StopReason, StopReply, ZPoint
from rrgdb.rsp.wire import ENOSPC, ESRCH, is_ours

POINTS_LIMIT = 10_000
CONDITIONS_LIMIT = 1 << 20
"""bytes of all conditions together"""
_KEYS_IF_OFFERED = {StopReason.SWBREAK: "swbreak", StopReason.HWBREAK: "hwbreak"}
_WATCHES = (StopReason.WATCH, StopReason.RWATCH, StopReason.AWATCH)
_HISTORY = (StopReason.HISTORY_BEGIN, StopReason.HISTORY_END)
_SIGINT = 2


class Session:
    """The stub's half of one connection.

    ``no_ack``: QStartNoAckMode was accepted. ``detached``: D came, the debuggee runs on. ``killed``: the recording is
    finished and the server should end. ``gone``: there is no process (it exited, or an extended-remote debugger killed
    or left it) until vRun or vAttach.
    """

    def __init__(
        self, debuggee: Debuggee, console: Callable[[str], None], byteorder: Literal["little", "big"] = "little"
    ) -> None:
        self.debuggee = debuggee
        self._console = console
        self.console_open = False
        """a packet is served during which GDB takes console output"""
        self.byteorder: Literal["little", "big"] = byteorder
        self.offered: frozenset[str] = frozenset()
        self.points: dict[tuple[int, int, int], int] = {}
        """(type, address, length) -> bytes of conditions"""
        self.no_ack = False
        self.extended = False
        self.detached = False
        self.killed = False
        self.gone = False
        self._attached = False
        self._expedite: tuple[int, ...] | None = None

    @property
    def should_close(self) -> bool:
        """Nothing more will be said on this connection."""
        return self.killed or (self.detached and not self.extended)

    def attach(self) -> None:
        """At the first packet: one who connects and says nothing does not stop a guest."""
        if not self._attached:
            self._attached = True
            self.debuggee.attached(self.console)

    def console(self, text: str) -> None:
        """Show ``text`` to the user. GDB takes it only while it waits for a stop or for a monitor command."""
        if self.console_open:
            self._console(text)

    def thread_id(self) -> bytes:
        return b"p1.1" if "multiprocess" in self.offered else b"1"

    def check_thread(self, thread: bytes) -> None:
        if not is_ours(thread):
            raise DebuggeeError("no such thread: there is one, p1.1", ESRCH)

    def stop_reply(self, stop: StopReply) -> bytes:
        """``T``, ``W`` or ``X`` (GDB manual, "Stop Reply Packets")."""
        process = b";process:1" if "multiprocess" in self.offered else b""
        if stop.reason is StopReason.EXITED:
            self.gone = True
            return b"W%02x" % (stop.status & 0xFF) + process
        if stop.reason is StopReason.TERMINATED:
            self.gone = True
            return b"X%02x" % (stop.signal & 0xFF) + process
        signal = _SIGINT if stop.reason is StopReason.INTERRUPT else stop.signal & 0xFF
        return b"T%02x%b%bthread:%b;" % (signal, self._reason(stop), self._expedited(), self.thread_id())

    def _reason(self, stop: StopReply) -> bytes:
        if stop.reason in _WATCHES:
            hits = [(stop.reason, stop.address or 0)]
            if "multi-wp-addr" in self.offered:
                hits += stop.also
            return b"".join(b"%b:%x;" % (reason.value.encode(), address) for reason, address in hits)
        if stop.reason in _HISTORY:
            return stop.reason.value.encode() + b";"
        # GDB takes swbreak or hwbreak that it did not offer for a protocol error
        if _KEYS_IF_OFFERED.get(stop.reason) in self.offered:
            return stop.reason.value.encode() + b":;"
        return b""

    def _expedited(self) -> bytes:
        if self._expedite is None:
            self._expedite = tuple(n for n, register in enumerate(self.debuggee.registers) if register.expedited)
        parts = []
        for number in self._expedite:
            try:
                value = self.debuggee.read_register(number)
            except DebuggeeError:
                continue
            parts.append(b"%x:%b;" % (number, value.hex().encode()))
        return b"".join(parts)

    def insert(self, point: ZPoint) -> None:
        key = (point.type.value, point.address, point.length)
        size = sum(map(len, point.conditions))
        if key not in self.points and len(self.points) >= POINTS_LIMIT:
            raise DebuggeeError(f"more than {POINTS_LIMIT} breakpoints and watchpoints", ENOSPC)
        if size and sum(self.points.values()) - self.points.get(key, 0) + size > CONDITIONS_LIMIT:
            raise DebuggeeError(f"more than {CONDITIONS_LIMIT} bytes of conditions", ENOSPC)
        self.debuggee.insert(point)
        self.points[key] = size

    def remove(self, point: ZPoint) -> None:
        self.debuggee.remove(point)
        self.points.pop((point.type.value, point.address, point.length), None)

    def drop(self) -> None:
        """The connection is gone without a ``D``: the guest stays where it is."""
        if self._attached and not self.detached and not self.killed:
            self.detached = True
            self.debuggee.detached(resume=False)
