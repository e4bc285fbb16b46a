"""The Python API on a recorded guest."""

from __future__ import annotations

from pathlib import Path

import pytest

import rrgdb
from rrgdb import opening
from rrgdb.demo import IMAGE
from rrgdb.opening import GuestOptions
from rrgdb.timeline.stop import Points


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("api") / "demo.rrgdb"
    with opening.record(path, IMAGE, GuestOptions(memory=16 << 20)) as opened:
        opened.timeline.run(Points({}))
    return path


def test_a_recording_opens_at_its_start_and_ends_where_the_guest_died(directory: Path) -> None:
    with rrgdb.open(directory) as recording:
        assert recording.icount == recording.start == 0
        stop = recording.cont()
        assert stop.kind is rrgdb.StopKind.SIGNAL
        assert recording.icount == recording.end
        assert recording.cont().kind is rrgdb.StopKind.HISTORY_END


def test_steps_back_and_forth_give_the_same_state(directory: Path) -> None:
    with rrgdb.open(directory) as recording:
        recording.seek(recording.end // 2)
        here, pc = recording.state_digest(), recording.registers["rip"]
        recording.reverse_step(1000)
        assert recording.icount == recording.end // 2 - 1000
        recording.step(1000)
        assert (recording.state_digest(), recording.registers["rip"]) == (here, pc)


def test_a_watch_leads_back_to_the_write(directory: Path) -> None:
    with rrgdb.open(directory) as recording:
        recording.seek(recording.end)
        sp = recording.registers["rsp"] - 8
        now = recording.memory(sp, 8)
        stop = recording.reverse_continue(watch=[(sp, 8)])
        assert stop.kind is rrgdb.StopKind.WATCHPOINT
        assert stop.new == now
        assert recording.memory(sp, 8) == stop.old
        recording.step()
        assert recording.memory(sp, 8) == stop.new


def test_a_watch_of_physical_memory_leads_there_too(directory: Path) -> None:
    """The guest translates no addresses."""
    with rrgdb.open(directory) as recording:
        recording.seek(recording.end)
        sp = recording.registers["rsp"] - 8
        stop = recording.reverse_continue(watch=[(sp, 8)])
        recording.seek(recording.end)
        physical = recording.reverse_continue(watch_physical=[(sp, 8)])
        assert (physical.icount, physical.old, physical.new) == (stop.icount, stop.old, stop.new)
        assert recording.cont(watch_physical=[(sp, 8)]).icount == stop.icount + 1


def test_what_cannot_be_is_refused(directory: Path, tmp_path: Path) -> None:
    with rrgdb.open(directory) as recording:
        with pytest.raises(rrgdb.TimelineError, match="outside history"):
            recording.seek(recording.end + 1)
        with pytest.raises(KeyError):
            recording.registers["no-such-register"]
        with pytest.raises(rrgdb.MemoryFault):
            recording.memory(1 << 60, 1)
    with pytest.raises(Exception, match="expected a recording"):
        rrgdb.open(tmp_path)


def test_the_whole_recording_verifies(directory: Path) -> None:
    with rrgdb.open(directory) as recording:
        assert recording.verify() >= 1
        assert recording.reverse_continue().kind is rrgdb.StopKind.HISTORY_BEGIN
