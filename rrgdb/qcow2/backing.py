"""Opening what is under an overlay: a raw file, or another qcow2 image."""

from __future__ import annotations

import os
import re

from .errors import Qcow2Error, Qcow2UnsupportedError
from .hostfile import HostFile
from .layout import MAGIC

MAX_DEPTH = 64


class RawBacking:
    """A file whose bytes are the disk."""

    def __init__(self, path: str) -> None:
        self._file = HostFile(path, os.O_RDONLY)
        self.size = self._file.size()

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view``; zeros behind the end."""
        done = self._file.read_into(offset, view)
        view[done:] = bytes(len(view) - done)

    def close(self) -> None:
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
