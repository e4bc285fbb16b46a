"""A preemptive kernel on the Cortex-M3: SysTick, PendSV, SVC, unprivileged threads, and a race, in every direction."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rrgdb.arch import ARCHES
from rrgdb.opening import GuestOptions
from rrgdb_tests.e2e.harness import Server, batch, debugging
from rrgdb_tests.engine.unicorn.rig import Saved, board_state, board_with
from rrgdb_tests.timeline.oracle import observe
from rrgdb_tests.timeline.walk import Walk

_HERE = Path(__file__).parent
_FLAGS = ("-g", "-O1", "-mcpu=cortex-m3", "-mthumb", "-ffreestanding", "-nostdlib", "-Wall", "-Wextra", "-Werror")
_HANDLER = 0x1FF


def kernel(directory: Path, rounds: int, period: int) -> Path:
    elf = directory / "kernel.elf"
    link = ("-Wl,-n", "-Wl,--build-id=none", f"-Wl,-T,{_HERE / 'kernel.ld'}", "-o", elf)
    defines = (f"-DROUNDS={rounds}", f"-DPERIOD={period}")
    subprocess.run(["arm-none-eabi-gcc", *_FLAGS, *defines, *link, _HERE / "kernel.c"], check=True)
    return elf


@pytest.fixture
def short(tmp_path: Path) -> Path:
    return kernel(tmp_path, 150, 5)


def test_both_gears_agree_and_the_race_loses_something(tmp_path: Path) -> None:
    elf = kernel(tmp_path, 3000, 60)
    fast, slow = board_with(elf), board_with(elf, fast=False)
    for at in (*range(0, 30000, 777), 10**7):
        fast.run_until(at)
        slow.run_until(at)
        assert board_state(fast) == board_state(slow)
    assert fast.end is not None
    assert (fast.end.kind, fast.end.value) == ("exit", 0)
    counter = int(bytes(fast.host.text).split()[2], 16)
    assert 3000 < counter < 6000


def test_a_state_goes_on_as_it_would_have(short: Path) -> None:
    straight = board_with(short)
    straight.run_until(10**6)
    guest, other = board_with(short), board_with(short)
    while guest.end is None:
        guest.run_until(guest.engine.icount + 97)
        Saved.of(guest).load(other)
        assert board_state(other) == board_state(guest)
    other.run_until(10**6)
    assert board_state(other) == board_state(straight)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 12))])
def test_walks(short: Path, tmp_path: Path, seed: int) -> None:
    walk = Walk(observe(short, ("counter", 4), GuestOptions()), tmp_path, seed, prepares=seed % 2 == 0)
    for _ in range(60 if seed < 2 else 1000):
        walk.move()
    walk.finish(tmp_path / "straight")


@pytest.mark.e2e
def test_gdb_steps_onto_and_over_entry_and_return(short: Path) -> None:
    with debugging(short, "run", short) as gdb:
        gdb.break_at("systick_handler")
        gdb.cont()
        gdb.cont()
        first, at = gdb.pc, gdb.icount
        assert gdb.value("$xpsr") & _HANDLER == 15
        gdb.stepi(reverse=True)
        assert (gdb.icount, gdb.value("$xpsr") & _HANDLER) == (at - 1, 0)
        gdb.stepi()
        assert (gdb.pc, gdb.icount) == (first, at)
        # Forward to the thread: the handler's bx lr is chained to PendSV, and its bx lr returns.
        trail = [(gdb.icount, gdb.pc, gdb.value("$xpsr"), gdb.value("$msp"), gdb.value("$psp"))]
        while gdb.value("$xpsr") & _HANDLER:
            gdb.stepi()
            trail.append((gdb.icount, gdb.pc, gdb.value("$xpsr"), gdb.value("$msp"), gdb.value("$psp")))
            assert len(trail) < 100
        assert {xpsr & _HANDLER for _, _, xpsr, _, _ in trail} == {15, 14, 0}
        for expected in reversed(trail[:-1]):
            gdb.stepi(reverse=True)
            seen = (gdb.icount, gdb.pc, gdb.value("$xpsr"), gdb.value("$msp"), gdb.value("$psp"))
            assert seen == expected
        gdb.cont(reverse=True)
        assert gdb.pc == first
        assert gdb.icount < at
        gdb.delete()
        gdb.watch("counter")
        gdb.cont(reverse=True)
        assert gdb.value("$xpsr") & _HANDLER == 0


@pytest.mark.e2e
def test_system_registers_in_gdb(short: Path) -> None:
    """By the manual's names, as the monitor has them, and without a warning."""
    names = [register.name for register in ARCHES["armv7m"].shown_registers]
    assert {"VTOR", "CFSR", "HFSR", "MMFAR", "BFAR"} <= set(names)
    with Server("run", "--gdb", "127.0.0.1:0", short) as server:
        printed = [f'printf "{name} %#x\\n", ${name}' for name in names]
        said = batch(short, server.address, ["break systick_handler", "continue", *printed, "monitor info registers"])
    assert "warning" not in said.lower()
    told = {
        words[0]: int(words[1], 0) for line in said.splitlines() if len(words := line.split()) == 2 and "0x" in line
    }
    for name in names:
        shown = next(line for line in said.splitlines() if line.startswith(f"{name} "))
        assert int(shown.split()[1], 0) == told[name], name
