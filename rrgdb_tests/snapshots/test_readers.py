"""A store that one reads while another takes and deletes: what is read is right, or refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest

from rrgdb.qcow2.view import View
from rrgdb.snapshots.entries import SnapshotGoneError, Stored
from rrgdb.snapshots.state import GuestState
from rrgdb.snapshots.store import SnapshotStore

PAGES = 3000
ZERO = bytes(4096)


def _state(number: int) -> GuestState:
    return GuestState("build", number.to_bytes(8, "little") * 900, b"devices", b"door", PAGES * 4096, bytes(8))


class Writer:
    """A store, and what each snapshot in it holds; ``held`` has those that were deleted as well."""

    def __init__(self, path: Path, seed: int) -> None:
        self.random = Random(seed)
        self.store = SnapshotStore.create(path, PAGES)
        self.held: dict[str, tuple[GuestState, dict[int, bytes]]] = {}
        self.last: Stored | None = None
        self.ram: dict[int, bytes] = {}
        self.take()

    def take(self) -> None:
        changed = {self.random.randrange(PAGES): self.random.randbytes(16) * 256 for _ in range(30)}
        self.ram = {**self.ram, **changed}
        number = len(self.held)
        self.last = self.store.take(f"s{number}", number, _state(number), self.last, changed)
        self.held[self.last.name] = _state(number), self.ram
        self.store.flush()

    def delete(self, going: list[Stored]) -> None:
        self.store.delete(going)
        self.store.flush()

    def delete_some(self) -> None:
        self.delete([s for s in self.store.snapshots[1:] if s != self.last and self.random.random() < 0.4])


def _there(writer: Writer) -> set[str]:
    return {s.name for s in writer.store.snapshots}


def _right_or_refused(writer: Writer, reader: SnapshotStore, told: set[frozenset[str]]) -> tuple[int, int]:
    """Read every snapshot of the reader; how many reads were right, and how many refused. ``told``: pairs of snapshots
    whose differences it knows."""
    random, known = writer.random, reader.snapshots
    counts = [0, 0]

    def attempt(read: Callable[[], bool], *of: Stored, remembered: bool = False) -> None:
        gone = {s for s in of if s.name not in _there(writer)}
        if gone and not remembered:
            with pytest.raises(SnapshotGoneError) as refused:
                read()
            assert set() < set(refused.value.gone) <= gone
        else:
            assert read()
        counts[bool(gone)] += 1

    for stored in random.sample(known, len(known)):
        other = random.choice(known)
        (state, ram), theirs = writer.held[stored.name], writer.held[other.name][1]
        numbers = sorted(random.sample(range(PAGES), 200))
        different = {n for n in ram.keys() | theirs if ram.get(n, ZERO) != theirs.get(n, ZERO)}
        attempt(partial(_same_state, reader, stored, state), stored)
        attempt(partial(_same_pages, reader, stored, numbers, ram), stored)
        if other != stored:
            pair = frozenset((stored.id, other.id))
            attempt(partial(_tells, reader, stored, other, different), stored, other, remembered=pair in told)
            if {stored.name, other.name} <= _there(writer):
                told.add(pair)
    return counts[0], counts[1]


def _same_state(reader: SnapshotStore, stored: Stored, state: GuestState) -> bool:
    return reader.state(stored) == state


def _same_pages(reader: SnapshotStore, stored: Stored, numbers: list[int], ram: dict[int, bytes]) -> bool:
    found = [memoryview(bytearray(len(ZERO))) for _ in numbers]
    reader.read_into(stored, np.array(numbers, np.int64), found)
    return found == reader.pages(stored, numbers) == [ram.get(n, ZERO) for n in numbers]


def _tells(reader: SnapshotStore, a: Stored, b: Stored, different: set[int]) -> bool:
    return set(reader.differing(a, b)) >= different


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 40))])
def test_a_reader_beside_a_writer(tmp_path: Path, seed: int) -> None:
    writer = Writer(tmp_path / "s.qcow2", seed)
    for _ in range(12):
        writer.take()
    readers: list[SnapshotStore] = []
    known: list[set[frozenset[str]]] = []
    right = refused = 0
    for _ in range(8):
        readers.append(SnapshotStore.open(tmp_path / "s.qcow2", PAGES, writable=False))
        known.append(set())
        for reader, told in zip(readers, known, strict=True):
            one, two = _right_or_refused(writer, reader, told)
            right, refused = right + one, refused + two
        writer.delete_some()
        for _ in range(5):
            writer.take()
    assert right > 100
    assert refused > 20
    for reader in readers:
        reader.close()
    writer.store.close()


def test_a_snapshot_that_is_deleted_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(tmp_path / "s.qcow2", 1)
    for _ in range(5):
        writer.take()
    reader = SnapshotStore.open(tmp_path / "s.qcow2", PAGES, writable=False)
    third = reader.snapshots[3]
    numbers = list(range(PAGES))
    assert reader.pages(third, numbers) == [writer.held["s3"][1].get(n, ZERO) for n in numbers]
    clusters = View.read_vmstate_clusters

    def meanwhile(self: View, offsets: list[int]) -> list[bytes]:
        monkeypatch.undo()
        writer.delete(writer.store.snapshots[1:-1])
        for _ in range(10):
            writer.take()
        return clusters(self, offsets)

    monkeypatch.setattr(View, "read_vmstate_clusters", meanwhile)
    with pytest.raises(SnapshotGoneError, match=r"s\.qcow2: snapshot s3 was deleted by another process"):
        reader.pages(third, numbers)
    with pytest.raises(SnapshotGoneError):
        reader.state(third)
    first = reader.snapshots[0]
    assert reader.pages(first, numbers) == [writer.held["s0"][1].get(n, ZERO) for n in numbers]
    reader.close()
    writer.store.close()
