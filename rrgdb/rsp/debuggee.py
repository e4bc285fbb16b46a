"""The debuggee as the protocol sees it: the one interface between ``rsp`` and the rest of rrgdb.

Every method but ``interrupt`` is called on the engine thread, one at a time, and may block while the guest runs. What
serves a brief packet (``Command.brief``), or one step (``Debuggee.steps_at_once``), may be called on trio's thread
instead while the engine thread rests.

``Auxv``, ``Libraries``, ``Syscalls`` and ``Files`` are for programs, which no debuggee of rrgdb is yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from rrgdb.errors import Error


class DebuggeeError(Error):
    """The request cannot be served; ``errno`` goes into ``Exx``, the text into ``E.text``.

    errno follows GDB's File-I/O numbering (EFAULT 14, EINVAL 22, ENOENT 2, EBUSY 16).
    """

    def __init__(self, text: str, errno: int = 22) -> None:
        super().__init__(text)
        self.errno = errno


class ZType(Enum):
    """The type of a breakpoint or watchpoint, as the digit of its Z packet."""

    SOFTWARE = 0
    HARDWARE = 1
    WRITE = 2
    READ = 3
    ACCESS = 4


@dataclass(frozen=True, slots=True)
class ZPoint:
    """A breakpoint or watchpoint as a Z packet inserts it.

    ``length``: the kind for breakpoints, bytes for watchpoints. ``conditions``: agent expressions (GDB manual,
    "Agent Expressions"), raw bytecode; the point hits if the list is empty or any of them is non-zero.
    """

    type: ZType
    address: int
    length: int
    conditions: tuple[bytes, ...] = ()


class StopReason(Enum):
    """Why the guest stands; the value is the key in a ``T`` stop reply where there is one."""

    SIGNAL = "signal"
    STEP = "step"
    SWBREAK = "swbreak"
    HWBREAK = "hwbreak"
    WATCH = "watch"
    RWATCH = "rwatch"
    AWATCH = "awatch"
    HISTORY_BEGIN = "replaylog:begin"
    HISTORY_END = "replaylog:end"
    SYSCALL_ENTRY = "syscall_entry"
    SYSCALL_RETURN = "syscall_return"
    INTERRUPT = "interrupt"
    EXITED = "exited"
    TERMINATED = "terminated"


@dataclass(frozen=True, slots=True)
class StopReply:
    """One stop: ``signal`` is GDB's number (5 SIGTRAP, 2 SIGINT, 11 SIGSEGV …); ``address`` the watched data address;
    ``also`` what else the same instruction hit, each the reason (WATCH, RWATCH, AWATCH) and the address; ``status`` the
    exit status for EXITED; ``syscall`` the number for SYSCALL_ENTRY and SYSCALL_RETURN."""

    reason: StopReason
    signal: int = 5
    address: int | None = None
    status: int = 0
    also: tuple[tuple[StopReason, int], ...] = ()
    thread: int = 1
    """the one that it is about; the number of one that there is, whatever stopped"""
    syscall: int = 0


class Resume(Enum):
    CONTINUE = "c"
    STEP = "s"
    RANGE_STEP = "r"
    REVERSE_CONTINUE = "bc"
    REVERSE_STEP = "bs"


@dataclass(frozen=True, slots=True)
class RegisterInfo:
    name: str
    bits: int
    expedited: bool


@dataclass(frozen=True, slots=True)
class MemoryRegion:
    """One entry of the memory map (bytes); ``kind`` is ``ram`` or ``rom``."""

    start: int
    length: int
    kind: str


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    name: str
    icount: int
    bytes: int
    automatic: bool


@dataclass(frozen=True, slots=True)
class EventInfo:
    icount: int
    source: str
    size: int


@dataclass(frozen=True, slots=True)
class ReplayInfo:
    """``mode``: record, replay or diversion. icounts in instructions. ``origin``: where a diversion left history."""

    mode: str
    icount: int
    start: int
    end: int
    recording: str
    origin: int | None = None
    stopped: str = ""
    """what has stopped it here, where a stop reply cannot tell"""


@dataclass(frozen=True, slots=True)
class HistoryLine:
    icount: int
    address: int
    text: str
    """bytes and disassembly of one executed instruction"""


class Time(Protocol):
    """Moving in time: reverse execution, and positions that are sought."""

    def replay_info(self) -> ReplayInfo: ...
    def engine_info(self) -> Sequence[str]:
        """Lines about how the guest is executed, for a person."""

    def seek(self, where: str) -> StopReply:
        """``where``: an icount (decimal or 0x…), ``start``, ``end``, or a snapshot's name."""

    def seek_relative(self, delta: int) -> StopReply:
        """``delta`` instructions forward (positive) or back."""

    def history(self, count: int) -> Sequence[HistoryLine]:
        """The last ``count`` executed instructions, oldest first."""

    def events(self, limit: int) -> Sequence[EventInfo]:
        """The next ``limit`` events of the log from the position on."""

    def replay_break(self, icount: int) -> None:
        """Stop at this icount when passing it in either direction (one at a time, as QEMU's)."""

    def replay_delete_break(self) -> None: ...


