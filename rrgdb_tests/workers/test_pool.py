"""Searches and verification with worker processes come to what they come to without."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rrgdb.engine.base import Stops, Watch
from rrgdb.opening import Opened, record, replay
from rrgdb.recording.directory import INDEX
from rrgdb.recording.door import Divergence
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.conditions import agent_condition
from rrgdb.timeline.stop import Condition, Points, Stop, StopKind
from rrgdb.timeline.tasks import SpanError, portable, scan_span, verify_span
from rrgdb.timeline.timeline import TimelineError
from rrgdb.timeline.verify import verify
from rrgdb.workers.executor import Failed, Task, WorkerError
from rrgdb.workers.pool import Pool
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import OPTIONS, symbol
from rrgdb_tests.timeline.test_damage import _changed_answer

ARCHES = ("riscv64", "aarch64", "x86_64")
READY = 60
"""seconds in which a worker has to be up on a machine that is busy"""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workers")


def _recorded(scratch: Path, arch: str, guest: str = "ticker") -> Path:
    path = scratch / f"{arch}-{guest}"
    if not path.exists():
        with record(path, build(arch, guest), OPTIONS, interval=1e-9) as opened:
            t = opened.timeline
            while t.guest.end is None and t.icount < 300_000:
                t.run(Points({}), steps=12_001)
        (path / INDEX).unlink()
    return path


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrgdb.timeline.backward.LEAST_TASK", 1)


def _with_workers(path: Path, jobs: int = 2) -> Opened:
    opened = replay(path, writable=False, jobs=jobs)
    assert opened.workers is not None
    opened.workers.start()
    assert opened.workers.ready(READY)
    return opened


def _backward(opened: Opened) -> Backward:
    return Backward(opened.timeline, opened.workers, patience=0)


def _search(opened: Opened, points: Points, here: int) -> tuple[Stop, bytes]:
    t = opened.timeline
    t.seek(here)
    stop = _backward(opened).run(points)
    return stop, t.marks.state_digest()


def _points(rng: Random, opened: Opened, pcs: list[int], watched: int) -> Points:
    never = bytes.fromhex("220027")  # const8 0, end
    sometimes = bytes.fromhex("26000a2207 0f 2203 13 27".replace(" ", ""))  # (register 10 & 7) == 3
    codes = rng.choice((None, None, (never,), (sometimes,), (never, sometimes)))
    condition = None if codes is None else agent_condition(opened.timeline.engine, codes)
    breakpoints = dict.fromkeys(rng.choices(pcs, k=rng.choice((0, 1, 3))), condition)
    watches = (Watch(watched, 4, rng.choice("wra")),) if rng.random() < 0.4 or not breakpoints else ()
    return Points(breakpoints, watches)


def _compare(scratch: Path, arch: str, seed: int, searches: int) -> None:
    path, image = _recorded(scratch, arch), build(arch, "ticker")
    with _with_workers(path) as shared, replay(path, writable=False) as alone:
        # Whatever the index could skip is searched.
        for opened in (shared, alone):
            opened.timeline.index.clear_since = lambda end, *_args: end  # type: ignore[method-assign]
        t = alone.timeline
        pcs = [symbol(image, name) for name in ("main", "tick", "never")]
        for n in range(12):
            t.seek(n * t.end // 13 + 17)
            pcs.append(t.engine.read(t.engine.arch.pc))
        for i in range(searches):
            here = Random(seed + i).randint(t.end // 2, t.end)
            watched = symbol(image, Random(seed + i).choice(("tick_count", "mirror")))
            expected = _search(alone, _points(Random(seed + i), alone, pcs, watched), here)
            found = _search(shared, _points(Random(seed + i), shared, pcs, watched), here)
            assert found == expected, (seed + i, here)
        assert shared.workers is not None
        assert shared.workers._number > searches


@pytest.mark.parametrize("arch", ARCHES)
def test_searches_find_the_same(scratch: Path, arch: str) -> None:
    _compare(scratch, arch, seed=1, searches=8)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHES)
def test_many_more_searches_find_the_same(scratch: Path, arch: str) -> None:
    _compare(scratch, arch, seed=1000, searches=200)


def test_what_workers_replay_is_indexed(scratch: Path) -> None:
    with _with_workers(_recorded(scratch, "riscv64")) as opened:
        t = opened.timeline
        assert t.index.spans == []
        stop, _ = _search(opened, Points({1: None}), t.end)
        assert stop.kind is StopKind.HISTORY_BEGIN
        assert (t.index.spans[0][0], t.index.spans[-1][1]) == (0, t.end)
        assert opened.workers is not None
        assert opened.workers._number > 10


def test_a_condition_without_code_stays_at_home() -> None:
    assert portable(Points({1: Condition(lambda: True)})) is None
    assert portable(Points({1: None, 2: Condition(lambda: True, (b"x",))})) == Stops(((1, None), (2, (b"x",))))


def _killing(opened: Opened, when: Callable[[int], int]) -> list[int]:
    """Behind result number n, so many workers are killed; returns which processes were."""
    assert opened.workers is not None
    killed: list[int] = []
    workers, results = opened.workers, opened.workers.results

    def killing(tasks: Iterator[Task[Any]], ended: Callable[[], bool]) -> Iterator[tuple[Task, Any]]:
        for n, result in enumerate(results(tasks, ended)):
            alive = [w for w in workers._workers or [] if w.process.poll() is None]
            for victim in alive[: when(n)]:
                victim.process.kill()
                victim.process.wait()
                killed.append(victim.process.pid)
            yield result

    workers.results = killing  # type: ignore[method-assign,assignment]
    return killed


@pytest.mark.parametrize("jobs", [2, 3])
def test_a_worker_that_dies_is_replaced(scratch: Path, jobs: int) -> None:
    points = Points({symbol(build("riscv64", "ticker"), "main"): None})
    with replay(_recorded(scratch, "riscv64"), writable=False) as alone:
        expected = _search(alone, points, alone.timeline.end)
    with _with_workers(_recorded(scratch, "riscv64"), jobs) as opened:
        t = opened.timeline
        said: list[str] = []
        t.say = said.append
        killed = _killing(opened, lambda n: {2: 1, 6: jobs}.get(n, 0))
        assert _search(opened, points, t.end) == expected
        assert len(killed) >= jobs
        line = "worker process {} has ended (signal 9): another one takes its place\n"
        assert sorted(s for s in said if "worker" in s) == sorted(map(line.format, killed))
        assert opened.workers is not None
        assert len(opened.workers) == len(opened.workers._workers or []) == jobs
        assert not {w.process.pid for w in opened.workers._workers or []} & set(killed)


def test_a_worker_that_dies_in_verify_is_replaced(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _with_workers(_recorded(scratch, "riscv64")) as opened:
        said: list[str] = []
        opened.timeline.say = said.append
        killed = _killing(opened, lambda n: int(n == 1))
        monkeypatch.setattr("rrgdb.timeline.verify._verify_alone", None)
        assert int(_outcome(opened)) > 10
        assert len(killed) == len(said) == 1
        assert "takes its place" in said[0]


def test_workers_that_die_one_after_the_other_are_done_without(scratch: Path) -> None:
    with _with_workers(_recorded(scratch, "riscv64")) as opened:
        t = opened.timeline
        said: list[str] = []
        t.say = said.append
        assert opened.workers is not None
        opened.workers._deaths = 6
        _killing(opened, lambda n: int(n == 2))
        stop, _ = _search(opened, Points({symbol(build("riscv64", "ticker"), "main"): None}), t.end)
        assert stop.kind is StopKind.BREAKPOINT
        assert [s for s in said if "worker" in s] == [f"{said[0].strip()}\n"]
        assert "has ended: searching without" in said[0]
        assert len(opened.workers) == 0
        assert _search(opened, Points({1: None}), t.end)[0].kind is StopKind.HISTORY_BEGIN


def test_a_task_of_which_workers_die_is_left_to_the_main_process(scratch: Path) -> None:
    with _with_workers(_recorded(scratch, "riscv64")) as opened:
        assert opened.workers is not None
        points = portable(Points({1: None}))
        deadly = Task(scan_span, 0, 10, "no points")
        tasks = [Task(scan_span, 0, 10, points), deadly, Task(scan_span, 20, 30, points)]
        results = dict(opened.workers.results(iter(tasks), lambda: False))
        assert list(results) == tasks
        failed = results[deadly]
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, WorkerError)
        assert str(failed.error) == "2 worker processes have ended in it"
        assert [isinstance(r, Failed) for r in results.values()] == [False, True, False]


def test_an_interrupt_ends_a_shared_search_where_it_was(scratch: Path) -> None:
    with _with_workers(_recorded(scratch, "riscv64")) as opened:
        t = opened.timeline
        assert opened.workers is not None
        results = opened.workers.results

        def interrupting(tasks: Iterator[Task[Any]], ended: object):  # type: ignore[no-untyped-def]
            for n, result in enumerate(results(tasks, ended)):  # type: ignore[arg-type]
                if n == 3:
                    thread = threading.Thread(target=t.interrupt)
                    thread.start()
                    thread.join()
                yield result

        opened.workers.results = interrupting  # type: ignore[method-assign]
        t.seek(t.end)
        stop = _backward(opened).run(Points({1: None}))
        assert stop.kind is StopKind.INTERRUPT
        assert 0 < stop.icount == t.icount < t.end
        assert not t.interrupted
        opened.workers.results = results  # type: ignore[method-assign]
        assert _backward(opened).run(Points({1: None})).kind is StopKind.HISTORY_BEGIN


def test_workers_see_what_a_live_guest_has_done_since(tmp_path: Path) -> None:
    image = build("riscv64", "ticker")
    with record(tmp_path / "r", image, OPTIONS, interval=1e-9, jobs=2) as opened:
        t = opened.timeline
        for _ in range(2):
            for _ in range(8):
                t.run(Points({}), steps=5_000)
            assert opened.workers is not None
            opened.workers.start()
            assert opened.workers.ready(READY)
            t.index.clear_since = lambda end, *_args: end  # type: ignore[method-assign]
            end = t.icount
            stop = _backward(opened).run(Points({symbol(image, "main"): None}))
            assert (stop.kind, stop.icount < 5_000) == (StopKind.BREAKPOINT, True)
            assert len(opened.workers) == 2
            t.seek(end)
            assert t.at_present


def test_a_task_behind_the_log_fails(scratch: Path) -> None:
    with _with_workers(_recorded(scratch, "riscv64")) as opened:
        assert opened.workers is not None
        end = opened.timeline.end
        tasks = [Task(scan_span, 0, end + 1, portable(Points({1: None}))), Task(verify_span, 1, end, 0)]
        results = [result for _, result in opened.workers.results(iter(tasks), lambda: False)]
        assert [type(r.error) for r in results if isinstance(r, Failed)] == [TimelineError, SpanError]


def test_results_come_in_the_order_of_the_tasks(scratch: Path) -> None:
    with _with_workers(_recorded(scratch, "riscv64"), jobs=3) as opened:
        assert opened.workers is not None
        end = opened.timeline.end
        points = portable(Points({1: None}))
        spans = [(0, end), (1, 2), (5, 6), (0, end // 2), (7, 8)]
        tasks = [Task(scan_span, *span, points) for span in spans]
        assert [task for task, _ in opened.workers.results(iter(tasks), lambda: False)] == tasks
        first = next(opened.workers.results(iter(tasks), lambda: False))
        assert first[0] is tasks[0]
        assert [task for task, _ in opened.workers.results(iter(tasks), lambda: False)] == tasks


def test_workers_end_with_the_main_process(scratch: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from rrgdb.workers.pool import Pool\n"
        "w = Pool(Path(sys.argv[1]), 2, {}, print)\n"
        "w.start()\n"
        f"assert w.ready({READY})\n"
        "print(*(x.process.pid for x in w._workers), flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program, str(_recorded(scratch, "riscv64"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        watched = [os.pidfd_open(pid) for pid in pids]
        process.send_signal(signal.SIGKILL)
    assert len(pids) == 2
    for pidfd in watched:
        assert select.select([pidfd], [], [], READY)[0]
        os.close(pidfd)


def test_a_worker_that_cannot_start(tmp_path: Path) -> None:
    workers = Pool(tmp_path / "none", 2, {}, lambda _line: None)
    workers.start()
    with pytest.raises(WorkerError, match="has ended"):
        workers.ready(READY)
    workers.close()
    workers.close()


# -- verification --------------------------------------------------------------------------------


def test_a_good_recording_verifies(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _recorded(scratch, "aarch64")
    with replay(path, writable=False) as alone, _with_workers(path) as shared:
        expected = _outcome(alone)
        assert int(expected) > 10
        monkeypatch.setattr("rrgdb.timeline.verify._verify_alone", None)
        assert _outcome(shared) == expected


def _outcome(opened: Opened) -> str:
    try:
        return str(verify(opened.timeline, workers=opened.workers))
    except (Divergence, TimelineError) as e:
        return f"{type(e).__name__}: {e}"


@pytest.mark.parametrize("victims", [(8,), (4, 20), (24,)])
def test_the_first_interval_that_differs_is_named(
    tmp_path: Path, victims: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    with record(path, build("riscv64", "mixer"), OPTIONS, interval=1e-9) as opened:
        for n in range(40):
            opened.timeline.run(Points({}), steps=1_500)
            opened.door.feed("serial0", b"line %d\r" % n)
    for index in victims:
        _changed_answer(path, index)
    with replay(path, writable=False) as alone, _with_workers(path) as shared:
        expected = _outcome(alone)
        assert expected.startswith("Divergence: replay diverges at icount")
        monkeypatch.setattr("rrgdb.timeline.verify._verify_alone", None)
        assert _outcome(shared) == expected


def test_a_damaged_snapshot_is_no_divergence(scratch: Path, tmp_path: Path) -> None:
    path = tmp_path / "r"
    shutil.copytree(_recorded(scratch, "riscv64"), path)
    data = bytearray((path / "snapshots.qcow2").read_bytes())
    for at in range(len(data) // 2, len(data) - 4096, 9_001):
        data[at] ^= 0xFF
    (path / "snapshots.qcow2").write_bytes(data)
    with replay(path, writable=False) as alone, _with_workers(path) as shared:
        assert _outcome(shared) == _outcome(alone)
