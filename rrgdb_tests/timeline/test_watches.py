"""Watches of physical addresses and of an address space: the same hits on the way forward and on the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from rrgdb.engine.base import Space, Watch, WatchHit
from rrgdb.opening import GuestOptions, NewDisk, Opened, record, replay
from rrgdb.timeline import backward, forward
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.stop import Points, StopKind
from rrgdb_tests.guests import KERNELS, build, build_kernel
from rrgdb_tests.timeline.oracle import symbol

OPTIONS = GuestOptions(memory=4 << 20)
KERNEL_OPTIONS = GuestOptions(memory=32 << 20)
KERNEL = {"ROUNDS": 400, "WORK": 4, "PERIOD_NS": 2000}
ARENA, FLIP = 0x23000000, 0x24000000
Hits = list[tuple[int, tuple[WatchHit, ...]]]
"""positions of the instructions, and what they hit"""


@pytest.fixture(autouse=True)
def dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """History is passed over, and searched, in small parts."""
    monkeypatch.setattr(forward, "LEAST_SKIP", 100)
    monkeypatch.setattr("rrgdb.timeline.scan.LEAST_PIECE", 2000)
    monkeypatch.setattr(backward, "APPROACH", 9000)


def _recorded(path: Path, image: Path, options: GuestOptions, disks: Sequence[NewDisk] = ()) -> Path:
    if not path.exists():
        with record(path, image, options, interval=1e-9, disks=tuple(disks)) as opened:
            while opened.guest.end is None:
                opened.timeline.run(Points({}), steps=17_011)
    return path


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Image and recording of the preemptive kernel."""
    scratch = tmp_path_factory.mktemp("kernels")

    def made(arch: str) -> tuple[Path, Path]:
        image = build_kernel(arch, KERNEL)
        return image, _recorded(scratch / arch, image, KERNEL_OPTIONS)

    return made


def _forward(opened: Opened, points: Points) -> Hits:
    t, found = opened.timeline, Hits()
    t.seek(t.start)
    while (stop := t.run(points)).kind is StopKind.WATCHPOINT:
        found.append((stop.icount - 1, stop.hits))
    assert t.icount == t.end
    return found


def _backward(opened: Opened, points: Points) -> Hits:
    t, found = opened.timeline, Hits()
    t.seek(t.end)
    search = Backward(t)
    while (stop := search.run(points)).kind is StopKind.WATCHPOINT:
        found.append((stop.icount, stop.hits))
    assert t.icount == t.start
    return found[::-1]


def _the_same_both_ways(opened: Opened, *watches: Watch) -> Hits:
    """In one pass, and with history known by its index."""
    points = Points({}, watches)
    found = _forward(opened, points)
    assert _backward(opened, points) == found
    assert _forward(opened, points) == found
    return found


def _physical(address: int, length: int = 4, kind: str = "w") -> Watch:
    return Watch(address, length, kind, physical=True)


@pytest.mark.parametrize("arch", ["riscv64", "aarch64"])
def test_what_a_disk_reads_into_memory(arch: str, tmp_path: Path) -> None:
    """The device writes as a part of the instruction that notifies it; the guest stores there itself."""
    (tmp_path / "disk").write_bytes(Random(1).randbytes(8 * 512))
    image = build(arch, "disks", {"ROUNDS": 4, "SECTORS": 4, "WORK": 20})
    path = _recorded(tmp_path / "r", image, OPTIONS, [NewDisk(tmp_path / "disk", "disk")])
    buffer, low, high = (symbol(image, name) for name in ("buffer", "transfer", "post"))
    with replay(path, writable=False) as opened:
        t = opened.timeline
        found = _the_same_both_ways(opened, _physical(buffer))
        assert len(found) > 10
        by_device = []
        for position, hits in found:
            t.seek(position)
            by_device.append(low <= t.engine.pc < high)
            stop = t.run(Points({}, (_physical(buffer),)), steps=1)
            assert (stop.kind, stop.icount, stop.hits) == (StopKind.WATCHPOINT, position + 1, hits)
        assert 4 < sum(by_device) < len(found)
        # Both are flat: the same bytes by their virtual address.
        assert [position for position, _ in _forward(opened, Points({}, (Watch(buffer, 4, "w"),)))] == [
            position for position, _ in found
        ]
        assert len(_the_same_both_ways(opened, _physical(buffer, kind="a"))) > len(found)