class Snapshots(Time, Protocol):
    """Positions in time with names, that are kept."""

    def save_snapshot(self, name: str) -> None: ...
    def load_snapshot(self, name: str) -> StopReply: ...
    def delete_snapshot(self, name: str) -> None: ...
    def snapshots(self) -> Sequence[SnapshotInfo]: ...


class MemoryMap(Protocol):
    """What of the address space is memory (GDB manual, "Memory Map Format")."""

    def memory_map(self) -> Sequence[MemoryRegion]: ...


@dataclass(frozen=True, slots=True)
class Translated:
    """``length`` bytes from virtual address ``virtual`` on are at ``physical``; ``flags`` say how they may be accessed
    (rwx by the supervisor, rwx by the user), and the rest of what the tables say."""

    virtual: int
    length: int
    physical: int
    flags: str


class Physical(Protocol):
    """Memory as the CPU's bus sees it. Only memory: what devices have there is not touched."""

    def read_physical(self, address: int, length: int) -> bytes:
        """As ``Debuggee.read_memory``."""

    def write_physical(self, address: int, data: bytes) -> None: ...
    def translate(self, thread: int, address: int) -> int | None:
        """The physical address; None: nothing is mapped there."""

    def translations(self, thread: int) -> Iterator[Translated] | None:
        """What its page tables map, ascending; None: it translates no addresses now. DebuggeeError where there is more
        than can be looked at."""


@dataclass(frozen=True, slots=True)
class PhysicalWatch:
    """Watched bytes at a physical address; ``type`` as that of watchpoints."""

    address: int
    length: int
    type: ZType


class Watching(Protocol):
    """Watching beyond what packets can say. What a debugger cannot be told by a virtual address that it reads is told
    as a SIGNAL of number 0, and in a line on the console."""

    def watch_physical(self, watch: PhysicalWatch) -> None: ...
    def unwatch_physical(self, address: int | None) -> int:
        """Forget those at an address, or all (None); returns how many there were."""

    def physical_watches(self) -> Sequence[PhysicalWatch]:
        """In the order in which they were set."""

    def bind_watches(self, bind: bool) -> None:
        """From now on all watchpoints that packets insert are of the memory of the address space in use now; or of
        whichever is in use when it is accessed. DebuggeeError if addresses are physical."""

    def bound_to(self) -> int | None:
        """The physical address of that space's page tables; None: any."""


@dataclass(frozen=True, slots=True)
class BusArea:
    """Addresses ``first`` to ``last`` of the bus; ``kind`` is ram, rom, i/o or port."""

    first: int
    last: int
    kind: str
    name: str


