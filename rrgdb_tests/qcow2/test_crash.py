"""A writer that dies at any moment, a full disk, a power cut."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rrgdb.qcow2 import Image
from rrgdb.qcow2.hostfile import Buffer, HostFile
from rrgdb.qcow2.mapping import Mapper
from rrgdb_tests.qcow2.conftest import Qemu

SIZE = 512  # small clusters: many tables, many writes
PAGES = 400


def page(seed: int) -> bytes:
    return random.Random(seed).randbytes(SIZE)


def work(image: Image, rounds: int, said: Callable[[int], None]) -> dict[str, dict[int, int]]:
    """Snapshots, deletions, applications; returns name -> {page: seed}. ``said`` is told each finished round."""
    rng = random.Random(4)
    now: dict[int, int] = {}
    kept: dict[str, dict[int, int]] = {}
    for turn in range(rounds):
        dirty = {rng.randrange(PAGES): rng.randrange(1, 10**6) for _ in range(40)}
        image.write_vmstate([(i * SIZE, page(seed)) for i, seed in dirty.items()])
        now.update(dirty)
        image.create_snapshot(f"s{turn}", vm_state_size=PAGES * SIZE)
        kept[f"s{turn}"] = dict(now)
        if turn % 4 == 3:
            victim = rng.choice(image.snapshots)
            image.delete_snapshot(victim)
            del kept[victim.name]
        if turn % 6 == 5:
            chosen = rng.choice(image.snapshots)
            image.apply_snapshot(chosen)
            now = dict(kept[chosen.name])
        if turn % 5 == 4:
            image.flush()
        said(turn)
    return kept


def expected() -> dict[str, dict[int, int]]:
    """All contents that a snapshot of ``work`` ever had; names are never reused."""
    seen: dict[str, dict[int, int]] = {}
    rng = random.Random(4)
    now: dict[int, int] = {}
    names: list[str] = []
    for turn in range(1000):
        now.update({rng.randrange(PAGES): rng.randrange(1, 10**6) for _ in range(40)})
        names.append(f"s{turn}")
        seen[f"s{turn}"] = dict(now)
        if turn % 4 == 3:
            names.remove(rng.choice(names))
        if turn % 6 == 5:
            now = dict(seen[rng.choice(names)])
    return seen


EXPECTED = expected()


def verify(path: Path, *, leaks: bool = False) -> list[str]:
    """Check the image and the content of every snapshot; returns their names."""
    with Image.open(path) as image:
        found = image.check()
        assert not found.corruptions, found.corruptions[:5]
        assert leaks or not found.leaks, found.leaks[:5]
        for snapshot in image.snapshots:
            content = EXPECTED[snapshot.name]
            pages = image.view(snapshot).read_vmstate_clusters(range(0, PAGES * SIZE, SIZE))
            for i, data in enumerate(pages):
                assert data == (page(content[i]) if i in content else bytes(SIZE))
        return [snapshot.name for snapshot in image.snapshots]


class Tape:
    """Records what an image does to its file: (offset, bytes), and None for each sync."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[int, bytes] | None] = []
        write, sync = HostFile.write, HostFile.sync

        def taped_write(file: HostFile, offset: int, buffers: list[Buffer]) -> None:
            self.events.append((offset, b"".join(buffers)))
            write(file, offset, buffers)

        def taped_sync(file: HostFile) -> None:
            self.events.append(None)
            sync(file)

        monkeypatch.setattr(HostFile, "write", taped_write)
        monkeypatch.setattr(HostFile, "sync", taped_sync)


def put(content: bytearray, offset: int, data: bytes) -> None:
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    content[offset : offset + len(data)] = data


