"""A bounded cache of L2 tables, shared by the active tree and all snapshots; keyed by host offset."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .errors import Qcow2Error
from .hostfile import HostFile
from .layout import OFLAG_COMPRESSED, Geometry
from .runs import split_runs

Entries = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]
Slots = npt.NDArray[np.int64]

_CACHE_BYTES = 64 << 20
_COMPRESSED = np.uint64(OFLAG_COMPRESSED)


class TableCache:
    """L2 tables as rows of one array, so that thousands of entries are looked up with one index operation.

    With extended L2 entries, entries and subcluster bitmaps take turns in a row.

    An operation calls ``begin`` and then asks for at most ``batch`` tables in each call of ``load`` and ``create``
    (at most two calls); their slots stay valid until the next ``begin``.
    """

    def __init__(self, file: HostFile, geometry: Geometry) -> None:
        self._file = file
        self._geometry = geometry
        self._limit = max(_CACHE_BYTES >> geometry.cluster_bits, 8)
        self.batch = self._limit // 4
        # Rows that were never used cost no memory.
        self.rows: Entries = np.zeros((self._limit, geometry.cluster_size >> 3), np.uint64)
        self._slot: dict[int, int] = {}
        self._offset = np.zeros(self._limit, np.int64)  # 0: the slot is free
        self._used = np.zeros(self._limit, np.int64)
        self._dirty = np.zeros(self._limit, bool)
        self._free: list[int] = []
        self._counted = 0  # slots from here on are free as well
        self._tick = 1

    def begin(self) -> None:
        """A new operation: slots given out before may be reused."""
        self._tick += 1

    def slot(self, offset: int) -> int | None:
        """The slot of the table at ``offset`` if it is here; as after ``begin`` and ``load``."""
        slot = self._slot.get(offset)
        if slot is not None:
            self._used[slot] = self._tick
        return slot

    def load(self, offsets: Offsets) -> Slots:
        """Slots of the tables at the distinct, ascending, non-zero ``offsets``. Raises Qcow2Error."""
        get = self._slot.get
        slots = np.array([get(offset, -1) for offset in offsets.tolist()], np.int64)
        hit = slots >= 0
        self._used[slots[hit]] = self._tick
        if not hit.all():
            slots[~hit] = self._read(offsets[~hit])
        return slots

    def _read(self, offsets: Offsets) -> Slots:
        geometry = self._geometry
        # Read first: a failure must leave no slot behind that claims to hold a table.
        parts = [self._read_run(int(offsets[i]), n) for i, n in split_runs(offsets, geometry.cluster_size)]
        slots = self._assign(offsets)
        self.rows[slots] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return slots

    def _read_run(self, offset: int, count: int) -> Entries:
        geometry = self._geometry
        raw = self._file.read_exact(offset, count << geometry.cluster_bits, "L2 tables")
        entries = np.frombuffer(raw, ">u8").astype(np.uint64)
        checked = entries[:: 1 + geometry.extended]  # without the subcluster bitmaps
        invalid = np.uint64(geometry.entry_invalid)
        if np.bitwise_or.reduce(checked) & invalid:
            bad = ((checked & invalid) != 0) & ((checked & _COMPRESSED) == 0)
            if bad.any():
                at = offset + (8 << geometry.extended) * int(np.flatnonzero(bad)[0])
                raise Qcow2Error(f"{self._file.path}: offset {at}: expected an L2 entry without reserved bits")
        return entries.reshape(count, -1)

    def create(self, offsets: Offsets, copy_of: Slots) -> Slots:
        """Slots for new tables at distinct ``offsets``, filled from the slots ``copy_of`` (-1: zeros); dirty."""
        slots = self._assign(offsets)
        self.rows[slots] = self.rows[copy_of]
        self.rows[slots[copy_of < 0]] = 0
        self._dirty[slots] = True
        return slots

    def mark_dirty(self, slots: Slots) -> None:
        self._dirty[slots] = True

    def _assign(self, offsets: Offsets) -> Slots:
        # What was cached for a cluster that has become a new table is history.
        old = [self._slot[offset] for offset in offsets.tolist() if offset in self._slot]
        if old:
            self._release(np.array(old))
        free = self._free
        more = min(len(offsets) - len(free), self._limit - self._counted)
        if more > 0:
            free[:0] = range(self._counted + more - 1, self._counted - 1, -1)
            self._counted += more
        if len(free) < len(offsets):
            self._evict(len(offsets) - len(free) + (self._limit >> 4))
        start = len(free) - len(offsets)
        slots = np.array(free[start:], np.int64)
        self._slot.update(zip(offsets.tolist(), free[start:], strict=True))
        del free[start:]
        self._offset[slots] = offsets
        self._used[slots] = self._tick
        return slots

    def _evict(self, count: int) -> None:
        """Free the slots that were not used for the longest time. What the operation uses is not among them: it is at
        most half of all."""
        taken = np.flatnonzero(self._offset)
        slots = taken[np.argpartition(self._used[taken], count - 1)[:count]]
        if self._dirty[slots].any():
            self.write()
        self._release(slots)

    def _release(self, slots: Slots) -> None:
        for offset in self._offset[slots].tolist():
            del self._slot[offset]
        self._offset[slots] = 0
        self._dirty[slots] = False
        self._free += slots.tolist()

    def write(self) -> None:
        """Write the dirty tables to their clusters (fresh ones: nothing on disk refers to them yet)."""
        slots = np.flatnonzero(self._dirty)
        if not len(slots):
            return
        offsets = self._offset[slots]
        order = np.argsort(offsets)
        slots, offsets = slots[order], offsets[order]
        for index, count in split_runs(offsets, self._geometry.cluster_size):
            self._file.write(int(offsets[index]), [self.rows[slots[index : index + count]].astype(">u8").tobytes()])
        self._dirty[slots] = False

    def forget(self) -> None:
        """Drop everything, dirty tables as well."""
        self._release(np.flatnonzero(self._offset))
