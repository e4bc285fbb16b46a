"""The preemptive kernel on each board: what it prints, and that a recording of it is exact."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rrgdb.opening import GuestOptions, record, replay
from rrgdb.timeline.stop import Points, StopKind
from rrgdb.timeline.verify import verify
from rrgdb_tests.engine.unicorn.test_gears import compare_gears
from rrgdb_tests.guests import KERNELS, build_kernel
from rrgdb_tests.timeline.oracle import digests_straight

OPTIONS = GuestOptions(memory=32 << 20)
SHORT = {"ROUNDS": 4000, "WORK": 4, "PERIOD_NS": 2000}
"""some 3 million instructions, with several lost increments"""
RESULTS = "results 0x161177a4 0x3d557e00 0xa0611fc0, counter "
"""of SHORT, whenever the timer comes; QEMU 7.2 prints the same"""
TOUCHED = {"riscv64": 0, "riscv32": 0, "aarch64": 63, "arm": 63}
"""pages whose accessed bit the kernel had to set itself"""


def _run(arch: str, path: Path, typed: bytes = b"", **defines: int) -> str:
    """Record the kernel to its power-off; ``typed`` arrives at some position or other."""
    shown = bytearray()
    image = build_kernel(arch, {**SHORT, **defines})
    with record(path, image, OPTIONS) as opened:
        opened.door.set_output("serial0", shown.extend)
        for at in range(len(typed)):
            assert opened.timeline.run(Points({}), steps=100_003).kind is StopKind.STEP
            opened.door.feed("serial0", typed[at : at + 1])
        stop = opened.timeline.run(Points({}))
        assert (stop.kind, stop.value) == (StopKind.EXIT, 0)
    return shown.decode()


@pytest.mark.parametrize("arch", KERNELS)
def test_threads_pages_and_interrupts(arch: str, tmp_path: Path) -> None:
    shown = _run(arch, tmp_path / "r")
    assert shown.startswith(f"kernel on {arch}\n")
    assert shown.endswith("\nbye\n")
    assert "prober: pages done\n" in shown
    assert "killed: thread 2 stores to 0x2f000000\n" in shown
    assert RESULTS in shown
    counts = dict(re.findall(r"(\w+) (\d+)[,\n]", shown[shown.index("\nticks ") :]))
    assert int(counts["ticks"]) > 500
    assert int(counts["switches"]) > 500
    assert (counts["demanded"], counts["flips"]) == ("52", "16")
    assert int(counts["touched"]) == TOUCHED[arch]
    lost = re.findall(r"race: counter (\d+), counted (\d+), tick", shown)
    assert len(lost) == int(counts["races"]) > 0
    assert 8000 - int(counts["counter"]) >= int(lost[-1][1]) - int(lost[-1][0]) > 0


@pytest.mark.parametrize("arch", KERNELS)
def test_two_recordings_are_the_same_and_replays_as_well(arch: str, tmp_path: Path) -> None:
    shown = [_run(arch, tmp_path / name, ROUNDS=800) for name in ("a", "b")]
    assert shown[0] == shown[1]
    ends = []
    for name in ("a", "b"):
        with replay(tmp_path / name) as opened:
            assert not opened.messages
            assert verify(opened.timeline, stops=7) == len(opened.timeline.log.digests)
            assert not opened.timeline.log.answers
            end = opened.timeline.end
        ends.append((end, digests_straight(tmp_path / name, [end // 3, end], tmp_path / f"{name}-straight")))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("arch", KERNELS)
def test_characters_come_by_interrupts(arch: str, tmp_path: Path) -> None:
    shown = _run(arch, tmp_path / "r", typed=b"ECHOS", ROUNDS=1000, INPUT=5)
    assert "".join(re.findall("[A-Z]", shown)) == "ECHOS"
    with replay(tmp_path / "r") as opened:
        assert len(opened.timeline.log.inputs) == 5
        verify(opened.timeline)


@pytest.mark.parametrize("arch", KERNELS)
def test_the_gears_agree(arch: str) -> None:
    compare_gears(build_kernel(arch, SHORT), seed=1, limit=300_000)


@pytest.mark.slow
@pytest.mark.parametrize("arch", KERNELS)
def test_the_gears_agree_for_long(arch: str) -> None:
    compare_gears(build_kernel(arch, {**SHORT, "ROUNDS": 20_000}), seed=2, limit=10_000_000)
