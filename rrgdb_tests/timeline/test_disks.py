"""Guests with disks: what stands on them goes back and forth in time with the rest, and the user's images stay."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from rrgdb.engine.base import EngineError, Watch
from rrgdb.guest import End
from rrgdb.opening import NewDisk, OptionError, record, replay
from rrgdb.qcow2 import Image
from rrgdb.recording.directory import RecordingError
from rrgdb.recording.door import Divergence
from rrgdb.snapshots.errors import StoreError
from rrgdb.snapshots.images import DiskImage
from rrgdb.timeline import backward, disks, forward, prepare, timeline
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.stop import Points, StopKind
from rrgdb.timeline.verify import verify
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import OPTIONS, digests_straight, oracle, symbol, whole_state
from rrgdb_tests.timeline.walk import Walk

SMALL = (("ROUNDS", 4), ("SECTORS", 4), ("WORK", 20))
LONGER = {"ROUNDS": 60, "SECTORS": 40, "WORK": 300}
NONE = Points({})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NewDisk, NewDisk]]:
    """A raw image that ends inside a sector, and a qcow2 one over a compressed one; nobody may write them or where they
    are. At the end they are what they were."""
    directory, random = tmp_path_factory.mktemp("images"), Random(1)
    (directory / "accounts").write_bytes(random.randbytes(20 * 512 - 100))
    with Image.create(directory / "below.qcow2", 1 << 20) as image:
        image.write_compressed(0, random.randbytes(30000).ljust(65536, b"x"))
    with Image.create(
        directory / "ledger,1.qcow2", 80 * 512, backing_file="below.qcow2", backing_format="qcow2"
    ) as image:
        image.write(2048, random.randbytes(1000))
    for path in directory.iterdir():
        path.chmod(0o444)
    directory.chmod(0o555)
    before = _fingerprint(directory)
    yield NewDisk(directory / "accounts", "accounts"), NewDisk(directory / "ledger,1.qcow2", "ledger", "qcow2")
    assert _fingerprint(directory) == before
    directory.chmod(0o755)


def _fingerprint(directory: Path) -> list[tuple[str, str, int, int]]:
    return [
        (p.name, hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns, p.stat().st_mode)
        for p in sorted(directory.iterdir())
    ]


@pytest.fixture(autouse=True)
def dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in ``test_walks``."""
    monkeypatch.setattr(timeline, "NEAR", (16, 100, 700, 3000))
    monkeypatch.setattr(forward, "LEAST_SKIP", 50)
    monkeypatch.setattr(prepare, "NEAR", (16, 100, 700, 3000))
    monkeypatch.setattr(prepare, "PIECE", 300)
    monkeypatch.setattr("rrgdb.timeline.scan.LEAST_PIECE", 200)
    monkeypatch.setattr(backward, "APPROACH", 900)


def _walk(arch: str, images: tuple[NewDisk, ...], moves: int, seed: int, scratch: Path, most: int = disks.MOST) -> None:
    known = oracle(arch, "disks", SMALL, images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disks, "MOST", most)
        walk = Walk(known, scratch, seed, prepares=seed % 2 == 0)
        for _ in range(moves):
            walk.move()
        walk.finish(scratch / f"straight-{seed}")


