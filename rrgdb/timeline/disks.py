"""What stands on a guest's disks: as at a snapshot (or on the user's images), but for blocks written since.

Nothing is put back when the guest goes to another position: a mark says which snapshot its disks build on and which
blocks differ, and that is all there is to a disk. Blocks written in history stay in memory; what is recorded goes to
the overlays with the next snapshot (``rrgdb.snapshots.overlays``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import xxhash

from rrgdb.engine.base import EngineError
from rrgdb.snapshots.entries import Stored
from rrgdb.snapshots.errors import StoreError
from rrgdb.snapshots.images import DiskImage
from rrgdb.snapshots.overlays import BLOCK, block_number, disk_and_block
from rrgdb.snapshots.store import SnapshotStore
from rrgdb.timeline.delta import Delta

MOST = 16384
"""blocks in memory that bring about a snapshot: 64 MiB"""
_MASK = (1 << 64) - 1


class DiskError(EngineError):
    """A disk cannot be read: one line. ``stored``: the snapshot that its content is of."""

    def __init__(self, text: str, stored: Stored | None) -> None:
        super().__init__(text)
        self.stored = stored


class Disks:
    """All disks of a guest. ``stored`` and ``delta``: the snapshot that they build on (None: the images), and the
    blocks that differ from it, but for those written since ``fold``. ``on_many``: called when more has been written
    than there is room for in memory, if that is of use."""

    def __init__(
        self, images: Sequence[DiskImage], store: SnapshotStore | None, on_many: Callable[[], None] | None
    ) -> None:
        self.images = images
        self.disks = [_Disk(self, number, image) for number, image in enumerate(images)]
        self.store = store
        self.stored: Stored | None = None
        self.delta = Delta()
        self._on_many = on_many or (lambda: None)
        self._written: dict[int, bytes] = {}
        self._held = 0
        self._limit = MOST

    def close(self) -> None:
        for image in self.images:
            image.close()

    @property
    def changed(self) -> int:
        """Blocks in memory, at most."""
        return self._held + len(self._written)

    @property
    def many(self) -> bool:
        """It is time for a snapshot."""
        return self.changed >= self._limit

    def wait(self) -> None:
        """There was none: ask again when as much has been written once more."""
        self._limit = self.changed + MOST

    def fold(self) -> Delta:
        """``delta``, with all that was written."""
        if self._written:
            self.delta = self.delta.with_pages(self._written.keys(), self._written.values())
            self._written = {}
            self._held = len(self.delta)
        return self.delta

    def all_blocks(self) -> dict[int, bytes]:
        """What differs from the snapshot."""
        return {**self.delta.pages(), **self._written}

    def rebase(self, stored: Stored, delta: Delta) -> None:
        """The same contents as at the last ``fold`` in terms of another snapshot."""
        self.stored, self.delta, self._held = stored, delta, len(delta)

    def stand(self, stored: Stored | None, delta: Delta) -> None:
        """The disks are those of this snapshot but for these blocks."""
        self.stored, self.delta, self._written = stored, delta, {}
        self._held, self._limit = len(delta), MOST

    def blocks(self, disk: int, first: int, count: int) -> list[bytes]:
        """Contents of blocks. Raises DiskError."""
        found: list[bytes | None] = []
        for number in range(block_number(disk, first), block_number(disk, first) + count):
            block = self._written.get(number)
            found.append(self.delta.get(number) if block is None else block)
        if None not in found:
            return [block for block in found if block is not None]
        below = self._below(disk, first, count)
        return [held if block is None else block for block, held in zip(found, below, strict=True)]

    def _below(self, disk: int, first: int, count: int) -> list[bytes]:
        try:
            return self._at(self.stored, disk, first, count)
        except StoreError as e:
            raise DiskError(f"disk {self.images[disk].name}: {e}", self.stored) from e

    def _at(self, stored: Stored | None, disk: int, first: int, count: int) -> list[bytes]:
        image = self.images[disk]
        found: list[bytes | None] = [None] * count
        if stored is not None and not image.readonly:
            if self.store is None:
                raise StoreError(f"snapshot {stored.name}: the store is not in use")
            found = self.store.disk(stored, disk, first, count)
            if None not in found:
                return [block for block in found if block is not None]
        data = image.read(first * BLOCK, count * BLOCK)
        return [data[i * BLOCK : i * BLOCK + BLOCK] if held is None else held for i, held in enumerate(found)]

    def at(self, stored: Stored, numbers: Iterable[int]) -> list[bytes]:
        """Blocks at a snapshot. Raises StoreError."""
        return [self._at(stored, *disk_and_block(number), 1)[0] for number in numbers]

    def put(self, disk: int, block: int, content: bytes) -> None:
        self._written[block_number(disk, block)] = content
        if self.changed >= self._limit:
            self._on_many()


class _Disk:
    """One disk as its device sees it."""

    def __init__(self, disks: Disks, number: int, image: DiskImage) -> None:
        self.name = image.name
        self.size = image.size
        self.readonly = image.readonly
        self._disks = disks
        self._number = number

    def read(self, offset: int, length: int) -> bytes:
        if not length:
            return b""
        first, last = offset // BLOCK, (offset + length - 1) // BLOCK
        data = b"".join(self._disks.blocks(self._number, first, last - first + 1))
        at = offset - first * BLOCK
        return data if len(data) == length else data[at : at + length]

    def write(self, offset: int, data: bytes) -> int:
        if not data:
            return 0
        first, last = offset // BLOCK, (offset + len(data) - 1) // BLOCK
        old = self._disks.blocks(self._number, first, last - first + 1)
        at = offset - first * BLOCK
        whole = old[0][:at] + data + old[-1][at + len(data) - (last - first) * BLOCK :]
        digest, change = xxhash.xxh3_64_intdigest, 0
        for i, before in enumerate(old):
            block = whole[i * BLOCK : i * BLOCK + BLOCK]
            change += digest(block, first + i + 1) - digest(before, first + i + 1)
            self._disks.put(self._number, first + i, block)
        return change & _MASK
