"""Which way of counting is in use, as a user is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rrgdb.engine.unicorn import _hot
from rrgdb.engine.unicorn.counting import INLINE
from rrgdb.opening import record
from rrgdb.timeline.stop import Points
from rrgdb_tests.e2e.harness import rrgdb
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import OPTIONS

HOOKS, INSIDE = "blocks are counted by hooks", "blocks are counted inside the generated code"


@pytest.mark.parametrize(
    ("value", "way"),
    [("0", f"{HOOKS} ({INLINE}=0)" if _hot.CAN_INLINE else HOOKS), ("1", INSIDE if _hot.CAN_INLINE else HOOKS)],
)
def test_version_and_info_tell_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, way: str) -> None:
    with record(tmp_path / "r", build("riscv64", "ticker", {"TICKS": 2}), OPTIONS) as opened:
        opened.timeline.run(Points({}), steps=1_000)
    monkeypatch.setenv(INLINE, value)
    assert rrgdb("--version").stdout.splitlines()[1] == way
    assert f"counting: {way}" in rrgdb("info", tmp_path / "r").stdout.splitlines()
    assert json.loads(rrgdb("info", "--json", tmp_path / "r").stdout)["counting"] == way
