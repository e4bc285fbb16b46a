"""Files in a recording that it did not make, or that stand elsewhere: refused or left alone, in one line, unchanged."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from rrgdb.cli.main import main
from rrgdb.opening import NewDisk, OptionError, record, replay
from rrgdb.qcow2 import Image
from rrgdb.recording.directory import RecordingBusyError, RecordingError
from rrgdb.recording.log import LogError
from rrgdb.recording.manifest import ManifestError
from rrgdb.snapshots.errors import StoreError
from rrgdb.timeline.stop import Points
from rrgdb.timeline.verify import verify
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import OPTIONS, digests_straight, whole_state

NONE = Points({})
OVERLAY = "disk-root.qcow2"
FILES = ("manifest.json", "events.log", "history.index", "snapshots.qcow2", OVERLAY, "lock", "images")
REFUSALS = (RecordingError, ManifestError, LogError, OptionError)


@dataclass(frozen=True)
class _Made:
    path: Path
    image: Path
    end: int


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> _Made:
    """A recording of a guest with a disk, with a handful of snapshots."""
    directory = tmp_path_factory.mktemp("foreign")
    image = directory / "root.img"
    image.write_bytes(bytes(range(256)) * 40)
    with record(
        directory / "r",
        build("riscv64", "disks", {"ROUNDS": 4, "SECTORS": 4, "WORK": 20}),
        OPTIONS,
        interval=1e-9,
        disks=[NewDisk(image, "root")],
    ) as opened:
        for _ in range(4):
            opened.timeline.run(NONE, steps=3000)
        end = opened.timeline.end
    return _Made(directory / "r", image, end)


@pytest.fixture
def ours(original: _Made, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original.path, tmp_path / "r"))


def _content(path: Path) -> dict[str, tuple[bytes, int]]:
    """All files below ``path`` or ``path`` itself: content and time of change."""
    files = [f for f in (path, *path.rglob("*")) if f.is_file()]
    return {str(f): (f.read_bytes(), f.stat().st_mtime_ns) for f in files}


def _use(path: Path) -> list[str]:
    """All that may write a recording: a replay with a snapshot, deleted again. Returns what was said; if the recording
    is refused that begins with an empty line."""
    said: list[str] = []
    try:
        opened = replay(path)
    except RecordingBusyError as e:
        said.append(str(e))
        opened = replay(path, writable=False)
    except REFUSALS as e:
        return ["", str(e)]
    with opened:
        said += opened.messages
        t = opened.timeline
        t.seek(t.end // 2)
        t.index.note()
        try:
            t.marks.take_snapshot("mine")
            t.marks.flush()
            t.marks.delete_snapshots([s for s in t.marks.stored if s.icount])
            t.marks.flush()
        except StoreError as e:
            said.append(str(e))
    return said


def _symlink(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere)


def _hard_link(path: Path, elsewhere: Path) -> None:
    if elsewhere.is_dir():
        path.mkdir()
        for file in elsewhere.iterdir():
            (path / file.name).hardlink_to(file)
    else:
        path.hardlink_to(elsewhere)


@pytest.mark.parametrize("link", [_symlink, _hard_link])
@pytest.mark.parametrize("name", FILES)
def test_a_link_leads_to_nothing_that_is_changed(
    ours: Path, tmp_path: Path, name: str, link: Callable[[Path, Path], None]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (ours / name).rename(elsewhere)
    if name in (OVERLAY, "snapshots.qcow2"):
        with Image.open(elsewhere, writable=True, backing=False) as image:
            image.create_snapshot("the user's own", icount=17)
    if name == "lock":
        elsewhere.write_text("precious")
    link(ours / name, elsewhere)
    before = _content(elsewhere)
    said = _use(ours)
    assert not any("\n" in line for line in said)
    if said[:1] == [""]:
        assert link is _symlink
        assert name in said[1]
    else:
        assert link is _hard_link or name in ("history.index", "snapshots.qcow2", OVERLAY, "lock")
    assert _content(elsewhere) == before


def test_a_recording_that_was_copied_by_links_is_read(ours: Path, tmp_path: Path, original: _Made) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ours, copy, copy_function=os.link)
    before = _content(ours)
    with pytest.raises(RecordingBusyError, match=r"lock: .* 2 names \(hard links\)"):
        replay(copy)
    with replay(copy, writable=False) as opened:
        assert opened.messages == ()
        assert len(opened.timeline.marks.stored) > 2
        verify(opened.timeline)
    (copy / "lock").unlink()
    with replay(copy) as opened:
        assert len(opened.messages) == 1
        assert "2 (hard links); opened for reading: no new snapshots" in opened.messages[0]
        assert len(opened.timeline.marks.stored) > 2
        opened.timeline.seek(original.end)
    assert _content(ours) == before


@pytest.mark.parametrize("name", [*FILES, "images/*"])
@pytest.mark.parametrize("kind", ["pipe", "directory", "nowhere", "socket"])
def test_what_is_no_file_neither_hangs_nor_changes(
    ours: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = next(ours.glob(name))
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "nowhere":
        path.symlink_to(ours.parent / "nowhere")
    else:
        monkeypatch.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(path.name)
    assert not any("\n" in line for line in _use(ours))
    assert os.path.lexists(path)
    assert not (ours.parent / "nowhere").exists()


def test_what_a_killed_writer_left_may_be_a_link_by_now(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    with record(tmp_path / "r", build("riscv64", "ticker"), OPTIONS) as opened:
        opened.timeline.run(NONE, steps=100)
        (tmp_path / "r" / "manifest.json.tmp").hardlink_to(precious)
    assert precious.read_text() == "precious"
    with replay(tmp_path / "r") as opened:
        assert opened.recording.manifest.log_bytes is not None


def test_an_overlay_over_another_image_is_none_of_the_recording(ours: Path, original: _Made, tmp_path: Path) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(original.image.read_bytes())
    with Image.open(ours / OVERLAY, writable=True, barriers=True) as image:
        image.rebase(str(other), "raw", unsafe=True)
    before = (ours / OVERLAY).read_bytes()
    with replay(ours) as opened:
        assert [m for m in opened.messages if f"an overlay over '{other}'" in m]
        assert opened.timeline.marks.stored == []
        opened.timeline.seek(original.end)
    assert (ours / OVERLAY).read_bytes() == before
    # Where the image is now, the overlay may say so.
    with replay(ours, disks={"root": other}) as opened:
        assert len(opened.timeline.marks.stored) > 2


def test_a_store_over_another_file_is_none(ours: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (ours / "snapshots.qcow2").unlink()
    Image.create(ours / "snapshots.qcow2", 0, cluster_size=4096).close()
    with Image.open(ours / "snapshots.qcow2", writable=True) as image:
        image.rebase(str(tmp_path / "pipe"), "raw", unsafe=True)
    with replay(ours) as opened:
        assert "expected the header of an image of VM states alone" in opened.messages[0]


def test_disk_snapshots_of_others_stay(ours: Path, original: _Made) -> None:
    """The user's, whatever they are called; what this recording has left over itself goes."""
    with replay(ours, writable=False) as opened:
        known = opened.timeline.marks.stored[1]
        owner = opened.recording.manifest.recording_id
        right = digests_straight(original.path, [known.icount], ours.parent / "straight")[known.icount]
    with Image.open(ours / OVERLAY, writable=True) as image:
        image.write(0, b"not what the guest wrote" * 100)
        image.create_snapshot("mine")
        image.create_snapshot("auto-77", vm_clock_ns=77, icount=77)
        image.create_snapshot(known.name, vm_clock_ns=known.icount, icount=known.icount)
        image.create_snapshot("auto-78", vm_clock_ns=78, icount=78, extra=owner)
        image.create_snapshot("auto-79", vm_clock_ns=79, icount=79, extra=owner[::-1])
    _use(ours)
    with Image.open(ours / OVERLAY) as image:
        names = [s.name for s in image.snapshots if s.extra != owner]
        assert names == ["mine", "auto-77", known.name, "auto-79"]
        assert "auto-78" not in [s.name for s in image.snapshots]
        assert image.view(image.snapshots[-1]).read(0, 24) == b"not what the guest wrote"
    shutil.rmtree(ours)
    shutil.copytree(original.path, ours)
    with Image.open(ours / OVERLAY, writable=True) as image:
        image.write(0, b"not what the guest wrote" * 100)
        image.create_snapshot(known.name, vm_clock_ns=known.icount, icount=known.icount)
    with replay(ours) as opened:
        opened.timeline.seek(known.icount)
        assert whole_state(opened) == right
        verify(opened.timeline)


