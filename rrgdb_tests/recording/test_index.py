"""The index file: what was written is read, and whatever else is in the file costs entries, never an error."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from random import Random

import numpy as np
import pytest
import xxhash
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from rrgdb.recording import index
from rrgdb.recording.index import Entry, IndexFile, IndexFileError, Ranges

ID = b"0123456789abcdef"
EMPTY = np.zeros((0, 2), dtype=np.uint64)


def _ranges(*pairs: tuple[int, int]) -> Ranges:
    return np.array(pairs, dtype=np.uint64).reshape(-1, 2)


def _entry(begin: int, end: int, log: int = 0, code: Ranges = EMPTY, pages: Ranges = EMPTY) -> Entry:
    entry = Entry.pack(begin, end, log, code, pages)
    assert entry is not None
    return entry


def _some(count: int) -> list[Entry]:
    rng = Random(1)
    return [
        _entry(
            100 * i,
            100 * i + 100,
            rng.getrandbits(64),
            _ranges(*((0x1000 + 64 * n, 0x1000 + 64 * n + rng.randrange(60)) for n in range(rng.randrange(40)))),
            _ranges((i, i)),
        )
        for i in range(count)
    ]


def _write(path: Path, entries: list[Entry]) -> bytes:
    file = IndexFile.open(path, ID, writable=True)
    for entry in entries:
        file.append(entry)
    file.close()
    return path.read_bytes()


def _read(path: Path) -> list[Entry]:
    file = IndexFile.open(path, ID)
    file.close()
    return file.entries


numbers = st.lists(st.integers(0, (1 << 64) - 1), unique=True).map(sorted)


@given(numbers, numbers)
def test_ranges_come_back(code: list[int], pages: list[int]) -> None:
    packed = [np.array(flat[: len(flat) & ~1], dtype=np.uint64).reshape(-1, 2) for flat in (code, pages)]
    for found, given_ in zip(_entry(1, 2, 3, *packed).unpack(), packed, strict=True):
        assert found.tolist() == given_.tolist()


def test_a_span_takes_little() -> None:
    rng = Random(1)
    at, pairs = 0x80000000, []
    for _ in range(1000):
        at += rng.randrange(4, 200, 2)
        pairs.append((at, at + rng.randrange(3, 60, 2)))
        at = pairs[-1][1] + 1
    assert len(_entry(0, 1, 0, _ranges(*pairs)).stored) < 3000


def test_too_many_ranges_are_no_entry() -> None:
    many = np.arange(4 * (index.MAX_RANGES + 1), dtype=np.uint64)[::2].reshape(-1, 2)
    assert Entry.pack(0, 1, 0, many, EMPTY) is None
    assert Entry.pack(0, 1, 0, EMPTY, many) is None


def test_entries_come_back_and_more_are_added(tmp_path: Path) -> None:
    path, entries = tmp_path / "i", _some(9)
    _write(path, entries[:5])
    _write(path, entries[5:])
    assert _read(path) == entries
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_torn_tail_is_left_out_and_cut_off(tmp_path: Path) -> None:
    path, entries = tmp_path / "i", _some(4)
    whole = _write(path, entries[:3])
    data = _write(path, entries[3:])
    for length in range(len(whole), len(data)):
        path.write_bytes(data[:length])
        assert _read(path) == entries[:3]
    assert _write(path, entries[3:]) == data


def test_a_changed_byte_costs_the_entries_from_there_on(tmp_path: Path) -> None:
    path, entries = tmp_path / "i", _some(4)
    data = _write(path, entries)
    for at in range(32, len(data)):
        path.write_bytes(data[:at] + bytes((data[at] ^ 0x10,)) + data[at + 1 :])
        found = _read(path)
        assert found == entries[: len(found)]
        assert len(found) < len(entries)


def test_entries_that_are_moved_or_dropped_do_not_fit(tmp_path: Path) -> None:
    path, entries = tmp_path / "i", _some(3)
    sizes = [56 + len(e.stored) for e in entries]
    data = _write(path, entries)
    path.write_bytes(data[: 32 + sizes[0]] + data[32 + sizes[0] + sizes[1] :])
    assert _read(path) == entries[:1]


def test_an_index_of_another_recording(tmp_path: Path) -> None:
    path = tmp_path / "i"
    _write(path, _some(3))
    with pytest.raises(IndexFileError, match="this recording's index"):
        IndexFile.open(path, ID[::-1])
    anew = IndexFile.open(path, ID[::-1], writable=True)
    anew.close()
    assert anew.entries == []
    assert path.stat().st_size == 32


def test_a_newer_index_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "i"
    data = _write(path, _some(3))
    path.write_bytes(data[:8] + b"\2" + data[9:])
    for writable in (False, True):
        with pytest.raises(IndexFileError, match="version"):
            IndexFile.open(path, ID, writable=writable)
    assert path.read_bytes()[9:] == data[9:]


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(IndexFileError):
        IndexFile.open(tmp_path / "none", ID)
    for writable in (False, True):
        with pytest.raises(IndexFileError):
            IndexFile.open(tmp_path, ID, writable=writable)


def test_reading_never_writes(tmp_path: Path) -> None:
    path = tmp_path / "i"
    data = _write(path, _some(2)) + b"torn"
    path.write_bytes(data)
    file = IndexFile.open(path, ID)
    with pytest.raises(IndexFileError):
        file.append(_some(1)[0])
    file.close()
    assert path.read_bytes() == data


@given(st.integers(0, 1 << 20), st.integers(0, 1 << 20), st.binary(max_size=200))
def test_payloads_that_lie_are_a_value_error(code: int, pages: int, payload: bytes) -> None:
    frame = zstandard.ZstdCompressor().compress(payload)
    for stored in (payload, frame, frame[:-1], frame + b"x"):
        entry = Entry(0, 1, 0, code, pages, stored)
        with contextlib.suppress(ValueError):
            assert [len(part) for part in entry.unpack()] == [code, pages]


def test_ranges_out_of_order_are_refused() -> None:
    steps = np.array([5, (1 << 64) - 2], dtype="<u8").view(np.uint8).reshape(-1, 8).T.tobytes()
    entry = Entry(0, 1, 0, 1, 0, zstandard.ZstdCompressor().compress(steps))
    with pytest.raises(ValueError, match="in order"):
        entry.unpack()


@pytest.mark.parametrize("fields", [(1 << 20, 0, 0), (0, 1 << 20, 0), (0, 0, 1 << 30)])
def test_sizes_are_capped_before_anything_is_read(tmp_path: Path, fields: tuple[int, int, int]) -> None:
    path = tmp_path / "i"
    data = _write(path, [])
    head = struct.pack("<4sIQQQIIII", b"RRIX", 0, 0, 9, 0, *fields, 0)
    seed = struct.unpack_from("<I", data, 28)[0]
    path.write_bytes(data + head + struct.pack("<Q", xxhash.xxh3_64_intdigest(head, seed=seed)))
    assert _read(path) == []


def test_random_damage_never_raises(tmp_path: Path) -> None:
    path, rng = tmp_path / "i", Random(2)
    entries = _some(6)
    data = _write(path, entries)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(32, len(damaged))
            damaged[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        path.write_bytes(damaged)
        found = _read(path)
        assert found == entries[: len(found)]
