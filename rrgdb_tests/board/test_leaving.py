"""Guests that leave what is modelled: told once for each address, no hang; with --strict the run ends there."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path

import pytest

from rrgdb.board import leaving
from rrgdb.board.boards import default_board
from rrgdb.board.leaving import RESTARTS, SPIN
from rrgdb.cli import main as cli
from rrgdb.guest import Notices
from rrgdb.opening import GuestOptions, record
from rrgdb.timeline.stop import Points
from rrgdb_tests.board.test_machine import raw
from rrgdb_tests.engine.unicorn.rig import assemble

HANDLER = {
    "riscv64": ".option norelax\n.option norvc\njal t0, 1f\ncsrr t2, mepc\naddi t2, t2, 4\ncsrw mepc, t2\nmret\n"
    "1: csrw mtvec, t0\n{}\nj .",
    "aarch64": "adr x9, v\nmsr vbar_el1, x9\n{}\nb .\n.balign 2048\nv: .space 0x200\nmrs x9, elr_el1\nadd x9, x9, #4\n"
    "msr elr_el1, x9\neret",
    "arm": "adr r9, v\nmcr p15, 0, r9, c12, c0, 0\n{}\nb .\n.balign 32\nv: .space 0x10\nsubs pc, lr, #4",
}
"""programs whose handler goes on behind the instruction; they end in a branch to itself"""
LOADS = {
    "riscv64": "li t1, {0:#x}\nlw a0, 0(t1)\nlw a0, 0(t1)\nsw a0, 0(t1)\nlw a0, 4(t1)",
    "aarch64": "ldr x1, ={0:#x}\nldr w0, [x1]\nldr w0, [x1]\nstr w0, [x1]\nldr w0, [x1, #4]",
    "arm": "ldr r1, ={0:#x}\nldr r0, [r1]\nldr r0, [r1]\nstr r0, [r1]\nldr r0, [r1, #4]",
}
"""three accesses to an address, and one to the next word"""
RTC = {"riscv64": 0x101000, "aarch64": 0x9010000, "arm": 0x9010000}
NOTHING = 0x70000000


def _notices(family: str, program: str, steps: int = 400) -> list[str]:
    guest = raw(family, HANDLER[family].format(program))
    guest.run_until(steps)
    assert guest.end is None
    return guest.notices.take()


@pytest.mark.parametrize("family", HANDLER)
def test_an_access_to_nothing(family: str) -> None:
    first, second = _notices(family, LOADS[family].format(NOTHING))
    assert re.fullmatch(
        rf"at pc 0x\w+: load of {NOTHING:#x}, where nothing is mapped: the guest takes an exception", first
    )
    assert f"load of {NOTHING + 4:#x}," in second


@pytest.mark.parametrize("family", HANDLER)
def test_a_register_that_there_is_not(family: str) -> None:
    at = RTC[family] + 0x28
    first, second = _notices(family, LOADS[family].format(at))
    assert re.fullmatch(rf"at icount \d+: load of {at:#x}, where device rtc has no register: it is 0", first)
    assert f"load of {at + 4:#x}," in second


@pytest.mark.parametrize("family", HANDLER)
def test_registers_that_there_are_and_memory_are_no_matter(family: str) -> None:
    base = default_board(family).ram_base
    assert _notices(family, LOADS[family].format(RTC[family]) + "\n" + LOADS[family].format(base + 0x8000)) == []


MASKED = {
    "riscv64": ("li t0, 8\ncsrw mie, t0\n1: j 1b", "li t0, 8\ncsrw mie, t0\ncsrw mstatus, t0\n1: j 1b"),
    "aarch64": ("b .", "msr daifclr, #2\nb ."),
    "arm": ("b .", "cpsie i\nb ."),
    "i386": ("jmp .", None),
    "x86_64": ("jmp .", None),
}


@pytest.mark.parametrize("family", MASKED)
def test_spinning_with_interrupts_off(family: str) -> None:
    masked, unmasked = MASKED[family]
    for program, told in ((masked, True), (unmasked, False)):
        if program is None:
            continue
        guest = raw(family, program)
        for slice_ in range(1, 4):
            guest.run_until(slice_ * SPIN)
        notices = guest.notices.take()
        assert [re.sub(r"0x\w+", "PC", text) for text in notices] == (
            ["at pc PC: a branch to itself, and interrupts are off: it never ends"] if told else []
        )
        for slice_ in range(4, 6):
            guest.run_until(slice_ * SPIN)
        assert guest.notices.take() == []


@pytest.mark.parametrize("loop", ["nop\nb .-4", "ldr w1, [x0]\nb .-4"])
def test_a_loop_that_may_end_is_no_spinning(loop: str) -> None:
    guest = raw("aarch64", f"ldr x0, =0x9000018\n{loop}")
    for slice_ in range(1, 6):
        guest.run_until(slice_ * SPIN)
    assert guest.notices.take() == []


def test_a_reset_loop() -> None:
    guest = raw("riscv64", "li t0, 0x100000\nli t1, 0x7777\nsw t1, 0(t0)\nj .")
    guest.run_until(100)
    (text,) = guest.notices.take()
    assert text == f"the machine has restarted {RESTARTS} times in short succession"


@pytest.mark.parametrize(("wait", "told"), [(100, True), (10_000, False)])
def test_only_restarts_in_short_succession_are_a_loop(wait: int, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "BETWEEN_RESTARTS", 1000)
    count = f".option norelax\nli t2, {wait}\n1: addi t2, t2, -1\nbnez t2, 1b\n"
    guest = raw("riscv64", count + "li t0, 0x100000\nli t1, 0x7777\nsw t1, 0(t0)\nj .")
    guest.run_until(5 * 2 * wait)
    assert bool(guest.notices.take()) is told


def test_no_flood() -> None:
    notices = Notices()
    for address in range(3 * Notices.MOST):
        notices.add("access", address, f"at {address}")
        notices.add("access", address, f"at {address}")
    taken = notices.take()
    assert taken[: Notices.MOST] == [f"at {address}" for address in range(Notices.MOST)]
    assert len(taken) == Notices.MOST + 1
    assert notices.take() == []


def test_replays_do_not_depend_on_it(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(assemble("riscv64", HANDLER["riscv64"].format(LOADS["riscv64"].format(NOTHING))))
    options = GuestOptions(board="riscv64-virt", memory=2 << 20, load=0x80000000)
    with record(tmp_path / "r", tmp_path / "x.bin", options) as opened:
        t = opened.timeline
        t.run(Points({}), steps=40)
        digest = t.marks.state_digest()
        t.seek(0)
        t.seek(40)
        assert t.marks.state_digest() == digest
        assert len(opened.guest.notices.take()) == 0, "the recorder has told them"


@pytest.mark.parametrize(
    ("program", "what"),
    [
        (LOADS["riscv64"].format(NOTHING), "nothing is mapped"),
        (LOADS["riscv64"].format(RTC["riscv64"] + 0x28), "no register"),
        ("nop", "a branch to itself"),
        ("li t0, 0x100000\nli t1, 0x7777\nsw t1, 0(t0)", "has restarted"),
    ],
    ids=["access", "register", "spin", "restart"],
)
@pytest.mark.parametrize("strict", [True, False])
def test_strict_ends_the_run_there(
    program: str,
    what: str,
    strict: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    image = tmp_path / "x.bin"
    image.write_bytes(assemble("riscv64", HANDLER["riscv64"].format(program)))
    how = ["--strict"] if strict else ["--max-icount", "3000000" if "branch" in what else "2000"]
    arguments = ["record", *how, "-m", "2", "-M", "riscv64-virt", "--load", "0x80000000", "-o", str(tmp_path / "r")]
    monkeypatch.setattr(sys, "argv", ["rrgdb", *arguments, str(image)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = [line for line in capfd.readouterr().err.splitlines() if "recording to" not in line]
    assert ended.value.code == (1 if strict else 0)
    assert what in said[0]
    assert len([line for line in said if what in line]) <= 2
    assert said[-1].startswith("rrgdb: stopped by " + ("--strict" if strict else "--max-icount"))
