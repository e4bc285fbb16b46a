"""Disks in overlays against a model; the user's images stay as they are, and crashes leave complete snapshots alone."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import threading
from pathlib import Path
from random import Random

import pytest

from rrgdb.qcow2 import Image, Qcow2Error, Snapshot
from rrgdb.qcow2.view import View
from rrgdb.snapshots.disks import Disks, Moment, NewDisk
from rrgdb.snapshots.state import GuestState
from rrgdb.snapshots.store import SnapshotStore, Stored, StoreError

PAGES = 64
SIZES = {"root": 3 << 20, "data": 1 << 20, "small": 700}


def _state(number: int) -> GuestState:
    return GuestState("build", number.to_bytes(8, "little"), b"devices", b"door", PAGES * 4096, bytes(8))


@pytest.fixture
def images(tmp_path: Path) -> dict[str, NewDisk]:
    """The user's images, which nobody may write."""
    random, disks = Random(1), {}
    for name, size in SIZES.items():
        path = tmp_path / "user" / f"{name} image"
        path.parent.mkdir(exist_ok=True)
        if name == "data":
            with Image.create(path, size) as image:
                image.write(0, random.randbytes(size // 2))
        else:
            path.write_bytes(random.randbytes(size))
        path.chmod(0o444)
        disks[name] = NewDisk(name, path, "qcow2" if name == "data" else "raw")
    return disks


def _fingerprint(images: dict[str, NewDisk]) -> dict[str, tuple[str, int, int]]:
    return {
        name: (
            hashlib.sha256(disk.image.read_bytes()).hexdigest(),
            disk.image.stat().st_mtime_ns,
            disk.image.stat().st_mode,
        )
        for name, disk in images.items()
    }


def _content(disk: NewDisk) -> bytearray:
    if disk.format == "raw":
        raw = disk.image.read_bytes()
        return bytearray(raw.ljust(-(-len(raw) // 512) * 512, b"\0"))
    with Image.open(disk.image) as image:
        return bytearray(image.read(0, image.size))


class Model:
    """A store with disks, and what they must hold: now, and at each snapshot."""

    def __init__(self, directory: Path, images: dict[str, NewDisk], seed: int) -> None:
        directory.mkdir()
        self.directory = directory
        self.random = Random(seed)
        self.disks = Disks.create(directory, list(images.values()))
        self.store = SnapshotStore.create(directory / "s.qcow2", PAGES, self.disks)
        self.now = {name: _content(disk) for name, disk in images.items()}
        self.held: dict[Stored, dict[str, bytes]] = {}
        self.number = 0

    def write(self) -> None:
        for _ in range(self.random.randrange(6)):
            name = self.random.choice(list(self.now))
            size = len(self.now[name])
            length = self.random.choice((1, 512, 4096, min(70_000, size)))
            offset = self.random.randrange(max(1, size - length))
            data = self.random.randbytes(min(length, size - offset))
            self.disks.write(name, offset, data)
            self.now[name][offset : offset + len(data)] = data

    def take(self, name: str = "") -> Stored:
        self.number += 1
        stored = self.store.take(name or f"s{self.number}", self.number, _state(self.number), None, {})
        self.held[stored] = {n: bytes(content) for n, content in self.now.items()}
        return stored

    def delete(self) -> None:
        self.store.flush()
        going = [s for s in self.held if self.random.random() < 0.3]
        self.store.delete(going)
        for stored in going:
            del self.held[stored]

    def reopen(self) -> None:
        self.store.close()
        self.disks = Disks.open(self.directory, writable=True)
        self.store = SnapshotStore.open(self.directory / "s.qcow2", PAGES, writable=True, disks=self.disks)
        new = {(s.name, s.icount): s for s in self.store.snapshots}
        self.held = {new.pop((s.name, s.icount)): held for s, held in self.held.items()}
        assert not new

    def check(self) -> None:
        self.store.flush()
        assert self.store.failed() is None
        for name, content in self.now.items():
            assert self.disks.read(name, 0, len(content)) == content
        for stored, held in self.held.items():
            for name, content in held.items():
                assert self.disks.read(name, 0, len(content), stored.moment) == content


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 30))])
def test_random_use_leaves_the_users_images_alone(tmp_path: Path, images: dict[str, NewDisk], seed: int) -> None:
    before = _fingerprint(images)
    model = Model(tmp_path / "r", images, seed)
    model.take("start")
    for _ in range(25):
        model.write()
        model.random.choice((model.take, model.take, model.take, model.delete, model.reopen))()
        model.check()
    model.store.close()
    assert _fingerprint(images) == before


def test_a_snapshot_that_is_taken_again_before_the_old_one_is_gone(
    tmp_path: Path, images: dict[str, NewDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have the same name and icount: deleting the old one must not take the new one's disks with it."""
    model = Model(tmp_path / "r", images, 1)
    model.write()
    old = model.take("again")
    model.check()
    taken, delete = threading.Event(), Image.delete_snapshots

    def late(self: Image, going: list[Snapshot]) -> None:
        taken.wait()
        delete(self, going)

    monkeypatch.setattr(Image, "delete_snapshots", late)
    model.store.delete([old])
    new = model.store.take(old.name, old.icount, _state(1), None, {})
    taken.set()
    model.held[new] = model.held.pop(old)
    model.check()
    model.reopen()
    model.check()
    assert [s.name for s in model.store.snapshots] == ["again"]
    model.store.close()


def test_a_reader_beside_a_writer(tmp_path: Path, images: dict[str, NewDisk]) -> None:
    model = Model(tmp_path / "r", images, 2)
    for _ in range(8):
        for name, content in model.now.items():
            content[:] = model.random.randbytes(len(content))
            model.disks.write(name, 0, bytes(content))
        model.take()
    model.check()
    reader = Disks.open(tmp_path / "r", writable=False)
    taken = dict(model.held)
    for turn in range(3):
        model.delete()
        for name, content in model.now.items():
            model.disks.write(name, turn, bytes(content[turn:]))
            model.take()
        model.store.flush()
        there = {s.moment for s in model.held}
        for stored, held in taken.items():
            for name, content in held.items():
                if stored.moment in there:
                    assert reader.read(name, 0, len(content), stored.moment) == content
                else:
                    with pytest.raises(StoreError, match="there is no snapshot"):
                        reader.read(name, 0, len(content), stored.moment)
    assert len({s.moment for s in taken} - there) > 1
    reader.close()
    model.store.close()


def test_a_snapshot_that_goes_while_it_is_read(
    tmp_path: Path, images: dict[str, NewDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in its place may not even be tables."""
    model = Model(tmp_path / "r", images, 2)
    going = model.take()
    model.check()
    reader = Disks.open(tmp_path / "r", writable=False)

    def garbage(_view: View, _offset: int, _length: int) -> bytes:
        model.store.delete([going])
        model.store.flush()
        raise Qcow2Error("expected an L2 entry")

    monkeypatch.setattr(View, "read", garbage)
    with pytest.raises(StoreError, match=r"disk-root\.qcow2: there is no snapshot s1 at icount 1"):
        reader.read("root", 0, 512, going.moment)
    reader.close()
    model.store.close()


def test_the_users_images_are_not_even_open_for_writing(tmp_path: Path, images: dict[str, NewDisk]) -> None:
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
    assert found == {disk.image.name: os.O_RDONLY for disk in images.values()}
    model.store.close()


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_qemu_img_reads_the_overlays(tmp_path: Path, images: dict[str, NewDisk]) -> None:
    before = _fingerprint(images)
    model = Model(tmp_path / "r", images, 7)
    for number in range(6):
        model.write()
        model.take("start" if number == 0 else "")
    model.check()
    model.store.close()
    for name, disk in images.items():
        overlay = tmp_path / "r" / f"disk-{name}.qcow2"
        subprocess.run(["qemu-img", "check", overlay], check=True, capture_output=True)
        info = subprocess.run(["qemu-img", "info", overlay], check=True, capture_output=True, text=True).stdout
        assert f"backing file: {disk.image}" in info
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
    tmp_path: Path, images: dict[str, NewDisk], monkeypatch: pytest.MonkeyPatch, change: str, step: str
) -> None:
    """``step``: the image whose commit the crash comes before. Whole snapshots are left, and no others."""
    model = Model(tmp_path / "r", images, 3)
    first = model.take("start")
    model.write()
    second = model.take("second")
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
            model.store.delete([second])
        model.store.flush()
        assert model.store.failed() is None
    assert commits[-1 if change == "take" else 0] == "s.qcow2"
    assert set(commits) == {"s.qcow2", *overlays}
    model.store.close()
    with Image.open(crashed / "s.qcow2") as image:
        known = {s.name for s in image.snapshots}
    for writable in (False, True):
        disks = Disks.open(crashed, writable=writable)
        store = SnapshotStore.open(crashed / "s.qcow2", PAGES, writable=writable, disks=disks)
        assert {s.name for s in store.snapshots} == known
        for stored in store.snapshots:
            held = model.held[first if stored.name == "start" else second]
            for name, content in held.items():
                assert disks.read(name, 0, len(content), stored.moment) == content
        store.close()
    for overlay in overlays:
        with Image.open(crashed / overlay) as image:
            assert {s.name for s in image.snapshots} == known


def test_a_disk_that_is_full_loses_the_snapshot_and_no_other(
    tmp_path: Path, images: dict[str, NewDisk], monkeypatch: pytest.MonkeyPatch
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
        lost = model.take("lost")
        model.store.flush()
        failure = model.store.failed()
    assert failure is not None
    assert failure[0] == [lost]
    assert "disk-data.qcow2: " in str(failure[1])
    model.store.forget([lost])
    del model.held[lost]
    model.reopen()
    assert [s.name for s in model.store.snapshots] == [first.name]
    model.check()
    model.store.close()


def test_a_snapshot_that_a_disk_lacks_is_none(tmp_path: Path, images: dict[str, NewDisk]) -> None:
    model = Model(tmp_path / "r", images, 5)
    model.take("start")
    model.take("second")
    model.store.close()
    with Image.open(tmp_path / "r" / "disk-root.qcow2", writable=True) as image:
        image.delete_snapshot(image.snapshots[1])
    disks = Disks.open(tmp_path / "r", writable=False)
    store = SnapshotStore.open(tmp_path / "r" / "s.qcow2", PAGES, writable=False, disks=disks)
    assert [s.name for s in store.snapshots] == ["start"]
    with pytest.raises(StoreError, match=r"disk-root\.qcow2: there is no snapshot second at icount 2"):
        disks.read("root", 0, 1, Moment("second", 2))
    store.close()


@pytest.mark.parametrize(
    ("disk", "said"),
    [
        (NewDisk("../up", Path("user/root image"), "raw"), "expected another name"),
        (NewDisk("root", Path("user/root image"), "raw"), "expected another name"),
        (NewDisk("x", Path("user/root image"), "vmdk"), "expected another name.*raw, qcow2"),
        (NewDisk("x", Path("user/none"), "raw"), "none: .*No such file"),
        (NewDisk("x", Path("user/root image"), "qcow2"), "root image: "),
    ],
    ids=["path", "twice", "format", "missing", "not qcow2"],
)
def test_disks_that_cannot_be(tmp_path: Path, images: dict[str, NewDisk], disk: NewDisk, said: str) -> None:
    wrong = disk._replace(image=tmp_path / disk.image)
    with pytest.raises(StoreError, match=said):
        Disks.create(tmp_path, [images["root"], wrong])
    assert not list(tmp_path.glob("disk-*"))


def test_an_image_that_is_gone(tmp_path: Path, images: dict[str, NewDisk]) -> None:
    model = Model(tmp_path / "r", images, 5)
    model.store.close()
    images["small"].image.unlink()
    with pytest.raises(StoreError, match=r"disk-small\.qcow2: .*small image"):
        Disks.open(tmp_path / "r", writable=False)
