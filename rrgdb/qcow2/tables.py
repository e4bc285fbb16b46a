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
_FIRST_ROWS = 64
_COMPRESSED = np.uint64(OFLAG_COMPRESSED)


class TableCache:
    """L2 tables as rows of one array, so that thousands of entries are looked up with one index operation.

    With extended L2 entries, entries and subcluster bitmaps take turns in a row.

    An operation calls ``begin`` and then asks for at most ``batch`` tables in each call of ``load`` and ``create``
    (at most two calls); their slots stay valid until the next ``begin``. ``rows`` itself may be replaced by a call, so
    it is looked at only after the last one.
    """

    def __init__(self, file: HostFile, geometry: Geometry) -> None:
        self._file = file
        self._geometry = geometry
        self._limit = max(_CACHE_BYTES >> geometry.cluster_bits, 8)
        self.batch = self._limit // 4
        self.rows: Entries = np.zeros((min(_FIRST_ROWS, self._limit), geometry.cluster_size >> 3), np.uint64)
        self._slot: dict[int, int] = {}
        self._offset = np.zeros(len(self.rows), np.int64)  # 0: the slot is empty
        self._used = np.zeros(len(self.rows), np.int64)
        self._dirty = np.zeros(len(self.rows), bool)
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
        self.rows[slots] = np.concatenate(parts)
        return slots

    def _read_run(self, offset: int, count: int) -> Entries:
        geometry = self._geometry
        raw = self._file.read_exact(offset, count << geometry.cluster_bits, "L2 tables")
        entries = np.frombuffer(raw, ">u8").astype(np.uint64)
        bad = (entries & np.uint64(geometry.entry_invalid)).astype(bool)
        if geometry.extended:
            bad[1::2] = False  # the subcluster bitmaps
        if bad.any():
            bad &= (entries & _COMPRESSED) == 0
            if bad.any():
                at = offset + 8 * int(np.flatnonzero(bad)[0])
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
        for offset in offsets.tolist():
            # What was cached for a cluster that has become a new table is history.
            old = self._slot.pop(offset, None)
            if old is not None:
                self._offset[old] = self._used[old] = 0
                self._dirty[old] = False
        slots = self._victims(len(offsets))
        for slot, old_offset, offset in zip(
            slots.tolist(), self._offset[slots].tolist(), offsets.tolist(), strict=True
        ):
            if old_offset:
                del self._slot[old_offset]
            self._slot[offset] = slot
        self._offset[slots] = offsets
        self._used[slots] = self._tick
        self._dirty[slots] = False
        return slots

    def _victims(self, count: int) -> Slots:
        empty = np.flatnonzero(self._offset == 0)
        while len(empty) < count and len(self.rows) < self._limit:
            more = min(len(self.rows), self._limit - len(self.rows))
            self.rows = np.concatenate([self.rows, np.zeros((more, self.rows.shape[1]), np.uint64)])
            self._offset = np.concatenate([self._offset, np.zeros(more, np.int64)])
            self._used = np.concatenate([self._used, np.zeros(more, np.int64)])
            self._dirty = np.concatenate([self._dirty, np.zeros(more, bool)])
            empty = np.flatnonzero(self._offset == 0)
        if len(empty) >= count:
            return empty[:count]
        slots = np.argsort(self._used, kind="stable")[:count]
        if self._dirty[slots].any():
            self.write()
        return slots

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
        self._slot.clear()
        self._offset[:] = 0
        self._used[:] = 0
        self._dirty[:] = False
