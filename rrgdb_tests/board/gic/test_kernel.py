"""Interrupts of the Arm boards' GIC and timers, nested, as a guest sees them: as on QEMU, in every direction."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rrgdb.opening import GuestOptions
from rrgdb_tests.engine.unicorn.rig import Saved, board_state, board_with
from rrgdb_tests.timeline.oracle import observe
from rrgdb_tests.timeline.walk import Walk

_HERE = Path(__file__).parent
_FLAGS = ("-g", "-O1", "-ffreestanding", "-nostdlib", "-static", "-Wall", "-Wextra", "-Werror", "-Wl,-n")
_LINK = ("-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments", f"-Wl,-T,{_HERE / 'kernel.ld'}")
FAMILIES = {
    "aarch64": (
        "aarch64-linux-gnu-gcc",
        "-march=armv8-a",
        "-mstrict-align",
        "-mgeneral-regs-only",
        "-fno-pic",
        "-no-pie",
    ),
    "arm": ("arm-none-eabi-gcc", "-march=armv7-a", "-marm", "-mno-unaligned-access"),
}
SOURCES = {"aarch64": "a64.S", "arm": "a32.S"}
QEMU = {"aarch64": ("qemu-system-aarch64", "cortex-a57"), "arm": ("qemu-system-arm", "cortex-a15")}
# What QEMU 7.2 prints: INTID, and GICC_RPR before and behind what interrupts it; braces: from user mode.
SAID = """kernel 000101(8021(601b(4002(20 20) 40) 60) 80)03(f0 f0)
wait 1b(40 40)1b(40 40)1b(40 40)1b(40 40)1b(4002(20 20) 40)03(f0 f0)
user 01{8021(601b(4002(20 20) 40) 60) 80}03{f0 f0}
suspend 00000000001e1e(a0 a0)
"""
END = 10**6


def build(family: str, directory: Path) -> Path:
    elf = directory / f"{family}.elf"
    command = [*FAMILIES[family], *_FLAGS, *_LINK, "-o", elf, _HERE / "kernel.c", _HERE / SOURCES[family]]
    subprocess.run(command, check=True)
    return elf


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def kernel(family: str, tmp_path: Path) -> Path:
    return build(family, tmp_path)


def test_interrupts_nest_as_on_qemu(kernel: Path) -> None:
    for fast in (True, False):
        guest = board_with(kernel, fast=fast)
        guest.run_until(END)
        assert guest.host.text.decode() == SAID
        assert guest.end is not None
        assert (guest.end.kind, guest.end.value) == ("exit", 0)


@pytest.mark.qemu
def test_the_qemu_that_is_here_says_so(kernel: Path, family: str) -> None:
    binary, cpu = QEMU[family]
    if shutil.which(binary) is None:
        pytest.skip(f"{binary} is not installed")
    options = ("-M", "virt,gic-version=2", "-cpu", cpu, "-display", "none", "-serial", "stdio", "-kernel", kernel)
    assert subprocess.run(["timeout", "10", binary, *options], capture_output=True, check=True).stdout.decode() == SAID


def test_gears_agree_wherever_they_are_stopped(kernel: Path) -> None:
    fast, slow = board_with(kernel), board_with(kernel, fast=False)
    at = 0
    while slow.end is None:
        at += 61
        slow.run_until(at)
        fast.run_until(at)
        assert board_state(fast) == board_state(slow)
    straight = board_with(kernel)
    straight.run_until(END)
    assert board_state(straight) == board_state(slow)


def test_a_state_goes_on_as_it_would_have(kernel: Path) -> None:
    straight = board_with(kernel)
    straight.run_until(END)
    guest, other = board_with(kernel), board_with(kernel)
    while guest.end is None:
        guest.run_until(guest.engine.icount + 997)
        Saved.of(guest).load(other)
        assert board_state(other) == board_state(guest)
        other.run_until(END)
        assert board_state(other) == board_state(straight)


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 8))])
def test_walks(kernel: Path, tmp_path: Path, seed: int) -> None:
    walk = Walk(observe(kernel, ("ticks", 4), GuestOptions()), tmp_path, seed, prepares=seed % 2 == 0)
    for _ in range(60 if seed == 0 else 1000):
        walk.move()
    walk.finish(tmp_path / "straight")
