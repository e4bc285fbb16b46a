"""Trees of page tables, whatever their entries look like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Flag, auto

from rrgdb.arch.cpu import MemoryFault
from rrgdb.errors import Error

ReadRegister = Callable[[str], int]
ReadPhysical = Callable[[int, int], int]
"""(physical address, bytes) -> number in the guest's byte order; MemoryFault where there is no RAM"""


class Permission(Flag):
    """What an access may do. Supervisor: all modes that are not the user's."""

    NONE = 0
    READ = auto()
    WRITE = auto()
    EXECUTE = auto()
    USER_READ = auto()
    USER_WRITE = auto()
    USER_EXECUTE = auto()


SUPERVISOR = Permission.READ | Permission.WRITE | Permission.EXECUTE
USER = Permission.USER_READ | Permission.USER_WRITE | Permission.USER_EXECUTE
EVERYTHING = SUPERVISOR | USER


@dataclass(frozen=True, slots=True)
class Level:
    """Tables of one level: an entry has ``size`` bytes and maps 2**``shift``; a table has 2**``width`` entries."""

    shift: int
    width: int
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What an entry says: the next table at ``physical``, or, of a ``leaf``, 2**``shift`` bytes there.

    ``permissions``: of a table those that it leaves to all below it. ``flags``: the rest, for the user."""

    physical: int
    leaf: bool
    shift: int = 0
    permissions: Permission = EVERYTHING
    flags: str = ""


@dataclass(frozen=True, slots=True)
class Tables:
    """One tree, for the virtual addresses ``first`` to ``last``. ``levels`` begin at the root; ``decode`` gets an
    entry and its level: None if that maps nothing."""

    first: int
    last: int
    root: int
    levels: tuple[Level, ...]
    decode: Callable[[int, Level], Entry | None]


@dataclass(frozen=True, slots=True)
class Mapped:
    """``length`` bytes from ``virtual`` on are at ``physical``."""

    virtual: int
    length: int
    physical: int
    permissions: Permission
    flags: str


def _same(address: int) -> int:
    return address


@dataclass(frozen=True, slots=True)
class Translation:
    """How a CPU translates addresses now. Permissions and accessed bits keep no one from looking."""

    tables: tuple[Tables, ...]
    untagged: Callable[[int], int] = _same
    """the address without what the CPU ignores of it"""

    def find(self, address: int, read: ReadPhysical) -> int | None:
        """The physical address, or None where nothing is mapped. MemoryFault for a table that is not in RAM."""
        address = self.untagged(address)
        tree = next((t for t in self.tables if t.first <= address <= t.last), None)
        if tree is None:
            return None
        table = tree.root
        for level in tree.levels:
            index = address >> level.shift & (1 << level.width) - 1
            entry = tree.decode(read(table + index * level.size, level.size), level)
            if entry is None:
                return None
            if entry.leaf:
                inside = (1 << entry.shift) - 1
                return entry.physical & ~inside | address & inside
            table = entry.physical
        return None

    def mappings(self, read: ReadPhysical, most: int) -> Iterator[Mapped]:
        """All of them, ascending; those that continue each other are one. Tables are in the guest's hands, and may
        contain themselves: after ``most`` entries it is over, with ``TooManyError``."""
        last: Mapped | None = None
        for found in _leaves(self.tables, read, most):
            if last is None or not _continues(last, found):
                if last is not None:
                    yield last
                last = found
            else:
                last = Mapped(last.virtual, last.length + found.length, last.physical, found.permissions, found.flags)
        if last is not None:
            yield last


class TooManyError(Error):
    """There are more entries than were to be looked at."""


def _continues(last: Mapped, found: Mapped) -> bool:
    return (last.virtual + last.length, last.physical + last.length, last.permissions, last.flags) == (
        found.virtual,
        found.physical,
        found.permissions,
        found.flags,
    )


def _leaves(tables: tuple[Tables, ...], read: ReadPhysical, most: int) -> Iterator[Mapped]:
    seen = 0
    for tree in tables:
        # (table, which level, virtual address of its first entry, what is permitted above it)
        waiting = [(tree.root, 0, tree.first & ~_span(tree.levels[0]), EVERYTHING, 0)]
        while waiting:
            table, depth, base, permitted, index = waiting.pop()
            level = tree.levels[depth]
            for i in range(index, 1 << level.width):
                seen += 1
                if seen > most:
                    raise TooManyError
                virtual = base + (i << level.shift)
                if virtual > tree.last or virtual + (1 << level.shift) <= tree.first:
                    continue
                try:
                    entry = tree.decode(read(table + i * level.size, level.size), level)
                except MemoryFault:
                    break
                if entry is None:
                    continue
                allowed = entry.permissions & permitted
                if entry.leaf:
                    inside = (1 << entry.shift) - 1
                    physical = entry.physical & ~inside | virtual & inside
                    yield Mapped(virtual, 1 << level.shift, physical, allowed, entry.flags)
                elif depth + 1 < len(tree.levels):
                    waiting.append((table, depth, base, permitted, i + 1))
                    waiting.append((entry.physical, depth + 1, virtual, allowed, 0))
                    break


def _span(level: Level) -> int:
    """Mask of what a table of that level distinguishes."""
    return (1 << level.shift + level.width) - 1
