"""What the stub knows of one debugger: what it offered, what it inserted, whether it is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rrgdb.rsp.debuggee import Debuggee, DebuggeeError, OpenFile, StopReason, StopReply, ZPoint
from rrgdb.rsp.wire import ALL, ANY, EMFILE, ENOSPC, ESRCH, thread_id

PROCESS = 1
POINTS_LIMIT = 10_000
CONDITIONS_LIMIT = 1 << 20
"""bytes of all conditions together"""
FILES_LIMIT = 64
"""open at the same time"""
_KEYS_IF_OFFERED = {StopReason.SWBREAK: "swbreak", StopReason.HWBREAK: "hwbreak"}
_WATCHES = (StopReason.WATCH, StopReason.RWATCH, StopReason.AWATCH)
_SYSCALLS = (StopReason.SYSCALL_ENTRY, StopReason.SYSCALL_RETURN)
_HISTORY = (StopReason.HISTORY_BEGIN, StopReason.HISTORY_END)
_SIGINT = 2


class Session:
    """The stub's half of one connection.

    ``no_ack``: QStartNoAckMode was accepted. ``detached``: D came, the debuggee runs on. ``killed``: the recording is
    finished and the server should end. ``gone``: there is no process (it exited, or an extended-remote debugger killed
    or left it) until vRun or vAttach. ``thread``: the one that packets are about, which is the one that stopped last
    until Hg says another. ``resumed``: the only one that c, s, bc and bs resume; None: all (Hc).
    """

    def __init__(self, debuggee: Debuggee, console: Callable[[str], None]) -> None:
        self.debuggee = debuggee
        self._console = console
        self.console_open = False
        """a packet is served during which GDB takes console output"""
        self.offered: frozenset[str] = frozenset()
        self.points: dict[tuple[int, int, int], int] = {}
        """(type, address, length) -> bytes of conditions"""
        self.files: dict[int, OpenFile] = {}
        """by the descriptor that the debugger knows"""
        self.no_ack = False
        self.extended = False
        self.detached = False
        self.killed = False
        self.gone = False
        self.thread = 1
        self.resumed: int | None = None
        self.physical = False
        """addresses of memory packets are physical ones (Qqemu.PhyMemMode)"""
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

    def thread_id(self, thread: int) -> bytes:
        return b"p1.%x" % thread if "multiprocess" in self.offered else b"%x" % thread

    def covered(self, field: bytes) -> Sequence[int]:
        """The threads that a thread-id is about; none if there are no such ones."""
        process, thread = thread_id(field)
        if process not in (ALL, ANY, PROCESS):
            return ()
        if thread == ANY:
            return (self.thread,)
        threads = self.debuggee.threads()
        return threads if thread == ALL else (thread,) if thread in threads else ()

    def find_thread(self, field: bytes) -> int:
        """One thread that a thread-id is about, the present one if it may be that."""
        covered = self.covered(field)
        if not covered:
            threads = self.debuggee.threads()
            count = "is one" if len(threads) == 1 else f"are {len(threads)}, the first"
            raise DebuggeeError(f"no such thread: there {count}, p{PROCESS}.{threads[0]:x}", ESRCH)
        return self.thread if self.thread in covered else covered[0]

    def stop_reply(self, stop: StopReply) -> bytes:
        """``T``, ``W`` or ``X`` (GDB manual, "Stop Reply Packets")."""
        process = b";process:1" if "multiprocess" in self.offered else b""
        if stop.reason is StopReason.EXITED:
            self.gone = True
            return b"W%02x" % (stop.status & 0xFF) + process
        if stop.reason is StopReason.TERMINATED:
            self.gone = True
            return b"X%02x" % (stop.signal & 0xFF) + process
        self.thread = stop.thread
        signal = _SIGINT if stop.reason is StopReason.INTERRUPT else stop.signal & 0xFF
        registers, thread = self._expedited(stop.thread), self.thread_id(stop.thread)
        return b"T%02x%b%bthread:%b;" % (signal, self._reason(stop), registers, thread)

    def _reason(self, stop: StopReply) -> bytes:
        if stop.reason in _WATCHES:
            hits = [(stop.reason, stop.address or 0)]
            if "multi-wp-addr" in self.offered:
                hits += stop.also
            return b"".join(b"%b:%x;" % (reason.value.encode(), address) for reason, address in hits)
        if stop.reason in _SYSCALLS:
            return b"%b:%x;" % (stop.reason.value.encode(), stop.syscall)
        if stop.reason in _HISTORY:
            return stop.reason.value.encode() + b";"
        # GDB takes swbreak or hwbreak that it did not offer for a protocol error
        if _KEYS_IF_OFFERED.get(stop.reason) in self.offered:
            return stop.reason.value.encode() + b":;"
        return b""

    def _expedited(self, thread: int) -> bytes:
        if self._expedite is None:
            self._expedite = tuple(n for n, register in enumerate(self.debuggee.registers) if register.expedited)
        parts = []
        for number in self._expedite:
            try:
                value = self.debuggee.read_register(thread, number)
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

    def read_memory(self, address: int, length: int) -> bytes:
        """As the debugger asks for it: see ``Debuggee.read_memory``."""
        physical = self.debuggee.faces.physical if self.physical else None
        if physical is not None:
            return physical.read_physical(address, length)
        return self.debuggee.read_memory(self.thread, address, length)

    def write_memory(self, address: int, data: bytes) -> None:
        physical = self.debuggee.faces.physical if self.physical else None
        if physical is not None:
            physical.write_physical(address, data)
        else:
            self.debuggee.write_memory(self.thread, address, data)

    def free_descriptor(self) -> int:
        """The lowest one."""
        for descriptor in range(FILES_LIMIT):
            if descriptor not in self.files:
                return descriptor
        raise DebuggeeError(f"more than {FILES_LIMIT} open files", EMFILE)

    def close_files(self) -> None:
        while self.files:
            self.files.popitem()[1].close()

    def drop(self) -> None:
        """The connection is gone without a ``D``: the guest stays where it is."""
        self.close_files()
        if self._attached and not self.detached and not self.killed:
            self.detached = True
            self.debuggee.detached(resume=False)
