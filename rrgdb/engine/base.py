"""The Engine protocol: what a CPU core offers to boards and programs, whatever emulates it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rrgdb.arch.base import Arch, CpuException, Trap
from rrgdb.engine.memory import Ram
from rrgdb.engine.paging import Mapped
from rrgdb.errors import Error


class EngineError(Error):
    """The engine cannot do what it was asked: one clear line."""


class ExitKind(Enum):
    """Why ``run_until`` came back."""

    LIMIT = auto()
    """icount is the one asked for"""
    BREAKPOINT = auto()
    """the next instruction stands at a breakpoint"""
    WATCHPOINT = auto()
    """the instruction before this position touched watched bytes; see ``Exit.hits``"""
    RANGE = auto()
    """pc left the range that is armed"""
    INTERRUPT = auto()
    """``interrupt`` was called"""
    TRAP = auto()
    """the next instruction is one that the caller must perform (``Exit.trap``); it is not counted yet"""
    EXCEPTION = auto()
    """an instruction raised ``Exit.exception``; it is not counted; pc stands at it"""
    BREAKPOINT_TRAP = auto()
    """of a guest, see ``Guest.debugged``: the next instruction is a breakpoint that it does not handle"""
    UNMASKED = auto()
    """an interrupt that waits (``Engine.await_unmasked``) may be taken now"""
    HALT = auto()
    """the CPU went to sleep after a retired WFI/HLT"""


@dataclass(frozen=True, slots=True)
class Space:
    """An address space: the registers from which all of its translation follows, as they were when it was in use.
    ``root``: the physical address of its page tables, the lower half's if there are two."""

    registers: tuple[tuple[str, int], ...]
    root: int


@dataclass(frozen=True, slots=True)
class WatchHit:
    """One watched range touched by the instruction that retired last; ``kind`` and ``space`` as in ``Watch``.
    ``hidden``: the address says nothing to who looks by virtual ones: it is physical, or of a space not in use."""

    address: int
    length: int
    kind: str
    old: bytes
    new: bytes
    hidden: bool = False
    space: Space | None = None

    @property
    def place(self) -> int:
        """Address of the first byte that changed; if none did, of the range."""
        changed = (i for i, (a, b) in enumerate(zip(self.old, self.new, strict=True)) if a != b)
        return self.address + next(changed, 0)

    def covers(self, address: int) -> bool:
        return self.address <= address < self.address + self.length


@dataclass(frozen=True, slots=True)
class Exit:
    kind: ExitKind
    trap: Trap | None = None
    code: bytes = b""
    """the bytes of the trapped instruction"""
    exception: CpuException | None = None
    hits: tuple[WatchHit, ...] = ()


@dataclass(frozen=True, slots=True)
class Watch:
    """A watched byte range. ``kind``: ``w`` hits when the bytes change, ``r`` when they are read, ``a`` on any access.

    ``address`` is a virtual one, in whichever address space is in use. With ``space`` the bytes are those that this one
    has there, whichever is in use, while addresses are translated; what all spaces have in common is as without.
    ``physical``: it is a physical one. Such bytes, and those of a space, are hit by whatever address they are accessed,
    by devices, and by the CPU's own walks through page tables where those write."""

    address: int
    length: int
    kind: str
    physical: bool = False
    space: Space | None = None


Conditions = tuple[bytes, ...]
"""conditions of one breakpoint as GDB's agent expressions, of which one that is not zero is enough; empty: there is a
condition that only the caller knows"""


@dataclass(frozen=True, slots=True)
class Stops:
    """What ends a run before its limit.

    ``breakpoints``: (address, its conditions; None: it stops always). Where the engine can tell that all conditions are
    zero, the run goes on; where it cannot tell, it stops, even while collecting, and the caller judges.

    ``watches``: of virtual addresses, whatever is mapped there now: what comes to be mapped hits when it is accessed.
    Where there is no RAM, any write is a change, and the bytes of a hit are not told.

    ``within``: pc outside [start, end) stops; an empty range does not. ``collect``: hits of breakpoints and of watches
    are noted (``Engine.collected``) and do not stop."""

    breakpoints: tuple[tuple[int, Conditions | None], ...] = ()
    watches: tuple[Watch, ...] = ()
    within: tuple[int, int] | None = None
    collect: bool = False


NO_STOPS = Stops()


