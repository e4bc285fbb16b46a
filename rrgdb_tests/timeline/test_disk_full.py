"""A disk that takes no more: one line says where the recording ends, and it opens up to there."""

from __future__ import annotations

import errno
import os
import random
import re
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rrgdb.cli import main as cli
from rrgdb.opening import record, replay
from rrgdb.snapshots.errors import StoreError
from rrgdb.snapshots.store import SnapshotStore
from rrgdb.timeline.verify import verify
from rrgdb_tests.e2e.harness import PATIENCE, rrgdb_command
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import OPTIONS

ASKING = struct.pack("<3I", 0x102002B7, 0x0002A303, 0xFFDFF06F)
"""RISC-V: reads the entropy device for ever, and every word goes into the log"""
RAW = ("-M", "riscv64-virt", "-m", "1", "--load", "0x80000000")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "asking.bin").write_bytes(ASKING)
    return tmp_path / "asking.bin"


def _ends_where_it_says(path: Path, heard: str, reason: str) -> None:
    told = re.findall(rf"^rrgdb: {path}/events.log: {reason}: the recording ends at icount (\d+)$", heard, re.MULTILINE)
    assert len(told) == 1, heard
    assert "Traceback" not in heard
    with replay(path) as opened:
        assert opened.timeline.end == int(told[0]) > 0
        verify(opened.timeline)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_the_log_cannot_be_written(
    code: int, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The manifest, which is written at the end, finds no room either; that is not what the user has to know."""
    write = os.write
    chunks = 0

    def full(fd: int, data: bytes) -> int:
        nonlocal chunks
        name = os.readlink(f"/proc/self/fd/{fd}")
        chunks += "events.log" in name
        if chunks > 3 and ("events.log" in name or "manifest" in name):
            raise OSError(code, os.strerror(code))
        return write(fd, data)

    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(os, "write", full)
    arguments = ["record", "--serial", "null", "--max-icount", "500000", "-o", tmp_path / "r", *RAW, image]
    monkeypatch.setattr(sys, "argv", ["rrgdb", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    monkeypatch.undo()
    assert ended.value.code == 1
    heard = capfd.readouterr().err
    assert heard.count("\n") == 2, heard
    _ends_where_it_says(tmp_path / "r", heard, "disk full" if code == errno.ENOSPC else os.strerror(code))


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """RAM is a file as well, here of 1664 KiB, so the limit cannot be small: what is typed fills most of the log at
    once."""
    image = tmp_path / "asking.bin"
    image.write_bytes(b"\xba\x80\x0e\0\0\xed\xeb\xfd")  # mov edx, 0xe80; 1: in eax, dx; jmp 1b
    (tmp_path / "typed").write_bytes(random.Random(23).randbytes(1000 << 10))
    options = ("-M", "i386-pc", "-m", "2", "--load", "0x100000")
    command = rrgdb_command("record", "-o", tmp_path / "r", *options, image)
    with (tmp_path / "typed").open("rb") as typed:
        done = subprocess.run(
            ["bash", "-c", 'ulimit -f 1700; exec "$@"', "bash", *command],
            stdin=typed,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 1
    _ends_where_it_says(tmp_path / "r", done.stderr, "File too large")


def test_nothing_is_left_where_the_starting_snapshot_finds_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StoreError("snapshots.qcow2: no room")

    monkeypatch.setattr(SnapshotStore, "create", fail)
    with pytest.raises(StoreError, match="no room"):
        record(tmp_path / "r", build("riscv64", "mixer"), OPTIONS)
    assert list(tmp_path.iterdir()) == []
