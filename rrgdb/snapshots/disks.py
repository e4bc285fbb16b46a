"""Disks of a guest: over each image that the user named an overlay, which holds what the guest wrote, and a snapshot of
it for each snapshot of the guest.

The overlay of disk NAME is ``disk-NAME.qcow2``; its backing file is the user's image, which is opened for reading only.
The overlay's active state is the present. A disk snapshot has the name and the icount of the guest's.

A guest's snapshot is complete once it is in the store's own image, and that comes last: ``stage`` keeps the disks as
they are, ``commit`` brings that to the disk, and then the store commits. Deleting goes the other way round. So a crash
leaves at most disk snapshots that the store knows nothing of, which ``keep_only`` removes.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rrgdb.qcow2 import Image, Qcow2Error, Snapshot
from rrgdb.snapshots.errors import StoreError

FORMATS = ("raw", "qcow2")
_PREFIX, _SUFFIX = "disk-", ".qcow2"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SECTOR = 512


class NewDisk(NamedTuple):
    """A disk of a new guest: the user's ``image`` and its ``format``, one of ``FORMATS``."""

    name: str
    image: Path
    format: str


class Moment(NamedTuple):
    """What a guest's snapshot and those of its disks have in common."""

    name: str
    icount: int


DiskSnapshots = dict[str, list[Snapshot]]
"""by the names of disks"""


def _moment(snapshot: Snapshot) -> Moment:
    return Moment(snapshot.name, -1 if snapshot.icount is None else snapshot.icount)


class Disks:
    """The overlays of one recording. Any thread may call; methods raise StoreError."""

    def __init__(self, overlays: dict[str, Image]) -> None:
        self._overlays = overlays
        self._lock = threading.Lock()

    @classmethod
    def create(cls, directory: Path, disks: Sequence[NewDisk]) -> Disks:
        """New overlays in ``directory``, open for writing. StoreError if a name or a format is none, or an image cannot
        be read; what was made is removed then."""
        made: dict[str, Image] = {}
        try:
            for disk in disks:
                if not _NAME.fullmatch(disk.name) or disk.format not in FORMATS or disk.name in made:
                    raise StoreError(
                        f"disk {disk.name!r}, format {disk.format!r}: expected another name, of letters, digits, - and "
                        f"_, and one of {', '.join(FORMATS)}"
                    )
                with _told(disk.image):
                    made[disk.name] = _create(directory / f"{_PREFIX}{disk.name}{_SUFFIX}", disk)
        except BaseException:
            for image in made.values():
                image.close()
                os.unlink(image.path)
            raise
        return cls(made)

    @classmethod
    def open(cls, directory: Path, *, writable: bool) -> Disks:
        """The overlays that ``directory`` has. StoreError if one, or the image under it, cannot be opened."""
        found: dict[str, Image] = {}
        try:
            for path in sorted(directory.glob(f"{_PREFIX}*{_SUFFIX}")):
                with _told(path):
                    name = path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
                    found[name] = Image.open(path, writable=writable, barriers=writable)
        except BaseException:
            for image in found.values():
                image.close()
            raise
        return cls(found)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each disk, by its name."""
        return {name: image.size for name, image in self._overlays.items()}

    def read(self, disk: str, offset: int, length: int, moment: Moment | None = None) -> bytes:
        """Bytes of a disk at a snapshot, or in the present, which only the writer knows."""
        with self._with(disk) as image:
            if moment is None:
                return image.read(offset, length)
            found = next((s for s in image.snapshots if _moment(s) == moment), None)
            data: bytes | Qcow2Error = b""
            try:
                if found is not None:
                    data = image.view(found).read(offset, length)
            except Qcow2Error as e:
                data = e
            if not image.writable and not image.is_current():
                # A writer may have deleted the snapshot, and used its room again.
                image.reload()
                found = found if found in image.snapshots else None
            if found is None:
                raise StoreError(f"{image.path}: there is no snapshot {moment.name} at icount {moment.icount}")
            if isinstance(data, Qcow2Error):
                raise data
            return data

    def write(self, disk: str, offset: int, data: bytes) -> None:
        """Write to a disk in the present."""
        with self._with(disk) as image:
            image.write(offset, data)

    # -- for the store

    def stage(self, moment: Moment) -> None:
        """Keep all disks as they are now; on the disk with the next ``commit``."""
        name, icount = moment
        self._all(lambda image: image.create_snapshot(name, vm_clock_ns=icount, icount=icount, commit=False))

    def commit(self) -> None:
        """Bring what was written and staged to the disk."""
        self._all(Image.flush)

    def find(self, moments: Collection[Moment]) -> DiskSnapshots:
        """The disk snapshots of these moments, to be deleted."""
        with self._lock:
            return {n: [s for s in i.snapshots if _moment(s) in moments] for n, i in self._overlays.items()}

    def delete(self, going: DiskSnapshots) -> None:
        """Delete what ``find`` has found."""
        for disk, snapshots in going.items():
            if snapshots:
                with self._with(disk) as image:
                    image.delete_snapshots(snapshots)
                    image.flush()

    def keep_only(self, moments: Collection[Moment]) -> None:
        """Delete the disk snapshots of all other moments."""
        with self._lock:
            going = {n: [s for s in i.snapshots if _moment(s) not in moments] for n, i in self._overlays.items()}
        self.delete(going)

    def complete(self) -> set[Moment]:
        """Moments of which every disk has a snapshot."""
        with self._lock:
            return set[Moment].intersection(*({_moment(s) for s in i.snapshots} for i in self._overlays.values()))

    def close(self) -> None:
        """Idempotent; all are closed even if StoreError is raised."""
        failure: StoreError | None = None
        for image in self._overlays.values():
            try:
                with self._lock, _told(image.path):
                    image.close()
            except StoreError as e:
                failure = failure or e
        if failure is not None:
            raise failure

    def _all(self, call: Callable[[Image], object]) -> None:
        for name in self._overlays:
            with self._with(name) as image:
                call(image)

    @contextmanager
    def _with(self, disk: str) -> Iterator[Image]:
        image = self._overlays[disk]
        with self._lock, _told(image.path):
            yield image


def _create(path: Path, disk: NewDisk) -> Image:
    image = disk.image.resolve()
    if disk.format == "raw":
        with image.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
    else:
        with Image.open(image) as below:
            size = below.size
    size = -(-size // _SECTOR) * _SECTOR
    overlay = Image.create(path, size, backing_file=str(image), backing_format=disk.format, barriers=True)
    path.chmod(0o600)
    return overlay


@contextmanager
def _told(path: Path | str) -> Iterator[None]:
    try:
        yield
    except (Qcow2Error, OSError, ValueError) as e:
        raise StoreError(f"{path}: {e}") from e
