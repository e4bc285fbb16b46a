"""A damaged or shortened store, and damaged overlays of disks: what is not damaged is used, however the recording is
opened; each thing passed over is told in a line, and nothing is lost that was there before."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest

from rrgdb.cli.main import main
from rrgdb.opening import NewDisk, Opened, record, replay
from rrgdb.qcow2 import Image
from rrgdb.snapshots.entries import RAM_OFFSET
from rrgdb.snapshots.errors import StoreError
from rrgdb.timeline.stop import Points
from rrgdb.timeline.verify import verify
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import OPTIONS, digests_straight, whole_state

NONE = Points({})
STEPS = 3000
COUNT = 5
STORE, OVERLAY = "snapshots.qcow2", "disk-root.qcow2"
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of a guest that writes to a disk, with a snapshot every ``STEPS`` instructions."""
    directory = tmp_path_factory.mktemp("damaged store")
    (directory / "root.img").write_bytes(bytes(range(256)) * 40)
    guest = build("riscv64", "disks", {"ROUNDS": 4, "SECTORS": 4, "WORK": 20})
    disks = [NewDisk(directory / "root.img", "root")]
    with record(directory / "r", guest, OPTIONS, interval=1e-9, disks=disks) as opened:
        for _ in range(COUNT):
            opened.timeline.run(NONE, steps=STEPS)
            opened.timeline.marks.flush()
        opened.timeline.run(NONE, steps=STEPS)
    return directory / "r"


@pytest.fixture(scope="module")
def right(original: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    positions = [*range(0, 6 * STEPS, 750), *(n * STEPS for n in range(1, 6))]
    return digests_straight(original, positions, tmp_path_factory.mktemp("right") / "r")


@pytest.fixture
def damaged(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "r"))


def _assert_right(opened: Opened, right: dict[int, bytes]) -> list[str]:
    """Seeks at random come to the right states; returns what was said."""
    said: list[str] = []
    t = opened.timeline
    t.say = said.append
    positions = list(right)
    Random(1).shuffle(positions)
    for position in positions:
        t.seek(position)
        assert t.icount == position
        assert whole_state(opened) == right[position], f"wrong state at {position}"
    return said


def _names(opened: Opened) -> list[str]:
    return [s.name for s in opened.timeline.marks.stored]