# -- new recordings ------------------------------------------------------------------------------


def test_a_new_recording_goes_through_no_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(elsewhere)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("link", "dangling"):
        with pytest.raises(RecordingError, match="expected a new or an empty directory"):
            record(tmp_path / name, build("riscv64", "ticker"), OPTIONS)
    assert list(elsewhere.iterdir()) == []
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755
    assert not (tmp_path / "nowhere").exists()


def test_a_recording_that_comes_to_nothing_takes_only_itself_away(tmp_path: Path) -> None:
    for there in (False, True):
        path = tmp_path / f"r{there}"
        if there:
            path.mkdir(mode=0o750)
        opened = record(path, build("riscv64", "ticker"), OPTIONS)
        assert opened.discard()
        assert path.exists() == there
        assert not there or (list(path.iterdir()) == [] and stat.S_IMODE(path.stat().st_mode) == 0o750)
    opened = record(tmp_path / "r", build("riscv64", "ticker"), OPTIONS)
    (tmp_path / "r" / "notes").write_text("the user's")
    assert opened.discard()
    assert [f.name for f in (tmp_path / "r").iterdir()] == ["notes"]


def test_a_disk_that_is_a_part_of_a_recording_is_refused(ours: Path, tmp_path: Path) -> None:
    (tmp_path / "symlink").symlink_to(ours / OVERLAY)
    (tmp_path / "hard link").hardlink_to(ours / OVERLAY)
    Image.create(tmp_path / "over it", 512 * 20, backing_file=str(ours / OVERLAY), backing_format="qcow2").close()
    for name in (ours / OVERLAY, "symlink", "hard link", "over it"):
        path = tmp_path / name
        with pytest.raises(OptionError, match=rf"--disk .*{path.name}.*(belongs to|is an overlay of) .*recording") as e:
            record(tmp_path / "new", build("riscv64", "disks"), OPTIONS, disks=[NewDisk(path, None, "qcow2")])
        assert "\n" not in str(e.value)
        assert not (tmp_path / "new").exists()
    with pytest.raises(OptionError, match="belongs to the recording"):
        record(tmp_path / "new", build("riscv64", "disks"), OPTIONS, disks=[NewDisk(ours / "events.log")])
    (tmp_path / "hard link").unlink()
    shutil.copy(ours / OVERLAY, tmp_path / "copy")
    record(
        tmp_path / "new", build("riscv64", "disks"), OPTIONS, disks=[NewDisk(tmp_path / "copy", None, "qcow2")]
    ).close()


