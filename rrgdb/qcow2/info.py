"""What ``qemu-img info`` tells."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .bitmaps import Bitmap, read_bitmaps
from .hostfile import HostFile
from .layout import COMPAT_LAZY_REFCOUNTS, INCOMPAT_CORRUPT, INCOMPAT_DIRTY
from .snapshot_table import Snapshot
from .state import State

Json = dict[str, object]


@dataclass(frozen=True)
class Info:
    """A summary for people. Sizes in bytes; ``allocated``: what the file takes on its disk."""

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
    compression: str = "zlib"
    extended_l2: bool = False
    data_file: str | None = None
    data_file_raw: bool = False
    allocated: int = 0
    bitmaps: tuple[Bitmap, ...] = ()

    def as_json(self) -> Json:
        """The fields of ``qemu-img info --output=json``."""
        data: Json = {"compat": "1.1" if self.version >= 3 else "0.10"}
        data["compression-type"] = self.compression
        if self.version >= 3:
            data["lazy-refcounts"] = self.lazy_refcounts
            if self.bitmaps:
                data["bitmaps"] = [bitmap_json(bitmap) for bitmap in self.bitmaps]
        data["refcount-bits"] = self.refcount_bits
        if self.version >= 3:
            if self.data_file is not None:
                data["data-file"] = self.data_file
                data["data-file-raw"] = self.data_file_raw
            data["corrupt"] = self.corrupt
            data["extended-l2"] = self.extended_l2
        found: Json = {}
        if self.snapshots:
            found["snapshots"] = [snapshot_json(snapshot) for snapshot in self.snapshots]
        if self.backing_file is not None:
            name = self.backing_file.removeprefix("file:")
            found["full-backing-filename"] = os.path.join(os.path.dirname(self.path), name)
            found["backing-filename"] = self.backing_file
            if self.backing_format is not None:
                found["backing-filename-format"] = self.backing_format
        found |= {
            "virtual-size": self.size,
            "filename": self.path,
            "cluster-size": self.cluster_size,
            "format": "qcow2",
            "actual-size": self.allocated,
            "format-specific": {"type": "qcow2", "data": data},
            "dirty-flag": self.dirty,
        }
        return found


def bitmap_json(bitmap: Bitmap) -> Json:
    """The fields that ``qemu-img info --output=json`` has for a bitmap."""
    flags = [name for name, is_set in (("in-use", bitmap.in_use), ("auto", bitmap.auto)) if is_set]
    return {"flags": flags, "name": bitmap.name, "granularity": bitmap.granularity}


def snapshot_json(snapshot: Snapshot) -> Json:
    """The fields that ``qemu-img info --output=json`` has for a snapshot."""
    found: Json = {} if snapshot.icount is None else {"icount": snapshot.icount}
    return found | {
        "vm-clock-nsec": snapshot.vm_clock_ns % 10**9,
        "name": snapshot.name,
        "date-sec": snapshot.date_s,
        "date-nsec": snapshot.date_ns,
        "vm-clock-sec": snapshot.vm_clock_ns // 10**9,
        "id": snapshot.id,
        "vm-state-size": snapshot.vm_state_size,
    }


def read_info(file: HostFile, state: State) -> Info:
    """Of an open image. Raises Qcow2Error for a damaged directory of bitmaps."""
    header, preamble = state.header, state.preamble
    return Info(
        path=file.path,
        version=header.version,
        size=header.size,
        file_size=file.size(),
        cluster_size=state.geometry.cluster_size,
        refcount_bits=1 << header.refcount_order,
        backing_file=preamble.backing_file,
        backing_format=preamble.backing_format,
        dirty=bool(header.incompatible_features & INCOMPAT_DIRTY),
        corrupt=bool(header.incompatible_features & INCOMPAT_CORRUPT),
        lazy_refcounts=bool(header.compatible_features & COMPAT_LAZY_REFCOUNTS),
        snapshots=tuple(state.snapshots),
        compression=preamble.compression,
        extended_l2=state.geometry.extended,
        data_file=preamble.data_file,
        data_file_raw=preamble.data_file_raw,
        allocated=file.allocated(),
        bitmaps=read_bitmaps(state),
    )
