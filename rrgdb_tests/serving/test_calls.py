"""The engine thread: order, errors, cancellation, and what it does while it has nothing to do."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import pytest
import trio

from rrgdb.rsp.debuggee import Resume, StopReason
from rrgdb.serving.calls import EngineThread
from rrgdb_tests.rsp.fake import FOREVER, FakeDebuggee


async def test_results_and_errors_come_back() -> None:
    def fail() -> None:
        raise ZeroDivisionError("by design")

    with EngineThread() as engine:
        assert await engine.call(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError, match="by design"):
            await engine.call(fail)
        assert await engine.call(lambda: threading.current_thread().name) == "engine"


async def test_calls_run_in_order_one_at_a_time() -> None:
    seen: list[int] = []
    with EngineThread() as engine:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(engine.call, seen.append, number)
    assert sorted(seen) == list(range(50))


async def test_cancelled_call_is_interrupted_and_waited_for() -> None:
    fake = FakeDebuggee(FOREVER)
    with EngineThread(fake.interrupt) as engine:
        with trio.move_on_after(0.01) as scope:
            await engine.call(fake.resume, Resume.CONTINUE)
        assert scope.cancelled_caught
        assert fake.stop.reason is StopReason.INTERRUPT
        assert not fake.running.is_set()


class Roaming:
    """A live guest that runs by itself while nobody asks anything."""

    def __init__(self) -> None:
        self.fake = FakeDebuggee(FOREVER)
        self.free = True
        self.runs = 0

    def idle(self, _quiet: bool) -> float | None:
        if self.free:
            self.runs += 1
            self.fake.resume(Resume.CONTINUE)
        return 0 if self.free else None

    def stop(self) -> int:
        self.free = False
        return self.fake.icount

    def let_go(self) -> None:
        self.free = True


async def test_a_call_rouses_the_idle_guest() -> None:
    guest = Roaming()
    with EngineThread(guest.fake.interrupt, guest.idle) as engine:
        for _ in range(20):
            await trio.to_thread.run_sync(guest.fake.running.wait)
            icount = await engine.call(guest.stop)
            # nobody who waits on the thread is taken for the idle guest
            assert (await engine.call(guest.fake.resume, Resume.STEP)).reason is StopReason.STEP
            assert guest.fake.icount == icount + 1
            await engine.call(guest.let_go)
    assert guest.runs >= 20
    assert not guest.fake.running.is_set()


async def test_a_call_is_over_when_it_is_done_though_the_guest_idles_on() -> None:
    idling, interrupted, over = threading.Event(), threading.Event(), threading.Event()
    served: list[int] = []

    def idle(_quiet: bool) -> float | None:
        idling.set()
        (over if served else interrupted).wait()
        return None if over.is_set() else 0

    with EngineThread(interrupted.set, idle) as engine:
        await trio.to_thread.run_sync(idling.wait)
        idling.clear()
        with trio.move_on_after(10) as scope:
            await engine.call(served.append, 1)
            await trio.to_thread.run_sync(idling.wait)
        over.set()
    assert not scope.cancelled_caught


async def test_calls_are_never_interrupted_by_the_next_call() -> None:
    fake = FakeDebuggee(300)
    with EngineThread(fake.interrupt, lambda _quiet: None) as engine:
        for how in [Resume.CONTINUE, Resume.REVERSE_CONTINUE] * 100:
            assert (await engine.call(fake.resume, how)).reason in (StopReason.HISTORY_BEGIN, StopReason.HISTORY_END)


async def test_idle_work_begins_when_no_call_has_come_for_a_while() -> None:
    seen: list[str] = []
    worked = threading.Event()

    def idle(quiet: bool) -> float | None:
        seen.append("work" if quiet else "ask")
        if not quiet:
            return 0.001
        worked.set()
        return None

    with EngineThread(idle=idle) as engine:
        for _ in range(20):
            await trio.to_thread.run_sync(worked.wait)
            worked.clear()
            await engine.call(seen.append, "call")
    assert seen.count("work") >= 20
    assert all(before == "ask" for before, what in pairwise(seen) if what == "work")


async def test_a_call_ends_the_wait_before_idle_work() -> None:
    def idle(quiet: bool) -> float | None:
        assert not quiet
        return 3600

    with EngineThread(idle=idle) as engine, trio.fail_after(60):
        for number in range(50):
            assert await engine.call(divmod, number, 7) == divmod(number, 7)


async def test_bug_in_idle_leaves_calls_served(caplog: pytest.LogCaptureFixture) -> None:
    def idle(_quiet: bool) -> float | None:
        raise RuntimeError("oops")

    with EngineThread(idle=idle) as engine:
        assert await engine.call(lambda: 1) == 1
        assert await engine.call(lambda: 2) == 2
    (told,) = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert told.startswith("internal error (RuntimeError: oops)")


@pytest.mark.parametrize("seconds", [0, 0.0005, 0.001, 0.0015, 0.01])
async def test_calls_that_take_about_as_long_as_trio_waits_in_place(seconds: float) -> None:
    with EngineThread() as engine, trio.fail_after(60):
        for number in range(100):
            assert await engine.call(lambda n: (time.sleep(seconds), n)[1], number) == number


async def test_trio_goes_on_while_a_call_takes_long() -> None:
    fake = FakeDebuggee(FOREVER)
    with EngineThread(fake.interrupt) as engine, trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.call, fake.resume, Resume.CONTINUE)
            for _ in range(100):
                await trio.sleep(0)
            await trio.to_thread.run_sync(fake.running.wait)
            nursery.cancel_scope.cancel()
    assert fake.stop.reason is StopReason.INTERRUPT


async def test_a_brief_call_needs_no_other_thread_while_that_one_rests() -> None:
    with EngineThread() as engine, trio.fail_after(60):
        while await engine.call_briefly(threading.current_thread) is not threading.current_thread():
            await engine.call(lambda: None)
        assert await engine.call(threading.current_thread) is not threading.current_thread()


async def test_a_brief_call_waits_for_the_call_that_runs() -> None:
    fake = FakeDebuggee(FOREVER)
    with EngineThread(fake.interrupt) as engine, trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.call, fake.resume, Resume.CONTINUE)
            await trio.to_thread.run_sync(fake.running.wait)
            nursery.start_soon(engine.insist, trio.Event())
            assert not await engine.call_briefly(fake.running.is_set)
            nursery.cancel_scope.cancel()


async def test_a_brief_call_never_comes_between_idle_work() -> None:
    busy = threading.Event()
    worked = threading.Event()

    def idle(quiet: bool) -> float | None:
        if not quiet:
            return 0.0001
        busy.set()
        worked.set()
        busy.clear()
        return None

    with EngineThread(idle=idle) as engine, trio.fail_after(60):
        for _ in range(200):
            await engine.call(worked.clear)
            while not worked.is_set():
                assert not await engine.call_briefly(busy.is_set)


async def test_a_brief_call_that_moves_begins_the_rest_anew() -> None:
    """Idle work comes only when nothing has moved for so long, and it comes at all."""
    moved = [0.0]
    told = list[tuple[bool, float]]()

    def idle(quiet: bool) -> float | None:
        told.append((quiet, time.monotonic() - moved[0]))
        return None if quiet else 0.05

    def move() -> None:
        moved[0] = time.monotonic()

    with EngineThread(idle=idle) as engine, trio.fail_after(60):
        for _ in range(3):
            told.clear()
            while not engine.rests:
                await trio.sleep(0.001)
            # The thread sleeps, with nothing to do; a call by another one lets it ask again.
            for _ in range(20):
                await engine.call_briefly(move, moves=True)
                await trio.sleep(0.01)
            while not any(quiet for quiet, _ in told):
                await trio.sleep(0.001)
            assert min(since for quiet, since in told if quiet) >= 0.045


async def test_a_brief_call_that_moves_nothing_wakes_nobody() -> None:
    asked = list[bool]()

    def idle(quiet: bool) -> None:
        asked.append(quiet)

    with EngineThread(idle=idle) as engine, trio.fail_after(60):
        await engine.call(lambda: None)
        while not engine.rests:
            await trio.sleep(0.001)
        before = len(asked)
        for _ in range(50):
            await engine.call_briefly(lambda: None)
        await trio.sleep(0.02)
        assert len(asked) == before
