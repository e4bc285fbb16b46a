"""Breakpoint instructions that are compiled into the guest, which has no handler for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rrgdb_tests.e2e.harness import Gdb, Server, rrgdb
from rrgdb_tests.guests import build

SIZES = {"riscv64": 2, "thumb": 2, "x86_64": 1}
"""bytes of the instruction"""


def trap(gdb: Gdb, *, reverse: bool = False) -> int:
    """Continue to one; returns the guest's stage."""
    stop = gdb.cont(reverse)
    assert (stop["reason"], stop["signal-name"], stop["frame"]["func"]) == ("signal-received", "SIGTRAP", "main")
    return gdb.value("stage")


@pytest.mark.parametrize("arch", ["riscv64", "thumb", "x86_64"])
def test_the_user_goes_on_behind_them_and_back(arch: str, tmp_path: Path) -> None:
    image = build(arch, "trap")
    path = tmp_path / "r.rrgdb"
    with Server("run", "--gdb", "127.0.0.1:0", "-o", path, image) as server, Gdb(image) as gdb:
        gdb.connect(server.address)
        assert trap(gdb) == 1
        here, pc = gdb.icount, gdb.pc
        assert (trap(gdb), gdb.icount) == (1, here)
        size = SIZES[arch]
        gdb.cli(f"set var $pc = {pc + size}")
        assert trap(gdb) == 2
        assert gdb.when()[3] == "record"
        assert (trap(gdb, reverse=True), gdb.icount, gdb.pc) == (1, here, pc)
        assert gdb.cont(reverse=True)["reason"] == "no-history"
        assert [trap(gdb), trap(gdb)] == [1, 2]
        assert gdb.run(f"-exec-jump *{gdb.pc + size}")["reason"] == "no-history"
        assert gdb.value("stage") == 3
        server.wait_for("passed")
        server.stop()
    rrgdb("verify", path)


def test_without_a_debugger_the_guest_dies(tmp_path: Path) -> None:
    """As ever: a recording of it ends there."""
    image = build("riscv64", "trap")
    said = rrgdb("record", "-o", tmp_path / "r.rrgdb", image, status=None)
    assert "died of an unhandled exception (signal 5)" in said.stdout + said.stderr
