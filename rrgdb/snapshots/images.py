"""The user's images under a guest's disks, for reading."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from rrgdb.qcow2 import Backing, Extent, Image, RawFile
from rrgdb.snapshots.errors import StoreError, told

FORMATS = ("raw", "qcow2")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""of a disk"""
MARK_BYTES = 16
"""of the recording's id, with which its disk snapshots are marked"""
_MAGIC = b"QFI\xfb"


class DiskImage:
    """The user's image under a disk, for reading. ``size``: bytes of the disk, whole sectors."""

    @classmethod
    def missing(cls, name: str, path: Path, format: str, size: int, *, readonly: bool) -> DiskImage:
        """An image that can be looked at and not be read."""
        image = cls.__new__(cls)
        image.name, image.path, image.format, image.size, image.readonly = name, path, format, size, readonly
        image.mtime_ns = None
        image.content = _Missing(size)
        return image

    def __init__(self, path: Path, format: str, *, readonly: bool = False, name: str = "") -> None:
        """StoreError if it cannot be read, or has no sectors."""
        self.name = name
        self.path = path
        self.format = format
        self.readonly = readonly
        with told(path):
            self.mtime_ns: int | None = path.stat().st_mtime_ns
            self.content: Backing = RawFile(os.fspath(path)) if format == "raw" else Image.open(path)
        self.size = -(-self.content.size // 512) * 512
        if not self.size:
            self.close()
            raise StoreError(f"{path}: an empty image, expected at least one sector of 512 bytes")

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes of the disk; zeros behind its end. Raises StoreError."""
        data = bytearray(length)
        with told(self.path):
            self.content.read_into(offset, memoryview(data))
        return bytes(data)

    def files(self) -> list[Path]:
        """The file, and the backing files under it."""
        found: list[Path] = []
        below: Backing | None = self.content
        while isinstance(below, Image | RawFile):
            found.append(Path(below.path))
            below = below.backing if isinstance(below, Image) else None
        return found

    def linked_overlay(self) -> Path | None:
        """One of the files that is a recording's overlay under a second name, by what its snapshots are marked with."""
        below: Backing | None = self.content
        while isinstance(below, Image):
            marked = any(len(s.extra) == MARK_BYTES for s in below.snapshots)
            if marked and os.stat(below.path).st_nlink > 1:
                return Path(below.path)
            below = below.backing
        return None

    def close(self) -> None:
        """Idempotent."""
        self.content.close()


class _Missing:
    """Under a disk whose image cannot be read."""

    def __init__(self, size: int) -> None:
        self.size = size

    def read_into(self, offset: int, view: memoryview) -> None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def extents(self, offset: int, length: int, depth: int) -> Iterator[Extent]:
        yield Extent(offset, length, depth, present=False, zero=True, data=False)

    def close(self) -> None:
        pass


def looks_like_qcow2(path: Path) -> bool:
    """Whether a file begins as a qcow2 image does. Raises StoreError."""
    head = bytearray(len(_MAGIC))
    with told(path):
        file = RawFile(os.fspath(path))
        try:
            file.read_into(0, memoryview(head))
        finally:
            file.close()
    return head == _MAGIC
