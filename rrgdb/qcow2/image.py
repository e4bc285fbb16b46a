"""The image: what users of the library hold."""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from . import backing as under
from . import chain, keeping, options, resizing, vmstate
from .backing import Backing
from .errors import Qcow2UsageError
from .extents import Extent, map_image, merged, stored
from .hostfile import Buffer, HostFile, sync_directory
from .layout import MAX_SNAPSHOTS, SECTOR
from .opening import open_writable, write_new
from .packing import write_compressed
from .preamble import with_backing
from .progress import Progress, silent
from .snapshot_table import Snapshot, require_fitting
from .state import State, is_unchanged, load_damaged, load_state
from .tables import Entries
from .view import View, read_clusters, require_range
from .writer import Writer

if TYPE_CHECKING:
    from .info import Info
    from .problems import CheckResult

_KEPT_L1_TABLES = 64


class Image:
    """A qcow2 image.

    Guest writes reach the file at once or with the next ``flush``; what is on disk is always a whole state: that of
    the last ``flush``, ``close`` or snapshot operation. Methods raise Qcow2Error for a malformed image, ValueError for
    misuse, OSError (ENOSPC for example) as the system does; after an OSError the image is consistent on disk and in
    memory and can be used further. Not thread-safe. Takes no lock: there may be one writer, and any number of readers
    that read snapshots (``reload`` shows them new ones).
    """

    def __init__(
        self, file: HostFile, state: State, backing: Backing | None, writer: Writer | None, *, follows: bool
    ) -> None:
        """``follows``: unallocated clusters are those of the backing file, not zeros."""
        self._follows = follows
        self._file = file
        self._state = state
        self._backing = backing
        self._writer = writer
        self._barriers = writer.barriers if writer is not None else False
        self._l1_tables: dict[str, Entries] = {}
        self._lent = False
        self._known: tuple[int, int] | None = None  # disk and cluster size of a damaged one

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
        version: int = 3,
        refcount_bits: int = 16,
        lazy_refcounts: bool = False,
        compression: str = "zlib",
        mode: int = 0o666,
    ) -> Image:
        """Make a new image with a disk of ``size`` bytes (a multiple of 512; 0: it only holds VM states), open for
        writing.

        ``backing_file`` is stored as given; a relative name starts at the directory of ``path``. ``backing_format``
        (``raw`` or ``qcow2``) is required with it. ``barriers`` as in ``open``. ``compression`` (``zlib``, ``zstd``)
        is for ``write_compressed``. ``lazy_refcounts`` is a hint for others. ``mode``: of the file. Raises
        FileExistsError if there is such a file, ValueError for options that are not possible.
        """
        name = os.fspath(path)
        preamble, head = options.new_preamble(
            name,
            size,
            cluster_size=cluster_size,
            version=version,
            refcount_bits=refcount_bits,
            lazy_refcounts=lazy_refcounts,
            compression=compression,
            backing_file=backing_file,
            backing_format=backing_format,
        )
        file = HostFile(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode=mode)
        below: Backing | None = None
        try:
            below = _open_backing(name, backing_file, backing_format, (file.identity,))
            state, writer = write_new(file, preamble, head, barriers=barriers)
            sync_directory(name)
        except BaseException:
            file.close()
            if below is not None:
                below.close()
            os.unlink(name)
            raise
        return cls(file, state, below, writer, follows=True)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        writable: bool = False,
        backing: bool | Backing = True,
        barriers: bool = False,
        own: bool = False,
    ) -> Image:
        """Open an image, whether or not it was closed cleanly.

        ``backing``: open the backing files too; without, unallocated clusters read as zeros. An object is read instead
        of the backing file that the image names, and stays open when this is closed. ``barriers``: with every commit,
        order the writes against power loss (two fdatasync a commit); without, only ``flush`` does. ``own``: refuse a
        symbolic link, what is no regular file, and for writing a file that has another name as well (a hard link).
        """
        return cls._open(os.fspath(path), (), writable=writable, backing=backing, barriers=barriers, own=own)

    @classmethod
    def _open(
        cls,
        path: str,
        chain: tuple[tuple[int, int], ...],
        *,
        writable: bool,
        backing: bool | Backing,
        barriers: bool,
        own: bool = False,
    ) -> Image:
        file = HostFile(path, os.O_RDWR if writable else os.O_RDONLY, own=own)
        below: Backing | None = None
        try:
            under.check_chain(path, chain, file.identity)
            writer = None
            if writable:
                state, writer = open_writable(file, barriers=barriers)
            else:
                state = load_state(file)
            if backing is True:
                preamble = state.preamble
                chain = (*chain, file.identity)
                below = _open_backing(path, preamble.backing_file, preamble.backing_format, chain)
                if preamble.geometry.data_file:
                    state.mapper.data = under.open_data_file(path, preamble.data_file, file.identity)
        except BaseException:
            file.close()
            if below is not None:
                below.close()
            raise
        image = cls(file, state, below, writer, follows=backing is True)
        if not isinstance(backing, bool):
            image._backing, image._lent = backing, True
        return image

    @classmethod
    def open_damaged(
        cls,
        path: str | os.PathLike[str],
        *,
        size: int,
        cluster_size: int,
        backing: Backing | None = None,
        own: bool = False,
    ) -> Image:
        """Open for reading what is left of the snapshots of an image that ``open`` may refuse. Its disk has ``size``
        bytes, and it uses none of the format's features: of its header only where the snapshot table is counts.
        Snapshots whose entries cannot be right are not there, the active state is empty. ``backing`` is read where
        nothing is allocated and stays open. Each read of a snapshot may raise Qcow2Error.
        """
        file = HostFile(os.fspath(path), os.O_RDONLY, own=own)
        try:
            image = cls(file, load_damaged(file, size, cluster_size), backing, None, follows=False)
        except BaseException:
            file.close()
            raise
        image._lent, image._known = True, (size, cluster_size)
        return image

    def reload(self) -> None:
        """Read header and snapshots anew: a reader sees what a writer did since, in the backing file as well.

        Uncommitted changes are lost.
        """
        self._load()
        if self._follows:
            self._reopen_backing()

    def _load(self) -> None:
        self._require_open()
        if self._writer is not None:
            self._state, self._writer = open_writable(self._file, barriers=self._barriers)
        elif self._known is not None:
            self._state = load_damaged(self._file, *self._known)
        else:
            state = load_state(self._file)
            if state.geometry.data_file:
                state.mapper.data = self._state.mapper.data
            self._state = state
        self._l1_tables.clear()

    def is_current(self) -> bool:
        """Whether no writer has committed anything since this was opened or loaded anew; for readers.

        Of a snapshot that a writer deletes, the clusters may soon hold something else: what a reader has read is right
        if this is true afterwards, or if ``reload`` still finds the snapshot.
        """
        self._require_open()
        return is_unchanged(self._state)

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
    def backing(self) -> Backing | None:
        """What is read where nothing is allocated."""
        return self._backing

    @property
    def damaged(self) -> bool:
        """Whether it was opened by ``open_damaged``."""
        return self._known is not None

    @property
    def plain(self) -> bool:
        """Whether it uses none of the format's incompatible features, and is not marked as dirty or corrupt."""
        header = self._state.header
        return header.version == 3 and not header.incompatible_features

    @property
    def identity(self) -> tuple[int, int]:
        """(device, inode) of the open file."""
        return self._file.identity

    @property
    def writable(self) -> bool:
        """Whether it is open for writing."""
        return self._writer is not None

    def fill_holes(self) -> None:
        """From now on until ``reload``, what is new goes into the smallest holes before the file grows."""
        self._require_writer().refs.fill_holes = True

    @property
    def used_bytes(self) -> int:
        """Bytes of the clusters of the file that are in use; only for images that are open for writing."""
        return int(np.count_nonzero(self._require_writer().refs.counts)) * self.cluster_size

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """In the order of the table: oldest first."""
        return tuple(self._state.snapshots)

    def info(self) -> Info:
        """A summary for people. Raises Qcow2Error if it should name bitmaps, and their directory is damaged."""
        from .info import read_info  # noqa: PLC0415 - for people

        self._require_open()
        return read_info(self._file, self._state)

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
        self._require_open()
        inside = max(0, min(len(view), self.size - offset))
        self._state.mapper.read_into(self._state.l1, offset, view[:inside], self._backing)
        view[inside:] = bytes(len(view) - inside)

    def write(self, offset: int, data: Buffer) -> None:
        """Write ``data`` to the disk."""
        writer = self._require_writer()
        view = memoryview(data).cast("B")
        require_range(offset, len(view), self.size)
        writer.write(offset, view, self._backing)

    def write_compressed(self, offset: int, data: Buffer) -> None:
        """Write whole clusters of the disk compressed (the last one of the disk may be short).

        Clusters that do not get smaller are stored as they are.
        """
        writer = self._require_writer()
        view = memoryview(data).cast("B")
        require_range(offset, len(view), self.size)
        end = offset + len(view)
        if offset % self.cluster_size or (end % self.cluster_size and end != self.size):
            raise Qcow2UsageError("compressed writes are whole clusters")
        write_compressed(writer, offset, view)

    def discard(self, offset: int, length: int) -> None:
        """Give up the whole clusters in a range of the disk: they read as zeros. The rest of the range stays."""
        writer = self._require_writer()
        require_range(offset, length, self.size)
        bits = self._state.geometry.cluster_bits
        end = offset + length
        last = self._state.geometry.clusters(end) if end == self.size else end >> bits
        writer.clear(self._state.geometry.clusters(offset), last, hide_backing=self.backing_file is not None)

    def write_zeros(self, offset: int, length: int) -> None:
        """Let a range of the disk read as zeros; its whole clusters are given up."""
        self.discard(offset, length)
        size, end = self.cluster_size, offset + length
        low = min(-(-offset // size) * size, end)
        high = end if end == self.size else max(low, end // size * size)
        for start, stop in ((offset, low), (high, end)):
            if start < stop:
                self.write(start, bytes(stop - start))

    def map(self, offset: int = 0, length: int | None = None) -> Iterator[Extent]:
        """Where the bytes of the disk are, as ``qemu-img map``: extents one after the other, as long as possible."""
        self._require_open()
        length = self.size - offset if length is None else length
        require_range(offset, length, self.size)
        return merged(self.extents(offset, length, 0))

    def extents(self, offset: int, length: int, depth: int) -> Iterator[Extent]:
        """As ``map``, for a file at ``depth`` of a chain, and not merged."""
        self._require_open()
        return map_image(self._state, self._backing, offset, length, depth)

    def resize(self, size: int) -> None:
        """Change the size of the disk (a multiple of 512); new bytes read as zeros, bytes that are cut off are gone.

        Snapshots keep their size. On disk when this returns. Raises Qcow2UnsupportedError for images of version 2 with
        snapshots.
        """
        writer = self._require_writer()
        if size < 0 or size % SECTOR:
            raise Qcow2UsageError("the disk size must be a multiple of 512, and not negative")
        self._whole_change(lambda: resizing.resize(writer, size, self._backing))

    # -- the backing file

    def commit(self, *, progress: Progress = silent) -> None:
        """Write what the disk holds over its backing file into that, and empty the disk of this image.

        The backing file grows if it is smaller; its changes are on disk before this image gives them up. Snapshots of
        this image keep their content: they get what they would lose of the backing file, and other readers have to
        ``reload``. ``progress`` is told (bytes done, all bytes). Raises ValueError without a backing file.
        """
        writer = self._require_writer()
        if self.backing_file is None:
            raise Qcow2UsageError("the image has no backing file")
        if self.snapshots:
            self._require_backing()
            written = ((e.start, e.length) for e in self.extents(0, self.size, 0) if e.present and not e.depth)
            self._keep_for_snapshots(written, keeping.changes_all)
        target = under.backing_path(self.path, self.backing_file)
        kind = under.backing_format(self.path, target, self.backing_format)
        below: chain.Target = (
            under.RawFile(target, writable=True) if kind == "raw" else Image.open(target, writable=True, barriers=True)
        )
        try:
            chain.copy_down(self, below, progress)
        finally:
            below.close()
        self._whole_change(lambda: chain.empty(writer))
        self._reopen_backing()

    def rebase(
        self,
        backing_file: str | None,
        backing_format: str | None,
        *,
        unsafe: bool = False,
        progress: Progress = silent,
    ) -> None:
        """Put the image on another backing file (None: on none).

        What the disk holds stays the same: clusters in which old and new backing file differ are copied first.
        Snapshots keep their content as well. ``unsafe``: only store the name. ``progress``: as for ``commit``.
        """
        writer = self._require_writer()
        options.require_backing(backing_file, backing_format)
        if not unsafe:
            self._require_backing()
            old, new = self._backing, _open_backing(self.path, backing_file, backing_format, (self._file.identity,))
            try:
                if self.snapshots:
                    sides = (stored(side, 1) for side in (old, new) if side is not None)
                    self._keep_for_snapshots(heapq.merge(*sides), keeping.differing_from(new))
                chain.copy_up(self, old, new, progress)
            finally:
                if new is not None:
                    new.close()
        writer.commit(durable=True)
        self._whole_change(
            lambda: writer.write_preamble(*with_backing(self._state.preamble, backing_file, backing_format))
        )
        if not unsafe:
            self._reopen_backing()

    def _keep_for_snapshots(self, extents: Iterable[tuple[int, int]], changes: keeping.Changes) -> None:
        """Before the bytes of ascending (offset, length) change in the backing file. Snapshots get new L1 tables."""
        writer, ranges = self._require_writer(), keeping.whole_clusters(extents, self._state.geometry.cluster_bits)
        self._whole_change(lambda: keeping.keep_for_snapshots(writer, ranges, self._backing, changes))
        self._l1_tables.clear()

    def _require_backing(self) -> None:
        if self.backing_file is not None and self._backing is None:
            raise Qcow2UsageError("the image is open without its backing file")

    def _reopen_backing(self) -> None:
        told, old = self._state.preamble, self._backing
        self._backing = _open_backing(self.path, told.backing_file, told.backing_format, (self._file.identity,))
        if old is not None and not self._lent:
            old.close()
        self._lent = False

    def _whole_change(self, change: Callable[[], None]) -> None:
        """Commit, then ``change``, which commits; if it fails, the image is as it was before."""
        self._require_writer().commit()
        try:
            change()
        except BaseException:
            self._load()
            raise

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
        vmstate.write_extents(self._require_writer(), self._base, extents)

    def clear_vmstate(self, offset: int, length: int) -> None:
        """Let a range of the active VM state read as zeros; its whole clusters are given up."""
        writer = self._require_writer()
        require_range(offset, length, None)
        vmstate.clear(writer, self._base, offset, length)

    # -- snapshots

    def create_snapshot(
        self,
        name: str,
        *,
        vm_state_size: int = 0,
        vm_clock_ns: int = 0,
        icount: int | None = None,
        date: tuple[int, int] | None = None,
        extra: bytes = b"",
        commit: bool = True,
    ) -> Snapshot:
        """Keep disk and VM state as they are now; on disk when this returns, or, without ``commit``, with the next
        one (``flush``): several snapshots can be one change of the image.

        ``vm_state_size``: bytes; ``vm_clock_ns``: how long the guest ran; ``icount``: instructions; ``date``:
        (seconds since the Unix epoch, nanoseconds), None: now; ``extra``: bytes behind what the format's extra data
        holds, which others leave alone. Raises ValueError for values that do not fit.
        """
        writer = self._require_writer()
        date = divmod(time.time_ns(), 10**9) if date is None else date
        if len(self._state.snapshots) >= MAX_SNAPSHOTS:
            raise Qcow2UsageError(f"an image has at most {MAX_SNAPSHOTS} snapshots")
        ident = str(self._state.last_id + 1)
        snapshot = Snapshot(ident, name, *date, vm_clock_ns, vm_state_size, icount, self.size, 0, 0, extra)
        require_fitting(snapshot)
        return writer.create_snapshot(snapshot, commit=commit)

    def delete_snapshot(self, snapshot: Snapshot | str) -> None:
        """Delete a snapshot, given by itself or by its id."""
        self.delete_snapshots([snapshot])

    def delete_snapshots(self, snapshots: Iterable[Snapshot | str]) -> None:
        """Delete several snapshots as one change of the image."""
        writer = self._require_writer()
        doomed = list(dict.fromkeys(self._state.find(snapshot) for snapshot in snapshots))
        self._whole_change(lambda: writer.delete_snapshots(doomed))
        for snapshot in doomed:
            self._l1_tables.pop(snapshot.id, None)

    def apply_snapshot(self, snapshot: Snapshot | str) -> None:
        """Make disk and VM state those of the snapshot. What was active and in no snapshot is gone."""
        writer = self._require_writer()
        found = self._state.find(snapshot)
        self._whole_change(lambda: writer.apply_snapshot(found))

    def view(self, snapshot: Snapshot | str) -> View:
        """A snapshot for reading."""
        found = self._state.find(snapshot)
        return View(self._state, found, self._l1(found), _Under(self), self._alive)

    def diff_vmstate(self, a: Snapshot | None, b: Snapshot | None, offset: int, length: int) -> list[int]:
        """Offsets of the VM state clusters in a range whose content may differ between ``a`` and ``b``, ascending.

        None is the active state. Clusters with the same host cluster are equal, as are clusters that read as zeros by
        their entries; others count as different. Costs two L1 tables and the L2 tables that differ.
        """
        self._require_open()
        require_range(offset, length, None)
        return vmstate.differing(self._state, (self._side(a), self._side(b)), offset, length)

    def filled_vmstate(self, snapshot: Snapshot, offset: int, length: int) -> list[int]:
        """Offsets of the VM state clusters in a range that do not read as zeros by their entries, ascending."""
        self._require_open()
        require_range(offset, length, None)
        nothing = np.zeros(0, np.uint64), 0
        return vmstate.differing(self._state, (nothing, self._side(snapshot)), offset, length)

    def filled_disk(self, snapshot: Snapshot) -> list[int]:
        """As ``filled_vmstate``, of all of the disk."""
        self._require_open()
        nothing = np.zeros(0, np.uint64), 0
        return vmstate.differing(self._state, (nothing, (self._side(snapshot)[0], 0)), 0, self.size)

    def diff_disk(self, a: Snapshot, b: Snapshot) -> list[int]:
        """As ``diff_vmstate``, of the disk: offsets of clusters whose content in this image may differ.

        A cluster that reads as zeros by its entry counts as one that is not there: this is for images that have none.
        """
        self._require_open()
        sides = tuple((self._side(snapshot)[0], 0) for snapshot in (a, b))
        return vmstate.differing(self._state, (sides[0], sides[1]), 0, self.size)

    def _side(self, snapshot: Snapshot | None) -> tuple[Entries, int]:
        l1 = self._state.l1 if snapshot is None else self._l1(self._state.find(snapshot))
        size = self.size if snapshot is None or snapshot.disk_size is None else snapshot.disk_size
        return l1, self._state.geometry.l1_entries(size)

    def _l1(self, snapshot: Snapshot) -> Entries:
        self._require_open()
        l1 = self._l1_tables.get(snapshot.id)
        if l1 is None:
            l1 = self._state.mapper.read_l1(snapshot.l1_offset, snapshot.l1_size)
            if len(self._l1_tables) >= _KEPT_L1_TABLES:
                self._l1_tables.pop(next(iter(self._l1_tables)))
            self._l1_tables[snapshot.id] = l1
        return l1

    def _alive(self, snapshot: Snapshot) -> bool:
        return self._file.fd >= 0 and self._state.by_id.get(snapshot.id) == snapshot

    # -- the whole

    def check(self) -> CheckResult:
        """Compare refcounts with references and look at the flags. A writable image is committed first."""
        from .check import check_state  # noqa: PLC0415 - whole images are seldom looked at

        self._require_open()
        if self._writer is not None:
            self._writer.commit()
        return check_state(load_state(self._file, lenient=True))

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
            if self._backing is not None and not self._lent:
                self._backing.close()
            if self._state.mapper.data is not None:
                self._state.mapper.data.close()

    def __enter__(self) -> Image:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._file.fd < 0:
            raise Qcow2UsageError("the image is closed")

    def _require_writer(self) -> Writer:
        self._require_open()
        if self._writer is None:
            raise Qcow2UsageError("the image is open read-only")
        return self._writer


class _Under:
    """What is under an image now: a view may be older than that."""

    def __init__(self, image: Image) -> None:
        self._image = image

    def read_into(self, offset: int, view: memoryview) -> None:
        below = self._image._backing
        if below is None:
            view[:] = bytes(len(view))
        else:
            below.read_into(offset, view)


def _open_backing(
    path: str, name: str | None, declared: str | None, chain: tuple[tuple[int, int], ...]
) -> Backing | None:
    if name is None:
        return None
    target = under.backing_path(path, name)
    if under.backing_format(path, target, declared) == "raw":
        return under.RawFile(target)
    return Image._open(target, chain, writable=False, backing=True, barriers=False)