@dataclass(frozen=True, slots=True)
class Counts:
    """What this engine has executed since it was made, in instructions. ``single``: those that were looked at one by
    one; ``blocks``: how many blocks their own code counts now; ``way``: for a person, how blocks are counted."""

    executed: int
    single: int
    blocks: int
    way: str


@dataclass(frozen=True, slots=True)
class Underlying:
    """What keeps bytes at virtual addresses as and where they are: while nothing writes to any of it, they stay.
    ``data``: the numbers of their pages; ``tables``: those of the page tables on the way to them, and ``REGIME``."""

    data: frozenset[int] = frozenset()
    tables: frozenset[int] = frozenset()

    @property
    def pages(self) -> frozenset[int]:
        return self.data | self.tables


@dataclass(frozen=True, slots=True)
class Collected:
    """The last hits. ``breakpoint``: position of the instruction at it; ``watch``: the one behind the access, and
    ``hits``: what that hit."""

    breakpoint: int | None
    watch: int | None
    hits: tuple[WatchHit, ...]


REGIME = 1 << 52
"""among the numbers of pages: the registers that say how the guest translates addresses"""

Ranges = npt.NDArray[np.uint64]
"""shape (n, 2): first and last of each range; ascending, with a gap of at least one number between two"""


@dataclass(frozen=True, slots=True, eq=False)
class Footprint:
    """What the instructions ``begin`` to ``end`` - 1 executed and wrote, or more: ``code``, virtual addresses, holds
    every pc at the positions ``begin`` to ``end`` - 1; ``pages``, numbers of RAM pages, every page written, and
    ``REGIME`` if that has changed, where the engine tells."""

    begin: int
    end: int
    code: Ranges
    pages: Ranges


def ranges(first: npt.NDArray[np.uint64], last: npt.NDArray[np.uint64]) -> Ranges:
    """The numbers that lie in any of the ranges ``first[i]`` to ``last[i]``, in whatever order those come."""
    if not len(first):
        return np.zeros((0, 2), dtype=np.uint64)
    order = np.argsort(first, kind="stable")
    first, reach = first[order], np.maximum.accumulate(last[order])
    begins = np.concatenate(([True], (first[1:] > reach[:-1]) & (first[1:] - reach[:-1] > np.uint64(1))))
    ends = np.concatenate((begins[1:], [True]))
    return np.stack((first[begins], reach[ends]), axis=1)


ReadCallback = Callable[[int, int], int]
"""(offset, size) -> value"""
WriteCallback = Callable[[int, int, int], None]
"""(offset, size, value)"""


class Rom(Protocol):
    """Memory that a device stands before. While it is shown, which it is at first, the guest reads and executes it as
    memory, and stores go to the device; while it is hidden, so do reads. What is written to it is the guest's state."""

    @property
    def size(self) -> int:
        """In bytes."""

    def read(self, offset: int, length: int) -> bytes: ...
    def write(self, offset: int, data: bytes) -> None:
        """Change it; not while an instruction executes."""

    def show(self, shown: bool) -> None:
        """Show or hide it; not while an instruction executes."""


