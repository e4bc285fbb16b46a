"""Marks: positions that the guest can be put back to at once.

A mark is a snapshot on disk, or a checkpoint in memory that differs from such a snapshot in a few pages. RAM is always
known as "the base mark plus the pages written since", so going anywhere costs the pages that differ, never the size of
RAM.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

from rrgdb.recording.doors import Door
from rrgdb.snapshots.state import GuestState
from rrgdb.snapshots.store import SnapshotStore, Stored, StoreError
from rrgdb.timeline.digest import RamDigest, state_digest
from rrgdb.timeline.guest import Guest

PAGE = 4096
_ZERO = bytes(PAGE)
MEMORY_BUDGET = 256 << 20
"""bytes of page contents that checkpoints may hold"""


@dataclass(slots=True, eq=False)
class Mark:
    """``delta``: contents of the pages in which RAM differs from the snapshot ``stored`` (from zeros if None)."""

    icount: int
    stored: Stored | None
    state: GuestState | None
    delta: dict[int, bytes] = field(default_factory=dict)
    own_bytes: int = 0


class UnusableSnapshotError(Exception):
    """A snapshot cannot be loaded here: one line."""


class Marks:
    """All marks of one timeline, and the guest's RAM in terms of them."""

    def __init__(self, guest: Guest, door: Door, store: SnapshotStore | None) -> None:
        self._guest = guest
        self._door = door
        self._store = store
        self._ram = guest.engine.ram
        self.digest = RamDigest(self._ram.pages)
        self._memory: list[Mark] = []
        self._disk: list[Mark] = []
        self._bytes = 0
        self._base = self._origin = self._first()

    def _first(self) -> Mark:
        """The freshly built guest: position 0, all of RAM as the images left it."""
        pages = {n: content for n in self._ram.populated() if (content := self._ram.page(n)) != _ZERO}
        self._ram.clean(self._ram.dirty())
        self.digest.update(pages.items())
        self._first_pages = len(pages)
        return Mark(self._guest.engine.icount, None, self._state(), pages)

    def _state(self) -> GuestState:
        engine = self._guest.engine
        return GuestState(
            engine.build,
            engine.save(),
            self._guest.save_devices(),
            self._door.save(),
            self._ram.size,
        )

    # -- the marks there are ---------------------------------------------------------------------

    def use_store(self, store: SnapshotStore) -> None:
        """Where snapshots are taken from now on."""
        self._store = store

    def adopt_store(self, end: int) -> list[str]:
        """Take the snapshots of the store up to icount ``end`` as marks; returns a line for what is of no use here.

        The guest stands at position 0. If the first snapshot is not that very position, none is used."""
        if self._store is None:
            return []
        stored = [s for s in self._store.snapshots if s.icount <= end]
        try:
            self._check_first(stored)
        except UnusableSnapshotError as e:
            self._store = None
            return [f"{e}; replay begins with the images"]
        self._disk = [Mark(s.icount, s, None) for s in stored]
        self._base = self._origin = self._disk[0]
        return []

    def _check_first(self, stored: list[Stored]) -> None:
        if not stored or stored[0].icount != self._base.icount:
            raise UnusableSnapshotError("the recording has no starting snapshot")
        self._load_state(stored[0])
        assert self._store is not None
        numbers = sorted(self._base.delta)
        try:
            contents = self._store.pages(stored[0], numbers)
        except StoreError as e:
            raise UnusableSnapshotError(str(e)) from e
        if contents != [self._base.delta[n] for n in numbers]:
            raise UnusableSnapshotError("the starting snapshot does not hold the images")

    def _load_state(self, stored: Stored) -> GuestState:
        assert self._store is not None
        try:
            state = self._store.state(stored)
        except StoreError as e:
            raise UnusableSnapshotError(str(e)) from e
        build = self._guest.engine.build
        if state.build != build or state.ram_bytes != self._ram.size:
            raise UnusableSnapshotError(
                f"snapshot {stored.name} was made by {state.build} with {state.ram_bytes} bytes of RAM, "
                f"this is {build} with {self._ram.size}"
            )
        return state

    @property
    def stored(self) -> list[Stored]:
        return [m.stored for m in self._disk if m.stored is not None]

    def sizes(self) -> dict[str, int]:
        """Bytes of RAM in which each snapshot differs from the one before it, by snapshot id."""
        result: dict[str, int] = {}
        before: Stored | None = None
        for stored in self.stored:
            assert self._store is not None
            pages = self._first_pages if before is None else len(self._store.differing(before, stored))
            result[stored.id] = PAGE * pages
            before = stored
        return result

    def best(self, icount: int) -> Mark:
        """The latest mark at or before a position."""
        found = self._origin
        for marks in (self._disk, self._memory):
            i = bisect.bisect_right(marks, icount, key=lambda m: m.icount)
            if i and marks[i - 1].icount >= found.icount:
                found = marks[i - 1]
        return found

    def next_stored(self, icount: int) -> Mark | None:
        """The first snapshot on disk behind a position."""
        i = bisect.bisect_right(self._disk, icount, key=lambda m: m.icount)
        return self._disk[i] if i < len(self._disk) else None

    # -- making marks ----------------------------------------------------------------------------

    def fold(self) -> Mark:
        """Make the present state the base; the mark is not kept."""
        dirty = self._ram.dirty()
        base = self._base
        delta = dict(base.delta)
        changed = []
        for n in dirty.tolist():
            content = self._ram.page(n)
            changed.append((n, content))
            if delta.get(n) != content:
                delta[n] = content
        self._ram.clean(dirty)
        self.digest.update(changed)
        self._base = Mark(self._guest.engine.icount, base.stored, None, delta, len(changed) * PAGE)
        return self._base

    def keep_here(self) -> Mark:
        """A checkpoint in memory at the present position."""
        i = bisect.bisect_left(self._memory, self._guest.engine.icount, key=lambda m: m.icount)
        if i < len(self._memory) and self._memory[i].icount == self._guest.engine.icount:
            return self._memory[i]
        mark = self.detached_here()
        self._memory.insert(i, mark)
        self._bytes += mark.own_bytes
        self._thin()
        return mark

    def detached_here(self) -> Mark:
        """A mark of the present state that is in no list: nobody finds it by its icount."""
        mark = self.fold()
        mark.state = self._state()
        return mark

    def _thin(self) -> None:
        """Drop the checkpoints farthest from the position until the budget holds."""
        here = self._guest.engine.icount
        while self._bytes > MEMORY_BUDGET and len(self._memory) > 2:
            drop = 0 if here - self._memory[0].icount > self._memory[-1].icount - here else -1
            self._bytes -= self._memory.pop(drop).own_bytes

    def take_snapshot(self, name: str) -> Mark:
        """A snapshot on disk at the present position. Raises StoreError; the marks are unchanged then."""
        if self._store is None:
            raise StoreError("this recording is open for reading only: it takes no snapshots")
        base = self._base
        dirty = self._ram.dirty()
        changed = set(base.delta)
        changed.update(dirty.tolist())
        state = self._state()
        icount = self._guest.engine.icount
        stored = self._store.take(name, icount, state, base.stored, changed, self._ram.page)
        self.digest.update((n, self._ram.page(n)) for n in dirty.tolist())
        self._ram.clean(dirty)
        mark = Mark(icount, stored, state)
        i = bisect.bisect_right(self._disk, icount, key=lambda m: m.icount)
        self._disk.insert(i, mark)
        if icount == self._origin.icount:
            self._origin = mark
        self._base = mark
        return mark

    def delete_snapshot(self, stored: Stored) -> None:
        """Remove a snapshot other than the first; checkpoints that build on it go with it."""
        if self._store is None:
            raise StoreError("this recording is open for reading only")
        if self._base.stored is not None and self._base.stored.id == stored.id:
            self._rebase(stored)
        self._store.delete(stored)
        self._disk = [m for m in self._disk if m.stored is None or m.stored.id != stored.id]
        kept = [m for m in self._memory if m.stored is None or m.stored.id != stored.id]
        self._bytes = sum(m.own_bytes for m in kept)
        self._memory = kept

    def _rebase(self, going: Stored) -> None:
        """Express the base by the snapshot before the one that is going."""
        assert self._store is not None
        i = next(i for i, m in enumerate(self._disk) if m.stored is not None and m.stored.id == going.id)
        before = self._disk[i - 1].stored
        assert before is not None
        base = self.fold()
        for n in self._store.differing(before, going):
            if n not in base.delta:
                base.delta[n] = self._ram.page(n)
        base.stored = before

    def arrived_at(self, mark: Mark) -> None:
        """Replay stands exactly at a snapshot on disk: from here on RAM is known as its pages.

        Nothing changes if inputs at this very position make the two differ."""
        try:
            if mark.state is None and mark.stored is not None:
                mark.state = self._load_state(mark.stored)
        except UnusableSnapshotError:
            self._disk.remove(mark)
            return
        if mark.state is None or mark.state.door != self._door.save():
            return
        dirty = self._ram.dirty()
        self.digest.update((n, self._ram.page(n)) for n in dirty.tolist())
        self._ram.clean(dirty)
        self._base = mark

    # -- going back ------------------------------------------------------------------------------

    def restore(self, mark: Mark) -> None:
        """Put the guest into the state of a mark. UnusableSnapshotError leaves it as it was."""
        if mark.state is None:
            assert mark.stored is not None
            mark.state = self._load_state(mark.stored)
        base = self._base
        dirty = set(self._ram.dirty().tolist())
        need = set(dirty)
        if base.stored != mark.stored:
            assert self._store is not None
            assert base.stored is not None
            assert mark.stored is not None
            need.update(self._store.differing(base.stored, mark.stored))
            need.update(base.delta)
            need.update(mark.delta)
        elif base is not mark:
            need.update(n for n, content in base.delta.items() if mark.delta.get(n) is not content)
            need.update(n for n, content in mark.delta.items() if base.delta.get(n) is not content)
        contents = [(n, mark.delta[n]) for n in need if n in mark.delta]
        rest = sorted(n for n in need if n not in mark.delta)
        if rest and mark.stored is not None:
            assert self._store is not None
            contents += zip(rest, self._store.pages(mark.stored, rest), strict=True)
        else:
            contents += [(n, _ZERO) for n in rest]
        self._ram.set_clean(contents, dirty)
        self.digest.update(contents)
        engine = self._guest.engine
        engine.pages_changed(need)
        self._base = mark
        state = mark.state
        engine.load(state.cpu)
        self._guest.load_devices(state.devices)
        self._door.load(state.door)

    def state_digest(self) -> bytes:
        """Digest of the present state."""
        self.fold()
        return state_digest(
            self.digest,
            self._guest.engine.registers_digest(),
            self._guest.save_devices(),
            self._door.save(),
            self._guest.engine.icount,
        )
