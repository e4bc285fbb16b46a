"""The guide's section on kernels, typed again: what gdb prints is what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rrgdb_tests import guests
from rrgdb_tests.e2e.harness import Server, batch, gdb_path
from rrgdb_tests.e2e.test_guide import GUIDE, SHOWN_WITH, _session, _version

pytestmark = pytest.mark.e2e


def _sessions() -> tuple[list[str], list[str]]:
    section = GUIDE[GUIDE.index("## Kernels and machines") : GUIDE.index("### Where a guest leaves")]
    blocks = re.findall(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    sessions = [_session(block) for block in blocks]
    return [line for typed, _ in sessions for line in typed], [line for _, printed in sessions for line in printed]


@pytest.mark.parametrize("arch", ["aarch64"])
def test_the_sessions_with_a_kernel(kernel: Path, recording: Path) -> None:
    if (_version(guests.TOOLCHAINS["aarch64"].compiler), _version(gdb_path())) != SHOWN_WITH:
        pytest.skip(f"the guide shows gcc {SHOWN_WITH[0]}x and gdb {SHOWN_WITH[1]}x")
    typed, printed = _sessions()
    assert len(typed) > 10
    with Server("replay", "--gdb", "127.0.0.1:0", recording) as server:
        said = batch(kernel, server.address, typed)
    lines = iter(line.rstrip() for line in said.splitlines())
    for expected in printed:
        assert expected.rstrip() in lines, f"{expected!r} is not in what gdb said next:\n{said}"
