"""From a file to a state that may be written: what has to hold first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .errors import Qcow2Error, Qcow2UnsupportedError
from .hostfile import HostFile
from .layout import INCOMPAT_CORRUPT, INCOMPAT_DIRTY
from .mapping import Mapper
from .preamble import Preamble
from .refcounts import Refcounts, count_dtype, read_counts, read_refcount_table
from .state import State, has_bitmaps, load_state
from .tables import Entries
from .writer import Writer, tree_references


def open_writable(file: HostFile, *, barriers: bool) -> tuple[State, Writer]:
    """Load the state for writing. A dirty image gets its refcounts repaired first. Raises Qcow2Error."""
    state = load_state(file)
    _require_writable(state)
    if state.header.incompatible_features & INCOMPAT_DIRTY:
        from .repair import repair_refcounts  # noqa: PLC0415 - few images are dirty

        repair_refcounts(state)
        state = load_state(file)
    writer = _verified_writer(state, barriers=barriers)
    if state.header.autoclear_features:
        # Whoever set these bits must know that the image changed, whatever happens to the first change.
        state.header.autoclear_features = 0
        file.write(0, [state.header.pack()])
        file.sync()
    return state, writer


def write_new(file: HostFile, preamble: Preamble, head: bytes, *, barriers: bool) -> tuple[State, Writer]:
    """Write an empty image with the first cluster ``head`` to an empty file."""
    geometry, header = preamble.geometry, preamble.header
    l1 = np.zeros(max(1, geometry.l1_entries(header.size)), np.uint64)
    state = State(file, preamble, geometry, header, Mapper(file, geometry, preamble.compression), l1, [], 0)
    no_counts = np.zeros(0, count_dtype(geometry.refcount_bits))
    refs = Refcounts(file.path, geometry, np.zeros(0, np.uint64), no_counts)
    # Without its magic until the first commit: a file half made is no image.
    fixed = len(header.pack())
    file.write(refs.allocate_run(1) << geometry.cluster_bits, [bytes(fixed) + head[fixed:]])
    writer = Writer(state, refs, barriers=barriers)
    writer.commit_new()
    return state, writer


def _require_writable(state: State) -> None:
    header, path = state.header, state.file.path
    if header.incompatible_features & INCOMPAT_CORRUPT:
        raise Qcow2Error(f"{path}: offset 72: the image is marked corrupt; expected one after a repair")
    if has_bitmaps(state):
        raise Qcow2UnsupportedError(f"{path}: offset {header.header_length}: images with bitmaps are read-only")
    if state.geometry.extended:
        raise Qcow2UnsupportedError(f"{path}: offset 72: images with extended L2 entries are read-only")
    if state.geometry.data_file:
        raise Qcow2UnsupportedError(f"{path}: offset 72: images with an external data file are read-only")


def _verified_writer(state: State, *, barriers: bool) -> Writer:
    """Read and verify the refcounts, so that writing cannot hit what is in use."""
    header, geometry, path = state.header, state.geometry, state.file.path
    table = read_refcount_table(state.file, header, geometry)
    refs = Refcounts(path, geometry, table, read_counts(state.file, table, geometry))
    refs.table_offset, refs.table_clusters = header.refcount_table_offset, header.refcount_table_clusters
    total = len(refs.counts)
    active = tree_references(state, state.l1, total)
    needed = active.copy()
    for offset, length in metadata_extents(state, table):
        first, count = offset >> geometry.cluster_bits, geometry.clusters(length)
        if first + count > total:
            raise Qcow2Error(f"{path}: offset {offset}: expected a table in clusters with a refcount")
        needed[first : first + count] += 1
        if active[first : first + count].any():
            raise Qcow2Error(f"{path}: offset {offset}: expected a table that no guest cluster lies on")
    low = np.flatnonzero(refs.counts < needed)
    if len(low):
        at = int(low[0]) << geometry.cluster_bits
        raise Qcow2Error(
            f"{path}: offset {at}: expected a refcount of at least {needed[low[0]]}, found {refs.counts[low[0]]}"
        )
    refs.active[:] = active.astype(refs.active.dtype)
    # Entries without a disk size come from version 2; version 3 must have it when the table is written.
    unsized = [snapshot for snapshot in state.snapshots if snapshot.disk_size is None]
    if any(snapshot.l1_size < geometry.l1_entries(header.size) for snapshot in unsized):
        at = header.snapshots_offset
        raise Qcow2Error(f"{path}: offset {at}: expected snapshots whose L1 tables cover the disk size")
    sized = [s if s.disk_size is not None else replace(s, disk_size=header.size) for s in state.snapshots]
    state.put_snapshots(sized)
    return Writer(state, refs, barriers=barriers)


def metadata_extents(state: State, refcount_table: Entries) -> list[tuple[int, int]]:
    """(offset, bytes) of all that is neither an L2 table nor data, one element for each reference."""
    header, size = state.header, state.geometry.cluster_size
    found = [
        (0, size),
        (header.refcount_table_offset, header.refcount_table_clusters * size),
        (header.l1_table_offset, header.l1_size * 8),
        (header.snapshots_offset, state.snapshot_table_bytes),
    ]
    found += [(int(block), size) for block in refcount_table[refcount_table != 0]]
    found += [(snapshot.l1_offset, snapshot.l1_size * 8) for snapshot in state.snapshots]
    return found