def test_two_live_recordings_share_an_image(tmp_path: Path) -> None:
    """It is only read, so each has what it wrote itself."""
    image = tmp_path / "root.img"
    image.write_bytes(bytes(range(256)) * 40)
    before = _content(image)
    guest = build("riscv64", "disks", {"ROUNDS": 4, "SECTORS": 4, "WORK": 20})
    disk = [NewDisk(image, "root")]
    with (
        record(tmp_path / "a", guest, OPTIONS, interval=1e-9, disks=disk) as a,
        record(tmp_path / "b", guest, OPTIONS, interval=1e-9, disks=disk) as b,
    ):
        for _ in range(3):
            a.timeline.run(NONE, steps=4000)
            b.timeline.run(NONE, steps=2500)
    for name in ("a", "b"):
        with replay(tmp_path / name) as opened:
            assert opened.messages == ()
            verify(opened.timeline)
    assert _content(image) == before


def test_nothing_is_written_over_a_recording(
    ours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: content for name, (content, _) in _content(ours).items() if not name.endswith("lock")}

    def fails(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["rrgdb", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        return capsys.readouterr().err

    for name in ("events.log", OVERLAY, f"images/{next((ours / 'images').iterdir()).name}"):
        assert "belongs to the recording" in fails("snapshot", "export", ours, "start", ours / name)
        said = fails("record", "--serial", f"file:{ours / name}", "-o", ours / "new", build("riscv64", "ticker"))
        assert "belongs to the recording" in said
        shutil.rmtree(ours / "new", ignore_errors=True)
    assert {name: content for name, (content, _) in _content(ours).items() if not name.endswith("lock")} == before
