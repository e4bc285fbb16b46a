"""Damage to qcow2 images that knows where their fields and tables are; written without rrgdb.qcow2, from the format."""

from __future__ import annotations

import functools
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Place = tuple[int, int]  # offset and bytes of one field

# Source: QEMU, "Qcow2 Image File Format" (docs/interop/qcow2), "Header".
_HEADER: tuple[Place, ...] = (
    (0, 4),
    (4, 4),
    (8, 8),
    (16, 4),
    (20, 4),
    (24, 8),
    (32, 4),
    (36, 4),
    (40, 8),
    (48, 8),
    (56, 4),
    (60, 4),
    (64, 8),
    (72, 8),
    (80, 8),
    (88, 8),
    (96, 4),
    (100, 4),
    (104, 1),
)
_SNAPSHOT: tuple[Place, ...] = ((0, 8), (8, 4), (12, 2), (14, 2), (16, 4), (20, 4), (24, 8), (32, 4), (36, 4))
_EXTENSIONS = (0, 0xE2792ACA, 0x6803F857, 0x23852875, 0x0537BE77, 0x44415441, 0x12345678)
_OFFSET = 0x00FF_FFFF_FFFF_FE00
_BITMAPS = 0x23852875
_MOST = 4096  # entries of one table that are looked at


@dataclass
class Layout:
    """Where things are in a sound image."""

    cluster: int
    places: dict[str, list[Place]]
    offsets: list[int]  # of the tables


def damage(sound: bytes, rng: random.Random) -> bytes:
    """``sound`` with one to six changes."""
    raw = bytearray(sound)
    layout = _layout(sound)
    kinds: list[Callable[[bytearray, Layout, random.Random], None]] = [_field] * 8 + [
        _bytes,
        _clusters,
        _length,
        _extension,
        _shift,
        _point,
    ]
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4, 6))):
        rng.choice(kinds)(raw, layout, rng)
    return bytes(raw)


def _u(raw: bytes | bytearray, at: int, size: int = 8) -> int:
    return int.from_bytes(raw[at : at + size], "big")


def _entries(raw: bytes, at: int, count: int) -> Iterator[tuple[int, int]]:
    """(place, value) of the entries of a table that are not zero."""
    for place in range(at, min(at + 8 * min(count, _MOST), len(raw) - 7), 8):
        if value := _u(raw, place):
            yield place, value


