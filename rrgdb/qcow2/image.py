"""The image: what users of the library hold."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from . import backing as under
from .check import CheckResult, check_state
from .hostfile import Buffer, HostFile
from .layout import (
    MAX_CLUSTER_BITS,
    MAX_L1_BYTES,
    MAX_SNAPSHOTS,
    MIN_CLUSTER_BITS,
    Geometry,
    Header,
    first_cluster,
    parse_preamble,
)
from .mapping import Backing, Mapper, hosts
from .refcounts import Refcounts, count_dtype
from .snapshot_table import Snapshot
from .state import State, load_state
from .tables import Entries
from .view import View, cluster_indices, read_clusters, require_range
from .writer import Writer, open_writer

_KEPT_L1_TABLES = 64
# Clusters of long extents that are written at once: bounds the memory of the batch.
_PIECE = 1 << 14


@dataclass(frozen=True)
class Info:
    """What ``qemu-img info`` tells. Sizes in bytes."""

    path: str
    version: int
    size: int
    file_size: int
    cluster_size: int
    refcount_bits: int
    backing_file: str | None
    backing_format: str | None
    dirty: bool
    corrupt: bool
    lazy_refcounts: bool
    snapshots: tuple[Snapshot, ...]


class Image:
    """A qcow2 image.

    Guest writes reach the file at once or with the next ``flush``; what is on disk is always a whole state: that of
    the last ``flush``, ``close`` or snapshot operation. Methods raise Qcow2Error for a malformed image, ValueError for
    misuse, OSError (ENOSPC for example) as the system does; after an OSError the image is consistent on disk and in
    memory and can be used further. Not thread-safe. Takes no lock: there may be one writer, and any number of readers
    that read snapshots (``reload`` shows them new ones).
    """

    def __init__(self, file: HostFile, state: State, backing: Backing | None, writer: Writer | None) -> None:
        self._file = file
        self._state = state
        self._backing = backing
        self._writer = writer
        self._barriers = writer.barriers if writer is not None else False
        self._l1_tables: dict[str, Entries] = {}

    # -- opening

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        size: int,
        *,
        cluster_size: int = 65536,
        backing_file: str | None = None,
        backing_format: str | None = None,
        barriers: bool = False,
    ) -> Image:
        """Make a new image of version 3 with a disk of ``size`` bytes (0: it only holds VM states), open for writing.

        ``backing_file`` is stored as given; a relative name starts at the directory of ``path``. ``backing_format``
        (``raw`` or ``qcow2``) is required with it. ``barriers`` as in ``open``. Raises FileExistsError if there is
        such a file, ValueError for sizes that are not possible.
        """
        bits = cluster_size.bit_length() - 1
        if not MIN_CLUSTER_BITS <= bits <= MAX_CLUSTER_BITS or cluster_size != 1 << bits:
            raise ValueError("the cluster size must be a power of 2 from 512 to 2097152")
        if size < 0:
            raise ValueError("the disk size must not be negative")
        if (backing_file is None) != (backing_format is None) or backing_format not in (None, "raw", "qcow2"):
            raise ValueError("a backing file needs a backing format, raw or qcow2, and the other way round")
        geometry = Geometry(bits, 4, 3)
        entries = max(1, geometry.l1_entries(size))
        if entries * 8 > MAX_L1_BYTES:
            raise ValueError("a disk of this size needs larger clusters")
        header = Header(cluster_bits=bits, size=size, l1_size=entries)
        head = first_cluster(header, backing_file, backing_format)
        name = os.fspath(path)
        preamble = parse_preamble(head, name)
        preamble.header.l1_size = 0
        file = HostFile(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        below: Backing | None = None
        try:
            below = _open_backing(name, backing_file, backing_format, (file.identity,))
            l1 = np.zeros(entries, np.uint64)
            state = State(file, preamble, geometry, preamble.header, Mapper(file, geometry), l1, [], 0)
            refs = Refcounts(name, geometry, np.zeros(0, np.uint64), np.zeros(0, count_dtype(16)))
            # Without its magic until the first commit: a file half made is no image.
            file.write(refs.allocate_run(1) << bits, [bytes(104) + head[104:]])
            writer = Writer(state, refs, barriers=barriers)
            writer.commit_new()
        except BaseException:
            file.close()
            if below is not None:
                below.close()
            os.unlink(name)
            raise
        return cls(file, state, below, writer)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, writable: bool = False, backing: bool = True, barriers: bool = False
    ) -> Image:
        """Open an image, whether or not it was closed cleanly.

        ``backing``: open the backing files too; without, unallocated clusters read as zeros. ``barriers``: with
        every commit, order the writes against power loss (two fdatasync a commit); without, only ``flush`` does.
        """
        return cls._open(os.fspath(path), (), writable=writable, backing=backing, barriers=barriers)

    @classmethod
    def _open(
        cls, path: str, chain: tuple[tuple[int, int], ...], *, writable: bool, backing: bool, barriers: bool
    ) -> Image:
        file = HostFile(path, os.O_RDWR if writable else os.O_RDONLY)
        below: Backing | None = None
        try:
            under.check_chain(path, chain, file.identity)
            state = load_state(file)
            if backing:
                preamble = state.preamble
                chain = (*chain, file.identity)
                below = _open_backing(path, preamble.backing_file, preamble.backing_format, chain)
            writer = open_writer(state, barriers=barriers) if writable else None
        except BaseException:
            file.close()
            if below is not None:
                below.close()
            raise
        return cls(file, state, below, writer)

    def reload(self) -> None:
        """Read header and snapshots anew: a reader sees what a writer did since. Uncommitted changes are lost."""
        self._require_open()
        state = load_state(self._file)
        writer = open_writer(state, barriers=self._barriers) if self._writer is not None else None
        self._state, self._writer = state, writer
        self._l1_tables.clear()

    # -- what it is

    @property
    def path(self) -> str:
        """As given to ``open`` or ``create``."""
        return self._file.path

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return self._state.header.size

    @property
    def cluster_size(self) -> int:
        """Bytes of a cluster."""
        return self._state.geometry.cluster_size

    @property
    def backing_file(self) -> str | None:
        """The name of the backing file as it is stored."""
        return self._state.preamble.backing_file

    @property
    def backing_format(self) -> str | None:
        """``raw``, ``qcow2`` or None (not stored)."""
        return self._state.preamble.backing_format

    @property
    def writable(self) -> bool:
        return self._writer is not None

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """In the order of the table: oldest first."""
        return tuple(self._state.snapshots)

    def info(self) -> Info:
        """A summary for people."""
        header = self._state.header
        return Info(
            path=self.path,
            version=header.version,
            size=header.size,
            file_size=self._file.size(),
            cluster_size=self.cluster_size,
            refcount_bits=1 << header.refcount_order,
            backing_file=self.backing_file,
            backing_format=self.backing_format,
            dirty=bool(header.incompatible_features & 1),
            corrupt=bool(header.incompatible_features & 2),
            lazy_refcounts=bool(header.compatible_features & 1),
            snapshots=self.snapshots,
        )

    # -- the disk

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes of the disk."""
        self._require_open()
        require_range(offset, length, self.size)
        buffer = bytearray(length)
        self._state.mapper.read_into(self._state.l1, offset, memoryview(buffer), self._backing)
        return bytes(buffer)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` as a backing file does: zeros behind the end of the disk."""
        inside = max(0, min(len(view), self.size - offset))
        self._state.mapper.read_into(self._state.l1, offset, view[:inside], self._backing)
        view[inside:] = bytes(len(view) - inside)

    def write(self, offset: int, data: Buffer) -> None:
        """Write ``data`` to the disk."""
        writer = self._require_writer()
        view = memoryview(data).cast("B")
        require_range(offset, len(view), self.size)
        writer.write(offset, view, self._backing)

    def discard(self, offset: int, length: int) -> None:
        """Give up the whole clusters in a range of the disk: they read as zeros. The rest of the range stays."""
        writer = self._require_writer()
        require_range(offset, length, self.size)
        bits = self._state.geometry.cluster_bits
        end = offset + length
        last = self._state.geometry.clusters(end) if end == self.size else end >> bits
        writer.clear(self._state.geometry.clusters(offset), last, hide_backing=self.backing_file is not None)

    # -- the VM state

    @property
    def _base(self) -> int:
        return self._state.vmstate_base(self.size)

    def read_vmstate(self, offset: int, length: int) -> bytes:
        """``length`` bytes of the active VM state; zeros where nothing was written."""
        self._require_open()
        require_range(offset, length, None)
        buffer = bytearray(length)
        self._state.mapper.read_into(self._state.l1, self._base + offset, memoryview(buffer), None)
        return bytes(buffer)

    def read_vmstate_clusters(self, offsets: Sequence[int]) -> list[bytes]:
        """The clusters of the active VM state at the cluster-aligned ``offsets``, in their order."""
        self._require_open()
        return read_clusters(self._state, self._state.l1, self._base, offsets)

    def write_vmstate(self, extents: Iterable[tuple[int, Buffer]]) -> None:
        """Write (offset, data) pairs to the active VM state, in their order.

        Whole clusters, aligned, are written as one batch; other extents are right but one by one. Clusters that are
        all zeros become unallocated. The buffers are read before this returns and not kept.
        """
        writer = self._require_writer()
        size, base, bits = self.cluster_size, self._base, self._state.geometry.cluster_bits
        batch: dict[int, Buffer] = {}  # of two writes to one cluster the later stays

        def write_batch() -> None:
            if batch:
                buffers = list(batch.values())
                writer.write_clusters(cluster_indices(list(batch), base, bits), buffers, _empty(buffers, size))
                batch.clear()

        for at, data in extents:
            view = data if type(data) is bytes else memoryview(data).cast("B")
            length = len(view)
            if at % size == 0 and length == size:
                batch[at] = view
            elif at % size or length % size:
                require_range(at, length, None)
                write_batch()
                self._write_vmstate(writer, base + at, memoryview(view))
            else:
                require_range(at, length, None)
                whole = memoryview(view)
                for low in range(0, length, size):
                    batch[at + low] = whole[low : low + size]
                    if len(batch) >= _PIECE:
                        write_batch()
        write_batch()

    def _write_vmstate(self, writer: Writer, offset: int, view: memoryview) -> None:
        size, bits = self.cluster_size, self._state.geometry.cluster_bits
        head = min(-offset % size, len(view))
        whole = (len(view) - head) // size
        writer.write(offset, view[:head], None)
        if whole:
            buffers: list[Buffer] = [view[i : i + size] for i in range(head, head + whole * size, size)]
            first = (offset + head) >> bits
            clusters = np.arange(first, first + whole, dtype=np.int64)
            writer.write_clusters(clusters, buffers, _empty(buffers, size))
        writer.write(offset + head + whole * size, view[head + whole * size :], None)

    def clear_vmstate(self, offset: int, length: int) -> None:
        """Let a range of the active VM state read as zeros; its whole clusters are given up."""
        writer = self._require_writer()
        require_range(offset, length, None)
        size, base = self.cluster_size, self._base
        end = offset + length
        low, high = -(-offset // size) * size, end // size * size
        if low > high:
            low = high = end
        for start, stop in ((offset, low), (high, end)):
            if start < stop and any(self.read_vmstate(start, stop - start)):
                writer.write(base + start, memoryview(bytes(stop - start)), None)
        if low < high:
            bits = self._state.geometry.cluster_bits
            writer.clear((base + low) >> bits, (base + high) >> bits, hide_backing=False)

    # -- snapshots

    def create_snapshot(
        self,
        name: str,
        *,
        vm_state_size: int = 0,
        vm_clock_ns: int = 0,
        icount: int | None = None,
        date: tuple[int, int] | None = None,
    ) -> Snapshot:
        """Keep disk and VM state as they are now; on disk when this returns.

        ``vm_state_size``: bytes; ``vm_clock_ns``: how long the guest ran; ``icount``: instructions; ``date``:
        (seconds since the Unix epoch, nanoseconds), None: now. Raises ValueError for values that do not fit.
        """
        writer = self._require_writer()
        if date is None:
            date = divmod(time.time_ns(), 10**9)
        if len(name.encode("utf-8", "surrogateescape")) > 255:
            raise ValueError("a snapshot name has at most 255 bytes")
        if not (0 <= date[0] < 1 << 32 and 0 <= date[1] < 10**9):
            raise ValueError("the date must be seconds below 2^32 and nanoseconds below 10^9")
        if not (0 <= vm_state_size < 1 << 62 and 0 <= vm_clock_ns < 1 << 64 and 0 <= (icount or 0) < (1 << 64) - 1):
            raise ValueError("VM state size, clock and icount must be 64-bit values")
        if len(self._state.snapshots) >= MAX_SNAPSHOTS:
            raise ValueError(f"an image has at most {MAX_SNAPSHOTS} snapshots")
        ident = str(self._state.last_id + 1)
        return writer.create_snapshot(
            Snapshot(ident, name, date[0], date[1], vm_clock_ns, vm_state_size, icount, self.size, 0, 0)
        )

    def delete_snapshot(self, snapshot: Snapshot | str) -> None:
        """Delete a snapshot, given by itself or by its id."""
        self.delete_snapshots([snapshot])

    def delete_snapshots(self, snapshots: Iterable[Snapshot | str]) -> None:
        """Delete several snapshots as one change of the image."""
        writer = self._require_writer()
        doomed = list(dict.fromkeys(self._find(snapshot) for snapshot in snapshots))
        writer.commit()
        try:
            writer.delete_snapshots(doomed)
        except BaseException:
            self.reload()
            raise
        for snapshot in doomed:
            self._l1_tables.pop(snapshot.id, None)

    def apply_snapshot(self, snapshot: Snapshot | str) -> None:
        """Make disk and VM state those of the snapshot. What was active and in no snapshot is gone."""
        writer = self._require_writer()
        found = self._find(snapshot)
        writer.commit()
        try:
            writer.apply_snapshot(found)
        except BaseException:
            self.reload()
            raise

    def view(self, snapshot: Snapshot | str) -> View:
        """A snapshot for reading."""
        found = self._find(snapshot)
        return View(self._state, found, self._l1(found), self._backing, self._alive)

    def diff_vmstate(self, a: Snapshot | None, b: Snapshot | None, offset: int, length: int) -> list[int]:
        """Offsets of the VM state clusters in a range whose content may differ between ``a`` and ``b``, ascending.

        None is the active state. Clusters with the same host cluster are equal, as are clusters that read as zeros by
        their entries; others count as different. Costs two L1 tables and the L2 tables that differ.
        """
        self._require_open()
        require_range(offset, length, None)
        geometry, mapper = self._state.geometry, self._state.mapper
        sides = []
        for side in (a, b):
            l1 = self._state.l1 if side is None else self._l1(self._find(side))
            size = self.size if side is None or side.disk_size is None else side.disk_size
            first = geometry.l1_entries(size)
            sides.append(hosts(l1[first:]))
        span = geometry.l2_bits + geometry.cluster_bits
        low, high = offset >> span, -(-(offset + length) >> span)
        high = min(high, max(map(len, sides)))
        left, right = (np.pad(side[low:high], (0, max(0, high - max(low, len(side))))) for side in sides)
        unequal = np.flatnonzero(left != right)
        found: list[int] = []
        step = mapper.cache.batch
        for i in range(0, len(unequal), step):
            part = unequal[i : i + step]
            mapper.cache.begin()
            one, two = mapper.rows(left[part]), mapper.rows(right[part])
            row, column = np.nonzero(one != two)
            clusters = ((part[row] + low) << geometry.l2_bits) + column
            found += (clusters << geometry.cluster_bits).tolist()
        start = offset & -self.cluster_size
        return [at for at in found if start <= at < offset + length]

    def _l1(self, snapshot: Snapshot) -> Entries:
        self._require_open()
        l1 = self._l1_tables.get(snapshot.id)
        if l1 is None:
            l1 = self._state.mapper.read_l1(snapshot.l1_offset, snapshot.l1_size)
            if len(self._l1_tables) >= _KEPT_L1_TABLES:
                self._l1_tables.pop(next(iter(self._l1_tables)))
            self._l1_tables[snapshot.id] = l1
        return l1

    def _find(self, snapshot: Snapshot | str) -> Snapshot:
        ident = snapshot if isinstance(snapshot, str) else snapshot.id
        found = self._state.by_id.get(ident)
        if found is not None and snapshot in (ident, found):
            return found
        raise ValueError(f"the image has no snapshot with id {ident}")

    def _alive(self, snapshot: Snapshot) -> bool:
        return self._file.fd >= 0 and self._state.by_id.get(snapshot.id) == snapshot

    # -- the whole

    def check(self) -> CheckResult:
        """Compare refcounts with references and look at the flags. A writable image is committed first."""
        self._require_open()
        if self._writer is not None:
            self._writer.commit()
        return check_state(load_state(self._file))

    def flush(self) -> None:
        """Commit, and wait until it is on the disk (fdatasync)."""
        self._require_writer().commit(durable=True)

    def close(self) -> None:
        """Commit and close; may be called again. If the commit fails, the file is closed and the error raised."""
        if self._file.fd < 0:
            return
        try:
            if self._writer is not None:
                self._writer.commit(durable=True)
        finally:
            self._writer = None
            self._file.close()
            if self._backing is not None:
                self._backing.close()

    def __enter__(self) -> Image:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._file.fd < 0:
            raise ValueError("the image is closed")

    def _require_writer(self) -> Writer:
        self._require_open()
        if self._writer is None:
            raise ValueError("the image is open read-only")
        return self._writer


def _empty(buffers: Sequence[Buffer], size: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of the clusters are all zeros."""
    zeros = bytes(size)
    return np.array([b == zeros if type(b) is bytes else bytes(b) == zeros for b in buffers], bool)


def _open_backing(
    path: str, name: str | None, declared: str | None, chain: tuple[tuple[int, int], ...]
) -> Backing | None:
    if name is None:
        return None
    target = under.backing_path(path, name)
    if under.backing_format(path, target, declared) == "raw":
        return under.RawBacking(target)
    return Image._open(target, chain, writable=False, backing=True, barriers=False)
