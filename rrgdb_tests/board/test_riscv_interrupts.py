"""Interrupts of the RISC-V boards, by CLINT and PLIC in machine and supervisor mode, as on QEMU 7.2; and restarts."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from rrgdb.arch import ARCHES
from rrgdb.board.boards import default_board
from rrgdb.board.device import RESET_STATUS
from rrgdb.board.firmware.image import load_raw, place_image
from rrgdb.board.machine import Board
from rrgdb.engine.memory import Ram
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb_tests.board.fakes import FakeHost
from rrgdb_tests.engine.unicorn.rig import BOARD_RAM, Saved, assemble, board_state, board_with
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import OPTIONS, observe
from rrgdb_tests.timeline.walk import Walk

TRANSCRIPT = Path(__file__).with_name("recorded") / "riscv_interrupts.txt"
"""what riscv_interrupts prints on QEMU, at either width"""
FAMILIES = ("riscv64", "riscv32")
LONG = 10**6
STRIDE = 997


def qemu(family: str) -> str:
    return f"qemu-system-{family}"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_interrupt_comes_as_on_qemu_in_both_gears(family: str) -> None:
    image = build(family, "riscv_interrupts")
    fast, slow = board_with(image), board_with(image, fast=False)
    for at in (*range(0, 30_000, 1777), LONG):
        fast.run_until(at)
        slow.run_until(at)
        assert board_state(fast) == board_state(slow)
    assert fast.host.text == TRANSCRIPT.read_bytes()
    assert fast.end is not None
    assert (fast.end.kind, fast.end.value) == ("exit", 0)


@pytest.mark.qemu
@pytest.mark.parametrize("family", FAMILIES)
def test_the_qemu_that_is_here_prints_the_same(family: str) -> None:
    if shutil.which(qemu(family)) is None:
        pytest.skip(f"{qemu(family)} is not installed")
    options = ["-M", "virt", "-cpu", ARCHES[family].models[0], "-bios", "none", "-display", "none"]
    talk = ["-serial", "stdio", "-monitor", "none", "-kernel", build(family, "riscv_interrupts")]
    ran = subprocess.run(["timeout", "30", qemu(family), *options, *talk], capture_output=True, check=True)
    assert ran.stdout == TRANSCRIPT.read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_state_goes_on_as_it_would_have(family: str) -> None:
    image = build(family, "riscv_interrupts", {"LOOPS": 2})
    straight = board_with(image)
    straight.run_until(LONG)
    guest, other = board_with(image), board_with(image)
    while guest.end is None:
        guest.run_until(guest.engine.icount + STRIDE)
        Saved.of(guest).load(other)
        assert board_state(other) == board_state(guest)
        other.run_until(LONG)
        assert board_state(other) == board_state(straight)


@pytest.mark.parametrize("family", FAMILIES)
def test_walks(family: str, tmp_path: Path) -> None:
    image = build(family, "riscv_interrupts", {"LOOPS": 2})
    options = replace(OPTIONS, sleep=False)
    walk = Walk(observe(image, ("taken", 4), options), tmp_path, 1)
    for _ in range(60):
        walk.move()
    walk.finish(tmp_path / "straight")


RESTARTING = """
    li s0, 0x80001000
    lw t0, 0(s0)
    addi t0, t0, 1
    sw t0, 0(s0)
    li s1, 0x0200bff8
    lw s2, 0(s1)
    csrr s3, time
    csrr s4, mip
    li s5, 0x02004000
    li t1, -1
    sw t1, 4(s5)
    csrr s6, mip
    li t1, 0x02000000
    sw t0, 0(t1)
    li t1, 3
    beq t0, t1, 2f
    li t1, 100
1:  addi t1, t1, -1
    bnez t1, 1b
    li t1, 0x00100000
    li t2, 0x7777
    sw t2, 0(t1)
2:  li t1, 0x00100000
    li t2, 0x5555
    sw t2, 0(t1)
    nop
"""
"""Counts in RAM how often it has begun; the second restart finds everything as at power-on."""


def restarting(family: str, *, reboot: bool = True, revision: int = 3) -> Board:
    spec = default_board(family)
    if revision < spec.revision:
        spec = replace(spec, restarts=False, sleeps=False)
    image = load_raw(assemble(family, RESTARTING), "program", ARCHES[family], spec.ram_base, spec.ram_base)
    placed = place_image(image, spec, spec.ram(BOARD_RAM))
    return Board(
        spec, UnicornEngine(placed.arch, Ram(spec.memory_bytes(placed.ram))), placed, FakeHost(), reboot=reboot
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_restart_keeps_ram_and_begins_time_anew(family: str) -> None:
    guest = restarting(family)
    guest.run_until(LONG)
    assert guest.end is not None
    assert (guest.end.kind, guest.end.value) == ("exit", 0)
    assert guest.engine.read_memory(0x80001000, 4) == bytes([3, 0, 0, 0])
    # A few instructions after the last restart: less than a tick has gone by.
    assert (guest.engine.read("s2"), guest.engine.read("s3")) == (0, 0)
    assert (guest.engine.read("s4"), guest.engine.read("s6")) == (1 << 7, 0)


@pytest.mark.parametrize(("reboot", "revision", "status"), [(False, 3, 0), (True, 2, RESET_STATUS)])
def test_where_nothing_restarts_the_guest_ends(reboot: bool, revision: int, status: int) -> None:
    guest = restarting("riscv64", reboot=reboot, revision=revision)
    guest.run_until(LONG)
    assert guest.end is not None
    assert (guest.end.kind, guest.end.value) == ("exit", status)
    assert guest.engine.read_memory(0x80001000, 4) == bytes([1, 0, 0, 0])
