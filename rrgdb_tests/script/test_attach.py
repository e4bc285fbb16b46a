"""A script that is attached does what it did before, and its recording is replayed without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rrgdb
from rrgdb_tests.script import programs
from rrgdb_tests.script.rig import CODE, DATA, PAGE, Trace, assemble, check, new_uc, plain_and_recorded, register


@pytest.mark.parametrize("arch", tuple(programs.LOOP))
def test_device_and_system_calls(arch: str, tmp_path: Path) -> None:
    def script(uc: Any) -> Any:
        return programs.run(uc, arch, Trace())

    expected, got, path = plain_and_recorded(tmp_path, script, arch)
    assert got == expected
    check(path, got[-1])


def test_going_back_calls_no_hook(tmp_path: Path) -> None:
    uc, trace = new_uc("x86_64"), Trace()
    with rrgdb.attach(uc, tmp_path / "r") as session:
        programs.run(uc, "x86_64", trace)
        before, history = len(trace.pcs), session.history
        end = history.end
        assert history.reverse_continue(watch=[(DATA + 20, 4)]).kind is rrgdb.StopKind.WATCHPOINT
        history.seek(0)
        history.cont()
        assert (history.icount, len(trace.pcs)) == (end, before)
        history.seek(10)
        uc.reg_write(programs.register("x86_64", "rax"), 1)
        assert session.icount == end


@pytest.mark.parametrize("word", [DATA + 8, DATA + 0x800 + 5])
@pytest.mark.parametrize("arch", tuple(programs.LOOP))
def test_searches_back_find_what_the_straight_run_passed(arch: str, word: int, tmp_path: Path) -> None:
    """The word is written by the program; by a hook within an instruction."""
    uc, trace = new_uc(arch), Trace()
    with rrgdb.attach(uc, tmp_path / "r") as session:
        programs.run(uc, arch, trace)
        live = searches(session.history, word, trace.pcs)
    with rrgdb.open(tmp_path / "r") as recording:
        assert searches(recording, word, trace.pcs) == live


def test_what_a_script_maps_later_is_watched(tmp_path: Path) -> None:
    """Memory between two runs, and a device; from before and from behind."""
    later, device = 0x40_0000, 0x50_0000
    uc = new_uc("x86_64")
    with rrgdb.attach(uc, tmp_path / "r") as session:
        uc.mem_map(CODE, PAGE)
        code = f".intel_syntax noprefix\ninc eax\nmov [{later + 16}], eax\nmov [{device + 4}], eax"
        uc.mem_write(CODE, assemble("x86_64", code))
        uc.reg_write(register("x86_64", "rax"), 6)
        uc.emu_start(CODE, CODE + 2)
        uc.mem_map(later, PAGE)
        uc.mmio_map(device, PAGE, None, None, lambda _uc, _offset, _size, _value, _data: None, None)
        uc.emu_start(CODE, CODE + 16)
        end = session.history.end
    with rrgdb.open(tmp_path / "r") as recording:
        for address, at, new in ((later + 16, end - 2, b"\x08\0\0\0"), (device + 4, end - 1, b"")):
            recording.seek(0)
            stop = recording.cont(watch=[(address, 4)])
            assert (stop.kind, stop.icount, stop.new) == (rrgdb.StopKind.WATCHPOINT, at + 1, new)
            recording.seek(recording.end)
            stop = recording.reverse_continue(watch=[(address, 4)])
            assert (stop.kind, stop.icount) == (rrgdb.StopKind.WATCHPOINT, at)


def searches(recording: rrgdb.Recording, word: int, pcs: list[int]) -> list[int]:
    """Positions of all changes of a word, and of all passages of one address, found backward; checked."""
    end, values = recording.end, []
    for icount in range(end + 1):
        recording.seek(icount)
        values.append(recording.memory(word, 8) if icount else b"")
    changes = [i for i in range(1, end) if values[i] != values[i + 1]]
    back: list[int] = []
    while len(back) <= end and recording.reverse_continue(watch=[(word, 8)]).kind is rrgdb.StopKind.WATCHPOINT:
        back.append(recording.icount)
    assert len(changes) > 2
    assert back[::-1] == changes
    forward: list[int] = []
    while len(forward) <= end and recording.cont(watch=[(word, 8)]).kind is rrgdb.StopKind.WATCHPOINT:
        forward.append(recording.icount)
    assert forward == [i + 1 for i in changes]
    address = pcs[-3]
    recording.seek(end)
    passages: list[int] = []
    while len(passages) <= end and recording.reverse_continue([address]).kind is rrgdb.StopKind.BREAKPOINT:
        passages.append(recording.icount)
    assert passages[::-1] == [i for i, pc in enumerate(pcs) if pc == address]
    return back