class Hardware(Protocol):
    """What there is around the CPUs of a machine."""

    def areas(self) -> Sequence[BusArea]:
        """Ascending, ports behind."""

    def interrupts(self) -> Sequence[str]:
        """Lines and controllers, in lines of text."""


class Executable(Protocol):
    """Which file it is that runs."""

    def executable(self) -> str:
        """Absolute path of the guest's image on this host; with ``Files`` among those, for GDB looks for it there."""


class Auxv(Protocol):
    """What the kernel told a program when it began."""

    def auxv(self) -> bytes:
        """The auxiliary vector as it stood then: pairs of type and value, AT_NULL the last; each is a word of the
        target's size and byte order (qXfer:auxv:read)."""


@dataclass(frozen=True, slots=True)
class LinkMap:
    """One ``struct link_map`` of the dynamic linker, whose fields are named below; ``address`` and ``previous`` are
    those of such structs."""

    address: int
    previous: int
    """``l_prev``; 0: none"""
    name: bytes
    """``l_name``, path of the file, at most 4096 bytes without NUL"""
    offset: int
    """``l_addr``, what is added to addresses in the file, modulo the address space"""
    dynamic: int
    """``l_ld``, address of the dynamic section"""


@dataclass(frozen=True, slots=True)
class Namespace:
    """One ``struct r_debug`` of the dynamic linker, at ``address``; ``first``: where its first link map is
    (``r_map``)."""

    address: int
    first: int


class Libraries(Protocol):
    """Which shared libraries a program has loaded (GDB manual, "Library List Format for SVR4 Targets").

    Lists are in the hands of the program: they may be endless."""

    def namespaces(self) -> Iterable[Namespace]:
        """All that have link maps; the first is that of the program, whose own link map is the first there."""

    def link_maps(self, start: int) -> Iterable[LinkMap]:
        """The list from the one at address ``start`` on (``l_next``) to where it cannot be followed.

        DebuggeeError(EFAULT) if there is nothing at ``start``."""


class Syscalls(Protocol):
    """Stopping at system calls."""

    def catch_syscalls(self, numbers: frozenset[int] | None) -> None:
        """From now on stop at entry to and return from these, and no others (SYSCALL_ENTRY, SYSCALL_RETURN); None: at
        all of them. Numbers are the target's; those that it does not know are never met. (QCatchSyscalls)"""


@dataclass(frozen=True, slots=True)
class FileStatus:
    """``struct stat`` with POSIX's meanings: ``mode`` is type and permissions, ``size`` and ``blksize`` are bytes,
    ``blocks`` 512 bytes each, times seconds since 1970. Of larger numbers than the packet holds the low bits go there
    (GDB manual, "struct stat")."""

    mode: int
    size: int
    dev: int = 0
    ino: int = 0
    nlink: int = 1
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    blksize: int = 4096
    blocks: int = 0
    atime: int = 0
    mtime: int = 0
    ctime: int = 0


class OpenFile(Protocol):
    """A file that is open for reading. The session closes it, once."""

    def read(self, offset: int, length: int) -> bytes:
        """At most ``length`` bytes from byte ``offset`` (< 2**63) on; none only at the end or if ``length`` is 0.
        Raises DebuggeeError."""

    def status(self) -> FileStatus:
        """Raises DebuggeeError."""

    def close(self) -> None:
        """Raises nothing."""


class Files(Protocol):
    """The files that a program sees, to read (GDB manual, "Host I/O Packets").

    A path is 1 to 4096 bytes without NUL; errors are DebuggeeErrors (ENOENT 2, EACCES 13, ENOTDIR 20, EISDIR 21 …)."""

    def open(self, path: bytes) -> OpenFile: ...
    def readlink(self, path: bytes) -> bytes:
        """What the symbolic link says; EINVAL if it is none."""


