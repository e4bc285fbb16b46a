"""The budget of the store: whatever is taken, deleted and built upon, and however slow the disk is, it holds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from rrgdb.qcow2 import Image
from rrgdb.snapshots.entries import Stored
from rrgdb.snapshots.errors import NoRoomError
from rrgdb.snapshots.images import DiskImage
from rrgdb.snapshots.overlays import BLOCK, Overlays, block_number
from rrgdb.snapshots.state import GuestState
from rrgdb.snapshots.store import SnapshotStore

RAM_PAGES = {"small": 600, "large": (3 << 30) // 4096}
BUDGET = 4 << 20


def _store(
    directory: Path, pages: int, sizes: list[int], before_commit: Callable[[], None] = lambda: None
) -> SnapshotStore:
    images = []
    for number, size in enumerate(sizes):
        with (directory / f"disk {number}").open("wb") as f:
            f.truncate(size)
        images.append(DiskImage(directory / f"disk {number}", "raw", name=f"d{number}"))
    disks = Overlays.create(directory, images, bytes(16)) if images else None
    return SnapshotStore.create(directory / "s.qcow2", pages, disks, before_commit=before_commit)


def _on_disk(directory: Path) -> tuple[int, int]:
    """Bytes in use, and of the files."""
    used = size = 0
    for path in directory.glob("*.qcow2"):
        with Image.open(path, writable=True, backing=False) as image:
            used += image.used_bytes
        size += path.stat().st_size
    return used, size


@pytest.mark.parametrize("sizes", [[], [1 << 20, 3 << 30], [20 << 30]], ids=["none", "two", "one above 16 GiB"])
@pytest.mark.parametrize("ram", RAM_PAGES)
@pytest.mark.parametrize("seed", range(2))
def test_the_budget_holds(tmp_path: Path, ram: str, sizes: list[int], seed: int) -> None:
    random, pages = Random(seed), RAM_PAGES[ram]
    slow = threading.Event()

    def wait() -> None:
        slow.wait(0.05)

    store = _store(tmp_path, pages, sizes, wait)
    budget = BUDGET + sum(4 << 20 if size > 16 << 30 else 0 for size in sizes)
    taken: list[Stored] = []
    refused = all_refused = 0
    for n in range(120):
        # Nothing reaches the disk while it is slow.
        if n % 20 < 10:
            slow.clear()
        else:
            slow.set()
        if refused and taken[1:] and random.random() < 0.5:
            slow.set()
            store.flush()
            going = taken[1::2]
            store.delete(going)
            taken = [s for s in taken if s not in going]
            refused = 0
        base = None if not taken else taken[-1] if random.random() < 0.7 else random.choice(taken)
        changed = {random.randrange(pages): random.randbytes(8) * 512 for _ in range(random.choice((0, 3, 60)))}
        blocks = {}
        if sizes:
            for _ in range(random.choice((0, 1, 20))):
                disk = random.randrange(len(sizes))
                blocks[block_number(disk, random.randrange(sizes[disk] // BLOCK))] = random.randbytes(8) * 512
        cpu = n.to_bytes(8, "little") + bytes(random.randrange(30_000))
        state = GuestState("b", cpu, b"", b"", pages * 4096, bytes(8))
        name = f"s{n}" + "x" * random.choice((1, 200))
        try:
            taken.append(store.take(name, n, state, base, changed, blocks, budget))
        except NoRoomError:
            refused += 1
            all_refused += 1
        assert store.used_bytes <= budget
    slow.set()
    store.flush()
    assert store.failed() is None
    told = store.used_bytes
    store.close()
    used, size = _on_disk(tmp_path)
    assert used == told
    if ram == "small" and max(sizes, default=0) <= 16 << 30:
        # Elsewhere a deletion may have to move many tables before it can give the old ones up.
        assert size <= budget
    assert all_refused
    assert all_refused < 100


@pytest.mark.parametrize("waits", [True, False])
def test_what_a_snapshot_takes_is_known_before(tmp_path: Path, waits: bool) -> None:
    """At most; also of one that builds on an older one, and behind the deletion of what the file holds as active."""
    random, store = Random(3), _store(tmp_path, RAM_PAGES["large"], [20 << 30])
    taken: list[Stored] = []
    for n in range(30):
        changed = {random.randrange(RAM_PAGES["large"]): random.randbytes(4096) for _ in range(40)}
        blocks = {block_number(0, random.randrange(1 << 20)): random.randbytes(BLOCK) for _ in range(5)}
        store.flush()
        before = store.used_bytes
        state = GuestState("b", bytes(20_000), b"", b"", RAM_PAGES["large"] * 4096, bytes(8))
        taken.append(store.take(f"s{n}", n, state, random.choice(taken) if taken else None, changed, blocks))
        expected = store.used_bytes
        if waits:
            store.flush()
        assert store.used_bytes <= expected
        assert expected - before <= store.most_bytes(40, 24576, blocks)
        if n % 10 == 9:
            store.flush()
            store.delete([taken.pop()])
    store.flush()
    assert store.failed() is None
    store.close()
