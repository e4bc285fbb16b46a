"""Damage to the files of a recording that mends checksums behind it; written without rrgdb's own readers, from
docs/formats.md."""

from __future__ import annotations

import contextlib
import json
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import xxhash
import zstandard

from fuzzlib import qcow2_damage

MANIFEST, LOG, INDEX, STORE, LOCK = "manifest.json", "events.log", "history.index", "snapshots.qcow2", "lock"
CLUSTER = 4096
NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    0x7F,
    0x80,
    0xFF,
    0xFFFF,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 62,
    (1 << 63) - 1,
    (1 << 64) - 1,
)
_CHUNK, _ENTRY = struct.Struct("<4sIQQIIIII8s"), struct.Struct("<4sIQQ8sIIII8s")
_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 3, 17, 4096, 4097, 1 << 20, 1 << 21, 1 << 26, 1 << 32, 1 << 40, 1e300),
    *("", "x", "0", "3", "99999999999", "\n", "\x00", "../../etc/passwd", "/etc/passwd", "/dev/zero", "a" * 300),
    *("arm", "aarch64", "x86_64", "riscv32-virt", "arm-virt", "x86_64-pc", "cortex-a9", "qemu64", "board", "script"),
    *("é" * 80, (1 << 64) - 1, [], {}, [[]], {"a": 1}, [1, 2, 3]),
)


@dataclass
class Damaged:
    """Files of a case by their paths in the recording. ``exact``: what is damaged is not what states follow from, so
    they are right wherever the recording opens. ``opaque``: an engine's own structure was changed, and its checksum
    mended: only the process has to survive."""

    files: dict[str, bytes]
    exact: bool = True
    opaque: bool = False
    did: list[str] = field(default_factory=list)


_SPOILT = (LookupError, ValueError, TypeError, AttributeError, RecursionError, MemoryError, struct.error)
_SPOILT += (zstandard.ZstdError, OverflowError)


def damage(files: dict[str, bytes], rng: random.Random) -> Damaged:
    """One to three changes."""
    case = Damaged(dict(files))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.choice(_KINDS)
        # What an earlier change has spoilt may be no JSON, no log and no image.
        with contextlib.suppress(*_SPOILT):
            kind(case, rng)
        case.did.append(kind.__name__.strip("_"))
    return case


def _number(rng: random.Random, value: int) -> int:
    """Something near, or something odd."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return value ^ 1 << rng.randrange(64)
    return max(0, value + rng.choice((-4096, -100, -8, -2, -1, 1, 2, 8, 100, 4096)))


def _scramble(raw: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, inserted, or cut off."""
    if not raw:
        return rng.randbytes(rng.randrange(1, 20))
    data = bytearray(raw)
    at = rng.randrange(len(data))
    match rng.randrange(6):
        case 0:
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            data[at : at + 8] = rng.choice((bytes(8), b"\xff" * 8, rng.randbytes(8)))
        case 2:
            data[at:at] = rng.randbytes(rng.randrange(1, 12))
        case 3:
            del data[at : at + rng.randrange(1, 12)]
        case 4:
            del data[at:]
        case _:
            for _ in range(rng.randrange(1, 30)):
                data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


# -- any file --------------------------------------------------------------------------------------


def _pick(case: Damaged, rng: random.Random) -> str | None:
    name = rng.choice(sorted(case.files)) if case.files else None
    if name not in (STORE, INDEX, LOCK):
        case.exact = False
    return name


def _any_bytes(case: Damaged, rng: random.Random) -> None:
    if (name := _pick(case, rng)) is not None:
        case.files[name] = _scramble(case.files[name], rng)


def _missing(case: Damaged, rng: random.Random) -> None:
    if (name := _pick(case, rng)) is not None:
        del case.files[name]


