"""The machine as a debugger looks at it: three faces of the debuggee that a timeline is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from rrgdb.arch.cpu import MemoryFault
from rrgdb.engine.base import EngineError, Space, Stops, Watch, WatchHit, armed
from rrgdb.engine.paging import Mapped, Permission, TooManyError
from rrgdb.guest import Hardware
from rrgdb.rsp.debuggee import BusArea, DebuggeeError, PhysicalWatch, Translated, ZType
from rrgdb.timeline.timeline import Timeline
from rrgdb.travel import told

EFAULT = 14
MAX_ENTRIES = 400_000
"""entries of page tables that are looked at"""
_LETTERS = (
    (Permission.READ, "r"),
    (Permission.WRITE, "w"),
    (Permission.EXECUTE, "x"),
    (Permission.USER_READ, "r"),
    (Permission.USER_WRITE, "w"),
    (Permission.USER_EXECUTE, "x"),
)


class PhysicalMemory:
    """Implements ``rrgdb.rsp.debuggee.Physical``."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def read_physical(self, address: int, length: int) -> bytes:
        try:
            return self._timeline.engine.ram.read(address, length)
        except MemoryFault as e:
            raise DebuggeeError(f"{e} of the bus", EFAULT) from None

    def write_physical(self, address: int, data: bytes) -> None:
        try:
            with told():
                self._timeline.write_physical(address, data)
        except MemoryFault as e:
            raise DebuggeeError(f"{e} of the bus", EFAULT) from None

    def translate(self, thread: int, address: int) -> int | None:
        try:
            return self._timeline.guest.cpus[thread - 1].translate(address)
        except MemoryFault:
            return None

    def translations(self, thread: int) -> Iterator[Translated] | None:
        found = self._timeline.guest.cpus[thread - 1].mappings(MAX_ENTRIES)
        return None if found is None else _translated(found)


def _translated(mappings: Iterator[Mapped]) -> Iterator[Translated]:
    try:
        for m in mappings:
            letters = "".join(letter if m.permissions & permission else "-" for permission, letter in _LETTERS)
            yield Translated(m.virtual, m.length, m.physical, f"{letters[:3]} {letters[3:]} {m.flags}".rstrip())
    except TooManyError:
        raise DebuggeeError(f"the page tables have more than {MAX_ENTRIES} entries") from None


WATCH_KINDS = {ZType.WRITE: "w", ZType.READ: "r", ZType.ACCESS: "a"}
_NUMBERS = (1, 2, 4, 8)
"""bytes that are told as one number"""
_MOST_BYTES = 16
"""of others that are told"""
_DONE = {"w": "written", "r": "read", "a": "accessed"}


class Watching:
    """Implements ``rrgdb.rsp.debuggee.Watching``. ``physical``: what is watched; ``space``: that of all others; None:
    any."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self.physical: tuple[Watch, ...] = ()
        self.space: Space | None = None

    def forget(self) -> None:
        self.physical, self.space = (), None

    def watch_physical(self, watch: PhysicalWatch) -> None:
        added = Watch(watch.address, watch.length, WATCH_KINDS[watch.type], physical=True)
        watches = (*(w for w in self.physical if w != added), added)
        try:
            with armed(self._timeline.engine, Stops(watches=watches)):
                pass
        except EngineError as e:
            raise DebuggeeError(str(e)) from None
        self.physical = watches

    def unwatch_physical(self, address: int | None) -> int:
        kept = tuple(w for w in self.physical if address is not None and w.address != address)
        removed = len(self.physical) - len(kept)
        self.physical = kept
        return removed

    def physical_watches(self) -> Sequence[PhysicalWatch]:
        types = {kind: type for type, kind in WATCH_KINDS.items()}
        return [PhysicalWatch(w.address, w.length, types[w.kind]) for w in self.physical]

    def bind_watches(self, bind: bool) -> None:
        space = self._timeline.engine.space() if bind else None
        if bind and space is None:
            raise DebuggeeError("addresses are physical here: there is no address space")
        self.space = space

    def bound_to(self) -> int | None:
        return None if self.space is None else self.space.root

    def told(self, hits: Sequence[WatchHit]) -> str:
        """Hidden hits, for a person, a line each; old and new values in the order of time."""
        byteorder = self._timeline.engine.arch.byteorder
        return "".join(f"{_whose(hit)}{_told_hit(hit, byteorder)}\n" for hit in hits if hit.hidden)


def _whose(hit: WatchHit) -> str:
    return "watch-physical " if hit.space is None else f"watchpoint of the address space at {hit.space.root:#x}, "


def _told_hit(hit: WatchHit, byteorder: Literal["little", "big"]) -> str:
    old, new, at = hit.old, hit.new, hit.address
    if not new:
        return f"{at:#x}: {_DONE[hit.kind]}"
    if hit.length not in _NUMBERS:
        changed = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
        first, last = (changed[0], changed[-1]) if changed else (0, hit.length - 1)
        last = min(last, first + _MOST_BYTES - 1)
        at, old, new = at + first, old[first : last + 1], new[first : last + 1]

    def value(data: bytes) -> str:
        if hit.length in _NUMBERS:
            return f"{int.from_bytes(data, byteorder):#0{2 * hit.length + 2}x}"
        return data.hex(" ")

    return f"{at:#x}: {_DONE[hit.kind]}, {value(new)}" if old == new else f"{at:#x}: {value(old)} -> {value(new)}"


class MachineParts:
    """Implements ``rrgdb.rsp.debuggee.Hardware``."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware

    def areas(self) -> Sequence[BusArea]:
        return [BusArea(area.first, area.last, area.kind, area.name) for area in self._hardware.areas()]

    def interrupts(self) -> Sequence[str]:
        return self._hardware.interrupts()
