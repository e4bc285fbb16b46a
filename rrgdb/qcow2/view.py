"""A snapshot, read-only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .errors import Qcow2UsageError
from .mapping import DATA, PACKED, Under, hosts, kinds
from .refcounts import Clusters
from .runs import split_runs
from .snapshot_table import Snapshot
from .state import State
from .tables import Entries


class View:
    """Disk and VM state of one snapshot. Usable until the snapshot is deleted or the image closed (ValueError then).

    All methods raise Qcow2Error for a malformed image and ValueError for a range outside of the disk.
    """

    def __init__(
        self, state: State, snapshot: Snapshot, l1: Entries, backing: Under | None, alive: Callable[[Snapshot], bool]
    ) -> None:
        self.snapshot = snapshot
        self.size = state.header.size if snapshot.disk_size is None else snapshot.disk_size
        self._state = state
        self._l1 = l1
        self._backing = backing
        self._alive = alive
        self._base = state.vmstate_base(self.size)

    def _require_alive(self) -> None:
        if not self._alive(self.snapshot):
            raise Qcow2UsageError(f"snapshot {self.snapshot.id} is deleted or its image closed")

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes of the disk."""
        self._require_alive()
        require_range(offset, length, self.size)
        buffer = bytearray(length)
        self._state.mapper.read_into(self._l1, offset, memoryview(buffer), self._backing)
        return bytes(buffer)

    def read_vmstate(self, offset: int, length: int) -> bytes:
        """``length`` bytes of the VM state; zeros where nothing was written."""
        buffer = bytearray(length)
        self.read_vmstate_into(offset, buffer)
        return bytes(buffer)

    def read_vmstate_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        """Fill a writable ``buffer`` (the RAM of a guest, say) with VM state from ``offset`` on."""
        self._require_alive()
        require_range(offset, 0, None)
        view = memoryview(buffer).cast("B")
        self._state.mapper.read_into(self._l1, self._base + offset, view, None)

    def read_vmstate_clusters(self, offsets: Sequence[int]) -> list[bytes]:
        """The clusters of the VM state at the cluster-aligned ``offsets``, in their order."""
        self._require_alive()
        return read_clusters(self._state, self._l1, self._base, offsets)

    def read_vmstate_clusters_into(
        self, offsets: Sequence[int] | Clusters, buffers: Sequence[bytearray | memoryview]
    ) -> None:
        """Fill writable ``buffers``, of one cluster each, with the clusters of the VM state at the cluster-aligned
        ``offsets``. Raises ValueError for other buffers."""
        self._require_alive()
        size = self._state.geometry.cluster_size
        if len(offsets) != len(buffers) or set(map(len, buffers)) - {size}:
            raise Qcow2UsageError(f"expected a buffer of {size} bytes for each of {len(offsets)} clusters")
        if len(offsets):
            _read_clusters_into(self._state, self._l1, self._base, offsets, buffers)


def require_range(offset: int, length: int, size: int | None) -> None:
    """Raises ValueError for bytes outside of 0..size (None: no end)."""
    if offset < 0 or length < 0 or (size is not None and offset + length > size):
        raise Qcow2UsageError(f"bytes {offset}..{offset + length} are outside of 0..{size}")
    if offset + length >= 1 << 62:
        raise Qcow2UsageError("offsets must be below 2^62")


def cluster_indices(offsets: Sequence[int] | Clusters, base: int, cluster_bits: int) -> Clusters:
    """Guest cluster numbers of aligned VM state ``offsets`` (at least one). Raises ValueError for others."""
    if not isinstance(offsets, np.ndarray):
        offsets = np.array(offsets if min(offsets) >= 0 and max(offsets) < 1 << 62 else [-1], np.int64)
    at: Clusters = offsets
    if at.min() < 0 or at.max() >= 1 << 62 or (at & ((1 << cluster_bits) - 1)).any():
        raise Qcow2UsageError(f"VM state offsets must be multiples of {1 << cluster_bits}, from 0 to 2^62")
    return (at + base) >> cluster_bits


def read_clusters(state: State, l1: Entries, base: int, offsets: Sequence[int]) -> list[bytes]:
    """See ``View.read_vmstate_clusters``."""
    geometry = state.geometry
    size = geometry.cluster_size
    if not len(offsets):
        return []
    entries = state.mapper.entries(l1, cluster_indices(offsets, base, geometry.cluster_bits))
    kind, host = kinds(entries), hosts(entries)
    found: list[bytes] = [bytes(size)] * len(entries)
    data = np.flatnonzero(kind == DATA)
    data = data[np.argsort(host[data], kind="stable")]
    for index, count in split_runs(host[data], size):
        raw = state.mapper.data_at(int(host[data[index]]), count * size)
        for i, at in enumerate(data[index : index + count].tolist()):
            found[at] = raw[i * size : (i + 1) * size]
    for at in np.flatnonzero(kind == PACKED).tolist():
        found[at] = state.mapper.unpack(int(entries[at]))
    return found


def _read_clusters_into(
    state: State,
    l1: Entries,
    base: int,
    offsets: Sequence[int] | Clusters,
    buffers: Sequence[bytearray | memoryview],
) -> None:
    size = state.geometry.cluster_size
    entries = state.mapper.entries(l1, cluster_indices(offsets, base, state.geometry.cluster_bits))
    kind, host = kinds(entries), hosts(entries)
    data = np.flatnonzero(kind == DATA)
    data = data[np.argsort(host[data], kind="stable")]
    parts = [buffers[i] for i in data.tolist()]
    for index, count in split_runs(host[data], size):
        state.mapper.read_parts(int(host[data[index]]), parts[index : index + count])
    for i in np.flatnonzero(kind != DATA).tolist():
        buffers[i][:] = state.mapper.unpack(int(entries[i])) if kind[i] == PACKED else bytes(size)
