"""The preemptive kernel of the Cortex-M3 recorded, and a real gdb in it: over SysTick, PendSV, SVC and EXC_RETURN."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from rrgdb.opening import replay
from rrgdb.timeline.verify import verify
from rrgdb_tests.board.mps2.test_kernel import kernel
from rrgdb_tests.e2e.harness import Gdb, debugging, rrgdb
from rrgdb_tests.machines.moves import (
    back_and_forth,
    back_to_the_previous_tick,
    qemus_acceptance,
    state,
    threads_of_switches_backwards,
    to,
)
from rrgdb_tests.timeline.oracle import digests_straight

pytestmark = pytest.mark.e2e

SYSTICK, PENDSV, SVC = 15, 14, 11


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kernel(tmp_path_factory.mktemp("cortex-m"), 3000, 20)


@pytest.fixture(scope="module")
def recording(image: Path) -> Path:
    rrgdb("record", "-o", image.with_name("r"), image)
    return image.with_name("r")


@pytest.fixture
def at(image: Path, recording: Path) -> Iterator[Gdb]:
    """gdb at the beginning of the recording."""
    with debugging(image, "replay", recording) as gdb:
        yield gdb


def handled(gdb: Gdb) -> int:
    """Number of the exception that is handled; 0 in a thread."""
    return gdb.value("$xpsr") & 0x1FF


def test_two_recordings_are_the_same_and_replays_as_well(image: Path, recording: Path, tmp_path: Path) -> None:
    rrgdb("record", "-o", tmp_path / "again", image)
    ends = []
    for path in (recording, tmp_path / "again"):
        with replay(path) as opened:
            assert verify(opened.timeline, stops=7) == len(opened.timeline.log.digests)
            assert not opened.timeline.log.answers
            assert not opened.timeline.log.inputs
            end = opened.timeline.end
        ends.append((end, digests_straight(path, [end // 3, end], tmp_path / f"{len(ends)}-straight")))
    assert ends[0] == ends[1]


def test_back_to_the_previous_tick(at: Gdb) -> None:
    back_to_the_previous_tick(at, "systick_handler")


def test_over_entry_chain_and_return(at: Gdb) -> None:
    """SysTick interrupts a thread, its EXC_RETURN goes on to PendSV, and that one's to the other thread."""
    to(at, "*systick_handler", 9)
    assert handled(at) == SYSTICK
    walked = back_and_forth(at, 5, 60)
    numbers = [int(registers["xpsr"].split()[0], 0) & 0x1FF for _, registers in walked]
    assert [n for at, n in enumerate(numbers) if at == 0 or n != numbers[at - 1]][:4] == [0, SYSTICK, PENDSV, 0]
    assert all(behind[0] == before[0] + 1 for before, behind in pairwise(walked))


def test_onto_and_over_exception_return(at: Gdb) -> None:
    to(at, "next_thread", 6)
    at.finish()
    while handled(at):
        at.stepi()
    thread = state(at)
    at.stepi(reverse=True)
    assert handled(at) == PENDSV
    returning = state(at)
    assert at.value("$lr") == 0xFFFFFFFD
    assert "bx\tlr" in at.cli("x/i $pc")
    at.stepi()
    assert state(at) == thread
    at.break_at("*pendsv_handler")
    at.cont(reverse=True)
    assert returning[0] > at.icount
    assert handled(at) == PENDSV
    at.stepi(reverse=True)
    # The end of the handler before it in the chain.
    assert handled(at) == SYSTICK


def test_onto_and_over_a_system_call(at: Gdb) -> None:
    to(at, "*svc_handler")
    inside = state(at)
    assert handled(at) == SVC
    at.stepi(reverse=True)
    assert handled(at) == 0
    assert "svc\t1" in at.cli("x/i $pc")
    call = state(at)
    at.stepi()
    assert state(at) == inside
    at.stepi(reverse=True)
    assert state(at) == call


def test_a_variable_watched_backwards_over_context_switches(at: Gdb) -> None:
    assert len(threads_of_switches_backwards(at, "systick_handler", 30, "next_thread")) == 2


def test_the_lost_increment_is_found(at: Gdb) -> None:
    """From the end, where some are missing, back to a store that lost one, and to why."""
    to(at, "*svc_handler", 2)
    assert at.value("counter") < 6000
    at.watch("counter")
    for _ in range(2000):
        stop = at.cont(reverse=True)
        if int(stop["value"]["old"]) <= int(stop["value"]["new"]):
            break
    else:
        pytest.fail("no store took anything back")
    assert stop["frame"]["func"] == "worker"
    at.delete()
    store, loser = at.icount, at.value("current")
    for _ in range(4):
        at.stepi(reverse=True)
        if handled(at):
            break
    # Between its load and its store this thread had been away.
    assert handled(at) == PENDSV
    other = at.break_at("*systick_handler")
    at.cont(reverse=True)
    at.stepi(reverse=True)
    assert handled(at) == 0
    assert at.value("current") != loser
    at.delete(other)
    assert at.icount < store


def test_qemus_own_acceptance(at: Gdb) -> None:
    to(at, "*systick_handler", 5)
    qemus_acceptance(at)
