"""The store against a model: a dictionary of RAM contents by snapshot; and what the writer's thread does to it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest

from rrgdb.qcow2.tables import Offsets, Slots, TableCache
from rrgdb.snapshots.entries import Stored
from rrgdb.snapshots.errors import StoreError
from rrgdb.snapshots.state import MAX_BYTES, GuestState
from rrgdb.snapshots.store import SnapshotStore

PAGES = 700
ZERO = bytes(4096)


def _state(number: int, size: int = 50) -> GuestState:
    return GuestState("build", number.to_bytes(8, "little") * size, b"devices", b"door", PAGES * 4096, bytes(8))


class Model:
    """A store, RAM, and what each snapshot must hold. While ``gate`` is closed, nothing gets to the disk."""

    def __init__(self, path: Path, seed: int) -> None:
        self.random = Random(seed)
        self.path = path
        self.gate = threading.Event()
        self.store = SnapshotStore.create(path, PAGES, before_commit=self._wait)
        self.ram: dict[int, bytes] = {}
        self.base: Stored | None = None
        self.changed: set[int] = set()
        self.held: dict[Stored, tuple[GuestState, dict[int, bytes]]] = {}
        self.number = 0

    def page(self, number: int) -> bytes:
        return self.ram.get(number, ZERO)

    def write(self) -> None:
        for _ in range(self.random.choice((1, 5, 60))):
            number = self.random.randrange(PAGES)
            self.ram[number] = self.random.choice((ZERO, self.random.randbytes(16) * 256))
            self.changed.add(number)

    def take(self) -> None:
        self.number += 1
        state = _state(self.number, self.random.choice((1, 600, 3000)))
        icount = self.random.randrange(1000)
        stored = self.store.take(f"s{self.number}", icount, state, self.base, {n: self.page(n) for n in self.changed})
        assert (stored.name, stored.icount) == (f"s{self.number}", icount)
        self.held[stored] = state, dict(self.ram)
        self.base, self.changed = stored, set()

    def load(self) -> None:
        """RAM goes to a snapshot; what is written from now on counts from there."""
        self.base = self.random.choice(list(self.held))
        self.ram, self.changed = dict(self.held[self.base][1]), set()

    def delete(self) -> None:
        self.gate.set()
        self.store.flush()
        going = [s for s in self.held if s is not self.base and self.random.random() < 0.3]
        self.store.delete(going)
        for stored in going:
            del self.held[stored]

    def hold(self) -> None:
        self.gate.clear()

    def let_go(self) -> None:
        """All that waits becomes one group, or a few."""
        self.gate.set()
        if self.random.random() < 0.5:
            self.store.flush()
            assert self.store.failed() is None
            assert all(map(self.store.is_on_disk, self.held))
            assert self.store.queued_bytes == 0

    def _wait(self) -> None:
        self.gate.wait()

    def reopen(self) -> None:
        self.gate.set()
        self.store.close()
        self.store = SnapshotStore.open(self.path, PAGES, writable=True, before_commit=self._wait)
        new = {s.name: s for s in self.store.snapshots}
        self.base = None if self.base is None else new[self.base.name]
        self.held = {new[s.name]: held for s, held in self.held.items()}

    def check(self) -> None:
        assert self.store.failed() is None
        assert self.store.snapshots == sorted(self.held, key=lambda s: s.icount) or sorted(
            self.store.snapshots
        ) == sorted(self.held)
        for stored, (state, ram) in self.held.items():
            assert self.store.state(stored) == state
            numbers = self.random.sample(range(PAGES), 50)
            assert self.store.pages(stored, numbers) == [ram.get(n, ZERO) for n in numbers]
            pages = [memoryview(bytearray(b"?" * len(ZERO))) for _ in numbers]
            self.store.read_into(stored, np.array(numbers), pages)
            assert pages == [ram.get(n, ZERO) for n in numbers]
        a, b = self.random.choice(list(self.held)), self.random.choice(list(self.held))
        one, two = self.held[a][1], self.held[b][1]
        different = {n for n in range(PAGES) if one.get(n, ZERO) != two.get(n, ZERO)}
        assert different <= set(self.store.differing(a, b).tolist())


def _walk(path: Path, seed: int, moves: int) -> None:
    model = Model(path, seed)
    model.write()
    model.take()
    for _ in range(moves):
        model.write()
        model.random.choice(
            (model.take,) * 5 + (model.load, model.delete, model.hold, model.hold, model.let_go, model.reopen)
        )()
        model.check()
    model.gate.set()
    model.store.close()
    if shutil.which("qemu-img"):
        subprocess.run(["qemu-img", "check", str(path)], check=True, capture_output=True)


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 60))])
def test_random_use(tmp_path: Path, seed: int) -> None:
    _walk(tmp_path / "s.qcow2", seed, 40)


def test_a_snapshot_costs_what_changed(tmp_path: Path) -> None:
    store = SnapshotStore.create(tmp_path / "s.qcow2", 100_000)
    ram = {n: n.to_bytes(4, "little") * 1024 for n in range(1, 2000)}
    first = store.take("start", 0, _state(0), None, ram)
    store.flush()
    before = store.file_size
    second = store.take("next", 5, _state(1), first, {7: b"x" * 4096, 9: b"x" * 4096})
    store.flush()
    assert store.file_size - before < 60_000
    assert store.differing(first, second).tolist() == [7, 9]
    store.close()


def test_deleting_costs_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of RAM that the snapshot shares with its neighbour are not looked at."""
    store = SnapshotStore.create(tmp_path / "s.qcow2", 400 * 512)
    taken = [store.take("start", 0, _state(0), None, {512 * n: bytes([n % 255 + 1]) * 4096 for n in range(400)})]
    for n in range(1, 6):
        taken.append(store.take(f"s{n}", n, _state(n), taken[-1], {7 * n: b"x" * 4096, 512 * n: b"y" * 4096}))
    store.flush()
    looked_at = 0
    load = TableCache.load

    def counted(self: TableCache, offsets: Offsets) -> Slots:
        nonlocal looked_at
        looked_at += len(offsets)
        return load(self, offsets)

    monkeypatch.setattr(TableCache, "load", counted)
    store.delete([taken[2], taken[4]])
    store.flush()
    assert 0 < looked_at < 50
    monkeypatch.undo()
    for stored in (taken[0], taken[1], taken[3], taken[5]):
        ys = {512 * n for n in range(1, stored.icount + 1)}
        assert store.pages(stored, sorted(ys)) == [b"y" * 4096] * len(ys)
    store.close()


