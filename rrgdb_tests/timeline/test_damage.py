"""Damage at rest and divergence: one clear line or a snapshot passed over, then the right states; never wrong ones."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

import pytest
import xxhash

from rrgdb.opening import Opened, record, replay
from rrgdb.qcow2 import Image
from rrgdb.qcow2.hostfile import Buffer, HostFile
from rrgdb.recording.directory import RecordingError
from rrgdb.recording.door import Divergence
from rrgdb.recording.events import Event, EventKind
from rrgdb.recording.log import EventLog, LogError
from rrgdb.recording.manifest import ManifestError
from rrgdb.snapshots.entries import RAM_OFFSET
from rrgdb.snapshots.errors import StoreError
from rrgdb.snapshots.store import SnapshotStore
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.prepare import Preparation
from rrgdb.timeline.stop import Points, StopKind
from rrgdb.timeline.timeline import TimelineError
from rrgdb.timeline.verify import verify
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import OPTIONS, digests_straight, symbol

NONE = Points({})
STEPS = 1500


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with input, clock answers and a dozen snapshots."""
    path = tmp_path_factory.mktemp("damage") / "r"
    with record(path, build("riscv64", "mixer"), OPTIONS, interval=1e-9) as opened:
        for n in range(12):
            opened.timeline.run(NONE, steps=STEPS)
            opened.door.feed("serial0", b"line %d\r" % n)
        opened.timeline.run(NONE, steps=STEPS)
    return path


@pytest.fixture(scope="module")
def right(original: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    """The states that a straight replay comes to."""
    positions = [*range(0, 13 * STEPS, 499), *range(STEPS, 13 * STEPS, STEPS)]
    return digests_straight(original, positions, tmp_path_factory.mktemp("right") / "r")


@pytest.fixture
def damaged(original: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "damaged"))


def _assert_right(opened: Opened, right: dict[int, bytes], seed: int = 0) -> list[str]:
    """Seeks at random come to the right states; returns what was said."""
    said: list[str] = []
    t = opened.timeline
    t.say = said.append
    positions = list(right)
    Random(seed).shuffle(positions)
    for position in positions:
        t.seek(position)
        assert t.icount == position
        assert t.marks.state_digest() == right[position], f"wrong state at {position}"
    return said


def _flip(path: Path, offset: int, mask: int = 1) -> None:
    with path.open("r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ mask]))


def test_nothing_is_said_about_a_good_recording(original: Path, right: dict[int, bytes]) -> None:
    with replay(original, writable=False) as opened:
        assert opened.messages == ()
        assert _assert_right(opened, right) == []


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(n, marks=pytest.mark.slow) for n in range(6, 150))])
def test_flipped_bits_in_the_store(damaged: Path, right: dict[int, bytes], seed: int) -> None:
    random = Random(seed)
    store = damaged / "snapshots.qcow2"
    for _ in range(random.choice((1, 1, 8, 100))):
        _flip(store, random.randrange(store.stat().st_size), 1 << random.randrange(8))
    with replay(damaged, writable=bool(seed % 2)) as opened:
        _assert_right(opened, right, seed)
        Backward(opened.timeline).step(NONE, 3)


def test_a_flipped_page_in_a_snapshots_ram_is_noticed(damaged: Path, right: dict[int, bytes]) -> None:
    with Image.open(damaged / "snapshots.qcow2") as image:
        page = _page_written_between(image, 5, 6)
        content = image.view(image.snapshots[6]).read_vmstate_clusters([page])[0]
    data = (damaged / "snapshots.qcow2").read_bytes()
    at = data.index(content)
    assert data.count(content) == 1
    _flip(damaged / "snapshots.qcow2", at + 100)
    with replay(damaged) as opened:
        t, said = opened.timeline, []
        t.say = said.append
        snapshot = t.marks.stored[6]
        t.seek(snapshot.icount)
        assert t.marks.state_digest() == right[snapshot.icount]
        assert len(said) >= 1
        assert snapshot.name in said[0]
        assert snapshot not in t.marks.stored
        _assert_right(opened, right)


def _page_written_between(image: Image, a: int, b: int) -> int:
    low, high = image.snapshots[a], image.snapshots[b]
    pages = image.diff_vmstate(low, high, RAM_OFFSET, high.vm_state_size - RAM_OFFSET)
    return next(p for p in pages if any(image.view(high).read_vmstate_clusters([p])[0]))


