"""``verify`` compares the index with what it replays: one that says less than what ran and was written is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rrgdb.engine.base import Ranges
from rrgdb.opening import record, replay
from rrgdb.recording.directory import INDEX
from rrgdb.recording.index import Entry, IndexFile
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.index import _beyond
from rrgdb.timeline.stop import Points, StopKind
from rrgdb.timeline.tasks import IndexLacksError
from rrgdb.timeline.verify import verify
from rrgdb_tests.guests import AWKWARD, build
from rrgdb_tests.timeline.oracle import OPTIONS, symbol

Change = Callable[[Ranges, Ranges], tuple[Ranges, Ranges]]
ARCHES = ("riscv64", "riscv32", "aarch64", "arm", "x86_64", "i386")
STEPS = 12_001
SPAN = 4
"""which one is changed"""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verify index")


def _recorded(scratch: Path, arch: str, guest: str) -> Path:
    path = scratch / f"{arch}-{guest}"
    if not path.exists():
        with record(path, build(arch, guest), OPTIONS, interval=1e-9) as opened:
            while opened.guest.end is None and opened.timeline.icount < 100_000:
                opened.timeline.run(Points({}), steps=STEPS)
    return path


def _changed(recording: Path, to: Path, change: Change) -> Entry:
    """A copy with an index that says something else of one span; returns what it said."""
    shutil.copytree(recording, to)
    with replay(recording, writable=False) as opened:
        identity = opened.recording.manifest.recording_id
    old = IndexFile.open(to / INDEX, identity)
    (to / INDEX).unlink()
    new = IndexFile.open(to / INDEX, identity, writable=True)
    for number, entry in enumerate(old.entries):
        packed: Entry | None = entry
        if number == SPAN:
            packed = Entry.pack(entry.begin, entry.end, entry.log, *change(*entry.unpack()))
        assert packed is not None
        new.append(packed)
    old.close()
    new.close()
    return old.entries[SPAN]


def _without(numbers: range) -> Callable[[Ranges], Ranges]:
    gone = np.array([[numbers.start, numbers.stop - 1]], dtype=np.uint64)
    return lambda held: _beyond(held, gone)


@pytest.mark.parametrize("arch", ARCHES)
def test_an_index_that_is_right_is_not_blamed(scratch: Path, arch: str) -> None:
    for guest in ("ticker", AWKWARD[arch][1], "mixer"):
        with replay(_recorded(scratch, arch, guest), writable=False) as opened:
            assert verify(opened.timeline) > 1
            assert opened.timeline.index.spans


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("arch", ["riscv64", "arm", "x86_64"])
def test_code_that_the_index_lacks(scratch: Path, tmp_path: Path, arch: str, jobs: int) -> None:
    path = _recorded(scratch, arch, "ticker")
    with replay(path, writable=False) as opened:
        opened.timeline.seek(opened.timeline.index.spans[SPAN][0] + STEPS // 2)
        pc = opened.timeline.engine.read(opened.timeline.engine.arch.pc)
    entry = _changed(path, tmp_path / "r", lambda code, pages: (_without(range(pc, pc + 1))(code), pages))
    with replay(tmp_path / "r", writable=False, jobs=jobs) as opened:
        with pytest.raises(IndexLacksError) as caught:
            verify(opened.timeline, workers=opened.workers)
        text = str(caught.value)
        assert f"history.index says that from icount {entry.begin} to {entry.end} nothing ran at {pc:#x};" in text
        assert "\n" not in text
    (tmp_path / "r" / INDEX).unlink()
    with replay(tmp_path / "r", writable=False) as opened:
        verify(opened.timeline)


@pytest.mark.parametrize("jobs", [1, 2])
def test_pages_that_the_index_lacks(scratch: Path, tmp_path: Path, jobs: int) -> None:
    path, count = _recorded(scratch, "riscv64", "ticker"), symbol(build("riscv64", "ticker"), "tick_count")
    page = (count - 0x80000000) // 4096
    entry = _changed(path, tmp_path / "r", lambda code, pages: (code, _without(range(page, page + 1))(pages)))
    with replay(tmp_path / "r", writable=False, jobs=jobs) as opened:
        with pytest.raises(IndexLacksError) as caught:
            verify(opened.timeline, workers=opened.workers)
        text = str(caught.value)
        assert f"says that from icount {entry.begin} to {entry.end} nothing was written to the page of 0x80" in text
        assert "\n" not in text


def test_pages_that_the_index_lacks_where_addresses_are_translated(scratch: Path, tmp_path: Path) -> None:
    path = _recorded(scratch, "aarch64", "aarch64_upper")
    page = (symbol(build("aarch64", "aarch64_upper"), "frames") - 0x40000000) // 4096
    _changed(path, tmp_path / "r", lambda code, pages: (code, _without(range(page, page + 1))(pages)))
    with (
        replay(tmp_path / "r", writable=False) as opened,
        pytest.raises(IndexLacksError, match=f"nothing was written to the page of {0x40000000 + page * 4096:#x}; it"),
    ):
        verify(opened.timeline)
    with replay(path, writable=False) as opened:
        verify(opened.timeline)


def test_an_index_that_says_nothing_or_more(scratch: Path, tmp_path: Path) -> None:
    path = _recorded(scratch, "riscv64", "ticker")
    nothing = np.zeros((0, 2), dtype=np.uint64)
    everything = np.array([[0, (1 << 64) - 1]], dtype=np.uint64)
    _changed(path, tmp_path / "nothing", lambda _code, _pages: (nothing, nothing))
    with replay(tmp_path / "nothing", writable=False) as opened, pytest.raises(IndexLacksError):
        verify(opened.timeline)
    _changed(path, tmp_path / "more", lambda _code, _pages: (everything, everything))
    with replay(tmp_path / "more", writable=False) as opened:
        verify(opened.timeline)


def test_what_footprints_hold_too_much_is_no_lack(scratch: Path, tmp_path: Path) -> None:
    """Code that was in a block and did not run may be missing: no search passes over a hit there."""
    path = _recorded(scratch, "riscv64", "ticker")
    with replay(path, writable=False) as opened:
        t = opened.timeline
        begin, end = t.index.spans[SPAN]
        span = t.index._span_over(end)
        assert span is not None
        code, _ = span.unpack()
        ran = set()
        t.seek(begin)
        while t.icount < end:
            ran.add(t.engine.read("pc"))
            t.run(Points({}), steps=1)
    exact = np.array([[pc, pc + 1] for pc in sorted(ran)], dtype=np.uint64)
    assert len(_beyond(code, exact))
    _changed(path, tmp_path / "r", lambda _code, pages: (exact, pages))
    with replay(tmp_path / "r", writable=False) as opened:
        verify(opened.timeline)
        opened.timeline.seek(end)
        assert Backward(opened.timeline).run(Points(dict.fromkeys(ran))).kind is StopKind.BREAKPOINT
