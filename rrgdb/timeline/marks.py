"""Marks: positions that the guest can be put back to at once.

A mark is a snapshot on disk, or a checkpoint in memory that differs from such a snapshot in a few pages. RAM is always
known as "the base mark plus the pages written since", so going anywhere costs the pages that differ, never the size of
RAM. Every state carries the digest that RAM must have with it: damage at rest is noticed when a mark is restored.
"""

from __future__ import annotations

import bisect
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from rrgdb.engine.base import EngineError
from rrgdb.engine.memory import PAGE, ZERO_PAGE, PageNumbers, Replacement, merged
from rrgdb.errors import Error
from rrgdb.guest import Guest
from rrgdb.recording.door import Door
from rrgdb.snapshots.entries import SnapshotGoneError, Stored
from rrgdb.snapshots.errors import StoreError
from rrgdb.snapshots.state import GuestState
from rrgdb.snapshots.store import SnapshotStore
from rrgdb.timeline.checkpoints import Checkpoints, Mark
from rrgdb.timeline.delta import Delta, page_numbers
from rrgdb.timeline.digest import RamDigest, state_digest
from rrgdb.timeline.disks import Disks
from rrgdb.timeline.options import MEMORY_BUDGET

_STATES = 64
"""states of snapshots on disk that are kept in memory"""


class WrongMachineError(Error):
    """The recording is of another machine than its manifest says: one line."""


class UnusableSnapshotError(Error):
    """A snapshot cannot be loaded here: one line."""


class DamagedSnapshotError(UnusableSnapshotError):
    """It cannot be read: what is wrong with it says nothing about others."""


