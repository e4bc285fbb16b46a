"""The index makes searches skip, and changes nothing else."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace as changed
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rrgdb.engine.base import REGIME, Space, Underlying, Watch
from rrgdb.opening import GuestOptions, Opened, record, replay
from rrgdb.recording.directory import INDEX
from rrgdb.timeline import backward, forward
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.stop import Points, Stop, StopKind
from rrgdb.timeline.timeline import Timeline
from rrgdb_tests.guests import ARCHES, AWKWARD, build
from rrgdb_tests.timeline.oracle import symbol

OPTIONS = GuestOptions(memory=4 << 20)
LONGEST = 300_000
GUESTS = [(arch, name) for arch in ARCHES for name in (AWKWARD[arch][1], "ticker")]
ALL_GUESTS = [(arch, name) for arch in ARCHES for name in (*AWKWARD[arch], "ticker", "hunt", "mixer")]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("index")


def _recorded(scratch: Path, arch: str, guest: str) -> Path:
    """A recording with an index of many spans, whatever the speed of this machine."""
    path = scratch / f"{arch}-{guest}"
    if not path.exists():
        with record(path, build(arch, guest), OPTIONS, interval=1e-9) as opened:
            t = opened.timeline
            while t.guest.end is None and t.icount < LONGEST:
                t.run(Points({}), steps=7_001)
    return path


def _without_index(path: Path, to: Path) -> Path:
    shutil.copytree(path, to, ignore=shutil.ignore_patterns(INDEX))
    return to


@contextmanager
def _counting(timeline: Timeline) -> Iterator[list[int]]:
    """Lengths of what is replayed inside."""
    lengths: list[int] = []
    advance = timeline.forward.advance

    def counted(limit: int):  # type: ignore[no-untyped-def]
        begin = timeline.icount
        try:
            return advance(limit)
        finally:
            lengths.append(timeline.icount - begin)

    timeline.forward.advance = counted  # type: ignore[method-assign]
    yield lengths
    timeline.forward.advance = advance  # type: ignore[method-assign]


def _pcs(opened: Opened, rng: Random) -> list[int]:
    t = opened.timeline
    found = []
    for _ in range(25):
        t.seek(rng.randint(t.start, t.end - 1))
        found.append(t.engine.read(t.engine.arch.pc))
    return found


def _points(rng: Random, pcs: list[int], watched: Watch) -> Points:
    breakpoints = dict.fromkeys(rng.choices([*pcs, *(pc + 4096 for pc in pcs)], k=rng.choice((0, 1, 1, 4))))
    kind = rng.choice("wwwra")
    watches = (changed(watched, kind=kind),) if rng.random() < 0.4 or not breakpoints else ()
    return Points(dict(breakpoints), watches)


def _search(opened: Opened, points: Points, here: int) -> tuple[Stop, bytes]:
    t = opened.timeline
    t.seek(here)
    stop = Backward(t).run(points)
    return stop, t.marks.state_digest()


def _continue(opened: Opened, points: Points, here: int) -> tuple[Stop, bytes]:
    t = opened.timeline
    t.seek(here)
    stop = t.run(points)
    return stop, t.marks.state_digest()


def _compare(scratch: Path, arch: str, guest: str, seed: int, searches: int, words: Sequence[Watch] = ()) -> None:
    """``words``: what is watched; else it may be any in the lower RAM."""
    path = _recorded(scratch, arch, guest)
    plain = _without_index(path, scratch / f"plain-{arch}-{guest}-{seed}")
    rng = Random(seed)
    with replay(path, writable=False) as indexed, replay(plain, writable=False) as bare:
        bare.timeline.index.clear_since = lambda end, *_args: end  # type: ignore[method-assign]
        bare.timeline.index.clear_until = lambda begin, *_args: begin  # type: ignore[method-assign]
        indexed.timeline.run(Points({}))  # shows all output
        bare.timeline.marks.untouched_since = lambda *_args: None  # type: ignore[method-assign]
        assert indexed.timeline.index.spans
        pcs = _pcs(bare, rng)
        ram = indexed.ram.regions[0].base
        for _ in range(searches):
            place = ram + rng.choice((0x2000, 0x10000, OPTIONS.memory // 2 if OPTIONS.memory else 0))
            watched = Watch(place + 4 * rng.randrange(600), 4, "w", physical=rng.random() < 0.3)
            points = _points(rng, pcs, rng.choice(words) if words else watched)
            here = rng.randint(1, indexed.timeline.end)
            assert _search(indexed, points, here) == _search(bare, points, here), (points, here)
            here = rng.randint(0, indexed.timeline.end - 1)
            assert _continue(indexed, points, here) == _continue(bare, points, here), (points, here)


@pytest.fixture(autouse=True)
def short_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "LEAST_SKIP", 100)


@pytest.mark.parametrize(("arch", "guest"), GUESTS)
def test_searches_find_the_same(scratch: Path, arch: str, guest: str) -> None:
    _compare(scratch, arch, guest, seed=1, searches=12)


UPPER = {"aarch64_upper": 0xFFFFFF8000000000, "riscv_upper": 0xFFFFFFC000000000}
"""guest -> what it has mapped in all address spaces"""
UPPER_GUESTS = [("aarch64", "aarch64_upper"), ("riscv64", "riscv_upper")]
OWN = 0x40000000
"""what ``riscv_upper`` has mapped in each address space to another page"""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("arch", "guest"), UPPER_GUESTS)
def test_searches_for_what_is_mapped_elsewhere_at_times_find_the_same(
    scratch: Path, arch: str, guest: str, seed: int
) -> None:
    words = [Watch(UPPER[guest] + 4 * at, 4, "w") for at in (4, 16, 20, 32, 48, 1040, 1056, 1072, 2048)]
    own = [Watch(OWN + 16, 4, "w")] if arch == "riscv64" else []
    _compare(scratch, arch, guest, seed, 24, [*words, *own])


def _spaces(scratch: Path, arch: str, guest: str) -> list[Space]:
    """Those of a guest, by where their tables are."""
    found = {}
    with replay(_recorded(scratch, arch, guest), writable=False) as opened:
        t = opened.timeline
        for n in range(64):
            t.seek(t.end * n // 64)
            space = t.engine.space()
            if space is not None:
                found[space.root] = space
    return [found[root] for root in sorted(found)]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("arch", "guest"), UPPER_GUESTS)
def test_searches_for_physical_words_and_for_those_of_a_space_find_the_same(
    scratch: Path, arch: str, guest: str, seed: int
) -> None:
    image = build(arch, guest)
    frames, leaf = symbol(image, "frames"), symbol(image, "leaf" if arch == "riscv64" else "leaves")
    words = [Watch(frames + 4096 * page + 4 * at, 4, "w", physical=True) for page in range(3) for at in (4, 16, 32)]
    words += [Watch(leaf, 16, "w", physical=True)]
    for space in _spaces(scratch, arch, guest):
        own = [Watch(OWN + 16, 4, "w", space=space)] if arch == "riscv64" else []
        words += [*own, Watch(UPPER[guest] + 64, 4, "w", space=space), Watch(frames + 4 * 1056, 4, "w", space=space)]
    _compare(scratch, arch, guest, 100 + seed, 24, words)


@pytest.mark.parametrize(("arch", "guest"), UPPER_GUESTS)
def test_what_translation_does_not_touch_is_passed_over(scratch: Path, arch: str, guest: str) -> None:
    """A word that is written once; the tables on the way to it are written now and then."""
    with replay(_recorded(scratch, arch, guest), writable=False) as opened:
        t = opened.timeline
        t.seek(t.end * 5 // 6)
        watch = Watch(UPPER[guest] + 4 * 16, 4, "w")
        under = t.engine.underlying(watch)
        assert under is not None
        assert under.tables
        with _counting(t) as replayed:
            stop = Backward(t).run(Points({}, (watch,)))
        assert stop.kind is StopKind.WATCHPOINT
        assert sum(replayed) < t.end // 4


def test_what_a_space_has_to_itself_is_passed_over_if_the_space_is_named(scratch: Path) -> None:
    space, _ = _spaces(scratch, "riscv64", "riscv_upper")
    with replay(_recorded(scratch, "riscv64", "riscv_upper"), writable=False) as opened:
        t = opened.timeline
        t.seek(t.end * 5 // 6)
        frames = symbol(build("riscv64", "riscv_upper"), "frames")
        engine = t.engine
        under = engine.underlying(Watch(OWN + 16, 4, "w", space=space))
        assert under is not None
        assert under.data == engine.underlying(Watch(frames + 2 * 4096, 4, "w", physical=True)).data
        assert len(under.tables) == 3
        assert REGIME not in under.tables
        nobody = Watch(engine.ram.regions[0].base + engine.ram.regions[0].size - 4096, 4, "w", physical=True)
        with _counting(t) as replayed:
            assert Backward(t).run(Points({}, (nobody,))).kind is StopKind.HISTORY_BEGIN
        assert sum(replayed) == 0
        assert engine.underlying(Watch(0x10000000, 1, "w", physical=True)) is None
        assert engine.underlying(Watch(1 << 56, 1, "w", physical=True)) == Underlying()


def test_what_each_address_space_has_to_itself_is_not_passed_over(scratch: Path) -> None:
    with replay(_recorded(scratch, "riscv64", "riscv_upper"), writable=False) as opened:
        opened.timeline.seek(opened.timeline.end * 5 // 6)
        assert opened.timeline.engine.underlying(Watch(OWN, 4, "w")) is None


@pytest.mark.parametrize("minor", [0, 1])
def test_only_an_index_that_tells_of_translation_says_that_it_stayed(scratch: Path, tmp_path: Path, minor: int) -> None:
    path = Path(shutil.copytree(_recorded(scratch, "aarch64", "aarch64_upper"), tmp_path / "r"))
    head = bytearray((path / INDEX).read_bytes()[:32])
    head[10:12] = minor.to_bytes(2, "little")
    head[28:32] = zlib.crc32(head[:28]).to_bytes(4, "little")
    (path / INDEX).write_bytes(head)
    with replay(path) as opened:
        t = opened.timeline
        t.seek(t.end)
        t.seek(t.end - 1000)
        t.seek(t.end)
        t.index.note()
        under = t.engine.underlying(Watch(UPPER["aarch64_upper"] + 4 * 48, 4, "w"))
        assert under is not None
        assert t.index.clear_since(t.end, 0, (), set()) < t.end
        assert (t.index.clear_since(t.end, 0, (), under.tables) < t.end) is bool(minor)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
@pytest.mark.parametrize(("arch", "guest"), ALL_GUESTS)
def test_many_more_searches_find_the_same(scratch: Path, arch: str, guest: str, seed: int) -> None:
    _compare(scratch, arch, guest, seed, searches=60)


def test_the_whole_of_history_is_indexed(scratch: Path) -> None:
    path = _recorded(scratch, "riscv64", "ticker")
    with replay(path, writable=False) as opened:
        t = opened.timeline
        spans = t.index.spans
        assert len(spans) > 10
        assert (spans[0][0], spans[-1][1]) == (t.start, t.end)
        assert [end for _, end in spans[:-1]] == [begin for begin, _ in spans[1:]]


def test_going_on_passes_over_history_that_was_shown(scratch: Path) -> None:
    path = _recorded(scratch, "riscv64", "ticker")
    image = build("riscv64", "ticker")
    with replay(path, writable=False) as opened:
        t = opened.timeline
        last = Points({symbol(image, "power_off"): None})
        with _counting(t) as first:
            stop = t.run(last)
        assert sum(first) == stop.icount, "nobody has seen its output yet"
        t.seek(t.start)
        with _counting(t) as again:
            assert t.run(last) == stop
        assert sum(again) < stop.icount / 5
        t.seek(t.start)
        with _counting(t) as to_the_end:
            t.run(Points({}))
        assert t.icount == t.end
        assert sum(to_the_end) > (t.end - stop.icount), "behind what was shown nothing is passed over"


@pytest.mark.parametrize("kind", "wra")
def test_an_access_near_the_end_of_a_long_segment_is_found_without_looking_at_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    image = build("riscv64", "ticker", {"TICKS": 20, "WORK": 300})
    with record(tmp_path / "r", image, OPTIONS) as made:
        made.timeline.run(Points({}))
    looked: list[int] = []
    scan = backward.scan

    def counted(timeline: Timeline, points: Points, begin: int, end: int, *rest: Any) -> Any:
        looked.append(end - begin)
        return scan(timeline, points, begin, end, *rest)

    monkeypatch.setattr(backward, "scan", counted)
    points = Points({}, (Watch(symbol(image, "tick_count"), 4, kind),))
    stops = []
    for approach in (1 << 40, 1000):
        monkeypatch.setattr(backward, "APPROACH", approach)
        with replay(tmp_path / "r", writable=False) as opened:
            t = opened.timeline
            t.index.clear_since = lambda end, *_args: end  # type: ignore[method-assign]
            t.marks.untouched_since = lambda *_args: None  # type: ignore[method-assign]
            t.run(Points({}, icount=t.end))
            stops.append((Backward(t).run(points), t.marks.state_digest()))
            assert stops[0] == stops[-1]
            whole = t.end
    assert looked[0] == whole
    assert sum(looked[1:]) < whole / 4


def test_a_segment_without_an_access_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = build("riscv64", "ticker", {"TICKS": 20, "WORK": 300})
    with record(tmp_path / "r", image, OPTIONS) as made:
        made.timeline.run(Points({}))
    monkeypatch.setattr(backward, "APPROACH", 1000)
    unwritten = Points({}, (Watch(symbol(image, "__heap_end") + 0x1000, 4, "w"),))
    with replay(tmp_path / "r", writable=False) as opened:
        t = opened.timeline
        t.index.clear_since = lambda end, *_args: end  # type: ignore[method-assign]
        t.marks.untouched_since = lambda *_args: None  # type: ignore[method-assign]
        t.run(Points({}))
        with _counting(t) as replayed:
            assert Backward(t).run(unwritten).kind is StopKind.HISTORY_BEGIN
        assert t.end <= sum(replayed) <= 2 * t.end


def test_output_is_shown_whole_and_once_wherever_a_run_begins(tmp_path: Path) -> None:
    with record(tmp_path / "r", build("riscv64", "ticker", {"TICKS": 10, "WORK": 200}), OPTIONS, interval=1e-9) as made:
        straight = bytearray()
        made.timeline.door.set_output("serial0", straight.extend)
        while made.timeline.guest.end is None:
            made.timeline.run(Points({}), steps=701)
    with replay(tmp_path / "r", writable=False) as opened:
        t = opened.timeline
        said = bytearray()
        t.door.set_output("serial0", said.extend)
        t.run(Points({}, icount=t.end // 2))
        assert 0 < len(said) < len(straight)
        for _ in range(2):
            t.seek(t.start)
            t.run(Points({}))
            assert t.icount == t.end
    assert said == straight


def test_what_never_runs_is_found_without_a_replay(scratch: Path) -> None:
    path = _recorded(scratch, "riscv64", "ticker")
    image = build("riscv64", "ticker")
    with replay(path, writable=False) as opened:
        t = opened.timeline
        t.seek(t.end)
        with _counting(t) as replayed:
            stop = Backward(t).run(Points({symbol(image, "never"): None}))
        assert (stop.icount, sum(replayed)) == (t.start, 0)


def test_a_far_hit_costs_its_own_segment(scratch: Path) -> None:
    path = _recorded(scratch, "riscv64", "ticker")
    image = build("riscv64", "ticker")
    with replay(path, writable=False) as opened:
        t = opened.timeline
        t.seek(t.end)
        with _counting(t) as replayed:
            stop = Backward(t).run(Points({symbol(image, "main"): None}))
        first = t.index.spans[0][1]
        assert stop.icount < first < t.end // 10
        assert sum(replayed) <= 2 * first


@pytest.mark.parametrize("writable", [True, False])
def test_a_recording_without_an_index_gets_one_by_replaying(scratch: Path, tmp_path: Path, writable: bool) -> None:
    whole = _recorded(scratch, "aarch64", "ticker")
    path = _without_index(whole, tmp_path / "r")
    with replay(whole, writable=False) as opened:
        expected = opened.timeline.index.spans
    with replay(path, writable=writable) as opened:
        t = opened.timeline
        t.seek(t.end)
        assert t.index.spans == []
        Backward(t).run(Points({1: None}))
        assert t.index.spans == expected
        t.seek(t.end)
        with _counting(t) as replayed:
            Backward(t).run(Points({1: None}))
        assert sum(replayed) == 0
    assert (path / INDEX).exists() == writable
    if writable:
        with replay(path, writable=False) as opened:
            assert opened.timeline.index.spans == expected


def test_a_torn_or_foreign_index_costs_speed_alone(scratch: Path, tmp_path: Path) -> None:
    path = tmp_path / "r"
    shutil.copytree(_recorded(scratch, "riscv64", "ticker"), path)
    data = (path / INDEX).read_bytes()
    points, rng = Points({1: None}), Random(1)
    for damaged in (
        b"",
        data[:20],
        data[: len(data) // 2],
        data[:50] + b"\xff" + data[51:],
        rng.randbytes(5000),
        (_recorded(scratch, "riscv32", "ticker") / INDEX).read_bytes(),
    ):
        (path / INDEX).write_bytes(damaged)
        with replay(path, writable=False) as opened:
            t = opened.timeline
            assert len(t.index.spans) < 30
            t.seek(t.end)
            assert Backward(t).run(points).icount == t.start
            assert t.index.spans[0][0] == 0
        assert (path / INDEX).read_bytes() == damaged
        with replay(path) as opened:
            opened.timeline.seek(opened.timeline.end)
            Backward(opened.timeline).run(points)
        with replay(path, writable=False) as opened:
            assert opened.timeline.index.spans[-1][1] == opened.timeline.end


def test_an_index_that_cannot_be_written_is_kept_in_memory(scratch: Path, tmp_path: Path) -> None:
    path = _without_index(_recorded(scratch, "riscv64", "ticker"), tmp_path / "r")
    (path / INDEX).mkdir()
    with replay(path) as opened:
        t = opened.timeline
        t.seek(t.end)
        Backward(t).run(Points({1: None}))
        assert t.index.spans[-1][1] == t.end


def test_spans_outlive_their_snapshots(scratch: Path, tmp_path: Path) -> None:
    path = tmp_path / "r"
    shutil.copytree(_recorded(scratch, "riscv64", "ticker"), path)
    with replay(path) as opened:
        marks = opened.timeline.marks
        marks.delete_snapshots(marks.stored[1:-1])
    with replay(path, writable=False) as opened:
        t = opened.timeline
        t.seek(t.end)
        with _counting(t) as replayed:
            Backward(t).run(Points({1: None}))
        assert sum(replayed) == 0


def test_the_live_present_is_indexed_up_to_where_it_was_left(tmp_path: Path) -> None:
    with record(tmp_path / "r", build("riscv64", "ticker"), OPTIONS, interval=1e9) as opened:
        t = opened.timeline
        for steps in (5_000, 3_000, 20_000):
            t.run(Points({}), steps=steps)
            present = t.icount
            with _counting(t) as replayed:
                assert Backward(t).run(Points({1: None})).icount == 0
            assert sum(replayed) == 0
            assert t.index.spans == [(0, present)]
            t.seek(present)
            assert t.at_present
        # A diversion leaves no trace in it.
        t.seek(100)
        t.write_register(t.engine.arch.register_index["pc"], symbol(build("riscv64", "ticker"), "never"))
        t.run(Points({}), steps=10)
        t.drop_diversion()
        t.seek(t.end)
        t.run(Points({}), steps=10)
        with _counting(t) as replayed:
            Backward(t).run(Points({symbol(build("riscv64", "ticker"), "never"): None}))
        assert sum(replayed) == 0
