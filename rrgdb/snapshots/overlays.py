"""Disks of a guest: over each image that the user named an overlay, which holds what the guest wrote, and a snapshot of
it for each snapshot of the guest.

The overlay of disk NAME is ``disk-NAME.qcow2``; its backing file is the user's image, which is opened for reading only.
A disk that is read-only has no overlay. A disk snapshot has the name and the icount of the guest's.

What a guest writes is known as *blocks* of 4096 bytes: their numbers begin with that of the disk. A guest's snapshot
says which blocks differ from the snapshot that it builds on; the store's thread writes them to the overlays (``write``,
``stage``, ``commit``), and each overlay has a second image, from which the other side reads.

A guest's snapshot is complete once it is in the store's own image, and that comes last: ``stage`` keeps the disks as
they are, ``commit`` brings that to the disk, and then the store commits. Deleting goes the other way round. So a crash
leaves at most disk snapshots that the store knows nothing of, which ``keep_only`` removes: those that are marked, in
their extra data, as made for this recording. Others are none of its business.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from rrgdb.qcow2 import Image, Qcow2Error, Snapshot
from rrgdb.recording.files import overlay_name
from rrgdb.snapshots.errors import StoreError, told
from rrgdb.snapshots.images import DiskImage

T = TypeVar("T")
BLOCK = 4096
_DISK_SHIFT = 44
_SMALL = 16 << 30
"""overlays of disks up to this size have clusters of one block; those of larger ones would have large L1 tables"""
_JOINED = 256


def block_number(disk: int, block: int) -> int:
    """Number of a disk's block among all disks."""
    return disk << _DISK_SHIFT | block


def disk_and_block(number: int) -> tuple[int, int]:
    return number >> _DISK_SHIFT, number & (1 << _DISK_SHIFT) - 1


class Moment(NamedTuple):
    """What a guest's snapshot and those of its disks have in common."""

    name: str
    icount: int


Kept = Mapping[int, Snapshot]
"""the disk snapshots of one snapshot of the guest, by the number of the disk"""


def _moment(snapshot: Snapshot) -> Moment:
    return Moment(snapshot.name, -1 if snapshot.icount is None else snapshot.icount)


@dataclass(slots=True)
class _Overlay:
    """``writer`` belongs to the store's thread, ``reader`` to the other one. ``seen``: what that knows, by id."""

    reader: Image
    writer: Image | None
    seen: dict[str, Snapshot]

    def reload(self) -> None:
        self.reader.reload()
        self.seen = {s.id: s for s in self.reader.snapshots}