class Marks:
    """All marks of one timeline, and the guest's RAM in terms of them. ``budget``: bytes that checkpoints may take.

    ``store``: where snapshots are, and are taken. ``adopt``: its snapshots up to this icount are marks, the guest
    stands at position 0; None: it is new. ``said``: a line for what of it is of no use here."""

    def __init__(
        self,
        guest: Guest,
        door: Door,
        store: SnapshotStore | None,
        disks: Disks,
        *,
        budget: int = MEMORY_BUDGET,
        adopt: int | None = None,
    ) -> None:
        """Raises WrongMachineError."""
        self._guest = guest
        self._door = door
        self._store = store
        self.budget = budget
        self.incomplete = ""
        """why the live guest stands in the middle of a position, and has no state to be kept"""
        self.disks = disks
        self._ram = guest.engine.ram
        self.digest = RamDigest(self._ram.pages)
        self._memory = Checkpoints()
        self._disk: list[Mark] = []
        self._detached: weakref.WeakSet[Mark] = weakref.WeakSet()
        self._states: OrderedDict[str, GuestState] = OrderedDict()
        self._loaded: set[str] = set()
        """those of ``_states`` that were put back once"""
        self._base = self._origin = self._images = self._first()
        self._base_holds = True
        """RAM is ``_base`` but for the pages written since; False after a mark that turned out damaged"""
        self.vouched = True
        """the snapshots are of this recording: the starting one holds the images, or another one what was recorded"""
        self.said = [] if adopt is None or store is None else self._adopt(store, adopt)

    def _first(self) -> Mark:
        """The freshly built guest: position 0, all of RAM as the images left it."""
        ram = self._ram
        ram.clean(ram.dirty())
        numbers = ram.populated()
        contents = ram.contents(numbers)
        self.digest.update(numbers, contents)
        filled = [(n, c) for n, c in zip(numbers.tolist(), contents, strict=True) if c is not ZERO_PAGE]
        delta = Delta().with_pages([n for n, _ in filled], [c for _, c in filled])
        return Mark(self._guest.engine.icount, None, self._state(), delta)

    def _state(self) -> GuestState:
        """The present state; the digest is up to date."""
        engine = self._guest.engine
        return GuestState(
            engine.build,
            engine.save(),
            self._guest.save_devices(),
            self._door.save(),
            self._ram.size,
            self.digest.value(),
        )

    # -- the marks there are ---------------------------------------------------------------------

    def _adopt(self, store: SnapshotStore, end: int) -> list[str]:
        """If the first snapshot is of another guest, none is used; if it is damaged, the others are, once one of them
        has turned out to hold what was recorded there (``vouched``)."""
        stored = [s for s in store.snapshots if s.icount <= end]
        said = []
        while stored and stored[0].icount == self._images.icount:
            try:
                self._check_first(stored[0])
            except DamagedSnapshotError as e:
                said.append(f"{e}; passed over")
                del stored[0]
            except UnusableSnapshotError as e:
                self._store = self.disks.store = None
                return [f"{e}; replay begins with the images"]
            else:
                break
        if not stored:
            self._store = self.disks.store = None
            return [*said, "the recording has no starting snapshot; replay begins with the images"]
        self._disk = [Mark(s.icount, s, None) for s in stored]
        self.vouched = stored[0].icount == self._images.icount
        if self.vouched:
            self._base = self._origin = self._disk[0]
            self.disks.stand(self._base.stored, self._base.blocks)
        return said

    def _check_first(self, stored: Stored) -> None:
        if self._load_state(stored).ram_digest != self.digest.value():
            raise UnusableSnapshotError("the starting snapshot does not hold the images")

    def _load_state(self, stored: Stored) -> GuestState:
        state = self._states.get(stored.id)
        if state is not None:
            self._states.move_to_end(stored.id)
            return state
        if self._store is None:
            raise UnusableSnapshotError(f"snapshot {stored.name}: the store is not in use")
        try:
            state = self._store.state(stored)
        except StoreError as e:
            raise DamagedSnapshotError(str(e)) from e
        build = self._guest.engine.build
        if state.ram_bytes != self._ram.size:
            # The starting snapshot is looked at first: if others do not fit, they are damaged.
            kind = UnusableSnapshotError if self._disk else WrongMachineError
            raise kind(
                f"snapshot {stored.name} was made with {state.ram_bytes} bytes of RAM, "
                f"the manifest's machine has {self._ram.size}"
            )
        if state.build != build:
            raise UnusableSnapshotError(f"snapshot {stored.name} was made by {state.build}, this is {build}")
        self._remember(stored, state)
        return state

    def _remember(self, stored: Stored, state: GuestState) -> None:
        self._states[stored.id] = state
        self._loaded.discard(stored.id)
        if len(self._states) > _STATES:
            self._states.popitem(last=False)

    @property
    def stored(self) -> list[Stored]:
        return [m.stored for m in self._disk if m.stored is not None]

    @property
    def starting(self) -> Stored | None:
        """The snapshot at position 0 that all others build on; None if replay begins with the images."""
        return self._origin.stored

    @property
    def memory_bytes(self) -> int:
        """What checkpoints take."""
        return self._memory.bytes

    def sizes(self, say: Callable[[str], None] = lambda _line: None) -> dict[str, int]:
        """Bytes of RAM in which each snapshot differs from the one before it, by snapshot id. Those that cannot be read
        are dropped, and ``say`` is told a line of each."""
        result: dict[str, int] = {}
        good: list[Mark] = []
        for mark in list(self._disk):
            try:
                pages = self._pages_since(good, mark)
            except (StoreError, UnusableSnapshotError) as e:
                say(f"{e}; passed over")
                self.drop(mark)
                continue
            assert mark.stored is not None
            result[mark.stored.id] = PAGE * pages
            good.append(mark)
        return result

    def _pages_since(self, before: list[Mark], mark: Mark) -> int:
        """How many pages differ between a snapshot and the last one ``before`` it."""
        assert self._store is not None
        assert mark.stored is not None
        self._load_state(mark.stored)
        if not before and mark is self._origin:
            return len(self._images.delta)
        if before and before[-1].stored is not None:
            try:
                return len(self._store.differing(before[-1].stored, mark.stored))
            except StoreError:
                pass
        # One of the two is damaged where they differ. If it is this one, this tells.
        return len(self._store.filled(mark.stored))

    def best(self, icount: int) -> Mark:
        """The latest mark at or before a position."""
        found = self._origin
        for marks in (self._disk, self._memory.marks):
            i = bisect.bisect_right(marks, icount, key=lambda m: m.icount)
            if i and marks[i - 1].icount >= found.icount:
                found = marks[i - 1]
        return found

    def stored_before(self, icount: int) -> int | None:
        """Position of the last snapshot on disk before a position."""
        i = bisect.bisect_left(self._disk, icount, key=lambda m: m.icount)
        return self._disk[i - 1].icount if i else None

    def next_stored(self, icount: int) -> Mark | None:
        """The first snapshot on disk behind a position."""
        i = bisect.bisect_right(self._disk, icount, key=lambda m: m.icount)
        return self._disk[i] if i < len(self._disk) else None

    def untouched_since(self, end: int, pages: set[int]) -> int | None:
        """A position on disk before ``end`` from which on nothing wrote to these pages; None if that is not known.

        A snapshot gives every page that was written since the one before a new cluster, even if the bytes are the same;
        only a page of zeros has none, so it tells nothing."""
        i = bisect.bisect_left(self._disk, end, key=lambda m: m.icount)
        if self._store is None or not 0 < i < len(self._disk):
            return None
        low, high = self._disk[i - 1].stored, self._disk[i].stored
        assert low is not None
        assert high is not None
        try:
            if pages.intersection(self._store.differing(low, high).tolist()):
                return None
            if ZERO_PAGE in self._store.pages(high, sorted(pages)):
                return None
        except StoreError:
            return None
        return low.icount

    def of(self, stored: Stored | None) -> Mark | None:
        """The mark that is this snapshot."""
        return None if stored is None else next((m for m in self._disk if m.stored == stored), None)

    def drop(self, mark: Mark) -> bool:
        """Pass over a mark that turned out unusable, and what is built on it; False if nothing else is left."""
        if mark is self._images:
            return False
        if mark.stored is None:
            if mark in self._memory.marks:
                self._memory.remove(self._memory.marks.index(mark))
        else:
            self._memory.drop_built_on({mark.stored.id})
            if mark in self._disk:
                self._disk.remove(mark)
            if mark is self._origin:
                # Others may share what is damaged: each tells when it is put back.
                self._origin = self._images
        return True

    # -- making marks ----------------------------------------------------------------------------

    def fold(self) -> Mark:
        """Make the present state the base; the mark is not kept."""
        base = self._base
        dirty, contents = self._take_dirty()
        self._ram.clean(dirty)
        delta = base.delta.with_pages(dirty.tolist(), contents)
        self._base = Mark(self._guest.engine.icount, base.stored, None, delta, self.disks.fold())
        return self._base

    def _take_dirty(self) -> tuple[PageNumbers, list[bytes]]:
        """The pages written since the base, and what they hold; the digest is up to date then."""
        dirty = self._ram.dirty()
        contents = self._ram.contents(dirty)
        self.digest.update(dirty, contents)
        return dirty, contents

    def keep_here(self) -> Mark:
        """A checkpoint in memory at the present position."""
        mark = self._memory.at(self._guest.engine.icount)
        if mark is None:
            mark = self.fold()
            mark.state = self._state()
            self.keep([mark])
        return mark

    def keep(self, marks: Sequence[Mark], around: int | None = None) -> None:
        """Keep marks that ``detached_here`` made as checkpoints; those farthest from ``around`` (None: the position)
        have to go first. One that would push out all others is not kept."""
        for mark in marks:
            self._detached.discard(mark)
            if self._memory.at(mark.icount) is None and mark.fits(self.budget):
                self._memory.insert(mark)
        self._memory.thin(self._guest.engine.icount if around is None else around, self.budget)

    def forget(self, mark: Mark) -> None:
        """A checkpoint that was kept is no longer needed; it may be gone already."""
        if self._memory.at(mark.icount) is mark:
            self._memory.remove(self._memory.index(mark.icount))

    def detached_here(self) -> Mark:
        """A mark of the present state that is in no list: nobody finds it by its icount."""
        mark = self.fold()
        mark.state = self._state()
        self._detached.add(mark)
        return mark

    def take_snapshot(self, name: str, budget: int | None = None) -> Mark:
        """A snapshot at the present position. It is usable at once, and on disk after ``flush``. ``budget``: bytes that
        the store may take with it.

        Raises StoreError, NoRoomError; the marks are unchanged then but for what could not be written before
        (``settle``)."""
        if self.incomplete:
            raise StoreError(f"no snapshot is taken of a guest that cannot go on: {self.incomplete}")
        if self._store is None:
            raise StoreError("the snapshots of this recording are not in use, or open for reading only: none is taken")
        self.settle()
        self._require_start()
        base = self._base
        dirty, contents = self._take_dirty()
        state = self._state()
        icount = self._guest.engine.icount
        pages = base.delta.pages()
        pages.update(zip(dirty.tolist(), contents, strict=True))
        stored = self._store.take(name, icount, state, base.stored, pages, self.disks.all_blocks(), budget)
        self._ram.clean(dirty)
        self._remember(stored, state)
        mark = Mark(icount, stored, None)
        i = bisect.bisect_right(self._disk, icount, key=lambda m: m.icount)
        self._disk.insert(i, mark)
        if self._origin is self._images:
            self._origin = mark
        self._stand(mark)
        return mark

    def _stand(self, mark: Mark) -> None:
        """RAM and the disks are those of a mark."""
        self._base = mark
        self.disks.stand(mark.stored, mark.blocks)

    @property
    def changed_pages(self) -> int:
        """How many pages and blocks a snapshot here would hold, but for what was written since ``fold``."""
        return len(self._base.delta) + self.disks.changed

    def delete_snapshot(self, stored: Stored) -> None:
        """As ``delete_snapshots`` with one."""
        self.delete_snapshots([stored])

    def delete_snapshots(self, going: Sequence[Stored]) -> None:
        """Remove snapshots other than the first; checkpoints that build on them go with them. Raises StoreError;
        all are there then.

        Those that are on disk are gone from there with the next ``flush``; for others, this waits."""
        if self._store is None or not self._store.writable:
            raise StoreError("the snapshots of this recording are not in use, or open for reading only")
        self._require_start()
        if self._origin.stored is not None and self._origin.stored in going:
            raise StoreError(f"snapshot {self._origin.stored.name} stays: every replay needs it")
        if not all(map(self._store.is_on_disk, going)):
            self.flush()
        self._leave(going)
        self._store.delete(going)

    def _require_start(self) -> None:
        if self._origin is self._images and self._disk:
            raise StoreError("the starting snapshot is damaged: no other is taken or deleted")

    def _leave(self, going: Sequence[Stored]) -> None:
        """Know RAM without these snapshots. Raises StoreError; nothing has changed then."""
        ids = {stored.id for stored in going}
        base = self._base
        rebased = [(m, self._rebase(m, ids)) for m in {base, *self._detached} if m.stored and m.stored.id in ids]
        self._disk = [m for m in self._disk if m.stored is None or m.stored.id not in ids]
        self._memory.drop_built_on(ids)
        for stored in going:
            self._states.pop(stored.id, None)
        for mark, (stored, delta, blocks) in rebased:
            if mark in self._detached:
                mark.stored, mark.delta, mark.blocks = stored, delta, blocks
            if mark is base:
                self._base = replace(mark, stored=stored, delta=delta, blocks=blocks)
                self.disks.rebase(stored, blocks)

    def settle(self) -> None:
        """Give up snapshots that could not be written; StoreError says why."""
        failure = None if self._store is None else self._store.failed()
        if self._store is None or failure is None:
            return
        lost, error = failure
        if self._origin.stored in lost:
            raise error  # the starting one, at the very start: there is nothing to go on from
        self._leave(lost)
        self._store.forget(lost)
        raise error

    def flush(self) -> None:
        """Wait until all snapshots are on disk. Raises StoreError; those that are not are given up then."""
        if self._store is not None:
            self._store.flush()
            self.settle()

    def _rebase(self, mark: Mark, going: set[str]) -> tuple[Stored, Delta, Delta]:
        """A mark in terms of the last snapshot that stays before the one that it is built on."""
        assert self._store is not None
        assert mark.stored is not None
        at = next(i for i, m in enumerate(self._disk) if m.stored == mark.stored)
        before = next(s for m in reversed(self._disk[:at]) if (s := m.stored) is not None and s.id not in going)
        numbers = [n for n in self._store.differing(before, mark.stored).tolist() if n not in mark.delta]
        delta = mark.delta.with_pages(numbers, self._store.pages(mark.stored, numbers))
        others = [n for n in self._store.differing_blocks(before, mark.stored) if n not in mark.blocks]
        return before, delta, mark.blocks.with_pages(others, self.disks.at(mark.stored, others))

    def arrived_at(self, mark: Mark) -> None:
        """Replay stands exactly at a snapshot on disk: from here on RAM is known as its pages.

        Nothing changes if inputs at this very position make the two differ. UnusableSnapshotError if the snapshot
        cannot be read or is of another history."""
        assert mark.stored is not None
        state = self._load_state(mark.stored)
        if state.door != self._door.save():
            return
        self.fold()
        if state.ram_digest != self.digest.value() or (
            self.disks.images and state.devices != self._guest.save_devices()
        ):
            raise UnusableSnapshotError(f"snapshot {mark.stored.name} does not hold what replay comes to there")
        self._stand(mark)

    # -- going back ------------------------------------------------------------------------------

    def restore(self, mark: Mark) -> None:
        """Put the guest into the state of a mark. After UnusableSnapshotError it is in none: restore another."""
        state, stored = mark.state, mark.stored
        if state is None:
            assert stored is not None
            state = self._load_state(stored)
        dirty = self._ram.dirty()
        try:
            need = merged(self._differing(mark), dirty)
        except StoreError as e:
            raise UnusableSnapshotError(str(e)) from e
        self._base_holds = False
        with self._ram.replacing(need, dirty) as to:
            pages = to.pages(need)
            try:
                self._put(mark, need, pages, to)
            except StoreError as e:
                raise UnusableSnapshotError(str(e)) from e
            finally:
                self.digest.look_at(need, pages, to.zeros(need))
        engine = self._guest.engine
        engine.pages_changed(need.tolist())
        self._stand(mark)
        if state.ram_digest != self.digest.value():
            where = f"snapshot {mark.stored.name}" if mark.stored is not None else "memory"
            raise UnusableSnapshotError(f"{where}: RAM at icount {mark.icount} is not what was saved there")
        self._base_holds = True
        try:
            engine.load(state.cpu, own=mark.state is not None or (stored is not None and stored.id in self._loaded))
            self._guest.load_devices(state.devices)
            self._door.load(state.door)
        except (EngineError, ValueError) as e:
            raise UnusableSnapshotError(f"the state saved at icount {mark.icount} does not load: {e}") from e
        if engine.icount != mark.icount:
            raise UnusableSnapshotError(f"the state saved at icount {mark.icount} is of icount {engine.icount}")
        if mark.state is None and stored is not None:
            self._loaded.add(stored.id)

    def _put(self, mark: Mark, numbers: PageNumbers, pages: list[memoryview], to: Replacement) -> None:
        """Give ``pages`` of RAM what they hold at a mark. Raises StoreError; some may have it then."""
        if mark.delta.chunks:
            contents = [mark.delta.get(n) for n in numbers.tolist()]
            held = np.fromiter((content is not None for content in contents), np.bool_, len(contents))
            to.put(numbers[held], [content for content in contents if content is not None])
            numbers, pages = numbers[~held], [pages[i] for i in np.flatnonzero(~held).tolist()]
        if mark.stored is None:
            to.put(numbers, [ZERO_PAGE] * len(numbers))
        elif len(numbers):
            if self._store is None:
                raise StoreError(f"snapshot {mark.stored.name}: the store is not in use")
            self._store.read_into(mark.stored, numbers, pages)

    def _differing(self, mark: Mark) -> PageNumbers:
        """Pages in which the base may differ from a mark, ascending."""
        base = self._base
        if not self._base_holds:
            return self._differing_from_any(mark)
        if base is mark:
            return page_numbers(())
        if base.stored == mark.stored:
            return page_numbers(base.delta.differing(mark.delta))
        deltas = page_numbers({*base.delta.pages(), *mark.delta.pages()})
        if mark.stored is None:
            return merged(deltas, self._ram.populated())
        if self._store is None:
            raise StoreError(f"snapshot {mark.stored.name}: the store is not in use")
        if base.stored is None:
            return merged(deltas, self._ram.populated(), self._store.filled(mark.stored))
        try:
            return merged(deltas, self._store.differing(base.stored, mark.stored))
        except StoreError as e:
            if isinstance(e, SnapshotGoneError) and mark.stored in e.gone:
                raise
            # What is wrong may be the one that RAM is now.
            return self._differing_from_any(mark)

    def _differing_from_any(self, mark: Mark) -> PageNumbers:
        """Pages in which RAM may differ from a mark, whatever RAM holds now, ascending."""
        need = merged(self._ram.populated(), page_numbers(mark.delta.pages()))
        if mark.stored is None:
            return need
        if self._store is None:
            raise StoreError(f"snapshot {mark.stored.name}: the store is not in use")
        if self._origin.stored is None:
            return merged(need, self._store.filled(mark.stored))
        from_origin = self._store.differing(self._origin.stored, mark.stored)
        return merged(need, page_numbers(self._images.delta.pages()), from_origin)

    def apart(self, mark: Mark) -> int:
        """How many pages have to be put back to go to a mark, at most."""
        try:
            return len(self._differing(mark)) + len(self._ram.dirty())
        except StoreError:
            return self._ram.pages

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
