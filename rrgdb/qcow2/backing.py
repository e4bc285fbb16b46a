"""What is under an overlay: a raw file, or another qcow2 image."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Protocol

from .errors import Qcow2Error, Qcow2UnsupportedError
from .extents import Extent
from .hostfile import HostFile
from .layout import MAGIC, whole_sectors

MAX_DEPTH = 64
_ZEROS = 1 << 20


class Backing(Protocol):
    """What is under an overlay."""

    @property
    def size(self) -> int:
        """Bytes."""

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` with the bytes from ``offset`` on; zeros behind the end."""

    def extents(self, offset: int, length: int, depth: int) -> Iterator[Extent]:
        """What these bytes are, in their order, up to the end; ``depth``: how many images lie above."""

    def close(self) -> None:
        """Idempotent."""


class RawFile:
    """A file whose bytes are the disk; for reading and, if ``writable``, for writing.

    The disk has whole sectors: behind a file that ends inside of one are zeros, as for QEMU.
    """

    def __init__(self, path: str, *, writable: bool = False) -> None:
        self._file = HostFile(path, os.O_RDWR if writable else os.O_RDONLY)
        self.size = whole_sectors(self._file.size())

    @property
    def path(self) -> str:
        """As it was given."""
        return self._file.path

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view``; zeros behind the end."""
        done = self._file.read_into(offset, view)
        view[done:] = bytes(len(view) - done)

    def extents(self, offset: int, length: int, depth: int) -> Iterator[Extent]:
        """Data and holes of the file; ``depth`` is passed on."""
        end = min(offset + length, self.size)
        while offset < end:
            data, stop = self._file.next_data(offset, end)
            if data > offset:
                yield Extent(offset, data - offset, depth, present=True, zero=True, data=False, offset=offset)
            if stop > data:
                yield Extent(data, stop - data, depth, present=True, zero=False, data=True, offset=data)
            offset = stop

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write inside of the file."""
        self._file.write(offset, [data])

    def write_zeros(self, offset: int, length: int) -> None:
        """Let a range read as zeros."""
        for at in range(offset, offset + length, _ZEROS):
            self._file.write(at, [bytes(min(_ZEROS, offset + length - at))])

    def resize(self, size: int) -> None:
        """Cut or extend with zeros."""
        self._file.truncate(size)
        self.size = whole_sectors(size)

    def flush(self) -> None:
        """Wait until everything is on the disk."""
        self._file.sync()

    def close(self) -> None:
        """Idempotent."""
        self._file.close()


def backing_path(image_path: str, name: str) -> str:
    """The path of the backing file: a relative name starts at the directory of the image.

    Raises Qcow2UnsupportedError for names that are not local files (``nbd:…``, ``json:…``).
    """
    if name.startswith("file:"):
        name = name[5:]
    elif re.match(r"[^/]*:", name):
        raise Qcow2UnsupportedError(f"{image_path}: offset 8: backing file {name!r} is not a local file")
    return os.path.join(os.path.dirname(image_path), name)


def backing_format(image_path: str, path: str, declared: str | None) -> str:
    """``raw`` or ``qcow2``. An image without a declared format is probed by its magic, as QEMU does."""
    if declared in ("raw", "qcow2"):
        return declared
    if declared is not None:
        raise Qcow2UnsupportedError(f"{image_path}: offset 8: backing format {declared!r}, expected raw or qcow2")
    file = HostFile(path, os.O_RDONLY)
    try:
        return "qcow2" if file.read(0, 4) == MAGIC else "raw"
    finally:
        file.close()


def check_chain(image_path: str, chain: tuple[tuple[int, int], ...], identity: tuple[int, int]) -> None:
    """Raises Qcow2Error if the image is already in ``chain`` or the chain is too long."""
    if identity in chain:
        raise Qcow2Error(f"{image_path}: offset 8: the chain of backing files is a loop")
    if len(chain) >= MAX_DEPTH:
        raise Qcow2Error(f"{image_path}: offset 8: expected a chain of at most {MAX_DEPTH} backing files")


def open_data_file(image_path: str, name: str | None, image: tuple[int, int]) -> HostFile:
    """The external data file of an image, for reading. Raises Qcow2Error without a name."""
    if not name or "\0" in name:
        raise Qcow2Error(f"{image_path}: offset 72: expected the name of the external data file, without NUL")
    file = HostFile(backing_path(image_path, name), os.O_RDONLY)
    if file.identity == image:
        file.close()
        raise Qcow2Error(f"{image_path}: offset 72: the external data file is the image itself")
    return file
