"""Resize, commit, rebase, map: beside qemu-img doing the same."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from rrgdb.qcow2 import Image, Qcow2Error, Qcow2UnsupportedError
from rrgdb_tests.qcow2.conftest import Qemu
from rrgdb_tests.qcow2.test_qemu import raw_of, scribble

CLUSTER = 4096


def mapped(qemu: Qemu, path: Path) -> list[dict[str, Any]]:
    return list(json.loads(qemu.img("map", "--output=json", "-f", "qcow2", path)))


def our_map(path: Path) -> list[dict[str, object]]:
    with Image.open(path) as image:
        return [extent.as_json() for extent in image.map()]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("cluster_size", [512, 4096, 65536])
def test_resize(tmp_path: Path, qemu: Qemu, version: int, cluster_size: int) -> None:
    path = tmp_path / "a"
    rng = random.Random(cluster_size)
    shadow = bytearray(300_032)
    with Image.create(path, len(shadow), cluster_size=cluster_size, version=version) as image:
        image.write_vmstate([(cluster_size, b"vm" * cluster_size)])
        kept: list[tuple[str, bytes]] = []
        for turn in range(12):
            scribble(image, shadow, turn, 4)
            if version == 3 and turn % 4 == 1:
                kept.append((image.create_snapshot(f"s{turn}").id, bytes(shadow)))
            size = rng.choice([0, 512, 100_000, 300_032, 2_000_384, 40_000_000 if turn == 11 else 1_000_448])
            size = size // 512 * 512
            image.resize(size)
            del shadow[size:]
            shadow += bytes(size - len(shadow))
            assert image.size == size
            assert image.read(0, size) == shadow
            assert image.read_vmstate(0, 4 * cluster_size) == bytes(cluster_size) + b"vm" * cluster_size + bytes(
                cluster_size
            )
            assert image.check().clean
            if not shadow:
                image.resize(4096)
                shadow += bytes(4096)
        for ident, content in kept:
            assert image.view(ident).read(0, len(content)) == content
    qemu.check(path)
    assert raw_of(qemu, path) == shadow
    with Image.open(path, writable=True) as image:
        for ident, content in kept:
            image.apply_snapshot(ident)
            assert image.read(0, image.size) == content
            assert image.check().clean
    qemu.check(path)


def test_resize_over_a_backing_file(tmp_path: Path, qemu: Qemu) -> None:
    """What a larger backing file holds behind the old end does not appear."""
    (tmp_path / "base").write_bytes(b"b" * 200_192)
    for name in ("ours", "theirs"):
        how = {"backing_file": "base", "backing_format": "raw", "cluster_size": CLUSTER}
        Image.create(tmp_path / name, 50_176, **how).close()  # type: ignore[arg-type] - one dict of several types
    with Image.open(tmp_path / "ours", writable=True) as image:
        image.resize(300_032)
        assert image.read(0, image.size) == (b"b" * 50_176).ljust(300_032, b"\0")
        image.resize(10_240)
        image.resize(60_416)
        assert image.read(0, image.size) == (b"b" * 10_240).ljust(60_416, b"\0")
    for size in ("300032", "10240", "60416"):
        qemu.img("resize", "--shrink", "-f", "qcow2", tmp_path / "theirs", size)
    for name in ("ours", "theirs"):
        qemu.check(tmp_path / name)
    assert raw_of(qemu, tmp_path / "ours") == (b"b" * 10_240).ljust(60_416, b"\0")
    qemu.img("compare", "-f", "qcow2", "-F", "qcow2", tmp_path / "ours", tmp_path / "theirs")


def test_resize_gives_space_back(tmp_path: Path) -> None:
    with Image.create(tmp_path / "a", 4 << 20, cluster_size=CLUSTER) as image:
        image.write(0, b"x" * (4 << 20))
        image.flush()
        assert image.info().file_size > 4 << 20
        image.resize(1 << 20)
        assert image.info().file_size < 2 << 20
        image.write(0, b"y" * (1 << 20))
        assert image.check().clean


def test_version_2_with_snapshots_is_not_resized(tmp_path: Path, qemu: Qemu) -> None:
    with Image.create(tmp_path / "a", 1 << 20, version=2) as image:
        image.create_snapshot("s")
        with pytest.raises(Qcow2UnsupportedError, match="version 2"):
            image.resize(2 << 20)
        with pytest.raises(ValueError, match="negative"):
            image.resize(-1)
        with pytest.raises(ValueError, match="outside"):
            image.read(0, 2 << 20)
    qemu.img("resize", "-f", "qcow2", tmp_path / "a", "2M", codes=(1,))


def overlay(tmp_path: Path, qemu: Qemu, backing: str, seed: int, **options: Any) -> tuple[Path, bytes]:
    base, top = tmp_path / "base", tmp_path / "top"
    below = random.Random(seed).randbytes(300_032)
    (tmp_path / "raw").write_bytes(below)
    how = ("-o", f"cluster_size={CLUSTER}") if backing == "qcow2" else ()
    qemu.img("convert", "-f", "raw", "-O", backing, *how, tmp_path / "raw", base)
    shadow = bytearray(below).ljust(500_224, b"\0")
    options |= {"cluster_size": 2 * CLUSTER, "backing_file": "base", "backing_format": backing}
    with Image.create(top, len(shadow), **options) as image:
        scribble(image, shadow, seed)
        image.write_compressed(16 * CLUSTER, b"zip!" * 4 * CLUSTER)
        shadow[16 * CLUSTER : 32 * CLUSTER] = b"zip!" * 4 * CLUSTER
    return top, bytes(shadow)


@pytest.mark.parametrize("backing", ["raw", "qcow2"])
def test_commit(tmp_path: Path, qemu: Qemu, backing: str) -> None:
    top, shadow = overlay(tmp_path, qemu, backing, 1)
    base = tmp_path / "base"
    with Image.open(top, writable=True) as image:
        assert image.read(0, image.size) == shadow
        image.commit()
        assert image.read(0, image.size) == shadow
        assert all(extent.depth or not extent.present for extent in image.map())
        assert image.check().clean
        image.write(5, b"again")
    qemu.check(top)
    if backing == "qcow2":
        qemu.check(base)
        assert raw_of(qemu, base) == shadow
    else:
        assert base.read_bytes() == shadow
    assert raw_of(qemu, top) == shadow[:5] + b"again" + shadow[10:]


def test_commit_and_rebase_need_the_backing_file(tmp_path: Path, qemu: Qemu) -> None:
    with Image.create(tmp_path / "a", 512) as image, pytest.raises(ValueError, match="no backing file"):
        image.commit()
    top, shadow = overlay(tmp_path, qemu, "raw", 2)
    with Image.open(top, writable=True, backing=False) as image:
        image.create_snapshot("s")
        with pytest.raises(ValueError, match="without its backing file"):
            image.commit()
        with pytest.raises(ValueError, match="without its backing file"):
            image.rebase(None, None)
    assert raw_of(qemu, top) == shadow


def with_snapshots(top: Path, shadow: bytes, version: int) -> dict[str, bytes]:
    """Add snapshots to an overlay: alike, of other contents, larger and smaller, with a VM state; name -> disk."""
    kept: dict[str, bytes] = {}
    now = bytearray(shadow)
    with Image.open(top, writable=True) as image:
        assert image.read(0, image.size) == now
        image.create_snapshot("first")
        kept["first"] = bytes(now)
        image.create_snapshot("again", commit=False)
        kept["again"] = bytes(now)
        scribble(image, now, 11, 4)
        image.write_vmstate([(image.cluster_size, b"vm" * image.cluster_size)])
        image.create_snapshot("vm", vm_state_size=3 * image.cluster_size)
        image.clear_vmstate(0, 3 * image.cluster_size)  # as QEMU does; it leaks what is left there when it shrinks
        kept["vm"] = bytes(now)
        for name, size in (("small", 150_016), ("large", 700_416)) if version == 3 else ():
            image.resize(size)
            del now[size:]
            now += bytes(size - len(now))
            image.create_snapshot(name)
            kept[name] = bytes(now)
        scribble(image, now, 12, 6)
        image.delete_snapshot("1")
        del kept["first"]
        kept[""] = bytes(now)
    return kept


def verify_snapshots(path: Path, kept: dict[str, bytes], qemu: Qemu, version: int) -> None:
    with Image.open(path) as image:
        assert image.check().clean
        assert {s.name for s in image.snapshots} | {""} == set(kept)
        for snapshot in image.snapshots:
            view = image.view(snapshot)
            assert view.read(0, view.size) == kept[snapshot.name], snapshot
            if snapshot.name == "vm":
                size = image.cluster_size
                assert view.read_vmstate(0, 4 * size) == bytes(size) + b"vm" * size + bytes(size)
        assert image.read(0, image.size) == kept[""]
    qemu.check(path)
    for name, content in kept.items():
        if name:
            trial = path.with_name("trial")
            shutil.copy(path, trial)
            qemu.img("snapshot", "-a", name, trial)
            qemu.check(trial)
            assert raw_of(qemu, trial) == content


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("backing", ["raw", "qcow2"])
@pytest.mark.parametrize("how", ["commit", "rebase", "on none"])
def test_snapshots_stay_what_they_are(tmp_path: Path, qemu: Qemu, backing: str, version: int, how: str) -> None:
    """When their overlay is committed or rebased: what they read of the backing file is theirs then."""
    top, shadow = overlay(tmp_path, qemu, backing, 5, version=version)
    kept = with_snapshots(top, shadow, version)
    changed = bytearray((tmp_path / "raw").read_bytes()[:200_704])
    changed[50_000:120_000] = bytes(30_000) + b"o" * 40_000
    (tmp_path / "other").write_bytes(changed)
    before = top.stat().st_size
    with Image.open(top, writable=True) as image:
        if how == "commit":
            view = image.view(image.snapshots[0])
            image.commit()
            assert all(extent.depth or not extent.present for extent in image.map())
            with pytest.raises(ValueError, match="deleted"):
                view.read(0, 512)
        else:
            image.rebase(*(("other", "raw") if how == "rebase" else (None, None)))
        assert image.check().clean
        assert image.view(image.snapshots[0]).read(0, len(shadow)) == shadow
    # Stored once for all snapshots, and only what changes.
    assert top.stat().st_size < before + (400_000 if how == "on none" else 250_000)
    verify_snapshots(top, kept, qemu, version)


def test_snapshots_that_the_refcounts_cannot_count(tmp_path: Path) -> None:
    """Each shares what is kept for all; if that does not fit, nothing happens."""
    (tmp_path / "base").write_bytes(b"b" * 8192)
    how: dict[str, Any] = {"backing_file": "base", "backing_format": "raw", "cluster_size": 512, "refcount_bits": 2}
    with Image.create(tmp_path / "a", 8192, **how) as image:
        for number in range(4):
            image.create_snapshot(str(number))
        image.write(0, b"new" * 500)
        with pytest.raises(Qcow2Error, match="do not fit"):
            image.commit()
        assert image.read(0, 8192) == (b"new" * 500).ljust(8192, b"b")
        assert image.view("1").read(0, 8192) == b"b" * 8192
        assert image.check().clean
        image.delete_snapshot("2")
        image.commit()
        assert image.view("4").read(0, 8192) == b"b" * 8192
        assert image.check().clean
    assert (tmp_path / "base").read_bytes() == (b"new" * 500).ljust(8192, b"b")


@pytest.mark.parametrize("backing", ["raw", "qcow2"])
def test_rebase(tmp_path: Path, qemu: Qemu, backing: str) -> None:
    top, shadow = overlay(tmp_path, qemu, backing, 3)
    other = tmp_path / ("other" * 20)
    changed = bytearray((tmp_path / "raw").read_bytes()[:200_704])
    changed[50_000:60_000] = b"o" * 10_000
    (tmp_path / "raw2").write_bytes(changed)
    qemu.img("convert", "-f", "raw", "-O", "qcow2", tmp_path / "raw2", other)
    theirs = tmp_path / "theirs"
    shutil.copy(top, theirs)
    qemu.img("rebase", "-f", "qcow2", "-b", other.name, "-F", "qcow2", theirs)
    with Image.open(top, writable=True) as image:
        image.rebase(other.name, "qcow2")
        assert image.read(0, image.size) == shadow
        image.write(0, b"new")
        assert image.check().clean
    for path in (top, theirs):
        qemu.check(path)
        told = qemu.info(path)
        assert (told["backing-filename"], told["backing-filename-format"]) == (other.name, "qcow2")
    assert raw_of(qemu, top) == b"new" + shadow[3:]
    with Image.open(theirs) as image:
        assert image.read(0, image.size) == shadow
    with Image.open(top, writable=True) as image:
        image.rebase(None, None)
        assert image.backing_file is None
        assert image.read(0, image.size) == b"new" + shadow[3:]
    qemu.check(top)
    assert "backing-filename" not in qemu.info(top)
    assert raw_of(qemu, top) == b"new" + shadow[3:]


def test_an_unsafe_rebase_only_changes_the_name(tmp_path: Path, qemu: Qemu) -> None:
    top, _ = overlay(tmp_path, qemu, "raw", 4)
    with Image.open(top, writable=True) as image:
        image.create_snapshot("s")
        image.rebase("nowhere", "qcow2", unsafe=True)
        assert (image.backing_file, image.backing_format) == ("nowhere", "qcow2")
        image.rebase("raw", "raw", unsafe=True)
    qemu.check(top)
    assert qemu.info(top)["backing-filename"] == "raw"
    small = tmp_path / "small"
    with Image.create(small, 512, cluster_size=512) as image:
        with pytest.raises(ValueError, match="does not fit"):
            image.rebase("x" * 500, "raw", unsafe=True)
        image.write(0, b"fine")
        assert image.backing_file is None
    qemu.check(small)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("backing", ["raw", "qcow2"])
def test_map_is_that_of_qemu(tmp_path: Path, qemu: Qemu, backing: str, seed: int) -> None:
    top, _ = overlay(tmp_path, qemu, backing, seed)
    third = tmp_path / "third"
    qemu.img("create", "-f", "qcow2", "-b", "top", "-F", "qcow2", third, "600064")
    qemu.io(third, "write 1000 10000", "write -z 128k 64k", "write -c 192k 64k")
    for path in (top, third):
        assert our_map(path) == [{k: e[k] for k in e} for e in mapped(qemu, path)]
    with Image.open(top) as image:
        some = list(image.map(5000, 100_000))
        assert some[0].start == 5000
        assert some[-1].end == 105_000


FOREIGN = ["extended_l2=on", "extended_l2=on,cluster_size=16384", "data_file=ext", "data_file=ext,data_file_raw=on"]


@pytest.mark.parametrize("options", [*FOREIGN, "data_file=ext,extended_l2=on"])
def test_features_that_are_only_read(tmp_path: Path, qemu: Qemu, options: str) -> None:
    path = tmp_path / "a"
    how = options.replace("=ext", f"={tmp_path}/ext")
    (tmp_path / "base").write_bytes(random.Random(9).randbytes(1 << 20))
    below = () if "raw=on" in options else ("-b", tmp_path / "base", "-F", "raw")
    qemu.img("create", "-f", "qcow2", "-o", how, *below, path, str((1 << 20) + 70_144))
    work = ["write -P 7 0 1000", "write -P 8 70000 5000", "write -z 100k 40k", "discard 600k 128k", "write -P 9 1m 64k"]
    if "data_file" not in options:
        work += ["write -c -P 3 320k 64k"]
    qemu.io(path, *work)
    with Image.open(path) as image:
        assert image.read(0, image.size) == raw_of(qemu, path)
        assert image.read(70_001, 77) == b"\x08" * 77
        assert image.check().clean
        told = image.info()
        assert told.extended_l2 == ("extended" in options)
        assert (told.data_file is not None) == ("data_file" in options)
        assert told.as_json()["format-specific"] == qemu.info(path)["format-specific"]
    assert our_map(path) == [{k: e[k] for k in e} for e in mapped(qemu, path)]
    with pytest.raises(Qcow2UnsupportedError, match="read-only"):
        Image.open(path, writable=True)
    if "data_file" not in options:
        qemu.img("snapshot", "-c", "s", path)
        qemu.io(path, "write -P 11 0 300k")
        with Image.open(path) as image:
            assert image.view("1").read(0, 1000) == b"\x07" * 1000
            assert image.check().clean
            assert image.read(0, image.size) == raw_of(qemu, path)


def test_a_disk_that_shrinks_far_can_be_opened_again(tmp_path: Path, qemu: Qemu) -> None:
    """Refcount blocks of the end of the file that is gone are gone as well."""
    path = tmp_path / "a"
    with Image.create(path, 4 << 20, cluster_size=512) as image:
        image.write(0, b"x" * (4 << 20))
        image.resize(100_352)
    assert path.stat().st_size < 300_000
    with Image.open(path, writable=True) as image:
        assert image.read(0, image.size) == b"x" * 100_352
        image.resize(1 << 20)
        image.write(0, b"y" * (1 << 20))
        assert image.check().clean
    qemu.check(path)


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_readers_follow_the_backing_file(kind: str, tmp_path: Path) -> None:
    """After a commit or a rebase, a reader that loads anew sees what is there now."""
    if kind == "raw":
        (tmp_path / "base").write_bytes(b"old" * 10_000)
    else:
        with Image.create(tmp_path / "base", 1 << 20, cluster_size=CLUSTER) as base:
            base.write(0, b"old" * 10_000)
    (tmp_path / "other").write_bytes(b"another" * 10_000)
    top = tmp_path / "top"
    with Image.create(top, 1 << 20, cluster_size=CLUSTER, backing_file="base", backing_format=kind) as writer:
        writer.write(0, b"new" * 1_000)
        writer.write(500_000, b"far" * 1_000)
        writer.flush()
        with Image.open(top) as reader, Image.open(top, backing=False) as alone:
            before = reader.read(0, 1 << 20)
            writer.commit()
            for image in (reader, alone):
                image.reload()
            assert reader.read(0, 1 << 20) == before
            assert not any(alone.read(0, 1 << 20))
            writer.rebase("other", "raw", unsafe=True)
            reader.reload()
            assert reader.read(0, 7) == b"another"
            writer.rebase("none", "raw", unsafe=True)
            with pytest.raises(FileNotFoundError):
                reader.reload()


def test_a_view_outlives_its_backing_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"same" * 10_000)
    with Image.create(tmp_path / "top", 40_448, backing_file="one", backing_format="raw") as image:
        view = image.view(image.create_snapshot("s"))
        image.rebase("two", "raw")
        assert view.read(0, 40_000) == b"same" * 10_000
        image.commit()
        assert view.read(0, 40_000) == b"same" * 10_000