def test_every_prefix_of_the_writes_is_a_good_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qemu: Qemu
) -> None:
    with monkeypatch.context() as patch:
        tape = Tape(patch)
        with Image.create(tmp_path / "a.qcow2", 0, cluster_size=SIZE) as image:
            work(image, 14, lambda turn: None)
    content = bytearray()
    crashed = tmp_path / "crashed.qcow2"
    born = False
    most: list[str] = []
    for number, event in enumerate(e for e in tape.events if e is not None):
        offset, data = event
        # A long write may be cut in two by the crash.
        for part in (len(data) // 2 // SIZE * SIZE, len(data)):
            put(content, offset, data[:part])
            born = born or content[:4] == b"QFI\xfb"
            if born and part and (number % 3 == 0 or offset == 0):
                crashed.write_bytes(content)
                most = max(most, verify(crashed), key=len)
                if number % 60 == 0:
                    qemu.check(crashed)
    assert len(most) > 8


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_power_cut_with_barriers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Any part of what was written since the last sync may be missing."""
    with monkeypatch.context() as patch:
        tape = Tape(patch)
        with Image.create(tmp_path / "a.qcow2", 0, cluster_size=SIZE, barriers=True) as image:
            work(image, 12, lambda turn: None)
    rng = random.Random(seed)
    durable, since = bytearray(), []
    cut = tmp_path / "cut.qcow2"
    seen = 0
    for event in tape.events:
        if event is not None:
            offset, data = event
            since += [(offset + i, data[i : i + SIZE]) for i in range(0, len(data), SIZE)]
            continue
        for _ in range(2 if seed == 1 else 20):
            content = bytearray(durable)
            for offset, data in since:
                if rng.random() < 0.5:
                    put(content, offset, data)
            if content[:4] == b"QFI\xfb":
                cut.write_bytes(content)
                seen += len(verify(cut))
        for offset, data in since:
            put(durable, offset, data)
        since = []
    assert seen


class FullDisk:
    """Fails the ``at``-th write from now on, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = 0
        write = HostFile.write

        def full(file: HostFile, offset: int, buffers: list[Buffer]) -> None:
            self.at -= 1
            if self.at == 0:
                raise OSError(errno.ENOSPC, "full")
            write(file, offset, buffers)

        monkeypatch.setattr(HostFile, "write", full)


def work_on_a_full_disk(image: Image) -> int:
    """Repeats what fails; returns the number of failures."""
    names: list[str] = []
    model: dict[int, bytes] = {}
    failures = 0

    def attempt(action: Callable[[], object]) -> None:
        nonlocal failures
        try:
            action()
            return
        except OSError as error:
            full = error
        assert full.errno == errno.ENOSPC
        failures += 1
        with Image.open(image.path) as other:
            assert other.check().clean
            assert [s.name for s in other.snapshots] == names
        for i, data in model.items():
            assert image.read_vmstate(i * SIZE, SIZE) == data
        action()

    for turn in range(4):
        pages = {i * 3 + turn: page(i + turn) for i in range(60)}
        attempt(lambda pages=pages: image.write_vmstate([(i * SIZE, data) for i, data in pages.items()]))
        model |= pages
        attempt(lambda turn=turn: image.write(turn * 9000, b"disk" * 2000))
        attempt(lambda turn=turn: image.create_snapshot(f"n{turn}"))
        names.append(f"n{turn}")
        if turn == 2:
            attempt(lambda: image.write_vmstate([(0, b"u" * SIZE)]))
            kept, model[0] = model[0], b"u" * SIZE
            attempt(lambda: image.delete_snapshot("1"))
            del names[0]
            attempt(lambda: image.apply_snapshot("3"))
            model[0] = kept
            attempt(image.flush)
    for i, data in model.items():
        assert image.read_vmstate(i * SIZE, SIZE) == data
    assert image.check().clean
    return failures


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_full_disk_at_any_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qemu: Qemu, step: int) -> None:
    """ENOSPC comes through; disk and memory stay consistent, and the work can be repeated."""
    disk = FullDisk(monkeypatch)
    path = tmp_path / "a.qcow2"
    trial = 1
    while True:
        path.unlink(missing_ok=True)
        disk.at = 0
        image = Image.create(path, 50_176, cluster_size=SIZE)
        disk.at = trial
        failures = work_on_a_full_disk(image)
        image.close()
        if trial % 13 == 0:
            qemu.check(path)
        if not failures:
            break
        trial += step
    assert trial > 30


WRITER = """
import sys
from rrgdb.qcow2 import Image
from rrgdb_tests.qcow2.test_crash import work
with Image.open(sys.argv[1], writable=True) as image:
    work(image, 1000, lambda turn: print(turn, flush=True))
"""


def kill_once(path: Path, rounds: int, qemu: Qemu) -> None:
    path.unlink(missing_ok=True)
    Image.create(path, 0, cluster_size=SIZE).close()
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(rounds):
            said = writer.stdout.readline()
            assert said
        os.kill(writer.pid, signal.SIGKILL)
        for line in writer.stdout:
            said = line
    qemu.check(path, codes=(0, 3))
    names = verify(path, leaks=True)
    assert f"s{int(said)}" in names or int(said) % 4 == 3
    # Life goes on.
    with Image.open(path, writable=True) as image:
        image.write_vmstate([(0, page(1))])
        image.create_snapshot("after")
        image.delete_snapshot(image.snapshots[0])
    qemu.check(path)


