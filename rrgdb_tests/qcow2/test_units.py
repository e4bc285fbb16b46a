"""The parts below the image, and the API's promises that no other file of tests states."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrgdb.qcow2 import Image, Qcow2Error
from rrgdb.qcow2.layout import Geometry, Header
from rrgdb.qcow2.refcounts import pack_block, unpack_block
from rrgdb.qcow2.runs import FreeRuns, split_runs
from rrgdb.qcow2.snapshot_table import Snapshot, decode_table, encode_entry

PAGE = 4096


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    with Image.create(tmp_path / "a.qcow2", 0, cluster_size=PAGE) as made:
        yield made
        assert made.check().clean


@given(order=st.integers(0, 6), data=st.binary(min_size=512, max_size=512))
def test_refcounts_pack_as_they_unpack(order: int, data: bytes) -> None:
    counts = unpack_block(data, 1 << order)
    assert len(counts) == 4096 >> order
    assert pack_block(counts, 1 << order) == data


def test_sub_byte_refcounts_start_at_the_low_bits() -> None:
    assert unpack_block(b"\x21\x00", 4).tolist() == [1, 2, 0, 0]
    assert unpack_block(b"\x05", 1).tolist() == [1, 0, 1, 0, 0, 0, 0, 0]


@given(st.lists(st.integers(0, 60)))
def test_runs_cover_what_they_split(values: list[int]) -> None:
    runs = split_runs(np.array(values, np.int64))
    assert [values[i] + k for i, n in runs for k in range(n)] == values
    assert all(values[i] != values[i - 1] + 1 for i, _ in runs[1:])


@given(st.sets(st.integers(0, 80)), st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=20))
def test_free_runs_give_each_cluster_once(free: set[int], requests: list[tuple[int, int]]) -> None:
    runs = FreeRuns()
    low, high = sorted(c for c in free if c % 2), sorted(c for c in free if not c % 2)
    runs.add(np.array(low, np.int64))
    runs.add(np.array(high, np.int64))
    for most, least in requests:
        got = runs.take_some(max(most, least), least) if most % 2 else (runs.take(most), most)
        if got is None or got[0] is None:
            need = least if most % 2 else most
            assert not any(all(c + k in free for k in range(need)) for c in free)
            continue
        taken = set(range(got[0], got[0] + got[1]))
        assert taken <= free
        free -= taken


@given(
    st.builds(
        Snapshot,
        id=st.text(max_size=9),
        name=st.text(max_size=9),
        date_s=st.integers(0, 2**32 - 1),
        date_ns=st.integers(0, 10**9 - 1),
        vm_clock_ns=st.integers(0, 2**64 - 1),
        vm_state_size=st.integers(0, 2**62),
        icount=st.none() | st.integers(0, 2**64 - 2),
        disk_size=st.just(0),
        l1_offset=st.just(0),
        l1_size=st.just(0),
        extra=st.binary(max_size=20),
    )
)
def test_snapshot_entries_come_back(snapshot: Snapshot) -> None:
    raw = encode_entry(snapshot) * 2
    assert len(raw) % 16 == 0
    found, length = decode_table(raw, Header(nb_snapshots=2), Geometry(16, 4, 3), "x")
    assert found == [snapshot, snapshot]
    assert length == len(raw)


def test_only_dirty_pages_are_written(image: Image, tmp_path: Path) -> None:
    ram = random.Random(1).randbytes(2000 * PAGE)
    image.write_vmstate([(0, ram)])
    image.create_snapshot("s1", vm_state_size=len(ram))
    before = image.info().file_size
    for turn in range(20):
        image.write_vmstate([(turn * 7 * PAGE, bytes([turn + 1]) * PAGE)])
        image.create_snapshot(f"t{turn}", vm_state_size=len(ram))
    # One page, one L2 table, one L1 table for each, and what the moving tables share.
    assert image.info().file_size - before < 20 * 4 * PAGE + 40 * PAGE


def test_zero_pages_take_no_space(image: Image) -> None:
    image.write_vmstate([(0, bytes(1 << 20)), (5 << 30, bytes(PAGE))])
    assert image.info().file_size < 10 * PAGE
    image.write_vmstate([(0, b"x" * PAGE)])
    first = image.create_snapshot("a")
    image.write_vmstate([(0, bytes(PAGE))])
    assert image.read_vmstate(0, PAGE) == bytes(PAGE)
    assert image.diff_vmstate(first, None, 0, 1 << 30) == [0]
    assert image.diff_vmstate(None, None, 0, 1 << 30) == []


def test_diff_names_the_pages_and_respects_the_range(image: Image) -> None:
    image.write_vmstate([(i * PAGE, b"a" * PAGE) for i in range(0, 3000, 3)])
    one = image.create_snapshot("1")
    changed = [5 * PAGE, 600 * PAGE, 2997 * PAGE, 4000 * PAGE]
    image.write_vmstate([(at, b"b" * PAGE) for at in changed])
    two = image.create_snapshot("2")
    assert image.diff_vmstate(one, two, 0, 1 << 32) == changed
    assert image.diff_vmstate(two, one, 0, 1 << 32) == changed
    assert image.diff_vmstate(one, None, 6 * PAGE, 3000 * PAGE - 6 * PAGE) == changed[1:3]
    assert image.diff_vmstate(one, two, 5 * PAGE + 1, 1) == [5 * PAGE]
    assert image.diff_vmstate(two, None, 0, 1 << 32) == []
    assert image.diff_vmstate(one, two, 1 << 40, 1 << 40) == []


def test_buffers_of_all_kinds(image: Image) -> None:
    words = memoryview(bytearray(b"abcd" * (PAGE // 2))).cast("I")
    image.write_vmstate([(0, words), (2 * PAGE, bytearray(b"z" * PAGE)), (10 * PAGE + 3, b"odd")])
    image.write_vmstate([(PAGE, b"1" * PAGE), (PAGE, b"2" * PAGE)])  # the later one wins
    assert image.read_vmstate(0, 3 * PAGE) == b"abcd" * (PAGE // 4) + b"2" * PAGE + b"z" * PAGE
    assert image.read_vmstate(10 * PAGE, 8) == b"\0\0\0odd\0\0"
    target = bytearray(8)
    image.create_snapshot("s")
    image.view("1").read_vmstate_into(10 * PAGE, target)
    assert target == b"\0\0\0odd\0\0"
    image.write_vmstate([])


def test_clusters_are_put_where_they_belong(image: Image) -> None:
    image.write_vmstate([(i * PAGE, bytes([i + 1]) * PAGE) for i in range(4)])
    image.write_vmstate([(9 * PAGE, b"z" * PAGE)])
    view = image.view(image.create_snapshot("s"))
    target = memoryview(bytearray(b"?" * (7 * PAGE)))
    offsets, places = [9 * PAGE, 2 * PAGE, 3 * PAGE, 0, 5 * PAGE], [0, PAGE, 2 * PAGE, 5 * PAGE, 6 * PAGE]
    view.read_vmstate_clusters_into(offsets, [target[at : at + PAGE] for at in places])
    assert [target[at] for at in range(0, 7 * PAGE, PAGE)] == [*b"z\3\4??\1\0"]
    view.read_vmstate_clusters_into([], [])
    for wrong in ([target[:1]], [target[: 2 * PAGE]], [target[:PAGE], target[:PAGE]], []):
        with pytest.raises(ValueError, match="expected a buffer of 4096 bytes for each of 1 clusters"):
            view.read_vmstate_clusters_into([0], wrong)
    image.write_vmstate([(i * PAGE, b"n" * PAGE) for i in range(3000)])
    view = image.view(image.create_snapshot("more runs than one call takes"))
    buffers = [bytearray(PAGE) for _ in range(3000)]
    view.read_vmstate_clusters_into(range(0, 3000 * PAGE, PAGE), buffers)
    assert buffers == [b"n" * PAGE] * 3000


def test_misuse_is_a_value_error(image: Image, tmp_path: Path) -> None:
    for action in (
        lambda: image.read(0, 1),
        lambda: image.write(0, b"x"),
        lambda: image.read_vmstate(-1, 1),
        lambda: image.write_vmstate([(-PAGE, bytes(PAGE))]),
        lambda: image.write_vmstate([(1 << 61, b"x" * PAGE)]),
        lambda: image.write_vmstate([(1 << 70, bytes(PAGE))]),
        lambda: image.read_vmstate_clusters([1]),
        lambda: image.read_vmstate_clusters([0, -PAGE]),
        lambda: image.view("7"),
        lambda: image.delete_snapshot("7"),
        lambda: image.create_snapshot("x" * 256),
        lambda: image.create_snapshot("x", icount=-1),
        lambda: Image.create(tmp_path / "b", 0, cluster_size=1000),
        lambda: Image.create(tmp_path / "b", 1 << 60, cluster_size=512),
        lambda: Image.create(tmp_path / "b", 0, backing_file="x"),
        lambda: Image.create(tmp_path / "b", 0, cluster_size=512, backing_file="x" * 500, backing_format="raw"),
    ):
        with pytest.raises(ValueError, match=r"."):
            action()
    assert not (tmp_path / "b").exists()
    with Image.open(image.path) as reader, pytest.raises(ValueError, match="read-only"):
        reader.write_vmstate([])


def test_views_end_with_their_snapshot(image: Image) -> None:
    image.write_vmstate([(0, b"x" * PAGE)])
    kept = image.create_snapshot("s")
    view = image.view(kept)
    assert view.read_vmstate(0, 2) == b"xx"
    image.delete_snapshot(kept)
    with pytest.raises(ValueError, match="deleted"):
        view.read_vmstate(0, 2)
    again = image.create_snapshot("t")
    assert again.id == "1"
    with pytest.raises(ValueError, match="no snapshot"):
        image.view(kept)


def test_a_closed_image_says_so(tmp_path: Path) -> None:
    image = Image.create(tmp_path / "a", 512)
    image.close()
    image.close()
    for action in (
        lambda: image.read(0, 1),
        lambda: image.read_into(0, memoryview(bytearray(1))),
        lambda: image.extents(0, 1, 0),
        image.info,
        image.check,
        image.flush,
    ):
        with pytest.raises(ValueError, match="closed"):
            action()


def test_create_does_not_overwrite(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"dear")
    with pytest.raises(FileExistsError):
        Image.create(tmp_path / "a", 512)
    assert (tmp_path / "a").read_bytes() == b"dear"


def test_refcounts_that_would_not_fit(tmp_path: Path) -> None:
    """The 65,536th owner of a cluster: refused, nothing changes."""
    path = tmp_path / "a"
    with Image.create(path, 0, cluster_size=PAGE) as image:
        image.write_vmstate([(0, b"x" * PAGE)])
        image.create_snapshot("s")
    data = bytearray(path.read_bytes())
    table = int.from_bytes(data[48:56], "big")
    block = int.from_bytes(data[table : table + 8], "big")
    l1 = int.from_bytes(data[40:48], "big")
    l2 = int.from_bytes(data[l1 : l1 + 8], "big")
    data[block + 2 * (l2 // PAGE) : block + 2 * (l2 // PAGE) + 2] = b"\xff\xff"
    path.write_bytes(data)
    with Image.open(path, writable=True) as image:
        with pytest.raises(Qcow2Error, match="65535"):
            image.create_snapshot("t")
        assert [s.name for s in image.snapshots] == ["s"]
        assert not image.check().corruptions
        image.delete_snapshot("1")
        assert not image.check().corruptions


def test_freed_clusters_are_used_again(image: Image) -> None:
    rng = random.Random(3)
    sizes = []
    for turn in range(30):
        image.write_vmstate([(i * PAGE, rng.randbytes(PAGE)) for i in range(200)])
        image.create_snapshot(f"s{turn}")
        if turn >= 3:
            image.delete_snapshot(image.snapshots[0])
        sizes.append(image.info().file_size)
    assert sizes[-1] <= sizes[8] * 1.1


def test_several_deletions_are_one_change(image: Image) -> None:
    kept = []
    for turn in range(6):
        image.write_vmstate([(turn * PAGE, b"x" * PAGE)])
        kept.append(image.create_snapshot(f"s{turn}"))
    image.delete_snapshots([kept[0], kept[0], "3", kept[4]])
    assert [s.name for s in image.snapshots] == ["s1", "s3", "s5"]
    assert image.view(kept[3]).read_vmstate(0, 6 * PAGE) == b"x" * (4 * PAGE) + bytes(2 * PAGE)


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a signal, or the last bytes of a disk: the system writes less than asked."""
    pwritev, pwrite = os.pwritev, os.pwrite
    rng = random.Random(5)
    monkeypatch.setattr(os, "pwritev", lambda fd, parts, at: pwritev(fd, [parts[0][: rng.randrange(1, 600)]], at))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[: rng.randrange(1, 5000)], at))
    data = rng.randbytes(100 * PAGE)
    with Image.create(tmp_path / "a", 0, cluster_size=PAGE) as image:
        image.write_vmstate([(0, data)])
        image.create_snapshot("s")
    with Image.open(tmp_path / "a") as image:
        assert image.check().clean
        assert image.view("1").read_vmstate(0, len(data)) == data


def test_more_pages_than_one_batch(image: Image) -> None:
    pages = (1 << 14) + 5
    image.write_vmstate([(PAGE, b"q" * (pages * PAGE)), (3, b"odd"), (PAGE, b"r" * PAGE)])
    assert image.read_vmstate(0, 2 * PAGE + 1) == b"\0\0\0odd".ljust(PAGE, b"\0") + b"r" * PAGE + b"q"
    assert image.read_vmstate(pages * PAGE, 2 * PAGE) == b"q" * PAGE + bytes(PAGE)
    image.create_snapshot("s")
    image.clear_vmstate(10, (pages + 1) * PAGE)
    assert len(image.diff_vmstate(image.snapshots[0], None, 0, 1 << 40)) == pages
    assert image.read_vmstate(0, 4 * PAGE) == b"\0\0\0odd".ljust(4 * PAGE, b"\0")