def _mend(store: Path, icount: int, number: int, change: Callable[[bytearray], None]) -> None:
    """Change part ``number`` of the state blob of the snapshots at a position, and its checksum with it."""
    data = bytearray(store.read_bytes())
    found = 0
    for start in range(0, len(data) - 4096, 4096):
        if data[start + 4 : start + 8] != b"RRST":
            continue
        length = int.from_bytes(data[start : start + 4], "little")
        blob = data[start + 4 : start + 4 + length]
        places, at = [], 8
        for _ in range(6):
            size = int.from_bytes(blob[at : at + 4], "little")
            places.append(slice(at + 4, at + 4 + size))
            at += 4 + size
        if int.from_bytes(blob[places[1]][:8], "little") != icount:
            continue
        part = blob[places[number]]
        change(part)
        blob[places[number]] = part
        blob[-8:] = xxhash.xxh3_64_digest(bytes(blob[:-8]))
        data[start + 4 : start + 4 + length] = blob
        found += 1
    assert found == 1
    store.write_bytes(data)


def _bit(at: int) -> Callable[[bytearray], None]:
    def flip(part: bytearray) -> None:
        part[at] ^= 1

    return flip


def _saved_digest_of_another_state(part: bytearray) -> None:
    part[:] = bytes(8)


MENDED = {
    "icount": (1, _bit(1)),
    "register a0": (1, _bit(16 + 10 * 8)),
    "device": (2, _bit(3 + 4)),
    "answers used": (3, _bit(1)),
    "inputs delivered": (3, _bit(9)),
    "size of RAM": (4, _bit(2)),
    "digest of RAM": (5, _saved_digest_of_another_state),
}


@pytest.mark.parametrize("what", MENDED)
def test_a_snapshot_that_says_so_itself_is_not_believed(damaged: Path, right: dict[int, bytes], what: str) -> None:
    """Whatever its own checksum says, the state that it brings is compared with the one recorded there."""
    with replay(damaged) as opened:
        snapshot = opened.timeline.marks.stored[4]
    _mend(damaged / "snapshots.qcow2", snapshot.icount, *MENDED[what])
    with replay(damaged) as opened:
        t, said = opened.timeline, []
        t.say = said.append
        assert t.marks.best(snapshot.icount + 7).stored == snapshot
        t.seek(snapshot.icount + 7)
        assert snapshot not in t.marks.stored
        assert len(said) == 1
        assert said[0].count("\n") == 1
        assert "passed over" in said[0]
        _assert_right(opened, right)
        assert len(t.marks.stored) >= 10


def test_a_snapshot_among_inputs_is_believed(tmp_path: Path) -> None:
    """One before, or behind, an input of its position, where the digest was recorded on the other side of it."""
    path = tmp_path / "r"
    with record(path, build("riscv64", "mixer"), OPTIONS, interval=1e-9) as opened:
        t = opened.timeline
        for n in range(6):
            t.run(NONE, steps=STEPS)
            t.marks.take_snapshot(f"before {n}")
            opened.door.feed("serial0", b"line %d\r" % n)
            opened.door.take_inputs(t.icount)
            t.marks.take_snapshot(f"behind {n}")
        t.run(NONE, steps=STEPS)
    with replay(path) as opened:
        t, said = opened.timeline, []
        t.say = said.append
        for stored in t.marks.stored:
            t.seek(min(stored.icount + 1, t.end))
            t.seek(0)
        assert said == []
        assert verify(t) > 5


def test_prepared_positions_rest_on_no_damaged_snapshot(damaged: Path, right: dict[int, bytes]) -> None:
    with replay(damaged) as opened:
        snapshot = opened.timeline.marks.stored[4]
    _mend(damaged / "snapshots.qcow2", snapshot.icount, 1, _bit(16 + 10 * 8))
    with replay(damaged) as opened:
        opened.timeline.seek(snapshot.icount + STEPS - 1)
        Preparation(opened.timeline).work()
        _assert_right(opened, right)


def test_the_starting_snapshot_does_not_hold_the_images(damaged: Path, right: dict[int, bytes]) -> None:
    with Image.open(damaged / "snapshots.qcow2") as image:
        start = image.snapshots[0]
        pages = image.diff_vmstate(start, image.snapshots[-1], RAM_OFFSET, start.vm_state_size - RAM_OFFSET)
        content = next(c for c in image.view(start).read_vmstate_clusters(pages) if any(c))
    data = (damaged / "snapshots.qcow2").read_bytes()
    _flip(damaged / "snapshots.qcow2", data.index(content) + 5)
    with replay(damaged) as opened:
        assert "start" in "".join(_assert_right(opened, right))


