"""The snapshot store: VM states as internal snapshots of a qcow2 image.

The VM state area of the image holds the state blob in its first 8 MiB (u32 length, then the blob) and RAM, page by
page, from there on. The active state of the image is always the snapshot that was written last, so a new snapshot
writes only the pages in which the guest differs from that one.

Any number of processes may read while one writes. A reader knows the snapshots that there were when it opened the
store. If the writer deletes one and uses its room again, the reader notices behind each look into the file.

A snapshot is usable as soon as it was taken; a thread writes it (see ``writer.py``). That thread owns one image; this
side reads from an image of its own, which is loaded anew when it is asked for a snapshot that it has not seen.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rrgdb.qcow2 import Image, Qcow2Error, Snapshot
from rrgdb.snapshots.differences import Differences
from rrgdb.snapshots.entries import LENGTH_BYTES, PAGE, RAM_OFFSET, Deletion, Entry, SnapshotGoneError, Stored
from rrgdb.snapshots.errors import NoRoomError, StoreError
from rrgdb.snapshots.overlays import BLOCK, Kept, Overlays, block_number
from rrgdb.snapshots.state import MAX_BYTES, GuestState, StateError
from rrgdb.snapshots.writer import StoreWriter

PageNumbers = npt.NDArray[np.int64]

MAX_NAME = 255
_LENGTH = struct.Struct("<I")
_ZERO = bytes(PAGE)
_NONE: PageNumbers = np.array([], dtype=np.int64)
_TABLE_PAGES = PAGE // 8
_COUNTED = PAGE // 2
"""clusters that a block of refcounts counts"""
_ENTRY, _REFCOUNTS = 1, 3
"""clusters by which the snapshot table grows with an entry; blocks that refcounts take besides those for each
``_COUNTED`` clusters, and their table"""
_RESERVED = 8
"""what part of the budget is kept for tables that move, at most"""
_TURNS = 3
"""how often a table that moves may be there, with room to grow"""


def _numbers(pages: Collection[int]) -> PageNumbers:
    return np.sort(np.fromiter(pages, np.int64, len(pages)))


class SnapshotStore:
    """All snapshots of one recording, ordered by icount. One thread uses it."""

    def __init__(self, image: Image, writer: StoreWriter | None, ram_pages: int, disks: Overlays | None) -> None:
        self._image = image
        self._writer = writer
        self._ram_pages = ram_pages
        self._lock = writer.lock if writer is not None else None
        self._disks = disks
        self._entries = {
            s.id: Entry(Stored(s.name, s.icount, s.id), s) for s in image.snapshots if s.icount is not None
        }
        self._seen = {s.id: s for s in image.snapshots}
        self._taken = 0
        self._differences = Differences()
        self.damage: list[str] = [] if disks is None else disks.damage.copy()
        """a line about each file that is damaged so that snapshots may be missing; all are open for reading then"""
        if disks is not None:
            if writer is not None:
                disks.keep_only({entry.stored.moment for entry in self._entries.values()})
            self._find_disks(disks)

    def _find_disks(self, disks: Overlays) -> None:
        """Give each snapshot those of its disks; without them it is none."""
        complete = disks.complete()
        if any(entry.stored.moment not in complete for entry in self._entries.values()):
            # A writer may have gone on since the overlays were opened.
            disks.reload()
            complete = disks.complete()
        for entry in self._entries.values():
            entry.kept = complete.get(entry.stored.moment)
        lacking = [entry.stored.name for entry in self._entries.values() if entry.kept is None]
        self._entries = {k: e for k, e in self._entries.items() if e.kept is not None}
        if lacking and self._image.is_current():
            self.damage += [f"{self._image.path}: snapshot {name} has no disks; passed over" for name in lacking]

    @classmethod
    def create(
        cls,
        path: Path,
        ram_pages: int,
        disks: Overlays | None = None,
        *,
        before_commit: Callable[[], None] = lambda: None,
    ) -> SnapshotStore:
        """A new orphan image: it holds nothing but VM states. ``disks``: the guest's; each snapshot is of them as well,
        and the store closes them. ``before_commit`` runs, on the writer's thread, before a snapshot becomes part of the
        image; it may raise OSError, StoreError."""
        try:
            # Guest memory is nobody else's business, wherever the file is copied.
            image = Image.create(path, 0, cluster_size=PAGE, barriers=True, mode=0o600)
            image.fill_holes()
            reader = Image.open(path, backing=False, own=True)
            return cls(reader, StoreWriter(image, ram_pages, disks, before_commit), ram_pages, disks)
        except (Qcow2Error, OSError) as e:
            raise StoreError(f"{path}: cannot create the snapshot store: {e}") from e

    @classmethod
    def open(
        cls,
        path: Path,
        ram_pages: int,
        *,
        writable: bool,
        disks: Overlays | None = None,
        before_commit: Callable[[], None] = lambda: None,
    ) -> SnapshotStore:
        """``disks``: the guest's, open for writing if this is; the store closes them. Snapshots that one of them lacks
        are none. ``before_commit``: see ``create``."""
        writer: Image | None = None
        try:
            image, damage = _open_image(path)
            try:
                if writable and damage:
                    raise StoreError(damage)
                if writable:
                    writer = Image.open(path, writable=True, barriers=True, backing=False, own=True)
                    if writer.identity != image.identity:
                        raise StoreError(f"{path}: it was replaced while it was opened")
                    # Room of what was deleted before comes first.
                    writer.fill_holes()
                side = None if writer is None else StoreWriter(writer, ram_pages, disks, before_commit, sound=False)
                store = cls(image, side, ram_pages, disks)
                store.damage += [damage] if damage else []
                return store
            except BaseException:
                image.close()
                if writer is not None:
                    writer.close()
                raise
        except (Qcow2Error, OSError) as e:
            raise StoreError(f"{path}: cannot open the snapshot store: {e}") from e

    @property
    def snapshots(self) -> list[Stored]:
        return sorted((entry.stored for entry in self._entries.values()), key=lambda s: s.icount)

    @property
    def file_size(self) -> int:
        """Bytes on disk."""
        return Path(self._image.path).stat().st_size

    @property
    def disk_bytes(self) -> int:
        """Bytes on disk of the overlays."""
        return 0 if self._disks is None else self._disks.file_bytes

    # -- reading

    def state(self, stored: Stored) -> GuestState:
        """StoreError if the blob is damaged."""
        entry = self._entries[stored.id]
        state = entry.state
        if state is not None:
            return state
        with self._reading(entry):
            view = self._image.view(self._on_disk(entry))
            if self._disks is not None and entry.kept is not None:
                self._disks.look_at_tables(entry.kept)
            (length,) = _LENGTH.unpack(view.read_vmstate(0, _LENGTH.size))
            if length > MAX_BYTES:
                raise StateError(f"state of {length} bytes")
            return GuestState.decode(view.read_vmstate(_LENGTH.size, length))

    def pages(self, stored: Stored, numbers: Sequence[int]) -> list[bytes]:
        """Contents of these RAM pages at the snapshot."""
        waiting, root = self._chain(self._entries[stored.id])
        found: dict[int, bytes] = {}
        for _, pages in reversed(waiting):
            found.update((n, pages[n]) for n in numbers if n in pages)
        rest = [n for n in numbers if n not in found]
        if rest and root is not None:
            with self._reading(root):
                offsets = [RAM_OFFSET + n * PAGE for n in rest]
                contents = self._image.view(self._on_disk(root)).read_vmstate_clusters(offsets)
            if not found:
                return contents
            found.update(zip(rest, contents, strict=True))
        return [found.get(n, _ZERO) for n in numbers]

    def read_into(self, stored: Stored, numbers: PageNumbers, pages: Sequence[memoryview]) -> None:
        """Fill ``pages`` with these RAM pages at the snapshot. It may be some of them only if StoreError is raised."""
        waiting, root = self._chain(self._entries[stored.id])
        for _, contents in waiting:
            rest = []
            for i, n in enumerate(numbers.tolist()):
                if n in contents:
                    pages[i][:] = contents[n]
                else:
                    rest.append(i)
            numbers, pages = numbers[rest], [pages[i] for i in rest]
        if root is not None:
            with self._reading(root):
                view = self._image.view(self._on_disk(root))
                view.read_vmstate_clusters_into(RAM_OFFSET + numbers * PAGE, pages)
        else:
            for page in pages:
                page[:] = _ZERO

    def differing(self, a: Stored, b: Stored) -> PageNumbers:
        """Numbers of the RAM pages that may differ between two snapshots, ascending."""
        if a.id == b.id:
            return _NONE
        known = self._differences.get(a.id, b.id)
        if known is None:
            known = self._differing(a, b)
            self._differences.put(a.id, b.id, known)
        return known

    def _differing(self, a: Stored, b: Stored) -> PageNumbers:
        (left, one), (right, two) = self._chain(self._entries[a.id]), self._chain(self._entries[b.id])
        while left and right and left[-1][0] is right[-1][0]:
            left.pop()
            right.pop()
        found = {n for _, pages in (*left, *right) for n in pages}
        if one is not two:
            if one is None or two is None:
                return np.arange(self._ram_pages, dtype=np.int64)
            on_disk = self._differing_on_disk(one, two)
            if not found:
                return on_disk
            found.update(on_disk.tolist())
        return _numbers(found)

    def _differing_on_disk(self, one: Entry, two: Entry) -> PageNumbers:
        with self._reading(one, two):
            sides = self._on_disk(one), self._on_disk(two)
            offsets = self._image.diff_vmstate(*sides, RAM_OFFSET, self._ram_pages * PAGE)
        return (np.array(offsets, np.int64) - RAM_OFFSET) // PAGE

    def filled(self, stored: Stored) -> PageNumbers:
        """Numbers of the RAM pages that may be other than zeros at a snapshot, ascending."""
        waiting, root = self._chain(self._entries[stored.id])
        found = {n for _, pages in waiting for n in pages}
        if root is not None:
            with self._reading(root):
                offsets = self._image.filled_vmstate(self._on_disk(root), RAM_OFFSET, self._ram_pages * PAGE)
            found.update((offset - RAM_OFFSET) // PAGE for offset in offsets)
        return _numbers(found)

    def _chain(self, entry: Entry) -> tuple[list[tuple[Entry, Mapping[int, bytes]]], Entry | None]:
        """What waits for the disk, from a snapshot down, with its pages; and the one on disk that it builds on."""
        if self._lock is None:
            return [], entry
        waiting: list[tuple[Entry, Mapping[int, bytes]]] = []
        at: Entry | None = entry
        with self._lock:
            while at is not None and at.snapshot is None:
                waiting.append((at, at.pages or {}))
                at = at.base
        return waiting, at

    def disk(self, stored: Stored, disk: int, block: int, count: int) -> list[bytes | None]:
        """``count`` blocks of a disk at the snapshot. None: of a snapshot that is not on disk yet, and builds on the
        images alone, what the image holds."""
        waiting, root, kept = self._blocks(self._entries[stored.id])
        found: list[bytes | None] = []
        for number in range(block_number(disk, block), block_number(disk, block) + count):
            found.append(next((blocks[number] for blocks in waiting if number in blocks), None))
        if root is None or None not in found:
            return found
        assert self._disks is not None
        assert kept is not None
        data = self._disks.read(kept, disk, block * BLOCK, count * BLOCK)
        return [data[i * BLOCK : i * BLOCK + BLOCK] if held is None else held for i, held in enumerate(found)]

    def differing_blocks(self, a: Stored, b: Stored) -> list[int]:
        """Numbers of the blocks that may differ between two snapshots; both are on disk or build on one that is."""
        (left, _, one), (right, _, two) = (self._blocks(self._entries[s.id]) for s in (a, b))
        found = {n for blocks in (*left, *right) for n in blocks}
        if self._disks is not None and one is not None and two is not None and one is not two:
            found.update(self._disks.differing(one, two))
        return sorted(found)

    def _blocks(self, entry: Entry) -> tuple[list[Mapping[int, bytes]], Entry | None, Kept | None]:
        """As ``_chain``, of blocks; and the disk snapshots of the one on disk."""
        waiting: list[Mapping[int, bytes]] = []
        at: Entry | None = entry
        with self._lock or nullcontext():
            while at is not None and at.snapshot is None:
                waiting.append(at.blocks or {})
                at = at.base
            return waiting, at, None if at is None else at.kept

    def _on_disk(self, entry: Entry) -> Snapshot:
        """A snapshot that the image which is read from knows by now. Raises Qcow2Error, OSError or StoreError."""
        snapshot = entry.snapshot
        assert snapshot is not None
        if self._seen.get(snapshot.id) != snapshot:
            self._reload()
            self._require_seen((entry,))
        return snapshot

    def _reload(self) -> None:
        self._image.reload()
        self._seen = {s.id: s for s in self._image.snapshots}

    def _require_seen(self, entries: Sequence[Entry]) -> None:
        gone = [e.stored for e in entries if e.snapshot is not None and self._seen.get(e.snapshot.id) != e.snapshot]
        if gone:
            names = ", ".join(stored.name for stored in gone)
            raise SnapshotGoneError(f"{self._image.path}: snapshot {names} was deleted by another process", gone)

    @contextmanager
    def _reading(self, *entries: Entry) -> Iterator[None]:
        """What is read inside is what these snapshots hold; StoreError otherwise."""
        failure: Exception | None = None
        try:
            try:
                yield
            except (Qcow2Error, StateError) as e:
                failure = e
            if self._writer is None and not self._image.is_current():
                self._reload()
                self._require_seen(entries)
        except (Qcow2Error, OSError) as e:
            failure = e
        if failure is not None:
            names = ", ".join(entry.stored.name for entry in entries)
            raise StoreError(f"{self._image.path}: snapshot {names}: {failure}") from failure

    # -- writing

    def _require_writer(self) -> StoreWriter:
        if self._writer is None:
            raise StoreError(f"{self._image.path}: open for reading only")
        return self._writer

    @property
    def writable(self) -> bool:
        return self._writer is not None

    def take(
        self,
        name: str,
        icount: int,
        state: GuestState,
        base: Stored | None,
        changed: Mapping[int, bytes],
        blocks: Mapping[int, bytes] | None = None,
        budget: int | None = None,
    ) -> Stored:
        """Add a snapshot: RAM is that of ``base`` (None: zeros) but for the pages ``changed``, and so are the disks but
        for ``blocks``; nobody changes the two any more. It is usable at once, and on disk after the next ``flush``.
        ``budget``: bytes that all files of the store may take with it.

        Raises StoreError; NoRoomError if the budget might not hold. What fails later is told by ``failed``.
        """
        writer = self._require_writer()
        try:
            if len(name.encode("utf-8", "surrogateescape")) > MAX_NAME:
                raise ValueError(f"a snapshot name has at most {MAX_NAME} bytes")
            blob = state.encode()
        except (StateError, ValueError) as e:
            raise StoreError(f"{self._image.path}: cannot take snapshot {name}: {e}") from e
        padded = (_LENGTH.pack(len(blob)) + blob).ljust(-(-(len(blob) + LENGTH_BYTES) // PAGE) * PAGE, b"\0")
        most = self.most_bytes(len(changed), len(padded), blocks or ())
        if budget is not None and self.used_bytes + most + self._reserve(budget) > budget:
            raise NoRoomError(f"{self._image.path}: snapshot {name} might not fit into the budget of {budget} bytes")
        self._taken += 1
        stored = Stored(name, icount, f"taken {self._taken}")
        below = None if base is None else self._entries[base.id]
        entry = self._entries[stored.id] = Entry(stored, None, below, state, padded, changed, blocks, most=most)
        writer.put(entry)
        if base is not None:
            self._differences.put(base.id, stored.id, _numbers(changed))
        return stored

    def is_on_disk(self, stored: Stored) -> bool:
        return self._entries[stored.id].snapshot is not None

    @property
    def queued_bytes(self) -> int:
        """What waits for the disk."""
        return 0 if self._writer is None else self._writer.queued_bytes

    @property
    def used_bytes(self) -> int:
        """What the files have in use, with what waits for them. They have more where something was deleted."""
        return 0 if self._writer is None else self._writer.all_bytes()

    @property
    def deleting(self) -> bool:
        """Whether snapshots are still to be deleted: ``used_bytes`` will be less."""
        return self._writer is not None and self._writer.deletions > 0

    def most_bytes(self, pages: int, blob: int = 0, blocks: Collection[int] = ()) -> int:
        """What a snapshot of so many pages takes at most: those, ``blob`` bytes in front of them, the tables that lead
        there, and its share of the tables of the file; and that of the disks, of which it has ``blocks``."""
        data = pages + blob // PAGE
        clusters = data + min(data, self._tables) + -(-self._tables * 8 // PAGE) + _ENTRY
        clusters += clusters // _COUNTED + _REFCOUNTS
        return PAGE * clusters + (0 if self._disks is None else self._disks.most_bytes(blocks))

    @property
    def _tables(self) -> int:
        """L2 tables of a whole state; entries of its L1 table."""
        return -(-(RAM_OFFSET // PAGE + self._ram_pages) // _TABLE_PAGES)

    def _reserve(self, budget: int) -> int:
        """Bytes that a commit may need for a while, within reason: it writes tables anew before it gives the old ones
        up, and a deletion those of the active state. So, as a rule, the files keep to the budget as well."""
        moving = budget // PAGE // _COUNTED + -(-self._tables * 8 // PAGE) + 2 * _ENTRY + _REFCOUNTS
        most = PAGE * (self._tables + _TURNS * moving) + (0 if self._disks is None else self._disks.reserve)
        return min(most, budget // _RESERVED)

    def failed(self) -> tuple[list[Stored], StoreError] | None:
        """Snapshots that could not be written since the last call, and why. They are usable until ``forget``."""
        return None if self._writer is None else self._writer.take_failure()

    def forget(self, lost: Sequence[Stored]) -> None:
        """Snapshots that ``failed`` has told are not used any more."""
        for stored in lost:
            del self._entries[stored.id]

    def delete(self, going: Sequence[Stored]) -> None:
        """Remove snapshots that are on disk, as one change of the image, with the next ``flush``."""
        entries = [self._entries[stored.id] for stored in going]
        if entries:
            self._require_writer().put(Deletion(entries))
        for stored in going:
            del self._entries[stored.id]

    def flush(self) -> None:
        """Wait until everything is on the disk, or has failed (see ``failed``)."""
        if self._writer is not None:
            self._writer.wait()

    def close(self) -> None:
        """Idempotent; the files are closed even if StoreError is raised."""
        try:
            if self._writer is not None:
                self._writer.close()
                failure = self._writer.take_failure()
                if failure is not None:
                    raise failure.error
        except (Qcow2Error, OSError) as e:
            raise StoreError(f"{self._image.path}: cannot write to disk: {e}") from e
        finally:
            self._image.close()
            if self._disks is not None:
                self._disks.close()


def _open_image(path: Path) -> tuple[Image, str]:
    """The image for reading; if it is damaged, what is left of it, and a line about that. Raises Qcow2Error, OSError,
    StoreError."""
    try:
        image = Image.open(path, backing=False, own=True)
    except Qcow2Error as e:
        problem = str(e)
    else:
        if image.plain and not image.size and image.cluster_size == PAGE and image.backing_file is None:
            return image, ""
        image.close()
        problem = f"{path}: offset 0: expected the header of an image of VM states alone"
    image = Image.open_damaged(path, size=0, cluster_size=PAGE, own=True)
    if image.snapshots:
        return image, f"the snapshot store is damaged, what is left of it is used: {problem}"
    image.close()
    raise StoreError(f"cannot open the snapshot store: {problem}")