@dataclass(frozen=True, slots=True)
class Faces:
    """What a debuggee can besides, each an object that does it, often the debuggee itself; None: it cannot.

    A record instead of attributes of the debuggee: a new face needs no change of the debuggees that do not have it, and
    the names of faces do not meet those of methods. A record instead of a look-up by type: mypy knows which face it is.
    """

    time: Time | None = None
    snapshots: Snapshots | None = None
    memory_map: MemoryMap | None = None
    physical: Physical | None = None
    watching: Watching | None = None
    hardware: Hardware | None = None
    executable: Executable | None = None
    auxv: Auxv | None = None
    libraries: Libraries | None = None
    syscalls: Syscalls | None = None
    files: Files | None = None


class Debuggee(Protocol):
    """What every debuggee can. One process, whose id is 1; ``thread`` is a number of ``threads()``.

    A machine's CPUs are its threads. They have the same registers; what an address means may differ from one to the
    other.
    """

    @property
    def faces(self) -> Faces:
        """May change, but not while a debugger is attached: it asks once what is supported."""

    @property
    def byteorder(self) -> Literal["little", "big"]:
        """The target's, of registers and of memory."""

    @property
    def registers(self) -> Sequence[RegisterInfo]: ...
    @property
    def system_registers(self) -> Sequence[RegisterInfo]:
        """Further ones, numbered on from ``registers``, that are read and written by ``read_register`` and
        ``write_register`` alone."""

    def threads(self) -> Sequence[int]:
        """All threads, from 1 on, ascending; there is at least one."""

    def describe(self, thread: int) -> str:
        """What ``info threads`` shows beside it."""

    def target_xml(self) -> str:
        """The target description document (GDB manual, "Target Description Format")."""

    def read_registers(self, thread: int) -> bytes:
        """All registers, concatenated in ``registers`` order, target byte order."""

    def read_register(self, thread: int, number: int) -> bytes: ...
    def write_registers(self, thread: int, data: bytes) -> None: ...
    def write_register(self, thread: int, number: int, data: bytes) -> None: ...
    def read_memory(self, thread: int, address: int, length: int) -> bytes:
        """At least one byte, shorter than ``length`` where memory ends; DebuggeeError(EFAULT) if there is none."""

    def write_memory(self, thread: int, address: int, data: bytes) -> None: ...
    def insert(self, point: ZPoint) -> None:
        """For all threads; a point of the same type, address and length is replaced."""

    def remove(self, point: ZPoint) -> None: ...
    def resume(
        self,
        how: Resume,
        start: int = 0,
        end: int = 0,
        *,
        thread: int = 1,
        alone: bool = False,
        separately: bool = False,
    ) -> StopReply:
        """Run until a stop. RANGE_STEP steps while start <= pc < end. Blocks; ``interrupt`` ends it. Backward only with
        ``Time``.

        ``thread``: the one that steps, while the others run as they would. ``alone``: the others stand still.

        ``separately``: a stop tells only watchpoints that hold its one address; the others that the same instruction
        hit are stops of their own, the next ones."""

    @property
    def steps_at_once(self) -> bool:
        """One step forward takes microseconds now, and waits for nothing: no need for another thread, nor for
        ``interrupt``. Asked while nothing runs."""

    def last_stop(self) -> StopReply:
        """For ``?``; stops a guest that runs on its own first."""

    def interrupt(self) -> None:
        """Thread-safe and idempotent: makes a running ``resume`` or long search return an INTERRUPT stop soon.

        While nothing runs it has no effect: whatever may run long forgets an earlier one when it starts (the server
        repeats an interrupt until the running command has returned)."""

    def attached(self, console: Callable[[str], None]) -> None:
        """A debugger came; ``console`` prints text to it while a command runs (thread-safe)."""

    def detached(self, *, resume: bool) -> None:
        """It went: all points are removed, and no system calls are caught. ``resume``: after ``D`` a live guest runs on
        (in ``EngineThread``'s idle function, after this has returned); a dropped link leaves it stopped."""

    def kill(self) -> None:
        """``k``/``vKill``: finish the recording cleanly; the server then exits."""