def _cut(case: Damaged, rng: random.Random) -> None:
    if (name := _pick(case, rng)) is not None:
        content = case.files[name]
        case.files[name] = content[: rng.choice((0, 1, 31, 32, 83, 84, 512, 4096, len(content) // 2, len(content) - 1))]


def _longer(case: Damaged, rng: random.Random) -> None:
    if (name := _pick(case, rng)) is not None:
        case.files[name] += rng.choice((b"\0", bytes(5000), rng.randbytes(100), case.files[name]))


def _extra(case: Damaged, rng: random.Random) -> None:
    names = ("core", "manifest.json.tmp", "disk-disk9.qcow2", "disk-disk0.qcow2", "images/x", "events.log.tmp", "a/b")
    case.files.setdefault(rng.choice(names), rng.randbytes(rng.randrange(300)))


def _swapped(case: Damaged, rng: random.Random) -> None:
    one, other = _pick(case, rng), _pick(case, rng)
    if one is not None and other is not None:
        case.files[one], case.files[other] = case.files[other], case.files[one]


def _lock(case: Damaged, rng: random.Random) -> None:
    case.files[LOCK] = rng.choice((b"1", b"99999999", b"-5", b"\xff\0", b"x" * 5000))


# -- the manifest ----------------------------------------------------------------------------------


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value."""
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [(value, key) for key, _ in items] + [place for _, inner in items for place in _places(inner)]


def _manifest(case: Damaged, rng: random.Random) -> None:
    case.exact = False
    value = json.loads(case.files[MANIFEST])
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = _places(value)
        if not places:
            break
        container, key = rng.choice(places)
        match rng.randrange(8):
            case 0:
                del container[key]
            case 1 if isinstance(container, dict):
                container[rng.choice(("x", "", "disks", "revision", "a" * 400))] = rng.choice(_VALUES)
            case 2 if isinstance(container, list):
                container += [container[key]] * rng.choice((1, 1, 70))
            case 3 if isinstance(container[key], int):
                container[key] = _number(rng, container[key]) * rng.choice((1, 1, 1, -1))
            case 4 if isinstance(container[key], str):
                container[key] = _scramble(container[key].encode(), rng).decode("latin-1")
            case 5:
                container[key] = [container[key]]
            case _:
                container[key] = rng.choice(_VALUES)
    text = json.dumps(value)
    if rng.random() < 0.1:
        text = text.replace("{", rng.choice(('{"version": 1, ', "[" * 3000, "{,", '{"a": NaN, ')), 1)
    case.files[MANIFEST] = text.encode()


def _image(case: Damaged, rng: random.Random) -> None:
    """Another image, and a manifest that says so."""
    case.exact = False
    names = [name for name in case.files if name.startswith("images/")]
    value = json.loads(case.files[MANIFEST])
    entry = value["guest"]["images"][0]
    name = [n for n in names if n.startswith(f"images/{entry['sha256'][:16]}")][0]  # noqa: RUF015 - LookupError
    content = case.files.pop(name)
    header = bytearray(content)
    header[: rng.choice((64, 64, 200, len(header)))] = _scramble(bytes(header[:64]), rng).ljust(64, b"\0")[:64]
    content = bytes(header) if rng.random() < 0.5 else _scramble(content, rng)
    digest = sha256(content).hexdigest()
    entry["sha256"], entry["size"] = digest, len(content)
    case.files[f"images/{digest[:16]}{name[len('images/') + 16 :]}"] = content
    case.files[MANIFEST] = json.dumps(value).encode()


# -- the event log ---------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value & 0x7F))


@dataclass
class _Event:
    delta: int
    source: int
    name: bytes
    kind: int
    payload: bytes

    def encode(self) -> bytes:
        named = bytes((len(self.name) & 0xFF,)) + self.name if self.name else b""
        return (
            _varint(self.delta)
            + bytes((self.source & 0xFF,))
            + named
            + bytes((self.kind & 0xFF,))
            + _varint(len(self.payload))
            + self.payload
        )


def _take_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            return value, at


def _events(raw: bytes, sources: int) -> tuple[list[_Event], int]:
    """The events of one sound chunk, and how many sources there are behind it."""
    at, found = 0, []
    while at < len(raw):
        delta, at = _take_varint(raw, at)
        source, at, name = raw[at], at + 1, b""
        if source == sources:
            sources += 1
            name = raw[at + 1 : at + 1 + raw[at]]
            at += 1 + len(name)
        kind = raw[at]
        length, at = _take_varint(raw, at + 1)
        found.append(_Event(delta, source, name, kind, raw[at : at + length]))
        at += length
    return found, sources


def _log(case: Damaged, rng: random.Random) -> None:
    """Changed events, headers and payloads, with checksums that fit."""
    case.exact = False
    raw = case.files.get(LOG, b"")
    chunks = _chunks(raw)
    head = bytearray(raw[:28])
    if rng.random() < 0.03:
        head[rng.randrange(28)] ^= 1 << rng.randrange(8)
    for _ in range(rng.choice((1, 1, 2, 4))):
        _change_chunks(chunks, rng)
    case.files[LOG] = _pack_chunks(bytes(head), chunks, rng)
    # The length that the manifest gives would tell it at once.
    value = json.loads(case.files[MANIFEST])
    value["log_bytes"] = rng.choice((len(case.files[LOG]), len(case.files[LOG]), None))
    case.files[MANIFEST] = json.dumps(value).encode()


@dataclass
class _Chunk:
    first: int
    horizon: int
    codec: int
    events: list[_Event]
    raw: bytes | None = None
    """in place of the events"""
    count: int | None = None
    length: int | None = None


def _chunks(raw: bytes) -> list[_Chunk]:
    at, sources, found = 32, 0, []
    while at < len(raw):
        _, _, first, horizon, _, _, stored, codec, _, _ = _CHUNK.unpack_from(raw, at)
        at += _CHUNK.size
        payload = raw[at : at + stored]
        at += stored
        if codec == 1:
            payload = zstandard.decompress(payload, max_output_size=1 << 24)
        events, sources = _events(payload, sources)
        found.append(_Chunk(first, horizon, codec, events))
    return found


def _digests(chunks: list[_Chunk]) -> set[int]:
    """Where there is one."""
    found = set()
    for chunk in chunks:
        icount = chunk.first
        for event in chunk.events:
            icount += event.delta
            if event.kind == 2:
                found.add(icount)
    return found


def _change_chunks(chunks: list[_Chunk], rng: random.Random) -> None:
    if not chunks:
        return
    chunk = rng.choice(chunks)
    match rng.randrange(10):
        case 0:
            chunk.first = _number(rng, chunk.first)
        case 1:
            chunk.horizon = _number(rng, chunk.horizon)
        case 2:
            chunk.raw = _scramble(b"".join(event.encode() for event in chunk.events), rng)
        case 3:
            chunk.count = _number(rng, len(chunk.events)) & 0xFFFFFFFF
        case 4:
            chunk.length = _number(rng, 100) & 0xFFFFFFFF
        case 5:
            chunks.insert(rng.randrange(len(chunks) + 1), chunks.pop(rng.randrange(len(chunks))))
        case 6:
            chunks.remove(chunk)
        case _ if chunk.events:
            _change_events(chunk.events, rng)


def _change_events(events: list[_Event], rng: random.Random) -> None:
    at = rng.randrange(len(events))
    event = events[at]
    match rng.randrange(9):
        case 0:
            event.delta = _number(rng, event.delta)
        case 1:
            event.source = _number(rng, event.source)
        case 2:
            event.kind = rng.choice((0, 1, 2, 3, 4, 255))
        case 3:
            del events[at]
        case 4:
            events.insert(at, events[rng.randrange(len(events))])
        case 5:
            event.payload = event.payload * rng.choice((2, 40))
        case 6:
            event.name = rng.choice((b"debugger", b"serial0", b"script", b"\xff", b"n" * 65, b"state"))
        case _:
            event.payload = _scramble(event.payload, rng)


def _pack_chunks(head: bytes, chunks: list[_Chunk], rng: random.Random) -> bytes:
    crc = zlib.crc32(head)
    out, total = [head + crc.to_bytes(4, "little")], crc
    for number, chunk in enumerate(chunks):
        raw = chunk.raw if chunk.raw is not None else b"".join(event.encode() for event in chunk.events)
        stored = zstandard.compress(raw) if chunk.codec == 1 else raw
        if rng.random() < 0.01 and chunk.codec == 1:
            stored = _scramble(stored, rng)
        length = len(raw) if chunk.length is None else chunk.length
        count = len(chunk.events) if chunk.count is None else chunk.count
        mask = (1 << 64) - 1
        start = struct.pack(
            "<4sIQQIIII",
            *(b"RRCH", number, chunk.first & mask, chunk.horizon & mask, count, length, len(stored), chunk.codec),
        )
        start += zlib.crc32(start, crc).to_bytes(4, "little")
        total = xxhash.xxh3_64_intdigest(start + stored, seed=total)
        out.append(start + total.to_bytes(8, "little") + stored)
    return b"".join(out)


# -- the index -------------------------------------------------------------------------------------


def _index(case: Damaged, rng: random.Random) -> None:
    """Changed entries, with checksums that fit."""
    raw = case.files.get(INDEX, b"")
    at, entries = 32, []
    while at < len(raw):
        fields = list(_ENTRY.unpack_from(raw, at))
        at += _ENTRY.size
        entries.append((fields, zstandard.decompress(raw[at : at + fields[7]], max_output_size=1 << 24)))
        at += fields[7]
    number = rng.randrange(len(entries))
    fields, payload = entries[number]
    match rng.randrange(4):
        case 0:
            where = rng.choice((1, 2, 3, 5, 6, 8))
            fields[where] = _number(rng, fields[where]) & ((1 << 64) - 1 if where in (2, 3) else (1 << 32) - 1)
        case 1:
            fields[4] = rng.randbytes(8)
        case _:
            entries[number] = (fields, _scramble(payload, rng))
    total = zlib.crc32(raw[:28])
    out = [raw[:32]]
    for fields, payload in entries:
        packed = zstandard.compress(payload)
        fields[7] = len(packed)
        start = struct.pack("<4sIQQ8sIIII", *fields[:9])
        total = xxhash.xxh3_64_intdigest(start + packed, seed=total)
        out.append(start + total.to_bytes(8, "little") + packed)
    case.files[INDEX] = b"".join(out)


# -- images of snapshots and disks -----------------------------------------------------------------


def _image_file(name: str) -> Callable[[Damaged, random.Random], None]:
    def change(case: Damaged, rng: random.Random) -> None:
        names = [n for n in case.files if n.endswith(".qcow2") and n.startswith(name)]
        if not names:
            return
        which = rng.choice(names)
        case.exact &= which == STORE
        if case.files[which][:4] == b"QFI\xfb":
            case.files[which] = qcow2_damage.damage(case.files[which], rng)

    change.__name__ = f"image of {name}"
    return change


def _blobs(store: bytes) -> list[int]:
    """Offsets of the clusters in which a state blob begins."""
    return [at for at in range(0, len(store) - CLUSTER, CLUSTER) if store[at + 4 : at + 8] == b"RRST"]


def _state(case: Damaged, rng: random.Random) -> None:
    """A part of one state blob, with a checksum that fits. Its clusters follow each other in a sound store."""
    store = bytearray(case.files.get(STORE, b""))
    starts = _blobs(store)
    if not starts:
        return
    start = rng.choice(starts)
    length = int.from_bytes(store[start : start + 4], "little")
    blob = bytearray(store[start + 4 : start + 4 + length])
    if length > len(blob) or xxhash.xxh3_64_digest(bytes(blob[:-8])) != bytes(blob[-8:]):
        return
    parts, at = [], 8
    for _ in range(6):
        size = int.from_bytes(blob[at : at + 4], "little")
        parts.append((at + 4, size))
        at += 4 + size
    number = rng.choice((0, 1, 1, 1, 1, 2, 2, 3, 4, 5))
    begin, size = parts[number]
    # No digest says what the state is at snapshots that have names.
    digests = _digests(_chunks(case.files[LOG]))
    case.opaque |= number == 1 or int.from_bytes(blob[parts[1][0] : parts[1][0] + 8], "little") not in digests
    if number == 1:
        for _ in range(rng.choice((1, 1, 2, 5, 200))):
            where = begin + rng.randrange(size)
            blob[where] = rng.choice((0, 0xFF, 0x7F, rng.randrange(256), blob[where] ^ 1 << rng.randrange(8)))
    elif size:
        where = begin + rng.randrange(size)
        blob[where : where + 1] = bytes((rng.choice((0, 1, 0xFF, blob[where] ^ 1 << rng.randrange(8))),))
    if rng.random() < 0.1:  # a length of a part
        where = rng.choice(parts)[0] - 4
        blob[where : where + 4] = (_number(rng, size) & 0xFFFFFFFF).to_bytes(4, "little")
    blob[-8:] = xxhash.xxh3_64_digest(bytes(blob[:-8]))
    store[start + 4 : start + 4 + length] = blob
    case.files[STORE] = bytes(store)


def _page(case: Damaged, rng: random.Random) -> None:
    """A page of RAM in the store."""
    store = bytearray(case.files.get(STORE, b""))
    if len(store) > CLUSTER:
        at = rng.randrange(CLUSTER, len(store))
        store[at] ^= 1 << rng.randrange(8)
        case.files[STORE] = bytes(store)


_KINDS: tuple[Callable[[Damaged, random.Random], None], ...] = (
    *(_any_bytes, _missing, _cut, _longer, _extra, _swapped, _lock),
    *(_manifest,) * 6,
    _image,
    *(_log,) * 8,
    *(_index,) * 2,
    *(_image_file(STORE),) * 3,
    *(_image_file("disk-"),),
    *(_state,) * 6,
    _page,
)