@functools.cache
def _layout(raw: bytes) -> Layout:
    cluster = 1 << _u(raw, 20, 4)
    l1_offset, table, nb_snapshots, snapshots = _u(raw, 40), _u(raw, 48), _u(raw, 60, 4), _u(raw, 64)
    found: dict[str, list[Place]] = {"header": list(_HEADER), "extension": _extension_fields(raw)}
    l1_tables = [(l1_offset, _u(raw, 36, 4))]
    fields, at = [], snapshots
    for _ in range(nb_snapshots):
        fields += [(at + offset, size) for offset, size in _SNAPSHOT]
        extra = _u(raw, at + 36, 4)
        fields += [(at + 40 + 8 * i, 8) for i in range(extra // 8)]
        l1_tables.append((_u(raw, at), _u(raw, at + 8, 4)))
        at += (40 + extra + _u(raw, at + 12, 2) + _u(raw, at + 14, 2) + 7) // 8 * 8
    found["snapshot"] = fields
    l1 = [entry for offset, size in l1_tables for entry in _entries(raw, offset, size)]
    l2 = [e for offset in {value & _OFFSET for _, value in l1} for e in _entries(raw, offset, cluster // 8)]
    blocks = [value & _OFFSET for _, value in _entries(raw, table, cluster // 8)]
    width = max(1, 1 << _u(raw, 96, 4) >> 3) if _u(raw, 4, 4) > 2 else 2
    found["l1"] = [(place, 8) for place, _ in l1]
    found["empty l1"] = [(offset + 8 * i, 8) for offset, size in l1_tables for i in range(min(size, 64))]
    found["l2"] = [(place, 8) for place, _ in l2]
    found["refcount table"] = [(place, 8) for place, _ in _entries(raw, table, cluster // 8)] + [(table + 8, 8)]
    found["refcount"] = [(b + i * width, width) for b in blocks[:4] for i in range(min(cluster // width, 512))]
    found["bitmap"] = _bitmap_fields(raw)
    offsets = [l1_offset, table, snapshots, *blocks, *(value & _OFFSET for _, value in l1), *(o for o, _ in l1_tables)]
    return Layout(cluster, {kind: places for kind, places in found.items() if places}, offsets)


def _each_extension(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """(offset, type, length)."""
    at = _u(raw, 100, 4) if _u(raw, 4, 4) > 2 else 72
    while at + 8 <= len(raw):
        kind, length = _u(raw, at, 4), _u(raw, at + 4, 4)
        yield at, kind, length
        if kind == 0:
            return
        at += 8 + (length + 7) // 8 * 8


def _extension_fields(raw: bytes) -> list[Place]:
    found: list[Place] = []
    for at, _, length in _each_extension(raw):
        found += [(at, 4), (at + 4, 4)]
        found += [(at + 8 + i, 1) for i in range(min(length, 24))]
    return found


def _bitmap_fields(raw: bytes) -> list[Place]:
    for at, kind, _ in _each_extension(raw):
        if kind == _BITMAPS:
            count, directory = _u(raw, at + 8, 4), _u(raw, at + 24)
            found = [(at + 8, 4), (at + 16, 8), (at + 24, 8)]
            if count:
                found += [(directory + o, s) for o, s in ((0, 8), (8, 4), (12, 4), (16, 1), (17, 1), (18, 2), (20, 4))]
                found += [(place, 8) for place, _ in _entries(raw, _u(raw, directory), _u(raw, directory + 8, 4))]
            return found
    return []


def _value(raw: bytearray, layout: Layout, old: int, size: int, rng: random.Random) -> int:
    """A value for a field of ``size`` bytes: extremes, neighbours of the old one, offsets that mean something."""
    bits = 8 * size
    clusters = len(raw) // layout.cluster
    where = rng.randrange(clusters + 3) * layout.cluster
    choices = (
        0,
        1,
        1 << rng.randrange(bits),
        (1 << rng.randrange(bits + 1)) - 1,
        old + rng.choice((-512, -8, -1, 1, 8, 512)),
        old ^ 1 << rng.randrange(bits),
        old << rng.randrange(9),
        where,
        where | 1 << 63,
        where + rng.randrange(layout.cluster),
        rng.choice(layout.offsets),
        rng.choice(layout.offsets) | 1 << 63,
        len(raw) + rng.choice((-layout.cluster, -8, 0, 8, layout.cluster)),
        1 << 62 | where | rng.randrange(4) << 62 - 8,
        rng.getrandbits(bits),
    )
    return rng.choice(choices) & ((1 << bits) - 1)


def _field(raw: bytearray, layout: Layout, rng: random.Random) -> None:
    at, size = rng.choice(layout.places[rng.choice(list(layout.places))])
    if at + size <= len(raw):
        raw[at : at + size] = _value(raw, layout, _u(raw, at, size), size, rng).to_bytes(size, "big")


def _point(raw: bytearray, layout: Layout, rng: random.Random) -> None:
    """Copy one entry over another: two owners of one thing, often of different kinds."""
    (a, n), (b, m) = (rng.choice(layout.places[rng.choice(list(layout.places))]) for _ in range(2))
    if max(a + n, b + m) <= len(raw):
        raw[a : a + min(n, m)] = raw[b : b + min(n, m)]


def _bytes(raw: bytearray, layout: Layout, rng: random.Random) -> None:
    for _ in range(rng.randrange(1, 20)):
        if raw:
            raw[rng.randrange(len(raw))] = rng.choice((0, 0xFF, rng.randrange(256)))


def _clusters(raw: bytearray, layout: Layout, rng: random.Random) -> None:
    """Overwrite a cluster with another one, or with one value."""
    size = layout.cluster
    a, b = (rng.randrange(len(raw) // size + 1) * size for _ in range(2))
    new = rng.choice((bytes(raw[b : b + size]), bytes(size), b"\xff" * size, struct.pack(">Q", b) * (size // 8)))
    raw[a : min(a + size, len(raw))] = new[: max(0, len(raw) - a)]


def _length(raw: bytearray, layout: Layout, rng: random.Random) -> None:
    if rng.random() < 0.6:
        del raw[rng.randrange(len(raw) + 1) :]
    else:
        raw += bytes(rng.randrange(1, 40) * layout.cluster // rng.choice((1, 1, 7)))


def _shift(raw: bytearray, layout: Layout, rng: random.Random) -> None:
    """Take bytes out or put some in: everything behind moves."""
    at = rng.randrange(len(raw) + 1)
    count = rng.choice((1, 8, 512, layout.cluster))
    if rng.random() < 0.5:
        del raw[at : at + count]
    else:
        raw[at:at] = rng.randbytes(count)


def _extension(raw: bytearray, layout: Layout, rng: random.Random) -> None:
    """Another chain of header extensions in the room that there is."""
    at = (_u(raw, 100, 4) if _u(raw, 4, 4) > 2 else 72) & 0xFFFF
    room = layout.cluster - at
    body = bytearray()
    for _ in range(rng.randrange(4)):
        data = rng.choice((b"raw", b"qcow2", b"outside", b"base", b"a\0b", rng.randbytes(rng.randrange(60))))
        length = rng.choice((len(data), len(data), len(data), rng.getrandbits(32), 0))
        body += struct.pack(">II", rng.choice(_EXTENSIONS), length) + data.ljust((len(data) + 7) // 8 * 8, b"\0")
    body += bytes(8)
    if 0 < len(body) <= room <= len(raw):
        raw[at : at + len(body)] = body
