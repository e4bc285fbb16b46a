"""Persistent dirty bitmaps: only which clusters they take. Source: format description, "Bitmaps"."""

from __future__ import annotations

import struct

import numpy as np

from .errors import Qcow2Error
from .layout import AUTOCLEAR_BITMAPS, EXT_BITMAPS, OFFSET_MASK
from .state import State

_EXTENSION = struct.Struct(">IIQQ")
_ENTRY = struct.Struct(">QIIBBHI")
_MAX_BITMAPS = 65535
_MAX_DIRECTORY_BYTES = 64 << 20
_MAX_TABLE_BYTES = 256 << 20


def has_bitmaps(state: State) -> bool:
    """Whether there are bitmaps that are said to be consistent; others count as absent."""
    there = any(kind == EXT_BITMAPS for kind, _ in state.preamble.extensions)
    return there and bool(state.header.autoclear_features & AUTOCLEAR_BITMAPS)


def bitmap_extents(state: State) -> list[tuple[int, int]]:
    """(offset, bytes) of directory, tables and data of all bitmaps. Raises Qcow2Error."""
    if not has_bitmaps(state):
        return []
    path, size = state.file.path, state.geometry.cluster_size
    data = dict(reversed(state.preamble.extensions))[EXT_BITMAPS]
    if len(data) != _EXTENSION.size:
        raise Qcow2Error(f"{path}: offset {state.header.header_length}: expected a bitmaps extension of 24 bytes")
    count, _, length, start = _EXTENSION.unpack(data)
    if count > _MAX_BITMAPS or length > _MAX_DIRECTORY_BYTES or start & (size - 1) or start >= 1 << 63:
        raise Qcow2Error(f"{path}: offset {start}: expected a bitmap directory on a cluster, of at most 64 MiB")
    raw = state.file.read_exact(start, length, "the bitmap directory")
    found, pos, budget = [(start, length)], 0, _MAX_TABLE_BYTES
    for _ in range(count):
        if pos + _ENTRY.size > length:
            raise Qcow2Error(f"{path}: offset {start + pos}: expected an entry of the bitmap directory")
        offset, entries, _, _, _, name, extra = _ENTRY.unpack_from(raw, pos)
        budget -= 8 * entries
        if offset & (size - 1) or offset >= 1 << 63 or budget < 0:
            raise Qcow2Error(f"{path}: offset {start + pos}: expected a bitmap table on a cluster")
        table = np.frombuffer(state.file.read_exact(offset, 8 * entries, "a bitmap table"), ">u8")
        found.append((offset, 8 * entries))
        found += [(int(at), size) for at in table & np.uint64(OFFSET_MASK & ~(size - 1)) if at]
        pos += (_ENTRY.size + name + extra + 7) // 8 * 8
    return found