class Engine(Protocol):
    """One CPU with its address space. All calls but ``interrupt`` come from one thread.

    ``run_until(n)`` stops *before* instruction number n, exactly, whatever else is set. The icount counts retired
    instructions; an exception that the guest takes counts as one instruction as well (``count_one``), so that the
    states before and after entry have different icounts.
    """

    arch: Arch
    ram: Ram
    build: str
    """what a saved state depends on; states of another build do not load"""

    @property
    def icount(self) -> int: ...
    @property
    def pc(self) -> int:
        """Address of the next instruction: x86's program counter and the base of its code segment."""

    def run_until(self, icount: int) -> Exit: ...
    def count_one(self) -> None:
        """The caller performed one step (trap or exception entry) itself."""

    def uncount_one(self) -> None:
        """Take back ``count_one``: the step raised an exception instead."""

    def limit(self, icount: int) -> None:
        """From within a device callback: lower the limit of the running ``run_until``."""

    def keep_time(self, shift: int, slept: int) -> None:
        """Virtual time is ``(icount << shift) + slept`` nanoseconds, in the runs that follow: instructions that only
        read it need not trap."""

    def await_unmasked(self, raised: int) -> None:
        """Interrupts wait until one of them is unmasked: those of the bits ``raised`` (``Interrupts.raised``), 0: none.
        From now on a run returns UNMASKED, in every gear at the same position, once something that masks interrupts has
        changed, where it can be told so that one is taken."""

    def interrupt(self) -> None:
        """Thread-safe: a running ``run_until`` returns INTERRUPT before its next instruction; pending if none runs."""

    def clear_interrupt(self) -> None: ...
    @property
    def interrupted(self) -> bool:
        """Whether an interrupt is pending."""

    def read(self, name: str) -> int: ...
    def write(self, name: str, value: int) -> None: ...
    def read_registers(self) -> bytes: ...
    def read_memory(self, address: int, length: int) -> bytes: ...
    def write_memory(self, address: int, data: bytes) -> None: ...
    def check_memory(self, address: int, length: int) -> None:
        """MemoryFault unless all of the range is RAM."""

    def map_ram(self, base: int, size: int) -> None: ...
    def map_rom(self, base: int, size: int, read: ReadCallback, write: WriteCallback) -> Rom:
        """Read-only memory at whole pages, of ``ram``, with a device before it."""

    def map_mmio(self, base: int, size: int, read: ReadCallback, write: WriteCallback) -> None: ...
    def map_ports(self, first: int, count: int, read: ReadCallback, write: WriteCallback) -> None: ...
    @property
    def counts(self) -> Counts: ...
    def arm(self, stops: Stops, ignored_at: int | None = None) -> None:
        """These stop from now on; breakpoints and range not at the position ``ignored_at`` (where a resume starts).

        Unless only ``within`` is new, what was collected is forgotten, and watched bytes count from now on as they are.
        EngineError for too many watches; all stays as it was then."""

    @property
    def stops(self) -> Stops:
        """What is armed."""

    def collected(self) -> Collected:
        """The last hits since collecting began; those of a watch are told once."""

    def rearm(self) -> None:
        """Watched bytes count from now on as they are: somebody else than the guest has written."""

    def out_of_reach(self, address: int, length: int) -> bool:
        """No access there can succeed, in all of history, while the guest does not translate addresses."""

    def underlying(self, watch: Watch) -> Underlying | None:
        """What the watched bytes depend on, as they are mapped now; None if that is not known."""

    def watched(self, watch: Watch) -> bytes:
        """The watched bytes, as far as there is RAM; virtual addresses are those of the space in use."""

    def space(self) -> Space | None:
        """The address space in use; None: addresses are physical, or the engine does not know."""

    def shows(self, space: Space, address: int) -> bool:
        """Whether a virtual address leads now to where it leads in a space."""

    @property
    def translates(self) -> bool:
        """The guest has touched its address translation by now; before, virtual addresses are physical ones."""

    @property
    def may_translate(self) -> bool:
        """The CPU has address translation: virtual addresses are physical ones for as long as a guest leaves it off."""

    def translate(self, address: int) -> int:
        """Virtual to physical; MemoryFault if nothing is mapped there."""

    def mappings(self, most: int) -> Iterator[Mapped] | None:
        """All that the page tables in use map, ascending; None: addresses are physical, or the engine does not know.
        Raises TooManyError behind ``most`` entries."""

    def pages_changed(self, pages: Iterable[int]) -> None:
        """RAM pages were changed from outside: translations made from them are dropped."""

    def take_footprint(self) -> Footprint | None:
        """That of the instructions since it was taken last, or since ``load``; None if it is not known."""

    def forget_footprint(self) -> None:
        """The next one begins here."""

    @property
    def footprint_begin(self) -> int:
        """Position at which the next one begins."""

    def save(self) -> bytes: ...
    def reset(self, state: bytes) -> None:
        """Put the CPU back into a saved state of this engine, and go on counting."""

    def load(self, state: bytes, *, own: bool = False) -> None:
        """``own``: this engine has saved or loaded that state before, so it is not looked at for damage. EngineError,
        ValueError for a state that is none of such an engine."""

    def registers_digest(self) -> bytes:
        """Canonical bytes of the architectural state."""

    def drop_translations(self) -> None:
        """Forget translated code and TLB entries: RAM was changed from outside."""


@contextmanager
def armed(engine: Engine, stops: Stops, ignored_at: int | None = None) -> Iterator[None]:
    """Inside, these stop. Nothing is left armed behind."""
    engine.arm(stops, ignored_at)
    try:
        yield
    finally:
        engine.arm(NO_STOPS)
