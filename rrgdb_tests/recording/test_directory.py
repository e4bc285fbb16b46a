"""The recording directory: complete, movable, and changed by nobody."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rrgdb.recording import directory
from rrgdb.recording.directory import NewImage, Recording, RecordingBusyError, RecordingError, default_path, image_file
from rrgdb.recording.log import Event, EventKind, LogError
from rrgdb.recording.manifest import Image, ManifestError

KERNEL = NewImage("my kernel.elf", "kernel", b"\x7fELF" + bytes(100))
BIOS = NewImage("../../etc/passwd", "bios", b"", 0xFFFF0000)


def create(path: Path, images: tuple[NewImage, ...] = (KERNEL, BIOS)) -> Recording:
    return Recording.create(
        path, board="virt", cpu="rv64", ram_bytes=1 << 27, images=images, engine="unicorn 2.1.4", options={"shift": 3}
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed recording with one input."""
    path = tmp_path / "guest.rrgdb"
    with create(path) as recording:
        recording.log.append(Event(5, EventKind.INPUT, "uart0", b"x"))
        recording.log.close_chunk(9)
    return path


def test_what_is_in_it(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o700
    files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    images = {f"images/{image_file(image)}" for image in Recording.open(path).manifest.guest.images}
    assert files == {"manifest.json", "events.log", "lock", *images}
    with Recording.open(path) as recording:
        assert recording.image("my kernel.elf") == KERNEL.data
        assert recording.image("../../etc/passwd") == b""
        assert recording.image_path("my kernel.elf").parent == path / "images"
        assert recording.snapshots == path / "snapshots.qcow2"
        guest = recording.manifest.guest
        assert (guest.board, guest.cpu, guest.ram_bytes, guest.options) == ("virt", "rv64", 1 << 27, {"shift": 3})
        assert [image.load_address for image in guest.images] == [None, 0xFFFF0000]
        assert recording.log.recording_id == recording.manifest.recording_id
        assert list(recording.log.inputs) == [Event(5, EventKind.INPUT, "uart0", b"x")]
        with pytest.raises(KeyError):
            recording.image("other")


def test_nothing_of_this_machine_is_in_it(path: Path, tmp_path: Path) -> None:
    for file in path.rglob("*"):
        if file.is_file():
            assert os.fsencode(tmp_path) not in file.read_bytes()
    moved = tmp_path / "else" / "where"
    shutil.copytree(path, moved)
    shutil.rmtree(path)
    with Recording.open(moved) as recording:
        assert recording.image("my kernel.elf") == KERNEL.data
        assert recording.log.horizon == 9


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/../b", "\0", "x" * 300, "ü\n", "-rf"])
def test_image_files_stay_in_their_directory(name: str) -> None:
    file = image_file(Image(name, "kernel", None, 0, "ab" * 32))
    assert file == os.path.basename(file)
    assert file.startswith("abababababababab-")
    assert file.isascii()
    assert len(file) < 100


def test_default_path(tmp_path: Path) -> None:
    assert default_path("/some/where/foo.elf", tmp_path) == tmp_path / "foo.rrgdb"
    (tmp_path / "foo.rrgdb").mkdir()
    assert default_path("foo.elf", tmp_path) == tmp_path / "foo-1.rrgdb"
    (tmp_path / "foo-1.rrgdb").symlink_to("nowhere")
    assert default_path("foo", tmp_path) == tmp_path / "foo-2.rrgdb"
    assert default_path("", tmp_path) == tmp_path / "recording.rrgdb"


# Creating


def test_create_takes_an_empty_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    create(tmp_path).close()
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_create_does_not_overwrite(path: Path, tmp_path: Path) -> None:
    before = (path / "events.log").read_bytes()
    (tmp_path / "file").write_bytes(b"mine")
    for taken in (path, tmp_path, tmp_path / "file"):
        with pytest.raises(RecordingError, match="expected a new or an empty directory"):
            create(taken)
    with pytest.raises(RecordingError, match="cannot create the recording: No such file"):
        create(tmp_path / "missing" / "guest.rrgdb")
    assert (path / "events.log").read_bytes() == before
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_bad_description_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="different name"):
        create(tmp_path / "guest.rrgdb", (KERNEL, KERNEL))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes of a creation: the process id, the kernel, the log's header, the manifest; then the manifest again."""
    write = os.write
    path = tmp_path / "guest.rrgdb"
    for room in range(6):
        left = room

        def full(fd: int, data: bytes) -> int:
            nonlocal left
            if not left:
                raise OSError(28, "No space left on device")
            left -= 1
            return write(fd, data)

        with monkeypatch.context() as patch:
            patch.setattr("os.write", full)
            if room == 5:
                create(path).close()
                break
            with pytest.raises((RecordingError, LogError, ManifestError), match=r"No space|disk full"):
                create(path).close()
        if room == 4:
            with Recording.open(path) as unfinished:
                assert unfinished.manifest.log_bytes is None
            shutil.rmtree(path)
        assert list(tmp_path.iterdir()) == []


