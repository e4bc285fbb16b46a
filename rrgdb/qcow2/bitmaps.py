"""Persistent dirty bitmaps: which there are, and which clusters they take. Source: format description, "Bitmaps"."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .errors import Qcow2Error
from .layout import EXT_BITMAPS, OFFSET_MASK
from .state import State, has_bitmaps

_EXTENSION = struct.Struct(">IIQQ")
_ENTRY = struct.Struct(">QIIBBHI")
_MAX_BITMAPS = 65535
_MAX_DIRECTORY_BYTES = 64 << 20
_MAX_TABLE_BYTES = 256 << 20
_MAX_GRANULARITY_BITS = 63
_IN_USE, _AUTO = 1, 2


@dataclass(frozen=True)
class Bitmap:
    """One persistent bitmap.

    ``granularity``: bytes of the disk for one bit. ``in_use``: it was not closed, so it is not consistent. ``auto``:
    who changes the disk has to keep it up to date.
    """

    name: str
    granularity: int
    in_use: bool
    auto: bool


class _Entry(NamedTuple):
    at: int  # where in the file it is
    table_offset: int
    table_entries: int
    bitmap: Bitmap


def read_bitmaps(state: State) -> tuple[Bitmap, ...]:
    """What the directory of bitmaps names. Raises Qcow2Error."""
    return tuple(entry.bitmap for entry in _entries(state, *_directory(state))) if has_bitmaps(state) else ()


def _directory(state: State) -> tuple[int, int, bytes]:
    """How many entries there are, where the directory is, and its bytes. Raises Qcow2Error."""
    path, size = state.file.path, state.geometry.cluster_size
    data = dict(reversed(state.preamble.extensions))[EXT_BITMAPS]
    if len(data) != _EXTENSION.size:
        raise Qcow2Error(f"{path}: offset {state.header.header_length}: expected a bitmaps extension of 24 bytes")
    count, _, length, start = _EXTENSION.unpack(data)
    if count > _MAX_BITMAPS or length > _MAX_DIRECTORY_BYTES or start & (size - 1) or start >= 1 << 63:
        raise Qcow2Error(f"{path}: offset {start}: expected a bitmap directory on a cluster, of at most 64 MiB")
    return count, start, state.file.read_exact(start, length, "the bitmap directory")


def _entries(state: State, count: int, start: int, raw: bytes) -> Iterator[_Entry]:
    pos = 0
    for _ in range(count):
        if pos + _ENTRY.size > len(raw):
            raise Qcow2Error(f"{state.file.path}: offset {start + pos}: expected an entry of the bitmap directory")
        offset, entries, flags, _, bits, name_length, extra = _ENTRY.unpack_from(raw, pos)
        first = pos + _ENTRY.size + extra
        end = first + name_length
        if end > len(raw) or bits > _MAX_GRANULARITY_BITS:
            raise Qcow2Error(
                f"{state.file.path}: offset {start + pos}: expected a bitmap's name inside the directory and "
                f"granularity bits up to {_MAX_GRANULARITY_BITS}"
            )
        name = raw[first:end].decode("utf-8", "surrogateescape")
        bitmap = Bitmap(name, 1 << bits, bool(flags & _IN_USE), bool(flags & _AUTO))
        yield _Entry(start + pos, offset, entries, bitmap)
        pos = (end + 7) // 8 * 8


def bitmap_extents(state: State) -> list[tuple[int, int]]:
    """(offset, bytes) of directory, tables and data of all bitmaps. Raises Qcow2Error."""
    if not has_bitmaps(state):
        return []
    path, size = state.file.path, state.geometry.cluster_size
    count, start, raw = _directory(state)
    found, budget = [(start, len(raw))], _MAX_TABLE_BYTES
    for at, offset, entries, _ in _entries(state, count, start, raw):
        budget -= 8 * entries
        if offset & (size - 1) or offset >= 1 << 63 or budget < 0:
            raise Qcow2Error(f"{path}: offset {at}: expected a bitmap table on a cluster")
        table = np.frombuffer(state.file.read_exact(offset, 8 * entries, "a bitmap table"), ">u8")
        found.append((offset, 8 * entries))
        found += [(int(data), size) for data in table & np.uint64(OFFSET_MASK & ~(size - 1)) if data]
    return found
