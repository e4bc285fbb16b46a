"""Making a damaged image whole again, as ``qemu-img check -r leaks`` and ``-r all``."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from .check import check_state
from .errors import Qcow2Error
from .hostfile import HostFile
from .layout import AUTOCLEAR_BITMAPS, AUTOCLEAR_RAW_DATA, INCOMPAT_CORRUPT, INCOMPAT_DIRTY
from .problems import CheckResult
from .refcounts import Refcounts, count_dtype, pack_block, read_counts, read_refcount_table
from .runs import split_runs
from .scan import References, Scan, scan_all
from .state import State, load_state
from .tables import Entries

_KEPT_AUTOCLEAR = AUTOCLEAR_BITMAPS | AUTOCLEAR_RAW_DATA


@dataclass(frozen=True)
class RepairResult:
    """``found``: before; ``left``: after."""

    found: CheckResult
    left: CheckResult


def check_image(path: str | os.PathLike[str]) -> CheckResult:
    """Check the image at ``path``, also one that ``Image.open`` refuses. Raises Qcow2Error as ``repair_image``."""
    file = HostFile(os.fspath(path), os.O_RDONLY)
    try:
        return check_state(load_state(file, lenient=True))
    finally:
        file.close()


def repair_image(path: str | os.PathLike[str], *, leaks_only: bool = False) -> RepairResult:
    """Repair the image at ``path``, which nobody may have open.

    Refcounts and OFLAG_COPIED are made what the trees say, the marks dirty and corrupt are taken away; L1 entries that
    cannot be right become empty, such L2 entries read as zeros. ``leaks_only``: give leaked clusters back, nothing
    else. A crash leaves an image that can be repaired again. Raises Qcow2Error if header, active L1 table or snapshot
    table cannot be read.
    """
    file = HostFile(os.fspath(path), os.O_RDWR)
    try:
        state = load_state(file, lenient=True)
        found = check_state(state)
        if leaks_only:
            if found.leak_count:
                _drop_leaks(state)
        elif not found.clean or state.header.incompatible_features & (INCOMPAT_DIRTY | INCOMPAT_CORRUPT):
            _repair_all(state)
        return RepairResult(found, check_state(load_state(file, lenient=True)))
    finally:
        file.close()


def repair_refcounts(state: State) -> None:
    """What opening a dirty image for writing asks for. The state has to be loaded anew. Raises Qcow2Error."""
    result = CheckResult()
    scan, l1 = scan_all(state, result)
    if result.corruption_count:
        raise Qcow2Error(f"{state.file.path}: offset 72: the image is marked dirty and needs repair")
    _rebuild(state, scan, l1)


def _repair_all(state: State) -> None:
    scan, l1 = scan_all(state, CheckResult(), fix=True)
    state.file.sync()
    _rebuild(state, scan, l1)


def _rebuild(state: State, scan: Scan, l1: Entries) -> None:
    """New refcount structures from the references, in clusters that neither the trees nor the old structures use."""
    file, geometry, header = state.file, state.geometry, state.header
    counts = scan.references
    limit = (1 << geometry.refcount_bits) - 1 if geometry.refcount_bits < 64 else np.iinfo(np.int64).max
    if int(counts.max(initial=0)) > limit:
        at = int(np.argmax(counts)) << geometry.cluster_bits
        raise Qcow2Error(f"{file.path}: offset {at}: {counts.max()} references do not fit into the refcount")
    per_block = 1 << geometry.block_bits
    blocks = -(-len(counts) // per_block)
    padded = np.zeros(blocks * per_block, count_dtype(geometry.refcount_bits))
    padded[: len(counts)] = counts
    old = _old_structures(state, counts)
    padded[old] = 1
    refs = Refcounts(file.path, geometry, np.zeros(blocks, np.uint64), padded)
    refs.drop(old)
    refs.dirty[:] = refs.counts.reshape(blocks, per_block).any(axis=1)
    refs.write(file)
    Scan(state, CheckResult(), fix=True).copied(header.l1_table_offset, l1, refs.counts)
    file.sync()
    header.refcount_table_offset, header.refcount_table_clusters = refs.table_offset, refs.table_clusters
    header.incompatible_features &= ~(INCOMPAT_DIRTY | INCOMPAT_CORRUPT)
    header.autoclear_features &= _KEPT_AUTOCLEAR
    file.write(0, [header.pack()])
    file.sync()


def _old_structures(state: State, references: References) -> References:
    """Clusters of the refcount structures so far that nothing else uses: they stay as they are until the switch."""
    geometry, bits = state.geometry, state.geometry.cluster_bits
    first = state.header.refcount_table_offset >> bits
    found = [np.arange(first, first + state.header.refcount_table_clusters, dtype=np.int64)]
    try:
        table = read_refcount_table(state.file, state.header, geometry)
    except Qcow2Error:
        pass
    else:
        found.append(table[table != 0].astype(np.int64) >> bits)
    clusters: References = np.unique(np.concatenate(found))
    clusters = clusters[clusters < len(references)]
    unused: References = clusters[references[clusters] == 0]
    return unused


def _drop_leaks(state: State) -> None:
    """Lower refcounts in place: each is a part of one sector, so a crash leaves fewer leaks at worst.

    Blocks that are something else as well stay as they are: that is corruption.
    """
    file, geometry = state.file, state.geometry
    table = read_refcount_table(file, state.header, geometry)
    counts = read_counts(file, table, geometry)
    scan, _ = scan_all(state, CheckResult())
    scan.table(state.header.refcount_table_offset, state.header.refcount_table_clusters << geometry.cluster_bits)
    for block in table[table != 0].tolist():
        scan.table(block, geometry.cluster_size)
    references = np.zeros(len(counts), np.int64)
    most = min(len(counts), len(scan.references))
    references[:most] = scan.references[:most]
    have = counts.astype(np.int64)
    high = (have > references) | (have < 0)
    counts[high] = references[high].astype(counts.dtype)
    rows, changed = counts.reshape(-1, 1 << geometry.block_bits), high.reshape(-1, 1 << geometry.block_bits)
    blocks = np.flatnonzero(changed.any(axis=1) & (table != 0))
    blocks = blocks[scan.references[(table[blocks] >> np.uint64(geometry.cluster_bits)).astype(np.int64)] == 1]
    offsets = table[blocks].astype(np.int64)
    order = np.argsort(offsets)
    blocks, offsets = blocks[order], offsets[order]
    for index, count in split_runs(offsets, geometry.cluster_size):
        part = blocks[index : index + count]
        file.write(int(offsets[index]), [pack_block(rows[part].reshape(-1), geometry.refcount_bits)])
    file.sync()
