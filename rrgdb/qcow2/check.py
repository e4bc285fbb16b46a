"""Consistency of an image: refcounts against references, flags, reserved bits. As ``qemu-img check`` (no repair)."""

from __future__ import annotations

import numpy as np

from .errors import Qcow2Error, Qcow2UnsupportedError
from .problems import CheckResult
from .refcounts import Counts, read_counts, read_refcount_table
from .runs import split_runs
from .scan import References, scan_all
from .state import State


def check_state(state: State) -> CheckResult:
    """Check what is on disk.

    What cannot be read at all becomes a corruption as well; raises Qcow2UnsupportedError for images with too many
    clusters.
    """
    result = CheckResult()
    geometry = state.geometry
    try:
        table = read_refcount_table(state.file, state.header, geometry)
        counts = read_counts(state.file, table, geometry)
        scan, l1 = scan_all(state, result)
    except Qcow2UnsupportedError:
        raise
    except Qcow2Error as error:
        result.corruption(str(error))
        return result
    scan.table(state.header.refcount_table_offset, state.header.refcount_table_clusters << geometry.cluster_bits)
    for block in table[table != 0].tolist():
        scan.table(block, geometry.cluster_size)
    references = scan.references
    for block in table[table != 0].tolist():
        if block >> geometry.cluster_bits < len(references) and references[block >> geometry.cluster_bits] != 1:
            result.corruption(f"offset {block}: a refcount block that is used for something else as well")
    end = len(references)
    if len(counts) > end:
        references = np.concatenate([references, np.zeros(len(counts) - end, np.int64)])
    elif len(counts) < end:
        counts = np.concatenate([counts, np.zeros(end - len(counts), counts.dtype)])
    scan.copied(state.header.l1_table_offset, l1, counts)
    compare(references, counts, geometry.cluster_size, result)
    used = np.flatnonzero((counts[:end] != 0) | (references[:end] != 0))
    result.image_end = (int(used[-1]) + 1) * geometry.cluster_size if len(used) else 0
    result.total_clusters = geometry.clusters(state.header.size)
    return result


def compare(references: References, counts: Counts, cluster_size: int, result: CheckResult) -> None:
    """Report where ``counts`` are not what ``references`` say; both have the same length."""
    have = counts.astype(np.int64)
    have[have < 0] = np.iinfo(np.int64).max
    low, high = np.flatnonzero(have < references), np.flatnonzero(have > references)
    for where, report in ((low, result.corruption), (high, result.leak)):
        for index, count in split_runs(where):
            at = int(where[index])
            text = f"offset {at * cluster_size}: {count} clusters, refcount {have[at]}, references {references[at]}"
            report(text, count)
