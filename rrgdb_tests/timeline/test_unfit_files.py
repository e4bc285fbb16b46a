"""Files that are no files, or far too large, wherever one is read: one line, no wait, no memory."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from rrgdb.cli import main as cli
from rrgdb.opening import NewDisk, record
from rrgdb.qcow2 import Image
from rrgdb.timeline.stop import Points
from rrgdb_tests import guests
from rrgdb_tests.timeline.oracle import OPTIONS

SECONDS = 20
MEMORY = 512 << 20
"""bytes; open qcow2 images reserve 64 MiB each"""
SPARSE = 1 << 40
Make = Callable[[Path], None]
Said = Callable[..., str]


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        here = Path.cwd()
        os.chdir(path.parent)  # the path of a socket is short
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(SPARSE)


KINDS: dict[str, Make] = {"device": _device, "fifo": os.mkfifo, "directory": Path.mkdir, "socket": _socket}
WITH_SPARSE = {**KINDS, "sparse": _sparse}


@contextmanager
def _bounded() -> Iterator[None]:
    """Inside, neither much time nor much memory is taken."""

    def late(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError("takes too long")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Said:
    """``said(*arguments, status=1)``: what ``rrgdb ARGUMENTS`` says, within bounds."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)

    def run(*arguments: object, status: int = 1) -> str:
        monkeypatch.setattr(sys, "argv", ["rrgdb", *map(str, arguments)])
        with _bounded(), pytest.raises(SystemExit) as ended:
            cli.main()
        assert (ended.value.code or 0) == status
        return capfd.readouterr().err

    return run


def _disks_elf() -> Path:
    return guests.build("riscv64", "disks", {"ROUNDS": 3})


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with an image, a log, snapshots, an overlay and an index; its disk beside it."""
    path = tmp_path_factory.mktemp("unfit")
    (path / "disk.img").write_bytes(bytes(64 << 10))
    with record(path / "r", _disks_elf(), OPTIONS, disks=[NewDisk(path / "disk.img", "a")]) as opened:
        opened.timeline.run(Points({}))
    return path / "r"


@pytest.mark.parametrize("kind", WITH_SPARSE)
@pytest.mark.parametrize("raw", [False, True], ids=["elf", "raw"])
def test_an_image(kind: str, raw: bool, tmp_path: Path, said: Said) -> None:
    image = tmp_path / "x"
    WITH_SPARSE[kind](image)
    options = ["-M", "riscv64-virt", "--load", "0x80000000"] if raw else []
    for verb in ("record", "run"):
        line = said(verb, *options, "-o", tmp_path / "r", image)
        assert line.startswith(f"rrgdb: {image}: expected ")
        assert line.count("\n") == 1
        assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("below", [False, True], ids=["disk", "backing file"])
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_disk(kind: str, below: bool, format: str, tmp_path: Path, said: Said) -> None:
    where = disk = tmp_path / "x"
    if below:
        (tmp_path / "real").write_bytes(bytes(1 << 20))
        disk = tmp_path / "over.qcow2"
        if format == "qcow2":
            Image.create(tmp_path / "x", 1 << 20).close()
        else:
            (tmp_path / "x").write_bytes(bytes(1 << 20))
        Image.create(disk, 1 << 20, backing_file=str(where), backing_format=format).close()
        where.unlink()
    KINDS[kind](where)
    chosen = "qcow2" if below else format
    line = said("record", "-o", tmp_path / "r", "--disk", f"a={disk},format={chosen}", _disks_elf())
    assert f"{where if below else where.resolve()}: " in line
    assert "expected a regular file" in line
    assert line.count("\n") == 1


def test_a_huge_disk_takes_neither_time_nor_memory(tmp_path: Path, said: Said) -> None:
    _sparse(tmp_path / "x")
    limit = ["--max-icount", "1000"]
    said("record", *limit, "-o", tmp_path / "r", "--disk", f"a={tmp_path / 'x'}", _disks_elf(), status=0)
    line = said("record", *limit, "-o", tmp_path / "q", "--disk", f"a={tmp_path / 'x'},format=qcow2", _disks_elf())
    assert line.startswith(f"rrgdb: {tmp_path / 'x'}: offset 0: ")


FILES = ["manifest.json", "events.log", "snapshots.qcow2", "disk-a.qcow2", "history.index", "lock", "image"]


@pytest.mark.parametrize("kind", WITH_SPARSE)
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_recording(kind: str, name: str, original: Path, tmp_path: Path, said: Said) -> None:
    ours = Path(shutil.copytree(original, tmp_path / "r"))
    where = next((ours / "images").iterdir()) if name == "image" else ours / name
    where.unlink()
    WITH_SPARSE[kind](where)
    needed = name in ("manifest.json", "events.log", "image")
    for verb in (["info"], ["verify", "--jobs", "1"], ["snapshot", "list"]):
        line = said(*verb, ours, status=1 if needed else 0)
        assert "internal error" not in line
        if needed:
            assert line.count("\n") == 1
            assert str(where) in line
    if name == "lock" and kind != "sparse":
        assert "internal error" not in said("snapshot", "create", ours, "x")


def test_a_log_with_a_huge_hole_behind_it(original: Path, tmp_path: Path, said: Said) -> None:
    ours = Path(shutil.copytree(original, tmp_path / "r"))
    with (ours / "events.log").open("r+b") as file:
        file.truncate(SPARSE)
    assert "the recording is damaged behind" in said("verify", "--jobs", "1", ours)
