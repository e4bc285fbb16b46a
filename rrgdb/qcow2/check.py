"""Consistency of an image: refcounts against references, flags, reserved bits. As ``qemu-img check`` (no repair)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .errors import Qcow2Error, Qcow2UnsupportedError
from .layout import EXT_BITMAPS
from .mapping import COMPRESSED, COPIED, hosts
from .refcounts import Counts, read_counts, read_refcount_table
from .runs import split_runs
from .state import State
from .tables import Entries
from .writer import metadata_extents

_MOST_LINES = 1000


@dataclass
class CheckResult:
    """``corruptions`` put data at risk; ``leaks`` only cost space. At most 1000 lines each; the counts are exact."""

    corruptions: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    corruption_count: int = 0
    leak_count: int = 0

    @property
    def clean(self) -> bool:
        return not self.corruption_count and not self.leak_count

    def corruption(self, line: str, count: int = 1) -> None:
        self.corruption_count += count
        if len(self.corruptions) < _MOST_LINES:
            self.corruptions.append(line)

    def leak(self, line: str, count: int = 1) -> None:
        self.leak_count += count
        if len(self.leaks) < _MOST_LINES:
            self.leaks.append(line)


def check_state(state: State) -> CheckResult:
    """Check what is on disk.

    What cannot be read at all becomes a corruption as well; raises Qcow2UnsupportedError for images with bitmaps and
    for images with too many clusters.
    """
    if any(kind == EXT_BITMAPS for kind, _ in state.preamble.extensions):
        raise Qcow2UnsupportedError(f"{state.file.path}: offset 104: images with bitmaps cannot be checked")
    result = CheckResult()
    geometry, bits = state.geometry, state.geometry.cluster_bits
    try:
        table = read_refcount_table(state.file, state.header, geometry)
        counts = read_counts(state.file, table, geometry)
    except Qcow2UnsupportedError:
        raise
    except Qcow2Error as error:
        result.corruption(str(error))
        return result
    end = geometry.clusters(state.file.size())
    references = np.zeros(max(len(counts), end), np.int64)
    if len(counts) < len(references):
        counts = np.concatenate([counts, np.zeros(len(references) - len(counts), counts.dtype)])
    for offset, length in metadata_extents(state, table):
        first, count = offset >> bits, geometry.clusters(length)
        if first + count > len(references):
            result.corruption(f"offset {offset}: a table of {length} bytes leaves the file")
        references[first : first + count] += 1
    try:
        references += state.mapper.references(state.l1, len(references))
        _check_copied(state, counts, result)
    except Qcow2Error as error:
        result.corruption(str(error))
    _count_snapshots(state, references, result)
    _compare(references, counts, end, geometry.cluster_size, result)
    return result


def _count_snapshots(state: State, references: npt.NDArray[np.int64], result: CheckResult) -> None:
    # L1 tables that overlap are no work of any writer; without this bound they would cost time without end.
    if sum(snapshot.l1_size * 8 for snapshot in state.snapshots) > state.file.size():
        result.corruption("the L1 tables of the snapshots are larger than the file")
        return
    # One walk for all snapshots: most tables are shared, and a table counts once for each L1 entry that names it.
    tables: list[Entries] = []
    for snapshot in state.snapshots:
        try:
            tables.append(state.mapper.read_l1(snapshot.l1_offset, snapshot.l1_size))
        except Qcow2Error as error:
            result.corruption(f"snapshot {snapshot.id}: {error}")
    if tables:
        try:
            references += state.mapper.references(np.concatenate(tables), len(references))
        except Qcow2Error as error:
            result.corruption(str(error))


def _compare(
    references: npt.NDArray[np.int64], counts: Counts, end: int, cluster_size: int, result: CheckResult
) -> None:
    have = counts.astype(np.int64)
    have[have < 0] = np.iinfo(np.int64).max
    low, high = np.flatnonzero(have < references), np.flatnonzero(have > references)
    for where, report in ((low, result.corruption), (high, result.leak)):
        for index, count in split_runs(where):
            at = int(where[index])
            text = f"offset {at * cluster_size}: {count} clusters, refcount {have[at]}, references {references[at]}"
            report(text, count)
    beyond = np.flatnonzero(references[end:])
    if len(beyond):
        at = (int(beyond[0]) + end) * cluster_size
        result.corruption(f"offset {at}: {len(beyond)} clusters in use behind the end of the file", len(beyond))


def _check_copied(state: State, counts: Counts, result: CheckResult) -> None:
    """OFLAG_COPIED in the active tree must be set exactly where the refcount is 1."""
    bits, cache = state.geometry.cluster_bits, state.mapper.cache
    index = np.flatnonzero(hosts(state.l1))
    where = hosts(state.l1[index])
    wrong = (counts[where >> bits] == 1) != ((state.l1[index] & COPIED) != 0)
    for entry in index[wrong].tolist():
        result.corruption(f"L1 entry {entry}: OFLAG_COPIED does not fit the refcount of the L2 table")
    tables = np.unique(where)
    for i in range(0, len(tables), cache.batch):
        cache.begin()
        part = tables[i : i + cache.batch]
        slots = cache.load(part)  # may move ``rows``
        rows = cache.rows[slots]
        host = hosts(rows)
        plain = (host != 0) & ((rows & COMPRESSED) == 0)
        host[~plain] = 0
        bad = plain & ((counts[host >> bits] == 1) != ((rows & COPIED) != 0))
        for row in np.flatnonzero(bad.any(axis=1)).tolist():
            count = int(np.count_nonzero(bad[row]))
            text = f"L2 table at offset {part[row]}: {count} entries whose OFLAG_COPIED does not fit the refcount"
            result.corruption(text, count)