def _write(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as f:
        f.seek(offset)
        f.write(data)


def _clusters(path: Path) -> dict[str, set[int]]:
    """Of each snapshot: the clusters of its L1 table, L2 tables and data."""
    with Image.open(path, backing=False) as image:
        total = -(-path.stat().st_size // 4096)
        found = {}
        for s in image.snapshots:
            l1 = image._state.mapper.read_l1(s.l1_offset, s.l1_size)
            used = set(np.flatnonzero(image._state.mapper.references(l1, total)).tolist())
            found[s.name] = used | {s.l1_offset // 4096 + i for i in range(-(-s.l1_size * 8 // 4096))}
        return found


def _own(path: Path, name: str) -> list[int]:
    """Clusters of this snapshot alone."""
    clusters = _clusters(path)
    others = set().union(*(used for n, used in clusters.items() if n != name))
    return sorted(clusters[name] - others)


NAME = f"auto-{3 * STEPS}"


def _header(offset: int, data: bytes) -> Damage:
    return lambda r: _write(r / STORE, offset, data)


def _active_l1(recording: Path) -> None:
    with Image.open(recording / STORE) as image:
        at = image._state.header.l1_table_offset
    _write(recording / STORE, at, b"\xff" * 4096)


def _refcount_table(recording: Path) -> None:
    with Image.open(recording / STORE) as image:
        at = image._state.header.refcount_table_offset
    _write(recording / STORE, at, b"\xff" * 4096)


def _zero_refcounts(recording: Path) -> None:
    """All that only snapshots use looks free."""
    with Image.open(recording / STORE, writable=True) as image:
        writer = image._require_writer()
        at, counts, active = int(writer.refs.table[0]), writer.refs.counts, writer.refs.active
        kept = np.where(active[:2048] > 0, counts[:2048], 0)
        table = {s.l1_offset // 4096 for s in image.snapshots}
        for cluster in range(2048):
            if active[cluster] == 0 and counts[cluster] == 1 and cluster not in _snapshot_data(recording) - table:
                kept[cluster] = counts[cluster]
    _write(recording / STORE, at, kept.astype(">u2").tobytes())


def _snapshot_data(recording: Path) -> set[int]:
    return set().union(*_clusters(recording / STORE).values())


def _blob(name: str) -> Damage:
    def damage(recording: Path) -> None:
        with Image.open(recording / STORE) as image:
            s = next(s for s in image.snapshots if s.name == name)
            content = image.view(s).read_vmstate_clusters([0])[0]
        data = (recording / STORE).read_bytes()
        assert data.count(content) == 1
        _write(recording / STORE, data.index(content) + 100, b"\xaa" * 8)

    return damage


def _l1(name: str) -> Damage:
    def damage(recording: Path) -> None:
        with Image.open(recording / STORE) as image:
            at = next(s.l1_offset for s in image.snapshots if s.name == name)
        _write(recording / STORE, at, b"\x00\x00\x00\x00\x00\x00\x0f\xff" * 8)

    return damage


def _l2(recording: Path) -> None:
    with Image.open(recording / STORE) as image:
        s = next(s for s in image.snapshots if s.name == NAME)
        l1 = image._state.mapper.read_l1(s.l1_offset, s.l1_size) & np.uint64((1 << 62) - 1)
        own = set(_own(recording / STORE, NAME))
        at = next(int(entry) for entry in l1 if int(entry) // 4096 in own)
    _write(recording / STORE, at, b"\x7f" * 64)


def _page(recording: Path) -> None:
    with Image.open(recording / STORE) as image:
        own = set(_own(recording / STORE, NAME))
        s = next(s for s in image.snapshots if s.name == NAME)
        offsets = image.filled_vmstate(s, RAM_OFFSET, s.vm_state_size - RAM_OFFSET)
        contents = image.view(s).read_vmstate_clusters(offsets)
    data = (recording / STORE).read_bytes()
    at = next(data.index(c) for c in contents if data.index(c) // 4096 in own)
    _write(recording / STORE, at + 50, bytes(b ^ 0x55 for b in data[at + 50 : at + 60]))


def _table_entry(inner: int, data: bytes) -> Damage:
    def damage(recording: Path) -> None:
        raw = (recording / STORE).read_bytes()
        with Image.open(recording / STORE) as image:
            at = image._state.header.snapshots_offset
        name = raw.index(NAME.encode(), at)
        _write(recording / STORE, name - len("4") - 64 + inner, data)

    return damage


START = {"start"}
ALL = {"start", *(f"auto-{n * STEPS}" for n in range(1, COUNT + 2))}
THIS = {NAME}
DAMAGES: dict[str, tuple[Damage, set[str]]] = {
    "version": (_header(4, b"\0\0\0\7"), set()),
    "backing file": (_header(8, b"\0\0\0\0\0\0\7\0\0\0\0\7"), set()),
    "size": (_header(24, b"\0\0\0\1\0\0\0\0"), set()),
    "L1 offset": (_header(40, b"\0\0\0\0\0\0\0\1"), set()),
    "L1 far away": (_header(40, b"\0\0\0\1\0\0\0\0"), set()),
    "refcount offset": (_header(48, b"\0\0\0\1\0\0\0\0"), set()),
    "features": (_header(72, b"\0\0\0\0\0\0\0\x10"), set()),
    "magic": (_header(0, b"QFX"), set()),
    "header length": (_header(100, b"\xff\xff\xff\xff"), set()),
    "active L1": (_active_l1, set()),
    "refcount table": (_refcount_table, set()),
    "refcounts": (_zero_refcounts, set()),
    "L1 offset of an entry": (_table_entry(0, b"\0\0\0\0\0\0\0\7"), THIS),
    "icount of an entry": (_table_entry(56, b"\0\0\0\0\0\0\0\7"), THIS),
    "blob": (_blob(NAME), THIS),
    "blob of the starting one": (_blob("start"), START),
    "L1": (_l1(NAME), THIS),
    "L1 of the starting one": (_l1("start"), START),
    "L2": (_l2, THIS),
    "page": (_page, THIS),
}


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("place", DAMAGES)
def test_what_is_not_damaged_is_used(damaged: Path, right: dict[int, bytes], place: str, writable: bool) -> None:
    damage, lost = DAMAGES[place]
    damage(damaged)
    before = (damaged / STORE).read_bytes()
    with replay(damaged, writable=writable) as opened:
        said = [*opened.messages, *_assert_right(opened, right)]
        assert ALL - set(_names(opened)) <= lost
        assert all("\n" not in line.rstrip("\n") for line in said)
        # What only a writer needs shows when it is written.
        assert said or place.startswith("refcount") or not writable
        assert said or set(_names(opened)) == ALL
        # Nothing new goes to where a snapshot is.
        opened.timeline.seek(750)
        kept = _names(opened)
        try:
            opened.timeline.marks.take_snapshot("mine")
            opened.timeline.marks.flush()
        except StoreError as e:
            refused = str(e)
        else:
            refused = ""
            kept.insert(1, "mine")
        assert "\n" not in refused
        assert refused == "" or (damaged / STORE).read_bytes() == before
    with replay(damaged, writable=False) as opened:
        _assert_right(opened, right)
        assert _names(opened) == kept


@pytest.mark.parametrize("place", DAMAGES)
def test_every_verb_passes_over_damage(
    damaged: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, lost = DAMAGES[place]
    damage(damaged)
    log = (damaged / "events.log").read_bytes()

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rrgdb", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return int(ended.value.code or 0), said.out, said.err

    for verb in (("snapshot", "list"), ("info",)):
        status, out, err = run(*verb, damaged)
        assert status == 0
        assert len([n for n in ALL if n in out.split("messages")[0]]) >= len(ALL - lost)
        if lost and place != "page":
            assert "passed over" in err or "messages" in out or "is damaged" in err
    assert run("verify", "--jobs", "1", damaged)[0] == 0
    assert run("snapshot", "export", damaged, f"auto-{STEPS}", damaged.parent / "core")[0] == 0
    for arguments in (("create", damaged, "mine", "--at", 100), ("delete", damaged, f"auto-{2 * STEPS}")):
        status, _, err = run("snapshot", *arguments)
        assert status in (0, 1)
        assert status == 0 or err
    assert (damaged / "events.log").read_bytes() == log
    with replay(damaged, writable=False) as opened:
        assert ALL - set(_names(opened)) - {f"auto-{2 * STEPS}"} <= lost


@pytest.mark.parametrize("writable", [False, True])
def test_a_shortened_store_keeps_what_is_before_the_cut(
    original: Path, tmp_path: Path, right: dict[int, bytes], writable: bool
) -> None:
    whole = (original / STORE).read_bytes()
    clusters = _clusters(original / STORE)
    with Image.open(original / STORE) as image:
        table = image._state.header.snapshots_offset + image._state.snapshot_table_bytes
    cuts = sorted({table, table + 4096, *range(4096, len(whole), len(whole) // 12 | 1)})
    some = 0
    for cut in cuts:
        path = Path(shutil.copytree(original, tmp_path / f"{cut}"))
        (path / STORE).write_bytes(whole[:cut])
        with replay(path, writable=writable) as opened:
            assert all("\n" not in m for m in opened.messages)
            said = _assert_right(opened, right)
            assert opened.messages or said or set(_names(opened)) == ALL
            expected = {n for n, used in clusters.items() if max(used) < cut // 4096} if table <= cut else set()
            assert expected <= set(_names(opened)), cut
            some += len(expected)
        shutil.rmtree(path)
    assert some


def test_a_shortened_snapshot_table(damaged: Path, right: dict[int, bytes]) -> None:
    """The table is moved to the end of the file, which is cut inside of it."""
    raw = (damaged / STORE).read_bytes()
    with Image.open(damaged / STORE) as image:
        header = image._state.header
        table = raw[header.snapshots_offset :][: image._state.snapshot_table_bytes]
    for count in range(1, COUNT + 2):
        cut = table.index(f"auto-{count * STEPS}".encode()) + 3
        data = raw.ljust(-(-len(raw) // 4096) * 4096, b"\0")
        (damaged / STORE).write_bytes(data[:64] + len(data).to_bytes(8, "big") + data[72:] + table[:cut])
        with replay(damaged, writable=bool(count % 2)) as opened:
            assert "is damaged, what is left of it is used" in opened.messages[0]
            assert _assert_right(opened, right) == []
            assert _names(opened) == ["start", *(f"auto-{n * STEPS}" for n in range(1, count))]


@pytest.mark.parametrize("writable", [False, True])
def test_damaged_overlays(original: Path, tmp_path: Path, right: dict[int, bytes], writable: bool) -> None:
    """Their tables; what is wrong in the data of a disk shows as a divergence."""
    whole = (original / OVERLAY).read_bytes()
    with Image.open(original / OVERLAY) as image:
        active, table = image._state.header.l1_table_offset, image._state.header.refcount_table_offset
        own = next(s.l1_offset for s in image.snapshots if s.name == NAME)
    nothing: set[str] = set()
    damages = {(40, 8): nothing, (72, 8): nothing, (active, 64): nothing, (table, 64): nothing, (own, 64): THIS}
    for (at, length), lost in damages.items():
        path = Path(shutil.copytree(original, tmp_path / f"{at}"))
        _write(path / OVERLAY, at, b"\x0f" * length)
        with replay(path, writable=writable) as opened:
            said = [*opened.messages, *_assert_right(opened, right)]
            assert ALL - set(_names(opened)) <= lost
            assert said or set(_names(opened)) == ALL
            assert said or not writable
        with replay(path, writable=False) as opened:
            verify(opened.timeline)
    for cut in (0, 100, 4096, len(whole) // 2, len(whole) - 5000):
        path = Path(shutil.copytree(original, tmp_path / f"cut {cut}"))
        (path / OVERLAY).write_bytes(whole[:cut])
        with replay(path, writable=writable) as opened:
            said = [*opened.messages, *_assert_right(opened, right)]
            assert said or set(_names(opened)) == ALL


def test_a_store_that_is_damaged_while_it_is_recorded(original: Path, tmp_path: Path) -> None:
    """What was taken is not found again; the recording goes on, and its states are right."""
    guest = build("riscv64", "disks", {"ROUNDS": 4, "SECTORS": 4, "WORK": 20})
    disks = [NewDisk(original.parent / "root.img", "root")]
    seen: dict[int, bytes] = {}
    said: list[str] = []
    with record(tmp_path / "r", guest, OPTIONS, interval=1e-9, disks=disks, say=said.append) as opened:
        t = opened.timeline
        t.say = said.append
        for n in range(4):
            t.run(NONE, steps=STEPS)
            t.marks.flush()
            seen[t.icount] = t.marks.state_digest()
            if n == 2:
                store = tmp_path / "r" / STORE
                _write(store, store.stat().st_size // 2 & ~4095, bytes(3 * 4096))
        for icount in (STEPS, 3 * STEPS, 2 * STEPS):
            t.seek(icount)
            assert t.marks.state_digest() == seen[icount]
        t.seek(t.end)
        t.run(NONE, steps=100)
    with replay(tmp_path / "r", writable=False) as opened:
        verify(opened.timeline)
