"""What the store knows of each snapshot, and what its two sides tell each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rrgdb.qcow2 import Snapshot
from rrgdb.snapshots.errors import StoreError
from rrgdb.snapshots.naming import AUTOMATIC
from rrgdb.snapshots.overlays import Kept, Moment
from rrgdb.snapshots.state import MAX_BYTES, GuestState

PAGE = 4096
LENGTH_BYTES = 4
RAM_OFFSET = MAX_BYTES + LENGTH_BYTES


class SnapshotGoneError(StoreError):
    """Another process has deleted a snapshot: one line with the file. ``gone``: those of the ones asked for
    that were found missing."""

    def __init__(self, text: str, gone: Sequence[Stored]) -> None:
        super().__init__(text)
        self.gone = gone


class Stored(NamedTuple):
    """One snapshot of the store. ``id`` is of this process alone."""

    name: str
    icount: int
    id: str

    @property
    def automatic(self) -> bool:
        return self.name.startswith(AUTOMATIC)

    @property
    def moment(self) -> Moment:
        return Moment(self.name, self.icount)


@dataclass(slots=True, eq=False)
class Entry:
    """A snapshot, on disk (``snapshot``) or on its way: then RAM is that of ``base`` (None: zeros) but for ``pages``,
    and the disks are those of ``base`` (None: the images) but for ``blocks``.

    ``blob``: what goes in front of RAM. ``most``: bytes that it takes at most. ``kept``: the disk snapshots, once it is
    on disk and there are disks. ``lock`` of the writer guards all but ``stored``."""

    stored: Stored
    snapshot: Snapshot | None = None
    base: Entry | None = None
    state: GuestState | None = None
    blob: bytes = b""
    pages: Mapping[int, bytes] | None = None
    blocks: Mapping[int, bytes] | None = None
    kept: Kept | None = None
    most: int = 0

    @property
    def bytes(self) -> int:
        return len(self.blob) + PAGE * (len(self.pages or ()) + len(self.blocks or ()))


class Deletion(NamedTuple):
    """Snapshots on disk that go, as one change."""

    entries: Sequence[Entry]


class Failure(NamedTuple):
    """``lost``: snapshots that will not come to the disk."""

    lost: list[Stored]
    error: StoreError
