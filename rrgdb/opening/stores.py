"""The snapshot store of a recording, with the overlays of the guest's disks."""

from __future__ import annotations

from collections.abc import Sequence

from rrgdb.recording.directory import Recording
from rrgdb.snapshots.errors import StoreError
from rrgdb.snapshots.images import DiskImage
from rrgdb.snapshots.overlays import Overlays
from rrgdb.snapshots.store import SnapshotStore


def create_store(recording: Recording, ram_pages: int, images: Sequence[DiskImage]) -> SnapshotStore:
    """Raises StoreError."""
    owner = recording.manifest.recording_id
    kept = Overlays.create(recording.path, images, owner) if _have_overlays(images) else None
    return SnapshotStore.create(recording.snapshots, ram_pages, kept, before_commit=recording.log.sync)


def open_store(
    recording: Recording, ram_pages: int, images: Sequence[DiskImage], end: int
) -> tuple[SnapshotStore | None, list[str]]:
    """The store, for writing if the recording is and it can be, and what is to be told of it; None if it cannot be
    read. ``end``: last position of history."""
    messages: list[str] = []
    store: SnapshotStore | None = None
    if recording.writable:
        try:
            store = _open(recording, ram_pages, images, writable=True)
        except StoreError as e:
            messages.append(f"{e}; opened for reading: no new snapshots")
    try:
        store = store or _open(recording, ram_pages, images, writable=False)
    except StoreError as e:
        return None, [f"{e}; replay begins with the images"]
    messages += [] if messages else store.damage
    messages += [
        f"{recording.path}: snapshot {s.name} lies behind the end of the log and is passed over"
        for s in store.snapshots
        if s.icount > end
    ]
    return store, messages


def _open(recording: Recording, ram_pages: int, images: Sequence[DiskImage], *, writable: bool) -> SnapshotStore:
    """Raises StoreError; nothing is open then."""
    manifest = recording.manifest
    kept: Overlays | None = None
    if _have_overlays(images):
        backing = [disk.path for disk in manifest.guest.disks]
        kept = Overlays.open(recording.path, images, manifest.recording_id, writable=writable, backing=backing)
    try:
        return SnapshotStore.open(recording.snapshots, ram_pages, writable=writable, disks=kept)
    except BaseException:
        if kept is not None:
            kept.close()
        raise


def _have_overlays(images: Sequence[DiskImage]) -> bool:
    return any(not image.readonly for image in images)
