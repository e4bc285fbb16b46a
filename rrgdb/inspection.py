"""The machine as a debugger looks at it: two faces of the debuggee that a timeline is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rrgdb.arch.cpu import MemoryFault
from rrgdb.engine.paging import Mapped, Permission, TooManyError
from rrgdb.guest import Hardware
from rrgdb.rsp.debuggee import BusArea, DebuggeeError, Translated
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


class MachineParts:
    """Implements ``rrgdb.rsp.debuggee.Hardware``."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware

    def areas(self) -> Sequence[BusArea]:
        return [BusArea(area.first, area.last, area.kind, area.name) for area in self._hardware.areas()]

    def interrupts(self) -> Sequence[str]:
        return self._hardware.interrupts()
