"""Disks in overlays against a model; the user's images stay as they are, and crashes leave complete snapshots alone."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from rrgdb.qcow2 import Image, Qcow2Error, Snapshot
from rrgdb.qcow2.view import View
from rrgdb.snapshots.entries import Stored
from rrgdb.snapshots.errors import StoreError
from rrgdb.snapshots.images import DiskImage, looks_like_qcow2
from rrgdb.snapshots.overlays import BLOCK, Overlays, block_number
from rrgdb.snapshots.state import GuestState
from rrgdb.snapshots.store import SnapshotStore

PAGES = 64
OWNER = bytes(range(16))
SIZES = {"root": 1 << 20, "data": 300 << 10, "small": 700}


def _state(number: int) -> GuestState:
    return GuestState("build", number.to_bytes(8, "little"), b"devices", b"door", PAGES * 4096, bytes(8))


@pytest.fixture
def images(tmp_path: Path) -> Iterator[dict[str, DiskImage]]:
    """The user's images, which nobody may write."""
    random, disks = Random(1), dict[str, DiskImage]()
    for name, size in SIZES.items():
        path = tmp_path / "user" / f"{name} image"
        path.parent.mkdir(exist_ok=True)
        if name == "data":
            with Image.create(path, size) as image:
                image.write(0, random.randbytes(size // 2))
        else:
            path.write_bytes(random.randbytes(size))
        path.chmod(0o444)
        disks[name] = DiskImage(path, "qcow2" if name == "data" else "raw", name=name)
    yield disks
    for disk in disks.values():
        disk.close()


def _fingerprint(images: dict[str, DiskImage]) -> dict[str, tuple[str, int, int]]:
    return {
        name: (
            hashlib.sha256(disk.path.read_bytes()).hexdigest(),
            disk.path.stat().st_mtime_ns,
            disk.path.stat().st_mode,
        )
        for name, disk in images.items()
    }


def _content(disk: DiskImage) -> bytearray:
    if disk.format == "raw":
        raw = disk.path.read_bytes()
        return bytearray(raw.ljust(-(-len(raw) // 512) * 512, b"\0"))
    with Image.open(disk.path) as image:
        return bytearray(image.read(0, image.size))


def _held(store: SnapshotStore, images: Mapping[str, DiskImage], stored: Stored, name: str) -> bytes:
    """All of a disk at a snapshot."""
    number, image = list(images).index(name), images[name]
    count = -(-image.size // BLOCK)
    below = image.read(0, count * BLOCK)
    blocks = store.disk(stored, number, 0, count)
    found = b"".join(below[i * BLOCK :][:BLOCK] if b is None else b for i, b in enumerate(blocks))
    assert not any(found[image.size :])
    return found[: image.size]


class Model:
    """A store with disks, and what they must hold: now, and at each snapshot."""

    def __init__(self, directory: Path, images: dict[str, DiskImage], seed: int) -> None:
        directory.mkdir()
        self.directory = directory
        self.images = images
        self.random = Random(seed)
        self.disks = Overlays.create(directory, list(images.values()), OWNER)
        self.store = SnapshotStore.create(directory / "s.qcow2", PAGES, self.disks)
        self.now = {name: _content(disk) for name, disk in images.items()}
        self.changed: set[int] = set()
        self.held: dict[Stored, dict[str, bytes]] = {}
        self.base: Stored | None = None
        self.number = 0

    def put(self, name: str, offset: int, data: bytes) -> None:
        self.now[name][offset : offset + len(data)] = data
        for block in range(offset // BLOCK, (offset + len(data) - 1) // BLOCK + 1):
            self.changed.add(block_number(list(self.images).index(name), block))

    def write(self) -> None:
        for _ in range(self.random.randrange(6)):
            name = self.random.choice(list(self.now))
            size = len(self.now[name])
            length = self.random.choice((1, 512, 4096, min(70_000, size)))
            offset = self.random.randrange(max(1, size - length))
            self.put(name, offset, self.random.randbytes(min(length, size - offset)))

    def _blocks(self) -> dict[int, bytes]:
        contents = list(self.now.values())
        found = {}
        for number in self.changed:
            disk, block = number >> 44, number & (1 << 44) - 1
            found[number] = bytes(contents[disk][block * BLOCK :][:BLOCK]).ljust(BLOCK, b"\0")
        return found

    def take(self, name: str = "") -> Stored:
        self.number += 1
        name = name or f"s{self.number}"
        stored = self.store.take(name, self.number, _state(self.number), self.base, {}, self._blocks())
        self.held[stored] = {n: bytes(content) for n, content in self.now.items()}
        self.base = stored
        self.changed.clear()
        return stored

    def go(self) -> None:
        """Time travel: what comes next builds on another snapshot."""
        if self.held:
            self.base = self.random.choice(list(self.held))
            self.now = {name: bytearray(content) for name, content in self.held[self.base].items()}
            self.changed.clear()

    def delete(self, going: Sequence[Stored] | None = None) -> None:
        """Those that nothing builds on."""
        self.store.flush()
        if going is None:
            going = [s for s in self.held if s != self.base and self.random.random() < 0.3]
        self.store.delete(going)
        for stored in going:
            del self.held[stored]

    def reopen(self) -> None:
        self.store.close()
        self.disks = Overlays.open(self.directory, list(self.images.values()), OWNER, writable=True)
        self.store = SnapshotStore.open(self.directory / "s.qcow2", PAGES, writable=True, disks=self.disks)
        new = {(s.name, s.icount): s for s in self.store.snapshots}
        if self.base is not None:
            self.base = new[self.base.name, self.base.icount]
        self.held = {new.pop((s.name, s.icount)): held for s, held in self.held.items()}
        assert not new

    def check(self) -> None:
        self.look()
        self.store.flush()
        assert self.store.failed() is None
        self.look()

    def look(self) -> None:
        for stored, held in self.held.items():
            for name, content in held.items():
                assert _held(self.store, self.images, stored, name) == content

    def differ(self) -> None:
        """What is said to be equal is."""
        stored = list(self.held)
        for one, two in pairwise(stored):
            apart = set(self.store.differing_blocks(one, two))
            for number, name in enumerate(self.images):
                left, right = self.held[one][name], self.held[two][name]
                for block in range(-(-len(left) // BLOCK)):
                    if block_number(number, block) not in apart:
                        assert left[block * BLOCK :][:BLOCK] == right[block * BLOCK :][:BLOCK]


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 30))])
def test_random_use_leaves_the_users_images_alone(tmp_path: Path, images: dict[str, DiskImage], seed: int) -> None:
    before = _fingerprint(images)
    model = Model(tmp_path / "r", images, seed)
    model.take("start")
    for _ in range(25):
        model.write()
        model.random.choice((model.take, model.take, model.take, model.delete, model.reopen, model.go, model.differ))()
        model.look()
        if model.random.random() < 0.5:
            model.check()
    model.check()
    model.differ()
    model.store.close()
    assert _fingerprint(images) == before


def test_a_snapshot_that_is_taken_again_before_the_old_one_is_gone(
    tmp_path: Path, images: dict[str, DiskImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have the same name and icount, and other disks: deleting the old one must not take the new one's disks with
    it."""
    model = Model(tmp_path / "r", images, 1)
    first = model.take("start")
    model.write()
    old = model.take("again")
    model.check()
    taken, delete = threading.Event(), Image.delete_snapshots

    def late(self: Image, going: list[Snapshot]) -> None:
        taken.wait()
        delete(self, going)

    monkeypatch.setattr(Image, "delete_snapshots", late)
    model.base = first
    model.delete([old])
    model.put("root", 0, b"another")
    model.changed.update(block_number(i, b) for i in range(3) for b in range(-(-images[list(images)[i]].size // BLOCK)))
    model.number -= 1
    new = model.take("again")
    assert (new.name, new.icount) == (old.name, old.icount)
    taken.set()
    model.check()
    model.reopen()
    model.check()
    assert [s.name for s in model.store.snapshots] == ["start", "again"]
    model.store.close()


def test_a_reader_beside_a_writer(tmp_path: Path, images: dict[str, DiskImage]) -> None:
    model = Model(tmp_path / "r", images, 2)
    for _ in range(8):
        for name, content in model.now.items():
            model.put(name, 0, model.random.randbytes(len(content)))
        model.take()
    model.check()
    disks = Overlays.open(tmp_path / "r", list(images.values()), OWNER, writable=False)
    reader = SnapshotStore.open(tmp_path / "r" / "s.qcow2", PAGES, writable=False, disks=disks)
    mine = {(s.name, s.icount): s for s in reader.snapshots}
    taken = dict(model.held)
    for turn in range(3):
        model.delete()
        for name, content in model.now.items():
            model.put(name, turn, bytes(content[turn:]))
            model.take()
        model.store.flush()
        there = {s.moment for s in model.held}
        for stored, held in taken.items():
            for name, content in held.items():
                if stored.moment in there:
                    assert _held(reader, images, mine[stored.name, stored.icount], name) == content
                else:
                    with pytest.raises(StoreError, match="was deleted by another process"):
                        _held(reader, images, mine[stored.name, stored.icount], name)
    assert len({s.moment for s in taken} - there) > 1
    reader.close()
    model.store.close()


def test_a_snapshot_that_goes_while_it_is_read(
    tmp_path: Path, images: dict[str, DiskImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in its place may not even be tables."""
    model = Model(tmp_path / "r", images, 2)
    going = model.take()
    model.take()
    model.check()
    disks = Overlays.open(tmp_path / "r", list(images.values()), OWNER, writable=False)
    reader = SnapshotStore.open(tmp_path / "r" / "s.qcow2", PAGES, writable=False, disks=disks)

    def garbage(_view: View, _offset: int, _length: int) -> bytes:
        model.delete([going])
        model.store.flush()
        raise Qcow2Error("expected an L2 entry")

    monkeypatch.setattr(View, "read", garbage)
    with pytest.raises(StoreError, match=r"disk-root\.qcow2: snapshot s1 was deleted by another process"):
        reader.disk(reader.snapshots[0], 0, 0, 1)
    reader.close()
    model.store.close()


def test_the_users_images_are_not_even_open_for_writing(tmp_path: Path, images: dict[str, DiskImage]) -> None:
    """Root may write a file of mode 0444, so that alone shows nothing."""
    model = Model(tmp_path / "r", images, 1)
    model.reopen()
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = Path(os.readlink(f"/proc/self/fd/{fd}"))
            fdinfo = Path(f"/proc/self/fdinfo/{fd}").read_text()
        except OSError:  # the directory's own descriptor
            continue
        if target.parent == tmp_path / "user":
            found[target.name] = int(fdinfo.split("flags:")[1].split()[0], 8) & os.O_ACCMODE
    assert found == {disk.path.name: os.O_RDONLY for disk in images.values()}
    model.store.close()


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_qemu_img_reads_the_overlays(tmp_path: Path, images: dict[str, DiskImage]) -> None:
    before = _fingerprint(images)
    model = Model(tmp_path / "r", images, 7)
    for number in range(6):
        if number:
            model.write()
        model.take("start" if number == 0 else "")
    model.check()
    model.store.close()
    for name, disk in images.items():
        overlay = tmp_path / "r" / f"disk-{name}.qcow2"
        subprocess.run(["qemu-img", "check", overlay], check=True, capture_output=True)
        info = subprocess.run(["qemu-img", "info", overlay], check=True, capture_output=True, text=True).stdout
        assert f"backing file: {disk.path}" in info
        assert f"backing file format: {disk.format}" in info
        for stored, held in model.held.items():
            out = tmp_path / "out"
            where = ["-l", f"snapshot.name={stored.name}"]
            subprocess.run(["qemu-img", "convert", *where, "-O", "raw", overlay, out], check=True)
            assert out.read_bytes() == held[name]
        listed = subprocess.run(["qemu-img", "snapshot", "-l", overlay], check=True, capture_output=True, text=True)
        assert [line.split()[1] for line in listed.stdout.splitlines()[2:]] == [s.name for s in model.held]
    assert _fingerprint(images) == before


class Stopped(Exception):
    """The process was killed here."""


@pytest.mark.parametrize("step", ["root", "data", "small", "store"])
@pytest.mark.parametrize("change", ["take", "delete"])
def test_a_crash_between_any_two_commits(
    tmp_path: Path, images: dict[str, DiskImage], monkeypatch: pytest.MonkeyPatch, change: str, step: str
) -> None:
    """``step``: the image whose commit the crash comes before. Whole snapshots are left, and no others."""
    model = Model(tmp_path / "r", images, 3)
    first = model.take("start")
    model.write()
    second = model.take("second")
    kept = model.held[second]
    model.check()
    overlays = {f"disk-{name}.qcow2" for name in images}
    victim = "s.qcow2" if step == "store" else f"disk-{step}.qcow2"
    crashed = tmp_path / "crashed"
    commits: list[str] = []
    flush = Image.flush

    def stops(self: Image) -> None:
        commits.append(Path(self.path).name)
        if Path(self.path).name == victim and not crashed.exists():
            shutil.copytree(tmp_path / "r", crashed)
        flush(self)

    with monkeypatch.context() as patch:
        patch.setattr(Image, "flush", stops)
        if change == "take":
            model.write()
            model.take("third")
        else:
            model.base = first
            model.delete([second])
            model.held[second] = kept
        model.store.flush()
        assert model.store.failed() is None
    assert commits[-1 if change == "take" else 0] == "s.qcow2"
    assert set(commits) == {"s.qcow2", *overlays}
    model.store.close()
    with Image.open(crashed / "s.qcow2") as image:
        known = {s.name for s in image.snapshots}
    for writable in (False, True):
        disks = Overlays.open(crashed, list(images.values()), OWNER, writable=writable)
        store = SnapshotStore.open(crashed / "s.qcow2", PAGES, writable=writable, disks=disks)
        assert {s.name for s in store.snapshots} == known
        for stored in store.snapshots:
            held = model.held[first if stored.name == "start" else second]
            for name, content in held.items():
                assert _held(store, images, stored, name) == content
        store.close()
    for overlay in overlays:
        with Image.open(crashed / overlay) as image:
            assert {s.name for s in image.snapshots} == known


def test_a_disk_that_is_full_loses_the_snapshot_and_no_other(
    tmp_path: Path, images: dict[str, DiskImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(tmp_path / "r", images, 5)
    first = model.take("start")
    model.check()
    flush = Image.flush

    def full(self: Image) -> None:
        if "disk-data" in str(self.path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(self)

    with monkeypatch.context() as patch:
        patch.setattr(Image, "flush", full)
        model.put("root", 0, b"lost")
        model.put("data", 0, b"lost")
        lost = model.take("lost")
        model.store.flush()
        failure = model.store.failed()
    assert failure is not None
    assert failure[0] == [lost]
    assert "disk-data.qcow2: " in str(failure[1])
    # What replay writes again has its place.
    del model.held[lost]
    model.store.forget([lost])
    model.base, model.now = first, {name: bytearray(held) for name, held in model.held[first].items()}
    model.put("small", 0, b"kept")
    kept = model.take("kept")
    model.check()
    model.reopen()
    assert [s.name for s in model.store.snapshots] == [first.name, kept.name]
    model.check()
    model.store.close()


def test_a_snapshot_that_a_disk_lacks_is_none(tmp_path: Path, images: dict[str, DiskImage]) -> None:
    model = Model(tmp_path / "r", images, 5)
    model.take("start")
    model.take("second")
    model.store.close()
    with Image.open(tmp_path / "r" / "disk-root.qcow2", writable=True) as image:
        image.delete_snapshot(image.snapshots[1])
    disks = Overlays.open(tmp_path / "r", list(images.values()), OWNER, writable=False)
    store = SnapshotStore.open(tmp_path / "r" / "s.qcow2", PAGES, writable=False, disks=disks)
    assert [s.name for s in store.snapshots] == ["start"]
    store.close()


@pytest.mark.parametrize(
    ("file", "format", "said"),
    [
        ("none", "raw", "none: No such file or directory$"),
        ("root image", "qcow2", "root image: "),
        ("empty", "raw", "empty: an empty image, expected at least one sector"),
        ("", "raw", "user: offset 0: expected a regular file or a block device$"),
        ("fifo", "raw", "fifo: offset 0: expected a regular file or a block device$"),
        ("fifo", "qcow2", "fifo: offset 0: expected a regular file or a block device$"),
    ],
)
def test_images_that_cannot_be(tmp_path: Path, images: dict[str, DiskImage], file: str, format: str, said: str) -> None:
    (tmp_path / "user" / "empty").touch()
    os.mkfifo(tmp_path / "user" / "fifo")
    with pytest.raises(StoreError, match=said):
        DiskImage(tmp_path / "user" / file, format)
    if file != "empty" and format == "raw":
        with pytest.raises(StoreError, match=said):
            looks_like_qcow2(tmp_path / "user" / file)


def test_an_overlay_that_cannot_be_made_leaves_none(tmp_path: Path, images: dict[str, DiskImage]) -> None:
    (tmp_path / "disk-small.qcow2").touch()
    with pytest.raises(StoreError, match=r"disk-small\.qcow2: "):
        Overlays.create(tmp_path, list(images.values()), OWNER)
    assert [p.name for p in tmp_path.glob("disk-*")] == ["disk-small.qcow2"]


def test_an_overlay_of_another_disk(tmp_path: Path, images: dict[str, DiskImage]) -> None:
    Overlays.create(tmp_path, list(images.values()), OWNER).close()
    (tmp_path / "disk-root.qcow2").unlink()
    with pytest.raises(StoreError, match=r"disk-root\.qcow2: .*No such file"):
        Overlays.open(tmp_path, list(images.values()), OWNER, writable=False)
    (tmp_path / "disk-small.qcow2").rename(tmp_path / "disk-root.qcow2")
    with pytest.raises(StoreError, match=r"disk-root\.qcow2: a disk of 1024 bytes, expected 1048576"):
        Overlays.open(tmp_path, list(images.values()), OWNER, writable=False)


def test_a_disk_that_is_read_only_has_no_overlay(tmp_path: Path, images: dict[str, DiskImage]) -> None:
    images["root"].readonly = True
    disks = Overlays.create(tmp_path, list(images.values()), OWNER)
    assert sorted(p.name for p in tmp_path.glob("disk-*")) == ["disk-data.qcow2", "disk-small.qcow2"]
    disks.close()


def test_which_images_look_like_qcow2(images: dict[str, DiskImage]) -> None:
    assert {name: looks_like_qcow2(disk.path) for name, disk in images.items()} == {
        "root": False,
        "data": True,
        "small": False,
    }
