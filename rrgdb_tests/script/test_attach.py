"""A script that is attached does what it did before, and its recording is replayed without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rrgdb
from rrgdb_tests import guests
from rrgdb_tests.script import programs
from rrgdb_tests.script.rig import DATA, Trace, check, new_uc, plain_and_recorded


@pytest.mark.parametrize("arch", guests.ARCHES)
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