@pytest.mark.parametrize("rounds", [1, 7, 30])
def test_kill(tmp_path: Path, qemu: Qemu, rounds: int) -> None:
    kill_once(tmp_path / "a.qcow2", rounds, qemu)


@pytest.mark.slow
def test_kill_often(tmp_path: Path, qemu: Qemu) -> None:
    rng = random.Random(9)
    for _ in range(100):
        kill_once(tmp_path / "a.qcow2", rng.randrange(1, 150), qemu)


def test_a_reader_beside_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    with Image.create(path, 0, cluster_size=SIZE) as writer, Image.open(path) as reader:

        def look(turn: int) -> None:
            if turn % 4 != 3:  # what the reader knows must not be deleted under it
                assert {s.name for s in reader.snapshots} <= {s.name for s in writer.snapshots}
            reader.reload()
            assert reader.snapshots == writer.snapshots
            assert len(verify(path)) == len(writer.snapshots)

        work(writer, 10, look)


APPENDER = """
import sys
from rrgdb.qcow2 import Image
from rrgdb_tests.qcow2.test_crash import SIZE, page
with Image.open(sys.argv[1], writable=True) as image:
    for turn in range(5000):
        image.write_vmstate([(i * SIZE, page(turn * 100 + i)) for i in range(0, 90, 1 + turn % 7)])
        image.create_snapshot(str(turn))
        print(turn, flush=True)
"""


def test_a_reader_beside_a_writing_process(tmp_path: Path) -> None:
    """Opening never meets a state half switched, and what was said to be there is there."""
    path = tmp_path / "a.qcow2"
    Image.create(path, 0, cluster_size=SIZE).close()
    with subprocess.Popen([sys.executable, "-c", APPENDER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(150):
            said = int(writer.stdout.readline())
            with Image.open(path) as reader:
                snapshots = reader.snapshots
                assert [s.name for s in snapshots] == [str(turn) for turn in range(len(snapshots))]
                assert len(snapshots) > said
                for snapshot in (snapshots[-1], snapshots[said // 2]):
                    turn = int(snapshot.name)
                    at = range(0, 90, 1 + turn % 7)
                    found = reader.view(snapshot).read_vmstate_clusters([i * SIZE for i in at])
                    assert found == [page(turn * 100 + i) for i in at]
        os.kill(writer.pid, signal.SIGKILL)


def test_going_on_after_a_snapshot_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OFLAG_COPIED was cleared for the snapshot; without it, it must be set again."""
    disk = FullDisk(monkeypatch)
    for at in range(1, 7):
        image = Image.create(tmp_path / f"{at}.qcow2", 0, cluster_size=SIZE)
        image.write_vmstate([(i * SIZE, page(i)) for i in range(200)])
        image.flush()
        image.write_vmstate([(i * SIZE, page(i + 1)) for i in range(0, 200, 9)])
        disk.at = at
        with pytest.raises(OSError, match="full"):
            image.create_snapshot("s")
        image.write_vmstate([(500 * SIZE, page(7))])
        image.flush()
        assert image.check().clean
        assert not image.snapshots
        image.create_snapshot("t")
        assert image.check().clean
        assert image.read_vmstate(0, 2 * SIZE) == page(1) + page(1)
        image.close()


def test_opening_while_the_header_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer commits between the reader's look at the header and its look at the tables."""
    path = tmp_path / "a.qcow2"
    read_l1 = Mapper.read_l1
    busy = [4]

    def slow(mapper: Mapper, offset: int, size: int, **how: bool) -> object:
        if busy[0]:
            busy[0] -= 1
            for i in range(3):
                writer.write_vmstate([(i * SIZE, page(busy[0] + i))])
                writer.create_snapshot(f"{busy[0]}.{i}")
        return read_l1(mapper, offset, size, **how)

    with Image.create(path, 0, cluster_size=SIZE) as writer:
        monkeypatch.setattr(Mapper, "read_l1", slow)
        with Image.open(path) as reader:
            assert not busy[0]
            assert reader.snapshots == writer.snapshots
            assert len(reader.snapshots) == 12
            assert reader.read_vmstate(0, 3 * SIZE) == writer.read_vmstate(0, 3 * SIZE)


def test_the_name_of_a_new_image_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        assert (tmp_path / "a").exists()
        synced.append(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    Image.create(tmp_path / "a", 512).close()
    assert tmp_path.stat().st_ino in synced
