"""The ways to virtual addresses: page tables as they are walked from outside, and what a translation follows from."""

from __future__ import annotations

from typing import NamedTuple

from rrgdb.arch.cpu import MemoryFault
from rrgdb.engine.base import REGIME, Space, Underlying
from rrgdb.engine.memory import PAGE, Ram
from rrgdb.engine.paging import Translation
from rrgdb.engine.paging.tables import ReadRegister
from rrgdb.engine.unicorn.families.base import Family
from rrgdb.engine.unicorn.registers import RegisterFile

_WORD = (1 << 64) - 1
Control = tuple[int, bytes, int, int, int]
"""``RegisterFile.selector``, and a mask"""
NativeWay = tuple[list[tuple[int, int]], list[Control]]
"""what a hook looks at: (host address, bytes) of entries of page tables, and (``RegisterFile.selector``, mask) of
registers"""


class Way(NamedTuple):
    """``place``: the physical address; None where nothing is mapped. ``words``: the entries of page tables that say so:
    physical address, bytes."""

    place: int | None
    words: tuple[tuple[int, int], ...]


class Ways:
    """Ways as the tables are now that the guest uses."""

    def __init__(self, family: Family, bits: int, byteorder: str, registers: RegisterFile, ram: Ram) -> None:
        self._family = family
        self._bits = bits
        self._big = byteorder == "big"
        self._registers = registers
        self._ram = ram

    def selected(self, registers: dict[str, int]) -> list[Control]:
        """Registers and the bits of them that count, for the native half."""
        return [(*self._registers.selector(name), mask & _WORD) for name, mask in registers.items()]

    def translation(self) -> Translation | None:
        """The tables in use; None: addresses are physical, or the engine does not know."""
        return self._translation_by(self._registers.read)

    def _translation_by(self, register: ReadRegister) -> Translation | None:
        return None if self._family.paging is None else self._family.paging(self._bits, register)

    def space(self) -> Space | None:
        """See ``Engine``."""
        read: dict[str, int] = {}

        def register(name: str) -> int:
            return read.setdefault(name, self._registers.read(name))

        translation = self._translation_by(register)
        if translation is None or not translation.tables:
            return None
        return Space(tuple(read.items()), translation.tables[0].root)

    def own(self, space: Space, address: int) -> Way | None:
        """By the tables of a space, whichever are in use. None: it has the address as all have, the upper half or what
        its tables call so."""
        way = self.find(address, space)
        return None if way is None or self._is_shared(address, way) else way

    def _is_shared(self, address: int, way: Way) -> bool:
        """Whether all address spaces have the same there."""
        if self._bits == 64 and address >> 63:
            return True
        shared = self._family.shared
        return shared is not None and bool(way.words) and shared(address, self._entries(way))

    def read_number(self, physical: int, size: int) -> int:
        data = self._ram.read(physical, size)
        if len(data) < size:
            raise MemoryFault(physical + len(data))
        return int.from_bytes(data, "big" if self._big else "little")

    def find(self, address: int, space: Space | None = None) -> Way | None:
        """By the tables in use; None: some lie outside of RAM, or the engine does not know them. Or by those of a
        space, which map nothing where they lie outside of RAM."""
        if self._family.paging is None:
            return None
        words: list[tuple[int, int]] = []

        def read(physical: int, size: int) -> int:
            words.append((physical, size))
            return self.read_number(physical, size)

        translation = self._translation_by(self._registers.read if space is None else dict(space.registers).__getitem__)
        try:
            return Way(address if translation is None else translation.find(address, read), tuple(words))
        except MemoryFault:
            return None if space is None else Way(None, tuple(words[:-1]))

    def native(self, address: int, way: Way | None) -> NativeWay | None:
        """None: the hooks cannot know it."""
        if way is None or self._family.regime is None:
            return None
        return self.native_words(way)[0], self.selected(dict(self._family.regime(address)))

    def native_words(self, way: Way) -> NativeWay:
        """Of a way that follows from no registers."""
        return [(self._host(at), size) for at, size in way.words], []

    def host(self, way: Way | None) -> int:
        """Where this process has what the way leads to; 0: that is no RAM."""
        try:
            return 0 if way is None or way.place is None else self._host(way.place)
        except MemoryFault:
            return 0

    def _host(self, physical: int) -> int:
        return self._ram.address + self._ram.locate(physical)[0]

    def underlying(
        self, address: int, length: int, space: Space | None, *, translates: bool, reached: bool
    ) -> Underlying | None:
        """See ``Engine``, of a guest that has translated addresses. ``translates``: it does so now; ``reached``: there
        is something at the address as a physical one."""
        data, tables = set[int](), set[int]()
        try:
            for at in range(address & -PAGE, address + length, PAGE):
                way = None if space is None else self.own(space, at)
                if way is None:
                    tables.add(REGIME)
                    way = self._shared_way(at) if translates else Way(at, ())
                    if way is None:
                        return None
                    if translates and reached:
                        data.add(self._page(at))  # in a mode without translation it is another byte
                tables.update(self._page(physical) for physical, _ in way.words)
                if way.place is not None:
                    data.add(self._page(way.place))
        except MemoryFault:
            return None
        return Underlying(frozenset(data), frozenset(tables))

    def _shared_way(self, address: int) -> Way | None:
        """None unless an address is translated so in all address spaces."""
        way, shared = self.find(address), self._family.shared
        if way is None or shared is None or not shared(address, self._entries(way)):
            return None
        return way

    def _entries(self, way: Way) -> list[int]:
        return [self.read_number(*word) for word in way.words]

    def _page(self, physical: int) -> int:
        return self._ram.locate(physical)[0] // PAGE