# Opening


def test_what_is_no_recording(path: Path, tmp_path: Path) -> None:
    for other in (tmp_path, tmp_path / "missing", path / "events.log"):
        with pytest.raises(RecordingError, match=r"expected a recording: manifest.json is missing"):
            Recording.open(other)
    (path / "manifest.json").unlink()
    with pytest.raises(RecordingError, match="expected a recording: it was never completed"):
        Recording.open(path)


def test_a_changed_image_is_refused(path: Path) -> None:
    with Recording.open(path) as recording:
        file = recording.image_path("my kernel.elf")
    for data in (KERNEL.data[:-1] + b"\1", KERNEL.data[:-1], KERNEL.data + b"\0", b""):
        file.write_bytes(data)
        with pytest.raises(RecordingError, match=f"{file}: image 'my kernel.elf' was changed") as caught:
            Recording.open(path)
        assert "\n" not in str(caught.value)
    file.unlink()
    with pytest.raises(RecordingError, match=r"cannot read image 'my kernel.elf': No such file"):
        Recording.open(path)
    os.mkfifo(file)
    with pytest.raises(RecordingError, match="not a regular file"):
        Recording.open(path)
    file.unlink()
    file.write_bytes(KERNEL.data)
    Recording.open(path, writable=True).close()


def test_a_log_of_another_recording_is_refused(path: Path, tmp_path: Path) -> None:
    with create(tmp_path / "other.rrgdb"):
        pass
    shutil.copy(tmp_path / "other.rrgdb" / "events.log", path / "events.log")
    with pytest.raises(LogError, match="offset 12: expected recording"):
        Recording.open(path)
    Recording.open(tmp_path / "other.rrgdb").close()


def test_a_finished_log_that_was_cut_is_known_to_be_damaged(path: Path) -> None:
    with Recording.open(path) as recording:
        assert recording.manifest.log_bytes == recording.log.size
        assert recording.damage is None
        log = recording.log.path
    with log.open("ab") as file:
        file.write(b"torn")
    with Recording.open(path) as recording:
        assert "damaged behind icount" in str(recording.damage)


# Locking


def test_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "guest.rrgdb"
    with create(path), pytest.raises(RecordingBusyError, match=f"in use: process {os.getpid()} is writing it"):
        Recording.open(path, writable=True)
    with Recording.open(path, writable=True), pytest.raises(RecordingBusyError, match="is writing it"):
        Recording.open(path, writable=True)


def test_readers_come_beside_a_writer_and_beside_each_other(path: Path) -> None:
    with Recording.open(path) as one, Recording.open(path) as two, Recording.open(path, writable=True):
        assert one.manifest == two.manifest
        Recording.open(path).close()
    recording = Recording.open(path, writable=True)
    recording.close()
    recording.close()
    Recording.open(path, writable=True).close()


def test_a_refused_open_lets_go_of_the_lock(path: Path) -> None:
    whole = (path / "events.log").read_bytes()
    (path / "events.log").write_bytes(b"junk")
    with pytest.raises(LogError):
        Recording.open(path, writable=True)
    (path / "events.log").write_bytes(whole)
    Recording.open(path, writable=True).close()


def test_a_killed_writer_holds_no_lock(path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom rrgdb.recording.directory import Recording\n"
        "r = Recording.open(Path(sys.argv[1]), writable=True)\nprint('open', flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        with pytest.raises(RecordingBusyError, match=f"process {writer.pid} is writing it"):
            Recording.open(path, writable=True)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    Recording.open(path, writable=True).close()


def test_read_only_media_can_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_file = os.open

    def read_only(name: object, flags: int, *mode: int, dir_fd: int | None = None) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(30, "Read-only file system")
        return open_file(str(name), flags, *mode, dir_fd=dir_fd)

    monkeypatch.setattr("os.open", read_only)
    with Recording.open(path) as recording:
        assert recording.log.horizon == 9
    with pytest.raises(RecordingError, match="Read-only file system"):
        Recording.open(path, writable=True)
    (path / directory.LOCK).unlink()
    Recording.open(path).close()
