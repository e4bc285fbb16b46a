"""Changing the size of the disk. The VM state behind it moves with its L1 entries."""

from __future__ import annotations

import numpy as np

from .backing import Backing
from .errors import Qcow2UnsupportedError, Qcow2UsageError
from .layout import MAX_L1_BYTES
from .writer import Writer


def resize(writer: Writer, size: int, backing: Backing | None) -> None:
    """Make the disk ``size`` bytes long; new bytes read as zeros. After an error the state has to be loaded anew.

    Raises Qcow2UnsupportedError for version 2 with snapshots, which cannot say what size they had; ValueError for a
    size that the L1 table cannot cover.
    """
    state, geometry = writer.state, writer.state.geometry
    old = state.header.size
    if geometry.version < 3 and state.snapshots:
        raise Qcow2UnsupportedError(f"{state.file.path}: offset 4: version 2 images with snapshots cannot be resized")
    first, then = geometry.l1_entries(old), geometry.l1_entries(size)
    used = np.flatnonzero(state.l1[first:])
    vm_entries = int(used[-1]) + 1 if len(used) else 0
    if not 0 <= size < 1 << 62 or (then + vm_entries) * 8 > MAX_L1_BYTES:
        raise Qcow2UsageError("a disk of this size needs larger clusters")
    if size < old:
        writer.drop_tables(then, first)
        last = then << geometry.l2_bits
        writer.clear(geometry.clusters(size), min(last, geometry.clusters(old)), hide_backing=False)
    vm = state.l1[first : first + vm_entries]
    disk = state.l1[: min(first, then)]
    gap = np.zeros(max(0, then - first), np.uint64)
    writer.replace_l1(np.concatenate([disk, gap, vm, np.zeros(int(not then + vm_entries), np.uint64)]))
    state.header.size = size
    _zero_tail(writer, min(old, size), backing)
    if size > old and backing is not None and backing.size > old:
        end = min(size, backing.size)
        writer.clear(geometry.clusters(old), geometry.clusters(end), hide_backing=True)
    writer.commit(durable=True)
    if size < old:
        writer.trim()


def _zero_tail(writer: Writer, end: int, backing: Backing | None) -> None:
    """Let the rest of the cluster in which ``end`` lies read as zeros: it may be inside of the disk later."""
    state = writer.state
    length = -end % state.geometry.cluster_size
    tail = bytearray(length)
    state.mapper.read_into(state.l1, end, memoryview(tail), backing)
    if any(tail):
        writer.write(end, memoryview(bytes(length)), backing)
