"""Several processes at one recording: one writes, any number read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import rrgdb as api
from rrgdb_tests import guests
from rrgdb_tests.e2e.harness import Gdb, Server, debugging, rrgdb


@pytest.fixture
def image() -> Path:
    return guests.build("riscv64", "ticker", {"TICKS": 10, "WORK": 200})


@pytest.fixture
def ours(recordings: Callable[[Path], Path], image: Path, tmp_path: Path) -> Path:
    """A recording to be changed, with ten snapshots of its own."""
    path = Path(shutil.copytree(recordings(image), tmp_path / "ours"))
    with debugging(image, "replay", path) as gdb:
        for n in range(10):
            gdb.cli(f"monitor seek {1000 * n + 500}")
            gdb.cli(f"monitor savevm old-{n}")
    return path


def test_two_replays_travel_at_once(
    ours: Path, image: Path, start: Callable[..., Server], gdb: Callable[..., Gdb]
) -> None:
    """The first may take and delete snapshots. That changes nothing for the second and a reader by the API."""
    first = start("replay", "--gdb", "127.0.0.1:0", ours)
    assert first.address
    second = start("replay", "--gdb", "127.0.0.1:0", ours)
    second.wait_for(
        rf"rrgdb: .*: the recording is in use: process {first.process.pid} is writing it; "
        "opened for reading: no new snapshots"
    )
    one, two = gdb(image), gdb(image)
    one.connect(first.address)
    two.connect(second.address)
    with api.open(ours) as three:
        seen = {}
        for n in range(10):
            three.seek(1000 * n + 700)
            seen[1000 * n + 700] = three.registers["pc"], three.registers["sp"]
        for n in range(10):
            at = 1000 * ((7 * n) % 10) + 700
            one.cli(f"monitor delvm old-{n}")
            for k in range(3):
                one.cli(f"monitor seek {1000 * n + 550 + 10 * k}")
                one.cli(f"monitor savevm new-{n}-{k}")
            one.stepi(reverse=True)
            assert one.icount == 1000 * n + 569
            for other in (one, two):
                other.cli(f"monitor seek {at}")
                other.cli("maintenance flush register-cache")
                assert (other.pc, other.value("$sp")) == seen[at]
                other.stepi(reverse=True)
                assert other.icount == at - 1
            three.seek(at)
            assert (three.registers["pc"], three.registers["sp"]) == seen[at]
        assert "open for reading only" in two.cli("monitor savevm mine")
    assert "new-9-2" in rrgdb("snapshot", "list", ours).stdout
    rrgdb("verify", ours)


def test_a_killed_writer_leaves_no_lock(ours: Path, start: Callable[..., Server]) -> None:
    killed = start("replay", "--gdb", "127.0.0.1:0", ours)
    assert killed.address
    busy = f"process {killed.process.pid} is writing it"
    assert busy in rrgdb("snapshot", "create", ours, "mine", status=1).stderr
    killed.process.kill()
    killed.wait_exit()
    assert (ours / "lock").read_text() == str(killed.process.pid)
    rrgdb("snapshot", "create", ours, "mine", "--at", 5000)
    rrgdb("snapshot", "delete", ours, "old-3")
    assert (ours / "lock").read_text() == ""
    after = start("replay", "--gdb", "127.0.0.1:0", ours)
    assert after.address
    assert "in use" not in after.log
