"""The snapshot store: VM states as internal snapshots of a qcow2 image.

The VM state area of the image holds the state blob in its first 8 MiB (u32 length, then the blob) and RAM, page by
page, from there on. The active state of the image is always the snapshot that was taken or applied last, so a new
snapshot writes only the pages in which the guest differs from that one.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rrgdb.qcow2 import Image, Qcow2Error, Snapshot
from rrgdb.snapshots.state import MAX_BYTES, GuestState, StateError

PAGE = 4096
AUTOMATIC = "auto-"
"""names of automatic snapshots begin so"""
START = "start"
_LENGTH = struct.Struct("<I")
RAM_OFFSET = MAX_BYTES + _LENGTH.size


class StoreError(Exception):
    """The store cannot be read or written: one line with the file."""


class Stored(NamedTuple):
    """One snapshot at rest."""

    name: str
    icount: int
    id: str

    @property
    def automatic(self) -> bool:
        return self.name.startswith(AUTOMATIC)


class SnapshotStore:
    """All snapshots of one recording, ordered by icount. One thread uses it."""

    def __init__(self, image: Image, ram_pages: int) -> None:
        self._image = image
        self._ram_pages = ram_pages
        self._by_id: dict[str, Snapshot] = {}
        self._active: str | None = None
        self._refresh()

    @classmethod
    def create(cls, path: Path, ram_pages: int) -> SnapshotStore:
        """A new orphan image: it holds nothing but VM states."""
        try:
            image = Image.create(path, 0, cluster_size=PAGE)
            path.chmod(0o600)  # guest memory is nobody else's business, wherever the file is copied
            return cls(image, ram_pages)
        except (Qcow2Error, OSError) as e:
            raise StoreError(f"{path}: cannot create the snapshot store: {e}") from e

    @classmethod
    def open(cls, path: Path, ram_pages: int, *, writable: bool) -> SnapshotStore:
        try:
            return cls(Image.open(path, writable=writable), ram_pages)
        except (Qcow2Error, OSError) as e:
            raise StoreError(f"{path}: cannot open the snapshot store: {e}") from e

    def _refresh(self) -> None:
        self._by_id = {s.id: s for s in self._image.snapshots if s.icount is not None}

    @property
    def snapshots(self) -> list[Stored]:
        return sorted((Stored(s.name, s.icount or 0, s.id) for s in self._by_id.values()), key=lambda s: s.icount)

    @property
    def file_size(self) -> int:
        """Bytes on disk."""
        return Path(self._image.path).stat().st_size

    def state(self, stored: Stored) -> GuestState:
        """StoreError if the blob is damaged."""
        try:
            view = self._image.view(self._by_id[stored.id])
            (length,) = _LENGTH.unpack(view.read_vmstate(0, _LENGTH.size))
            if length > MAX_BYTES:
                raise StateError(f"state of {length} bytes")
            return GuestState.decode(view.read_vmstate(_LENGTH.size, length))
        except (Qcow2Error, StateError, OSError) as e:
            raise StoreError(f"{self._image.path}: snapshot {stored.name}: {e}") from e

    def pages(self, stored: Stored, numbers: Sequence[int]) -> list[bytes]:
        """Contents of these RAM pages at the snapshot."""
        try:
            return self._image.view(self._by_id[stored.id]).read_vmstate_clusters(
                [RAM_OFFSET + n * PAGE for n in numbers]
            )
        except (Qcow2Error, OSError) as e:
            raise StoreError(f"{self._image.path}: snapshot {stored.name}: {e}") from e

    def differing(self, a: Stored, b: Stored) -> list[int]:
        """Numbers of the RAM pages that may differ between two snapshots."""
        return self._diff(self._by_id[a.id], self._by_id[b.id])

    def _diff(self, a: Snapshot | None, b: Snapshot | None) -> list[int]:
        if a is b:
            return []
        try:
            offsets = self._image.diff_vmstate(a, b, RAM_OFFSET, self._ram_pages * PAGE)
        except (Qcow2Error, OSError) as e:
            raise StoreError(f"{self._image.path}: {e}") from e
        return [(offset - RAM_OFFSET) // PAGE for offset in offsets]

    def take(
        self,
        name: str,
        icount: int,
        state: GuestState,
        base: Stored | None,
        changed: Mapping[int, bytes],
    ) -> Stored:
        """Add a snapshot: RAM is that of ``base`` (None: zeros) but for the pages ``changed``.

        Raises StoreError; a full disk leaves the store as it was.
        """
        pages = self._against_active(base, changed)
        try:
            blob = state.encode()
            padded = (_LENGTH.pack(len(blob)) + blob).ljust(-(-(len(blob) + _LENGTH.size) // PAGE) * PAGE, b"\0")
            self._image.write_vmstate([(0, padded)])
            self._image.write_vmstate((RAM_OFFSET + n * PAGE, pages[n]) for n in sorted(pages))
            snapshot = self._image.create_snapshot(
                name, vm_state_size=RAM_OFFSET + self._ram_pages * PAGE, vm_clock_ns=icount, icount=icount
            )
        except (Qcow2Error, StateError, OSError, ValueError) as e:
            # Some pages may have reached the active state: the next snapshot must not rely on it.
            self._active = None
            raise StoreError(f"{self._image.path}: cannot take snapshot {name}: {e}") from e
        self._by_id[snapshot.id] = snapshot
        self._active = snapshot.id
        return Stored(name, icount, snapshot.id)

    def _against_active(self, base: Stored | None, changed: Mapping[int, bytes]) -> Mapping[int, bytes]:
        """What to write over the active state so that it is ``base`` with the pages ``changed``. Raises StoreError."""
        if base is None or base.id == self._active:
            return changed
        others = [n for n in self._diff(None, self._by_id[base.id]) if n not in changed]
        return {**dict(zip(others, self.pages(base, others), strict=True)), **changed}

    def delete(self, going: Sequence[Stored]) -> None:
        """Remove snapshots, as one change of the image. Raises StoreError; they are all there then."""
        try:
            self._image.delete_snapshots([self._by_id[stored.id] for stored in going])
        except (Qcow2Error, OSError) as e:
            self._refresh()
            self._active = None
            names = ", ".join(stored.name for stored in going)
            raise StoreError(f"{self._image.path}: cannot delete {names}: {e}") from e
        for stored in going:
            del self._by_id[stored.id]
            if self._active == stored.id:
                self._active = None

    def flush(self) -> None:
        """Wait until everything is on the disk. Raises StoreError."""
        try:
            self._image.flush()
        except (Qcow2Error, OSError) as e:
            raise StoreError(f"{self._image.path}: cannot write to disk: {e}") from e

    def close(self) -> None:
        """Idempotent; the file is closed even if StoreError is raised."""
        try:
            self._image.close()
        except (Qcow2Error, OSError) as e:
            raise StoreError(f"{self._image.path}: cannot write to disk: {e}") from e
