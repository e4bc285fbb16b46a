"""Watches: where their bytes are, for the hooks, which look at them, and for searches, which pass over history."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from rrgdb.arch.cpu import MemoryFault
from rrgdb.engine.base import EngineError, Space, Underlying, Watch, WatchHit
from rrgdb.engine.memory import PAGE, Ram
from rrgdb.engine.unicorn import _hot
from rrgdb.engine.unicorn.devices import Devices
from rrgdb.engine.unicorn.ways import NativeWay, Ways

GUARD_BYTES = 1 << 20
"""what guards of watched pages take of the physical addresses"""
_ALWAYS: NativeWay = ([], [])
"""the way to what stays where it is"""
_NOWHERE = (1 << 64) - 1
"""a physical address that there is not"""


class _Piece(NamedTuple):
    """A part of a watch, within a page."""

    watch: Watch
    address: int
    length: int


class Watches:
    """The watches of one engine. ``translate``: as in ``Engine``; ``guards``: it can have guards (see ``_watch.h``)."""

    def __init__(
        self,
        core: _hot.Core,
        ways: Ways,
        ram: Ram,
        devices: Devices,
        translate: Callable[[int], int],
        bits: int,
        *,
        guards: bool,
    ) -> None:
        self._core = core
        self._translate = translate
        self._ways = ways
        self._ram = ram
        self._devices = devices
        self._end = 1 << bits
        self._guards = guards
        self._guarded = False
        self._pieces: list[_Piece] = []

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def touch(self, address: int, length: int) -> bool:
        """Whether one of them has any of these bytes, by the address that it has."""
        return any(at < address + length and address < at + n for _, at, n in self._pieces)

    def set(self, watches: Iterable[Watch]) -> None:
        """These and no others. EngineError if they are too many; all stays as it was then. What lies beyond the
        addresses of this CPU is never accessed."""
        pieces = []
        for w in watches:
            at, end = w.address, min(w.address + w.length, 1 << 64 if w.physical else self._end)
            while at < end:
                n = min(end - at, PAGE - at % PAGE)
                pieces.append(_Piece(w, at, n))
                at += n
        native = [(at, n, w.kind.encode(), w.physical, w.space is not None) for w, at, n in pieces]
        if native and self._guards and not self._guarded:
            self._place_guard()
        try:
            self._core.set_watches(native)
        except ValueError as e:
            raise EngineError(f"cannot watch: {e}") from None
        self._pieces = pieces
        if self._core.mmu_seen:
            self.find()
            self._core.rearm()

    def find(self) -> None:
        """Watched bytes may be mapped elsewhere by now."""
        self._core.place_watches([self._place(w, at) for w, at, _ in self._pieces])

    def _place(self, watch: Watch, at: int) -> tuple[int | None, NativeWay | None]:
        if watch.physical:
            return at, _ALWAYS
        own = None if watch.space is None else self._ways.own(watch.space, at)
        if own is not None:
            return _NOWHERE if own.place is None else own.place, self._ways.native_words(own)
        way = self._ways.find(at)
        return self._found(at) if way is None else way.place, self._ways.native(at, way)

    def shows(self, space: Space, address: int) -> bool:
        """See ``Engine``."""
        own = self._ways.own(space, address)
        if own is None:
            return True
        way = self._ways.find(address)
        return way is not None and way.place == own.place

    def _found(self, address: int) -> int | None:
        try:
            return self._translate(address)
        except MemoryFault:
            return None

    def _place_guard(self) -> None:
        """Tell the native half of physical addresses below 4 GiB that nothing uses."""
        used = [(r.base, r.size) for r in self._ram.regions] + self._devices.memory
        for base in range((1 << 32) - GUARD_BYTES, 0, -GUARD_BYTES):
            if all(base >= b + n or b >= base + GUARD_BYTES for b, n in used):
                self._guarded = True
                self._core.set_guard(base)
                return

    def underlying(self, watch: Watch, *, translated: bool, reached: bool) -> Underlying | None:
        """See ``Engine``. ``translated``: the guest has translated addresses by now; ``reached``: there is something at
        the address as a physical one."""
        address, length = watch.address, max(watch.length, 1)
        if not watch.physical and (translated or watch.space is not None):
            return self._ways.underlying(
                address, length, watch.space, translates=bool(self._core.mmu_seen), reached=reached
            )
        if not reached:
            return Underlying()
        try:
            first, last = (self._ram.locate(at)[0] // PAGE for at in (address, address + length - 1))
        except MemoryFault:
            return None
        return Underlying(frozenset(range(first, last + 1)))

    def take_hits(self) -> tuple[WatchHit, ...]:
        """The last watch hit, stopped at or collected; forgotten afterwards."""
        hits = []
        for i, old, new in self._core.take_watch_hits():
            watch, address, length = self._pieces[i]
            hits.append(WatchHit(address, length, watch.kind, old, new, watch.physical, watch.space))
        return tuple(hits)
