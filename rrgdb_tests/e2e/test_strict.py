"""`rrgdb run --strict`: a debugger stands where the guest left what is modelled; one that runs alone is over."""

from __future__ import annotations

from pathlib import Path

import pytest

from rrgdb_tests.board.test_leaving import HANDLER, LOADS, NOTHING
from rrgdb_tests.e2e.harness import Gdb, Server
from rrgdb_tests.engine.unicorn.rig import assemble

TOLD = f"load of {NOTHING:#x}, where nothing is mapped"


@pytest.fixture
def arguments(tmp_path: Path) -> list[object]:
    """Of a guest that loads from nothing, and whose handler goes on."""
    image = tmp_path / "x.bin"
    image.write_bytes(assemble("riscv64", HANDLER["riscv64"].format(LOADS["riscv64"].format(NOTHING))))
    return ["-M", "riscv64-virt", "-m", "2", "--load", "0x80000000", "-o", tmp_path / "r", image]


def test_a_debugger_stands_there(arguments: list[object]) -> None:
    with Server("run", "--strict", "--gdb", "127.0.0.1:0", *arguments) as server, Gdb(None) as gdb:
        gdb.cli("set architecture riscv:rv64")
        gdb.connect(server.address)
        stop = gdb.cont()
        assert stop["signal-name"] == "SIGINT"
        server.wait_for(TOLD)
        here, cause = gdb.icount, gdb.value("$mcause")
        assert cause == 5
        assert gdb.value("$mtval") == NOTHING
        gdb.stepi(reverse=True)
        assert gdb.value("$mcause") == 0
        gdb.stepi()
        assert gdb.icount == here
        assert gdb.value("$mcause") == 5
        gdb.cont()
        assert gdb.value("$mtval") == NOTHING + 4
        assert server.log.count(TOLD) == 1


def test_nobody_waits_for_a_guest_that_runs_alone(arguments: list[object]) -> None:
    with Server("run", "--strict", "-c", "--gdb", "127.0.0.1:0", *arguments) as server:
        assert server.wait_exit() == 1
        assert TOLD in server.log