@pytest.mark.parametrize("size", [0, 1, 511, 4096, 9000, 70_000])
def test_a_truncated_store(damaged: Path, right: dict[int, bytes], size: int) -> None:
    store = damaged / "snapshots.qcow2"
    store.write_bytes(store.read_bytes()[:size])
    with replay(damaged) as opened:
        said = _assert_right(opened, right)
        assert opened.messages or said
        assert all("\n" not in m for m in opened.messages)


def test_a_missing_store(damaged: Path, right: dict[int, bytes]) -> None:
    (damaged / "snapshots.qcow2").unlink()
    with replay(damaged) as opened:
        assert len(opened.messages) == 1
        assert "replay begins with the images" in opened.messages[0]
        _assert_right(opened, right)
        with pytest.raises(StoreError, match="not in use"):
            opened.timeline.marks.take_snapshot("a")


def test_snapshots_of_another_unicorn(damaged: Path, right: dict[int, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrgdb.engine.unicorn.engine.build_id", lambda: "unicorn-9.9.9-0x9")
    with replay(damaged) as opened:
        assert any("was made by unicorn-2" in m for m in opened.messages)
        assert opened.timeline.marks.stored == []
        _assert_right(opened, right)


def test_one_snapshot_of_another_unicorn(
    damaged: Path, right: dict[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with replay(damaged) as opened:
        opened.timeline.seek(5 * STEPS + 700)
        opened.timeline.engine.build = "unicorn-9.9.9-0x9"
        opened.timeline.marks.take_snapshot("foreign")
    with replay(damaged) as opened:
        said = []
        opened.timeline.say = said.append
        opened.timeline.seek(5 * STEPS + 710)
        assert "foreign was made by unicorn-9.9.9" in said[0]
        assert _assert_right(opened, right) == []


def test_a_snapshot_behind_the_end_of_the_log(damaged: Path, right: dict[int, bytes]) -> None:
    """The disk kept the store and lost the tail of the log."""
    log = damaged / "events.log"
    log.write_bytes(log.read_bytes()[: int(log.stat().st_size * 0.7)])
    with replay(damaged) as opened:
        end = opened.timeline.end
        assert 0 < end < 12 * STEPS
        assert any("the recording is damaged behind icount" in m for m in opened.messages)
        assert any("behind the end of the log" in m for m in opened.messages)
        _assert_right(opened, {p: d for p, d in right.items() if p < end})
        opened.timeline.seek(end)
        assert opened.timeline.run(NONE, steps=1).kind is StopKind.HISTORY_END


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(n, marks=pytest.mark.slow) for n in range(6, 150))])
def test_flipped_bits_in_the_log(damaged: Path, right: dict[int, bytes], seed: int) -> None:
    log = damaged / "events.log"
    _flip(log, Random(seed).randrange(log.stat().st_size), 1 << seed % 8)
    try:
        opened = replay(damaged)
    except (LogError, RecordingError) as e:
        refusal = str(e)
    else:
        refusal = ""
    if refusal:
        assert "\n" not in refusal
        assert str(log) in refusal
        return
    with opened:
        assert opened.messages
        end = opened.timeline.end
        _assert_right(opened, {p: d for p, d in right.items() if p < end})


def test_another_image_is_refused(damaged: Path) -> None:
    image = next((damaged / "images").iterdir())
    _flip(image, image.stat().st_size // 2)
    with pytest.raises(RecordingError, match="was changed since the recording was made"):
        replay(damaged)


def test_a_manifest_that_is_none(damaged: Path) -> None:
    (damaged / "manifest.json").write_text("{}")
    with pytest.raises(ManifestError):
        replay(damaged)


def test_a_recording_that_cannot_be_written(damaged: Path, right: dict[int, bytes]) -> None:
    for path in [damaged, *damaged.rglob("*")]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        with replay(damaged, writable=False) as opened:
            assert _assert_right(opened, right) == []
            with pytest.raises(StoreError):
                opened.timeline.marks.take_snapshot("a")
            _assert_right(opened, right)
    finally:
        damaged.chmod(0o700)


# -- divergence ----------------------------------------------------------------------------------


def _rewrite_log(recording: Path, change: Callable[[Event], Event | None]) -> None:
    """Write the log anew, chunk by chunk at every digest, with events changed or left out."""
    path = recording / "events.log"
    with_id = EventLog.open(path)
    lists = (with_id.answers, with_id.inputs, with_id.digests)
    events = sorted((e for events in lists for e in events), key=lambda e: e.icount)
    horizon, identity = with_id.horizon, with_id.recording_id
    with_id.close()
    path.unlink()
    log = EventLog.create(path, identity)
    for event in events:
        changed = change(event)
        if changed is not None:
            log.append(changed)
    log.close_chunk(horizon)
    log.close()


def _replaced(by_icount: dict[int, Event], event: Event) -> Event:
    return by_icount.get(event.icount, event) if event.kind is EventKind.INPUT else event


def _changed_answer(recording: Path, index: int) -> int:
    """Change one answer; returns its icount."""
    log = EventLog.open(recording / "events.log")
    victim = log.answers[index]
    log.close()

    def change(event: Event) -> Event:
        if event != victim:
            return event
        return event._replace(payload=event.payload[:-3] + bytes([event.payload[-3] ^ 0x55]) + event.payload[-2:])

    _rewrite_log(recording, change)
    return victim.icount


def _between(icount: int) -> tuple[int, int]:
    return icount // STEPS * STEPS, (icount // STEPS + 1) * STEPS


def test_verify_names_the_first_interval_that_differs(damaged: Path) -> None:
    low, high = _between(_changed_answer(damaged, 8))
    (damaged / "snapshots.qcow2").unlink()
    with replay(damaged) as opened:
        with pytest.raises(Divergence) as caught:
            verify(opened.timeline)
        assert f"at icount {high}:" in str(caught.value)
        assert f"behind icount {low}," in str(caught.value)
        assert "\n" not in str(caught.value)


def test_verify_does_not_rely_on_snapshots(damaged: Path) -> None:
    _, high = _between(_changed_answer(damaged, 8))
    with replay(damaged) as opened, pytest.raises(Divergence, match=f"at icount {high}:"):
        verify(opened.timeline)


def test_a_session_goes_on_after_a_divergence(damaged: Path, right: dict[int, bytes]) -> None:
    low, high = _between(_changed_answer(damaged, 8))
    with replay(damaged) as opened:
        t = opened.timeline
        t.seek(low - 100)
        before = t.marks.state_digest()
        with pytest.raises(Divergence, match=f"at icount {high}:"):
            t.run(NONE)
        assert t.icount <= high
        t.seek(low - 100)
        assert t.marks.state_digest() == before
        # Behind the interval the snapshots help.
        t.seek(high + 499)
        assert t.icount == high + 499
        with pytest.raises(Divergence):
            Backward(t).run(Points({symbol(build("riscv64", "mixer"), "power_off"): None}))
        assert t.icount == high + 499
        _assert_right(opened, {p: d for p, d in right.items() if p < low or p >= high})


def test_a_guest_that_asks_for_something_else(damaged: Path, right: dict[int, bytes]) -> None:
    """An answer is missing: the guest's question is not the next one in the log."""
    log = EventLog.open(damaged / "events.log")
    victim = log.answers[len(log.answers) // 2]
    log.close()
    _rewrite_log(damaged, lambda e: None if e == victim else e)
    low, _ = _between(victim.icount)
    (damaged / "snapshots.qcow2").unlink()
    with replay(damaged) as opened:
        t = opened.timeline
        with pytest.raises(Divergence, match=f"at icount {victim.icount}"):
            t.seek(t.end)
        assert t.icount <= victim.icount
        _assert_right(opened, {p: d for p, d in right.items() if p <= low})


def test_a_debuggers_write_that_is_none(damaged: Path) -> None:
    log = EventLog.open(damaged / "events.log")
    victim = log.inputs[3]
    log.close()
    for payload in (b"\1" + (1 << 40).to_bytes(8, "little") + b"x", b"\0", b"", b"\7" * 70):
        bad = victim._replace(source="debugger", payload=payload)
        replaced = {victim.icount: bad}
        _rewrite_log(damaged, partial(_replaced, replaced))
        with replay(damaged) as opened:
            opened.timeline.seek(victim.icount - 10)
            with pytest.raises(Divergence, match="a debugger's write"):
                opened.timeline.seek(victim.icount + 1)
            assert opened.timeline.icount <= victim.icount


def test_digests_without_snapshots_are_compared_and_leave_checkpoints(damaged: Path) -> None:
    (damaged / "snapshots.qcow2").unlink()
    with replay(damaged) as opened:
        t = opened.timeline
        t.seek(t.end)
        assert t.marks.best(7 * STEPS + 10).icount == 7 * STEPS


# -- full disks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 1, 5, 20])
def test_the_disk_is_full_for_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """``room``: writes that succeed before."""
    left = 1 << 30
    write = HostFile.write

    def maybe(self: HostFile, offset: int, buffers: Sequence[Buffer]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device", self.path)
        write(self, offset, buffers)

    monkeypatch.setattr(HostFile, "write", maybe)
    said: list[str] = []
    image = build("riscv64", "mixer")
    seen = {}
    with record(tmp_path / "r", image, OPTIONS, interval=1e-9, say=said.append) as opened:
        t = opened.timeline
        for n in range(12):
            if n == 4:
                left = room
            t.run(NONE, steps=STEPS)
            assert opened.store is not None
            with contextlib.suppress(StoreError):
                opened.store.flush()  # each snapshot is a group of its own, however slow the disk
            seen[t.icount] = t.marks.state_digest()
            opened.door.feed("serial0", bytes([97 + n]))
        t.run(NONE, steps=1)
        assert len(said) == 1
        assert "goes on without automatic snapshots" in said[0]
        for position, digest in list(seen.items())[:-1]:
            t.seek(position + 1)
            t.seek(position - 1)
            t.run(NONE, steps=1)
            assert digest != t.marks.state_digest()  # the input of this position has come by now
        t.seek(t.end)
        left = 1 << 30
    with replay(tmp_path / "r") as opened:
        assert opened.messages == ()
        verify(opened.timeline)


@pytest.mark.parametrize("room", [1, 3, 8])
def test_the_disk_is_full_for_the_starting_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    left = room
    write = HostFile.write

    def maybe(self: HostFile, offset: int, buffers: Sequence[Buffer]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device", self.path)
        write(self, offset, buffers)

    monkeypatch.setattr(HostFile, "write", maybe)
    with pytest.raises(StoreError, match="No space left"):
        record(tmp_path / "r", build("riscv64", "mixer"), OPTIONS)


def test_the_disk_is_full_for_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recording stops with one clear line; when there is room again, it goes on and nothing is missing."""
    full = False
    write = EventLog._write

    def maybe(self: EventLog, data: bytes) -> None:
        if full:
            raise LogError(f"{self.path}: disk full while writing {len(data)} bytes at offset {self.size}")
        write(self, data)

    monkeypatch.setattr(EventLog, "_write", maybe)
    with record(tmp_path / "r", build("riscv64", "mixer"), OPTIONS, interval=1e-9) as opened:
        t = opened.timeline
        t.run(NONE, steps=STEPS)
        full = True
        opened.door.feed("serial0", b"abc")
        with pytest.raises(LogError, match="disk full"):
            t.run(NONE, steps=STEPS)
        with pytest.raises(LogError, match="disk full"):
            t.seek(10)
        full = False
        t.run(NONE, steps=STEPS)
        last = t.icount
        t.seek(STEPS // 2)
        t.seek(last)
        assert t.at_present
        t.run(NONE, steps=STEPS)
    with replay(tmp_path / "r") as opened:
        verify(opened.timeline)


def test_a_store_that_cannot_be_closed_still_closes_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: SnapshotStore) -> None:
        raise StoreError("snapshots.qcow2: cannot write to disk: disk full")

    opened = record(tmp_path / "r", build("riscv64", "mixer"), OPTIONS)
    opened.timeline.run(NONE, steps=100)
    monkeypatch.setattr(SnapshotStore, "close", fails)
    with pytest.raises(StoreError):
        opened.close()
    monkeypatch.undo()
    opened.close()
    with replay(tmp_path / "r") as again:
        verify(again.timeline)


def test_positions_outside_history(original: Path) -> None:
    with replay(original, writable=False) as opened:
        for position in (-1, opened.timeline.end + 1):
            with pytest.raises(TimelineError, match="outside history"):
                opened.timeline.seek(position)
        assert opened.timeline.icount == 0