def test_a_state_as_long_as_it_may_be_leaves_ram_alone(tmp_path: Path) -> None:
    store = SnapshotStore.create(tmp_path / "s.qcow2", 4)
    large = GuestState("", bytes(range(256)) * ((MAX_BYTES - 100) // 256), b"", b"", 4 * 4096, bytes(8))
    stored = store.take("large", 0, large, None, {n: bytes([n + 1]) * 4096 for n in range(4)})
    assert store.state(stored) == large
    assert store.pages(stored, [0, 1, 2, 3]) == [bytes([n + 1]) * 4096 for n in range(4)]
    with pytest.raises(StoreError, match="at most"):
        store.take("larger", 1, GuestState("", bytes(MAX_BYTES), b"", b"", 0, bytes(8)), stored, {})
    assert store.snapshots == [stored]
    after = store.take("after", 2, _state(2), stored, {2: b"y" * 4096})
    assert store.pages(after, [0, 1, 2, 3]) == [b"\1" * 4096, b"\2" * 4096, b"y" * 4096, b"\4" * 4096]
    store.close()


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    store = SnapshotStore.create(tmp_path / "s.qcow2", 4)
    with pytest.raises(StoreError, match="255 bytes"):
        store.take("n" * 300, 0, _state(0), None, {})
    store.close()
    store.close()


@pytest.mark.parametrize("content", [b"", b"QFI\xfb", b"x" * 5000])
def test_files_that_are_no_store(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.qcow2"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=str(path)):
        SnapshotStore.open(path, 4, writable=False)
    with pytest.raises(StoreError, match=str(path)):
        SnapshotStore.create(path, 4)


def _page(number: int) -> bytes:
    return bytes([number]) * 4096


def test_others_see_only_what_is_on_disk(tmp_path: Path) -> None:
    """Also: what waits is written as one group."""
    path = tmp_path / "s.qcow2"
    gate, arrived, commits = threading.Event(), threading.Event(), []

    def before_commit() -> None:
        if len(store.snapshots) > 1:
            commits.append(None)
            arrived.set()
            gate.wait()

    store = SnapshotStore.create(path, 8, before_commit=before_commit)
    first = store.take("start", 0, _state(0), None, {0: _page(1)})
    store.flush()
    taken = [first]
    for n in range(1, 6):
        taken.append(store.take(f"s{n}", n, _state(n), taken[-1], {n: _page(n)}))
        if n == 1:
            arrived.wait()
    other = SnapshotStore.open(path, 8, writable=False)
    assert [s.name for s in other.snapshots] == ["start"]
    other.close()
    assert [store.is_on_disk(s) for s in taken] == [True] + 5 * [False]
    assert store.queued_bytes == 5 * 2 * 4096
    assert store.pages(taken[4], list(range(8))) == [_page(n) for n in (1, 1, 2, 3, 4)] + 3 * [ZERO]
    assert store.differing(taken[2], taken[4]).tolist() == [3, 4]
    assert store.differing(first, taken[2]).tolist() == [1, 2]
    assert store.state(taken[5]) == _state(5)
    gate.set()
    store.flush()
    assert len(commits) == 2
    other = SnapshotStore.open(path, 8, writable=False)
    assert [s.name for s in other.snapshots] == [s.name for s in taken]
    assert other.pages(other.snapshots[4], list(range(8))) == store.pages(taken[4], list(range(8)))
    other.close()
    store.close()


@pytest.mark.parametrize("broken", ["sync", "write"])
def test_what_cannot_be_written_is_told_and_the_next_snapshot_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "s.qcow2"
    syncing: list[Callable[[], None]] = []

    def sync() -> None:
        for each in syncing:
            each()

    store = SnapshotStore.create(path, 8, before_commit=sync)
    first = store.take("start", 0, _state(0), None, {0: _page(1)})
    store.flush()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fails(*_: object) -> None:
        raise full

    with monkeypatch.context() as patch:
        if broken == "sync":
            syncing.append(fails)
        else:
            patch.setattr("rrgdb.qcow2.hostfile.HostFile.write", fails)
        one = store.take("one", 1, _state(1), first, {1: _page(2)})
        store.flush()
        two = store.take("two", 2, _state(2), one, {2: _page(3)})
        store.flush()
        failure = store.failed()
    assert failure is not None
    lost, error = failure
    assert lost == [one, two]
    assert str(path) in str(error)
    assert "No space left" in str(error)
    assert store.pages(two, [0, 1, 2, 3]) == [_page(1), _page(2), _page(3), ZERO]
    assert store.differing(first, two).tolist() == [1, 2]
    store.forget(lost)
    assert store.failed() is None
    assert store.queued_bytes == 0
    syncing.clear()
    three = store.take("three", 3, _state(3), first, {2: _page(4)})
    store.flush()
    assert store.failed() is None
    assert store.pages(three, [0, 1, 2, 3]) == [_page(1), ZERO, _page(4), ZERO]
    store.close()
    other = SnapshotStore.open(path, 8, writable=False)
    assert [s.name for s in other.snapshots] == ["start", "three"]
    assert other.pages(other.snapshots[1], [0, 1, 2, 3]) == [_page(1), ZERO, _page(4), ZERO]
    other.close()


def test_closing_tells_what_was_not_written(tmp_path: Path) -> None:
    def fails() -> None:
        raise OSError(errno.EIO, "Input/output error")

    store = SnapshotStore.create(tmp_path / "s.qcow2", 8, before_commit=fails)
    store.take("start", 0, _state(0), None, {0: _page(1)})
    with pytest.raises(StoreError, match=r"s\.qcow2: cannot take snapshot start: .*Input/output"):
        store.close()
    store.close()