class Overlays:
    """The overlays of one recording, by the numbers of their disks. Methods raise StoreError."""

    def __init__(self, overlays: dict[int, _Overlay], owner: bytes) -> None:
        self._overlays = overlays
        self._owner = owner
        self.damage: list[str] = []
        """a line about each overlay that is damaged so that snapshots may be missing"""

    @classmethod
    def create(cls, directory: Path, images: Sequence[DiskImage], owner: bytes) -> Overlays:
        """New overlays in ``directory``, open for writing; what was made is removed if it fails. ``owner``: the id of
        the recording, with which disk snapshots are marked."""
        made: list[Path] = []
        try:
            for image in images:
                path = _overlay_path(directory, image)
                if not image.readonly:
                    with told(path):
                        size = _cluster_size(image)
                        below = os.fspath(image.path.resolve())
                        Image.create(
                            path,
                            image.size,
                            cluster_size=size,
                            backing_file=below,
                            backing_format=image.format,
                            mode=0o600,
                        ).close()
                        made.append(path)
            return cls.open(directory, images, owner, writable=True)
        except BaseException:
            for path in made:
                with contextlib.suppress(OSError):
                    path.unlink()
            raise

    @classmethod
    def open(
        cls,
        directory: Path,
        images: Sequence[DiskImage],
        owner: bytes,
        *,
        writable: bool,
        backing: Sequence[str] | None = None,
    ) -> Overlays:
        """The overlays of these disks. StoreError if one is missing, cannot be opened, is of another size or, with
        ``backing``, over another image: then each is over the one of these that has its number, or where that is now.
        """
        found: dict[int, _Overlay] = {}
        damage: list[str] = []
        try:
            for number, image in enumerate(images):
                if image.readonly:
                    continue
                path = _overlay_path(directory, image)
                with told(path):
                    reader, problem = _open_overlay(path, image, writable=writable)
                found[number] = overlay = _Overlay(reader, None, {})
                damage += [problem] if problem else []
                overlay.seen = {s.id: s for s in reader.snapshots}
                if reader.size != image.size:
                    raise StoreError(f"{path}: a disk of {reader.size} bytes, expected {image.size}")
                expected = {os.fspath(image.path.resolve()), *([] if backing is None else [backing[number]])}
                if backing is not None and not reader.damaged and reader.backing_file not in expected:
                    raise StoreError(
                        f"{path}: an overlay over {reader.backing_file!r}, expected one over {backing[number]!r}"
                    )
                if writable:
                    with told(path):
                        # Whole blocks are written, so nothing below is needed for that.
                        overlay.writer = Image.open(path, writable=True, barriers=True, backing=False, own=True)
                        overlay.writer.fill_holes()
                    if overlay.writer.identity != reader.identity:
                        raise StoreError(f"{path}: it was replaced while it was opened")
        except BaseException:
            cls(found, owner).close()
            raise
        disks = cls(found, owner)
        disks.damage = damage
        return disks

    # -- reading

    def read(self, kept: Kept, disk: int, offset: int, length: int) -> bytes:
        """Bytes of a disk at a snapshot, zeros behind its end."""
        overlay, snapshot = self._overlays[disk], kept[disk]
        reader = overlay.reader
        with told(reader.path):
            if overlay.seen.get(snapshot.id) != snapshot:
                overlay.reload()
            data: bytes | Qcow2Error = b""
            there = overlay.seen.get(snapshot.id) == snapshot
            if there:
                try:
                    data = reader.view(snapshot).read(offset, min(length, reader.size - offset))
                except Qcow2Error as e:
                    data = e
            if overlay.writer is None and not reader.is_current():
                # A writer may have deleted the snapshot, and used its room again.
                overlay.reload()
                there = overlay.seen.get(snapshot.id) == snapshot
            if not there:
                raise StoreError(f"{reader.path}: snapshot {snapshot.name} was deleted by another process")
            if isinstance(data, Qcow2Error):
                raise data
            return data.ljust(length, b"\0")

    def differing(self, a: Kept, b: Kept) -> list[int]:
        """Numbers of the blocks that may differ between two snapshots."""
        found: list[int] = []
        for number, overlay in self._overlays.items():
            with told(overlay.reader.path):
                if any(overlay.seen.get(kept[number].id) != kept[number] for kept in (a, b)):
                    overlay.reload()
                each = overlay.reader.cluster_size // BLOCK
                for offset in overlay.reader.diff_disk(a[number], b[number]):
                    found += (block_number(number, offset // BLOCK + i) for i in range(each))
        return found

    def look_at_tables(self, kept: Kept) -> None:
        """Read where everything is that the overlays hold at a snapshot."""
        for number, overlay in self._overlays.items():
            with told(overlay.reader.path):
                if overlay.seen.get(kept[number].id) != kept[number]:
                    overlay.reload()
                overlay.reader.filled_disk(kept[number])

    def reload(self) -> None:
        """See what a writer has done since."""
        for overlay in self._overlays.values():
            with told(overlay.reader.path):
                overlay.reload()

    def complete(self) -> dict[Moment, Kept]:
        """Moments of which every disk has a snapshot."""
        found: dict[Moment, dict[int, Snapshot]] = {}
        for number, overlay in self._overlays.items():
            # Of two of one moment the later one counts, and one that is marked before others.
            for snapshot in sorted(overlay.seen.values(), key=self._is_ours):
                found.setdefault(_moment(snapshot), {})[number] = snapshot
        return {moment: kept for moment, kept in found.items() if len(kept) == len(self._overlays)}

    def most_bytes(self, blocks: Collection[int]) -> int:
        """What the disk snapshots of one of the guest's take at most, if these blocks differ."""
        total = 0
        for number, overlay in self._overlays.items():
            size = overlay.reader.cluster_size
            data = len({n * BLOCK // size for n in blocks if disk_and_block(n)[0] == number})
            first, all_tables = _table_clusters(overlay.reader)
            clusters = data + min(data, all_tables) + first + 1
            total += size * (clusters + clusters // (size // 2) + 3)
        return total

    @property
    def reserve(self) -> int:
        """Bytes that a commit may need for a while, as the store's."""
        return sum(o.reader.cluster_size * 3 * (_table_clusters(o.reader)[0] + 5) for o in self._overlays.values())

    @property
    def file_bytes(self) -> int:
        """What all overlays take."""
        return sum(Path(overlay.reader.path).stat().st_size for overlay in self._overlays.values())

    # -- writing, by the store's thread

    def _each(self, call: Callable[[int, Image], T]) -> dict[int, T]:
        found: dict[int, T] = {}
        for number, overlay in self._overlays.items():
            assert overlay.writer is not None
            with told(overlay.writer.path):
                found[number] = call(number, overlay.writer)
        return found

    def go_to(self, kept: Kept | None) -> None:
        """What is written next builds on this snapshot (None: on the images, which only a new overlay holds)."""

        def go(number: int, image: Image) -> None:
            if kept is not None:
                image.apply_snapshot(kept[number])
            elif image.snapshots:
                raise StoreError(f"{image.path}: expected an overlay without snapshots")

        self._each(go)

    def write(self, blocks: Mapping[int, bytes]) -> None:
        """Write blocks to the present of the overlays."""
        for first, data in _runs(blocks):
            disk, block = disk_and_block(first)
            image = self._overlays[disk].writer
            assert image is not None
            with told(image.path):
                offset = block * BLOCK
                image.write(offset, data[: image.size - offset])

    def stage(self, moment: Moment) -> Kept:
        """Keep all disks as they are now; on the disk with the next ``commit``."""
        name, icount = moment

        def keep(_: int, image: Image) -> Snapshot:
            return image.create_snapshot(name, vm_clock_ns=icount, icount=icount, extra=self._owner, commit=False)

        return self._each(keep)

    def commit(self) -> None:
        """Bring what was written and staged to the disk."""
        self._each(lambda _, image: image.flush())

    def delete(self, going: Sequence[Kept]) -> None:
        """Delete disk snapshots."""

        def delete(number: int, image: Image) -> None:
            image.delete_snapshots([kept[number] for kept in going])
            image.flush()

        self._each(delete)

    def keep_only(self, moments: Collection[Moment]) -> None:
        """Delete what this recording has made of the disk snapshots of all other moments, and of two of one moment the
        older."""

        def keep(number: int, image: Image) -> None:
            ours = [s for s in image.snapshots if self._is_ours(s)]
            newest = {_moment(s): s for s in ours}
            going = [s for s in ours if _moment(s) not in moments or newest[_moment(s)] != s]
            if going:
                require_sound(image)
                image.delete_snapshots(going)
                image.flush()
            self._overlays[number].reload()

        self._each(keep)

    def _is_ours(self, snapshot: Snapshot) -> bool:
        return snapshot.extra == self._owner

    def require_sound(self) -> None:
        """StoreError if one of the overlays is damaged."""
        self._each(lambda _, image: require_sound(image))

    def give_up(self) -> None:
        """Forget what was written and staged since the last ``commit``."""
        self._each(lambda _, image: image.reload())

    @property
    def used_bytes(self) -> int:
        """What the overlays have in use."""
        return sum(self._each(lambda _, image: image.used_bytes).values())

    def close(self) -> None:
        """Idempotent; all are closed even if StoreError is raised."""
        failure: StoreError | None = None
        for overlay in self._overlays.values():
            for image in filter(None, (overlay.writer, overlay.reader)):
                try:
                    with told(image.path):
                        image.close()
                except StoreError as e:
                    failure = failure or e
        if failure is not None:
            raise failure


def require_sound(image: Image) -> None:
    """StoreError if an image that is open for writing is damaged."""
    found = image.check()
    if found.corruption_count:
        raise StoreError(f"{image.path}: damaged, so nothing is written to it: {found.corruptions[0]}")


def _table_clusters(image: Image) -> tuple[int, int]:
    """Clusters of the L1 table, and L2 tables, of a disk that is full."""
    tables = -(-image.size // (image.cluster_size * image.cluster_size // 8))
    return -(-tables * 8 // image.cluster_size), tables


def _cluster_size(image: DiskImage) -> int:
    return BLOCK if image.size <= _SMALL else 16 * BLOCK


def _open_overlay(path: Path, image: DiskImage, *, writable: bool) -> tuple[Image, str]:
    """For reading; of a damaged one, unless it is to be ``writable``, what is left, and a line about that. Raises
    Qcow2Error, OSError."""
    try:
        return Image.open(path, backing=image.content, own=True), ""
    except Qcow2Error as e:
        if writable:
            raise
        size = _cluster_size(image)
        found = Image.open_damaged(path, size=image.size, cluster_size=size, backing=image.content, own=True)
        if not found.snapshots:
            found.close()
            raise
        return found, f"the overlay is damaged, what is left of it is used: {e}"


def _overlay_path(directory: Path, image: DiskImage) -> Path:
    return directory / overlay_name(image.name)


def _runs(blocks: Mapping[int, bytes]) -> Iterator[tuple[int, bytes]]:
    """Blocks that follow one another, joined: the number of the first and the bytes."""
    first, joined = 0, list[bytes]()
    for number in sorted(blocks):
        if joined and (number != first + len(joined) or len(joined) == _JOINED):
            yield first, b"".join(joined)
            joined = []
        if not joined:
            first = number
        joined.append(blocks[number])
    if joined:
        yield first, b"".join(joined)