@pytest.mark.parametrize("arch", ["riscv64", "riscv32", "aarch64", "arm"])
def test_walks(arch: str, images: tuple[NewDisk, ...], tmp_path: Path) -> None:
    _walk(arch, images, 60, 1, tmp_path)
    _walk(arch, images[:1], 60, 2, tmp_path, most=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("arch", ["riscv64", "aarch64"])
def test_long_walks(arch: str, seed: int, images: tuple[NewDisk, ...], tmp_path: Path) -> None:
    _walk(arch, images, 300, seed, tmp_path, most=disks.MOST if seed % 3 else 1 + seed // 6)


def _record(path: Path, images: tuple[NewDisk, ...], arch: str = "riscv64", steps: int = 50_000) -> Path:
    """A snapshot every ``steps`` instructions."""
    with record(path, build(arch, "disks", LONGER), OPTIONS, interval=1e-9, disks=images) as opened:
        while opened.guest.end is None:
            opened.timeline.run(NONE, steps=steps)
        assert opened.guest.end.kind == "exit"
    return path


@pytest.fixture(scope="module")
def recorded(images: tuple[NewDisk, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With many snapshots."""
    return _record(tmp_path_factory.mktemp("disks") / "r", images, steps=9000)


@pytest.mark.parametrize("arch", ["riscv64", "aarch64"])
def test_a_recording_verifies_with_and_without_snapshots(
    arch: str, images: tuple[NewDisk, ...], tmp_path: Path
) -> None:
    path = _record(tmp_path / "r", images, arch=arch)
    with replay(path) as opened:
        assert opened.messages == ()
        assert verify(opened.timeline) > 3
        assert len(opened.timeline.marks.stored) > 3
    (path / "disk-ledger.qcow2").unlink()
    with replay(path) as opened:
        assert len(opened.messages) == 1
        assert "replay begins with the images" in opened.messages[0]
        assert verify(opened.timeline) > 3


def test_verified_by_workers(recorded: Path, images: tuple[NewDisk, ...], tmp_path: Path) -> None:
    """They are told where the images are."""
    moved = tmp_path / "moved"
    shutil.copy2(images[0].path, moved)
    with replay(recorded, writable=False, disks={"accounts": moved}, jobs=2) as opened:
        said: list[str] = []
        assert verify(opened.timeline, said.append, opened.workers) > 20
        assert said
        assert all("without" not in line for line in said)


def test_every_snapshot_holds_its_disks(recorded: Path, tmp_path: Path) -> None:
    with replay(recorded, writable=False) as opened:
        t = opened.timeline
        positions = [s.icount for s in t.marks.stored]
        right = digests_straight(recorded, positions, tmp_path / "straight")
        Random(1).shuffle(positions)
        for position in positions:
            t.seek(position)
            assert whole_state(opened) == right[position]
        assert len(positions) > 20


def test_a_watchpoint_finds_the_read_that_brought_a_value(recorded: Path) -> None:
    """The device writes to memory as a part of the instruction that notifies it."""
    image = build("riscv64", "disks", LONGER)
    buffer, notified = symbol(image, "buffer"), 0
    low, high = symbol(image, "transfer"), symbol(image, "post")
    assert low < high
    with replay(recorded, writable=False) as opened:
        t = opened.timeline
        t.seek(t.end)
        for _ in range(90):
            stop = Backward(t).run(Points({}, (Watch(buffer, 4, "w"),)))
            assert stop.kind is StopKind.WATCHPOINT
            before = t.engine.read_memory(buffer, 4)
            t.run(NONE, steps=1)
            assert before != t.engine.read_memory(buffer, 4)
            assert (before, t.engine.read_memory(buffer, 4)) == (stop.old, stop.new)
            t.seek(stop.icount)
            # The guest itself stores whole words to the buffer in another function.
            notified += low <= t.engine.read("pc") < high
        assert 80 < notified < 90


def test_a_diversion_leaves_no_trace_on_the_disks(recorded: Path) -> None:
    with replay(recorded, writable=False) as opened:
        t = opened.timeline
        t.seek(t.end // 2)
        here = whole_state(opened)
        t.write_memory(symbol(build("riscv64", "disks", LONGER), "sum"), bytes(4))
        t.run(NONE, steps=300_000)
        assert t.marks.disks.changed
        t.seek(t.end // 2)
        assert whole_state(opened) == here


def test_what_is_in_memory_is_bounded(
    images: tuple[NewDisk, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "MOST", 2)
    most = 0
    with record(tmp_path / "r", build("riscv64", "disks", LONGER), OPTIONS, interval=1e9, disks=images) as opened:
        put = opened.timeline.marks.disks.put

        def counted(*arguments: object) -> None:
            nonlocal most
            put(*arguments)  # type: ignore[arg-type]
            most = max(most, opened.timeline.marks.disks.changed)

        monkeypatch.setattr(opened.timeline.marks.disks, "put", counted)
        opened.timeline.run(NONE)
        assert len(opened.timeline.marks.stored) > 5
    assert 2 <= most <= 3
    with replay(tmp_path / "r") as opened:
        verify(opened.timeline)


def test_where_no_snapshot_can_be_taken_the_guest_goes_on(
    images: tuple[NewDisk, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "MOST", 2)
    said: list[str] = []
    image = build("riscv64", "disks", LONGER)
    with record(tmp_path / "r", image, OPTIONS, budget=1, disks=images, say=said.append) as opened:
        opened.timeline.run(NONE)
        assert opened.guest.end is not None
        assert len(opened.timeline.marks.stored) == 1
    assert len(said) == 1
    with replay(tmp_path / "r") as opened:
        assert opened.timeline.end > 100_000
        verify(opened.timeline)


def test_a_reader_beside_a_writer_that_deletes(recorded: Path, tmp_path: Path) -> None:
    """Standing at a snapshot that goes, the reader finds the disks by another one."""
    copied = shutil.copytree(recorded, tmp_path / "r")
    with replay(copied, writable=False) as reader, replay(copied) as writer:
        said: list[str] = []
        t = reader.timeline
        t.say = said.append
        here = t.marks.stored[len(t.marks.stored) // 2].icount
        right = digests_straight(recorded, [t.end], tmp_path / "straight")
        t.seek(here)
        marks = writer.timeline.marks
        marks.delete_snapshots([w for w in marks.stored if w.icount >= here])
        for n in range(12):
            writer.timeline.seek(5000 * n)
            marks.take_snapshot(f"new-{n}")
        marks.flush()
        t.seek(t.end)
        assert whole_state(reader) == right[t.end]
        assert said
        assert all(line.endswith("passed over\n") for line in said)


def test_a_disk_that_is_read_only(images: tuple[NewDisk, ...], tmp_path: Path) -> None:
    accounts, ledger = (disk._replace(readonly=True) for disk in images)
    _record(tmp_path / "r", (accounts, ledger))
    assert not list((tmp_path / "r").glob("disk-*"))
    with replay(tmp_path / "r") as opened:
        assert verify(opened.timeline) > 3
        assert isinstance(opened.timeline.marks.disks.changed, int)
        assert opened.timeline.marks.disks.changed == 0
    _record(tmp_path / "one", (accounts, images[1]))
    assert [p.name for p in (tmp_path / "one").glob("disk-*")] == ["disk-ledger.qcow2"]
    with replay(tmp_path / "one") as opened:
        assert verify(opened.timeline) > 3


def test_no_image_is_open_for_writing(images: tuple[NewDisk, ...], tmp_path: Path) -> None:
    """Root may write a file of mode 0444, so that alone shows nothing."""

    def flags() -> dict[str, int]:
        found = {}
        for fd in os.listdir("/proc/self/fd"):
            try:
                target = Path(os.readlink(f"/proc/self/fd/{fd}"))
                fdinfo = Path(f"/proc/self/fdinfo/{fd}").read_text()
            except OSError:  # the directory's own descriptor
                continue
            if target.parent == images[0].path.parent:
                found[target.name] = int(fdinfo.split("flags:")[1].split()[0], 8) & os.O_ACCMODE
        return found

    image = build("riscv64", "disks", LONGER)
    with record(tmp_path / "r", image, OPTIONS, disks=images) as opened:
        opened.timeline.run(NONE, steps=50_000)
        assert flags() == dict.fromkeys(("accounts", "ledger,1.qcow2", "below.qcow2"), os.O_RDONLY)
    assert flags() == {}
    with replay(tmp_path / "r") as opened:
        opened.timeline.seek(opened.timeline.end)
        assert flags() == dict.fromkeys(("accounts", "ledger,1.qcow2", "below.qcow2"), os.O_RDONLY)
    assert flags() == {}


# -- where the images are ------------------------------------------------------------------------


def _own(images: tuple[NewDisk, ...], directory: Path) -> NewDisk:
    """A copy that may be changed."""
    path = directory / "own"
    path.write_bytes(images[0].path.read_bytes())
    return NewDisk(path, "own")


def test_an_image_that_was_moved_is_named_anew(images: tuple[NewDisk, ...], tmp_path: Path) -> None:
    own = _own(images, tmp_path)
    path = _record(tmp_path / "r", (own,))
    moved = own.path.rename(tmp_path / "elsewhere")
    with pytest.raises(
        RecordingError, match=r"disk own: .*own: .*No such file.*\(--disk own=FILE names another place\)"
    ):
        replay(path)
    with pytest.raises(OptionError, match="--disk other: the recording has no disk of that name; it has own"):
        replay(path, disks={"other": moved})
    with replay(path, disks={"own": moved}) as opened:
        assert opened.messages == ()
        assert verify(opened.timeline) > 3
    with replay(path, disks_needed=False, writable=False) as opened:
        assert [m.split(":")[0] for m in opened.messages] == ["disk own"]
        assert len(opened.timeline.marks.stored) > 1


def test_an_image_that_was_changed(images: tuple[NewDisk, ...], tmp_path: Path) -> None:
    own = _own(images, tmp_path)
    path = _record(tmp_path / "r", (own,))
    os.utime(own.path, ns=(0, 5))
    with replay(path) as opened:
        assert len(opened.messages) == 1
        assert "own was changed since the recording was made" in opened.messages[0]
        verify(opened.timeline)
    own.path.write_bytes(bytes(512))
    with pytest.raises(RecordingError, match="own: a disk of 512 bytes, the recording was made with 10240"):
        replay(path)


def test_a_recording_of_an_image_with_other_content_diverges(images: tuple[NewDisk, ...], tmp_path: Path) -> None:
    """It is told, and never goes unnoticed."""
    own = _own(images, tmp_path)
    path = _record(tmp_path / "r", (own,))
    status = own.path.stat()
    own.path.write_bytes(bytes(status.st_size))
    os.utime(own.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with replay(path, writable=False) as opened, pytest.raises(Divergence):
        verify(opened.timeline)


@pytest.mark.parametrize(
    ("disk", "said"),
    [
        (NewDisk(Path("accounts"), "../up"), "name '../up', expected one of its own"),
        (NewDisk(Path("accounts"), "x", "vmdk"), "format 'vmdk', expected one of raw, qcow2"),
        (NewDisk(Path("ledger,1.qcow2"), "x"), "begins as a qcow2 image does: expected format=qcow2 or format=raw"),
    ],
)
def test_disks_that_cannot_be(images: tuple[NewDisk, ...], tmp_path: Path, disk: NewDisk, said: str) -> None:
    disk = disk._replace(path=images[0].path.parent / disk.path)
    with pytest.raises(OptionError, match=said):
        record(tmp_path / "r", build("riscv64", "disks", LONGER), OPTIONS, disks=[images[0], disk])
    assert not (tmp_path / "r").exists()


def test_more_disks_than_there_are_slots(images: tuple[NewDisk, ...], tmp_path: Path) -> None:
    many = [NewDisk(images[0].path) for _ in range(9)]
    with pytest.raises(OptionError, match="--disk: board riscv64-virt has room for 8 disks"):
        record(tmp_path / "r", build("riscv64", "disks", LONGER), OPTIONS, disks=many)
    with pytest.raises(OptionError, match="--disk: board i386-pc has room for 0 disks"):
        record(tmp_path / "r", build("i386", "ticker"), OPTIONS, disks=many[:1])
    with record(tmp_path / "r", build("riscv64", "disks", LONGER), OPTIONS, disks=many[:8]) as opened:
        assert [d.name for d in opened.recording.manifest.guest.disks] == [f"disk{i}" for i in range(8)]


# -- when things go wrong ------------------------------------------------------------------------


def test_an_image_that_cannot_be_read_any_more_ends_the_recording_before(
    images: tuple[NewDisk, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    read = DiskImage.read

    def fails(self: DiskImage, offset: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads > 30:
            raise StoreError(f"{self.path}: Input/output error")
        return read(self, offset, length)

    image = build("riscv64", "disks", LONGER)
    with monkeypatch.context() as patch:
        patch.setattr(disks.Disks, "_at", _through(fails))
        with record(tmp_path / "r", image, OPTIONS, interval=0.01, disks=images) as opened:
            t = opened.timeline
            with pytest.raises(EngineError, match=r"disk \w+: .*Input/output error"):
                t.run(NONE)
            at = t.icount
            with pytest.raises(EngineError, match=r"the guest cannot go on: .*Input/output error"):
                t.run(NONE)
            with pytest.raises(StoreError, match="no snapshot is taken of a guest that cannot go on"):
                t.marks.take_snapshot("here")
            reads = 0
            t.seek(at // 2)
            t.seek(at)
            with pytest.raises(EngineError, match="the guest cannot go on"):
                t.run(NONE)
    with replay(tmp_path / "r") as opened:
        assert opened.timeline.end == at - 1
        verify(opened.timeline)


def _through(read: object) -> object:
    """``Disks._at`` whose images are read by ``read``, snapshots or not."""
    original = disks.Disks._at

    def at(self: disks.Disks, stored: object, disk: int, first: int, count: int) -> list[bytes]:
        read(self.images[disk], first * disks.BLOCK, count * disks.BLOCK)  # type: ignore[operator]
        return original(self, stored, disk, first, count)  # type: ignore[arg-type]

    return at


def test_an_image_that_cannot_be_read_in_history_is_told(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with replay(recorded, writable=False) as opened:
        t = opened.timeline
        t.seek(t.end // 2)
        here = whole_state(opened)

        def fails(image: DiskImage, _offset: int, _length: int) -> bytes:
            raise StoreError(f"{image.path}: Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(disks.Disks, "_at", _through(fails))
            with pytest.raises(EngineError, match="Input/output error"):
                t.run(NONE)
        t.seek(t.end // 2)
        assert whole_state(opened) == here


@pytest.mark.parametrize("delay", [0.05, 0.2, *(pytest.param(n / 40, marks=pytest.mark.slow) for n in range(40))])
def test_a_killed_recorder_leaves_snapshots_that_open(
    images: tuple[NewDisk, ...], tmp_path: Path, delay: float
) -> None:
    path = tmp_path / "r"
    image = build("riscv64", "disks", LONGER | {"ROUNDS": 100_000})
    options = [
        f"--disk=accounts={images[0].path}",
        f"--disk=ledger={str(images[1].path).replace(',', ',,')},format=qcow2",
    ]
    command = [sys.executable, "-m", "rrgdb", "record", "--serial", "null", "--snapshot-interval", "0.01", "-m", "8M"]
    process = subprocess.Popen([*command, *options, "-o", str(path), str(image)], stderr=subprocess.PIPE)
    try:
        while not (path / "snapshots.qcow2").exists():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(delay)
    finally:
        process.kill()
        process.communicate()
    with replay(path) as opened:
        t = opened.timeline
        verify(opened.timeline)
        positions = [s.icount for s in t.marks.stored]
        right = digests_straight(path, positions, tmp_path / "straight")
        for position in reversed(positions):
            t.seek(position)
            assert whole_state(opened) == right[position]
        made = bool(positions)
    if made and shutil.which("qemu-img"):
        for overlay in path.glob("*.qcow2"):
            check = subprocess.run(["qemu-img", "check", overlay], capture_output=True, text=True, check=False)
            assert check.returncode in (0, 3), check.stdout + check.stderr


def test_a_damaged_overlay_is_passed_over(recorded: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(recorded, tmp_path / "r"))
    (copied / "disk-ledger.qcow2").write_bytes(b"QFI\xfb" + bytes(100))
    with replay(copied) as opened:
        assert ["disk-ledger.qcow2" in m and "replay begins with the images" in m for m in opened.messages] == [True]
        verify(opened.timeline)


def test_opening_is_what_it_was_for_guests_without_disks(tmp_path: Path) -> None:
    with record(tmp_path / "r", build("riscv64", "disks", LONGER), OPTIONS) as opened:
        opened.timeline.run(NONE)
        assert (opened.guest.end, opened.timeline.marks.disks.changed) == (End("exit", 1), 0)
    assert '"disks"' not in (tmp_path / "r" / "manifest.json").read_text()
    assert not list((tmp_path / "r").glob("disk-*"))