def _spaces(opened: Opened) -> dict[int, tuple[Space, int]]:
    """Each space that has a page at ARENA, by its root; the space, and the physical address of that page."""
    t, found = opened.timeline, dict[int, tuple[Space, int]]()
    for n in range(200):
        t.seek(t.end * n // 200)
        space = t.engine.space()
        if space is not None and t.engine.watched(Watch(ARENA, 4, "w")):
            found[space.root] = space, t.engine.translate(ARENA)
    assert len(found) >= 2
    return found


@pytest.mark.parametrize("arch", KERNELS)
def test_what_each_process_has_to_itself(arch: str, kernel: Callable[[str], tuple[Path, Path]]) -> None:
    """All have a page at this address, each its own, which is cleared at the start and never another's."""
    _, path = kernel(arch)
    with replay(path, writable=False) as opened:
        spaces, hits = _spaces(opened), []
        for space, place in spaces.values():
            own = _the_same_both_ways(opened, Watch(ARENA, 4096, "w", space=space))
            physical = _forward(opened, Points({}, (_physical(place, 4096),)))
            assert [(position, hit.old, hit.new) for position, (hit,) in own] == [
                (position, hit.old, hit.new) for position, (hit,) in physical
            ]
            hits.append({position for position, _ in own})
        assert all(hits)
        assert not hits[0] & hits[1]
        whoever = {position for position, _ in _forward(opened, Points({}, (Watch(ARENA, 4096, "w"),)))}
        assert whoever >= set.union(*hits)


@pytest.mark.parametrize("arch", KERNELS)
def test_a_page_that_the_kernel_changes_for_another(arch: str, kernel: Callable[[str], tuple[Path, Path]]) -> None:
    """It is watched in one space while others have either of the two pages there."""
    _, path = kernel(arch)
    with replay(path, writable=False) as opened:
        for space, _ in _spaces(opened).values():
            _the_same_both_ways(opened, Watch(FLIP, 4, "w", space=space))


@pytest.mark.parametrize("arch", KERNELS)
def test_what_all_processes_map_at_two_addresses(arch: str, kernel: Callable[[str], tuple[Path, Path]]) -> None:
    image, path = kernel(arch)
    stored = symbol(image, "__user_data_stored") - symbol(image, "__user_data")
    with replay(path, writable=False) as opened:
        found = {
            name: _the_same_both_ways(opened, _physical(symbol(image, name) + stored))
            for name in ("counter", "mailbox")
        }
        assert [int.from_bytes(hits[0].new, "little") for _, hits in found["counter"]][:3] == [1, 2, 3]
        assert len(found["counter"]) > 500
        assert len(found["mailbox"]) > 2


@pytest.mark.parametrize("arch", KERNELS)
def test_an_entry_of_a_page_table(arch: str, kernel: Callable[[str], tuple[Path, Path]]) -> None:
    """Where it is made, and on RISC-V where the CPU's walk marks it as accessed and dirty, for a program."""
    _, path = kernel(arch)
    with replay(path, writable=False) as opened:
        t = opened.timeline
        for space, place in _spaces(opened).values():
            entry, size = t.engine._ways.find(ARENA, space).words[-1]
            found = _the_same_both_ways(opened, _physical(entry, size))
            values = [int.from_bytes(hits[0].new, "little") for _, hits in found]
            if not arch.startswith("riscv"):
                assert values
                continue
            assert {value >> 10 << 12 for value in values} == {place}
            assert [value & 0xC0 for value in values] in ([0, 0xC0], [0, 0x40, 0xC0])
            t.seek(found[-1][0])
            assert t.engine.pc in range(0x20000000, 0x20002000)
