"""A real gdb in a preemptive kernel: over interrupts, exceptions and context switches, both ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from rrgdb_tests import guests
from rrgdb_tests.e2e.harness import Gdb, debugging, rrgdb
from rrgdb_tests.machines.moves import (
    back_and_forth,
    back_to_the_previous_tick,
    qemus_acceptance,
    state,
    threads_of_switches_backwards,
    to,
)

pytestmark = pytest.mark.e2e

USER = range(0x20000000, 0x20002000)


def line(source: str, text: str) -> str:
    """``FILE:LINE`` of the one line of the kernel's sources that has ``text``."""
    lines = (guests.KERNEL / source).read_text().splitlines()
    (number,) = (n for n, each in enumerate(lines, 1) if text in each)
    return f"{source}:{number}"


def test_back_to_the_previous_tick(at: Gdb) -> None:
    back_to_the_previous_tick(at, "timer_tick")


def test_onto_and_over_the_entry_of_an_interrupt(at: Gdb) -> None:
    to(at, "*irq_entry", 15)
    inside = state(at)
    assert at.pc == at.value("&irq_entry")
    at.stepi(reverse=True)
    before = state(at)
    assert before[0] == inside[0] - 1
    assert at.pc in USER
    at.stepi(reverse=True)
    at.stepi()
    assert state(at) == before
    at.stepi()
    assert state(at) == inside
    at.stepi()
    at.stepi(reverse=True)
    assert state(at) == inside


def test_out_of_a_handler_and_back_into_it(at: Gdb) -> None:
    to(at, "*irq_entry", 15)
    to(at, "*trap_exit")
    leaving = state(at)
    at.stepi()
    outside = state(at)
    assert at.pc in USER
    at.stepi(reverse=True)
    assert state(at) == leaving
    at.stepi()
    assert state(at) == outside
    at.break_at("*irq_entry")
    at.cont(reverse=True)
    assert at.pc == at.value("&irq_entry")
    assert at.icount < leaving[0]


def test_onto_into_and_over_a_system_call(at: Gdb) -> None:
    to(at, "*svc_insn", 3)
    call = state(at)
    call_address = at.value("&svc_insn")
    assert at.pc == call_address
    at.stepi()
    inside = state(at)
    assert at.pc == at.value("&svc_entry")
    assert inside[0] == call[0] + 1
    at.stepi(reverse=True)
    assert state(at) == call
    at.break_at("*svc_insn")
    behind = at.break_at(f"*{call_address + 4}")
    at.cont()
    at.delete(behind)
    at.cont(reverse=True)
    assert state(at) == call


def test_onto_and_over_the_entry_of_a_page_fault(at: Gdb, arch: str) -> None:
    """The store that finds no page, what the kernel does, and the store once more, both ways."""
    to(at, "page_fault", 3)
    faulting, inside = at.value("current->frame." + ("x[0]" if "riscv" in arch else "pc")), at.icount
    at.break_at(f"*{faulting}")
    at.cont(reverse=True)
    store = state(at)
    at.stepi()
    entered = state(at)
    assert at.pc not in USER
    assert store[0] < entered[0] < inside
    at.stepi(reverse=True)
    assert state(at) == store
    at.cont()
    again = state(at)
    assert all(again[1][name] == store[1][name] for name in ("pc", "sp"))
    assert again[0] > inside
    at.stepi(reverse=True)
    assert at.pc == at.value("&trap_exit")
    at.stepi()
    assert state(at) == again
    at.cont(reverse=True)
    assert state(at) == store


def test_finish_and_reverse_finish_of_a_handler(at: Gdb) -> None:
    to(at, "timer_tick", 8)
    inside, ticks = state(at), at.value("ticks")
    at.finish()
    behind = at.icount
    assert at.value("ticks") == ticks + 1
    to(at, "timer_tick")
    assert at.value("ticks") == ticks + 1
    at.break_at("timer_tick")
    at.cont(reverse=True)
    assert state(at) == inside
    at.delete()
    at.finish(reverse=True)
    assert at.icount < inside[0] < behind
    at.step()
    assert (at.command("-stack-info-frame")["frame"]["func"], at.value("ticks")) == ("timer_tick", ticks)


@pytest.mark.parametrize("arch", ["riscv64", "riscv32"])
def test_over_what_machine_mode_does_for_the_supervisor(at: Gdb) -> None:
    """Into machine mode by a timer's interrupt, and by MRET behind it into the supervisor's pending one."""
    to(at, "*machine_exit", 21)
    leaving = state(at)
    at.stepi()
    assert at.pc != at.value("&irq_entry")
    outside = state(at)
    at.stepi(reverse=True)
    assert state(at) == leaving
    at.break_at("*machine_trap")
    at.cont(reverse=True)
    inside = state(at)
    at.stepi(reverse=True)
    interrupted = state(at)
    assert interrupted[0] == inside[0] - 1
    at.stepi()
    assert state(at) == inside
    at.delete()
    to(at, "*machine_exit")
    at.stepi()
    assert state(at) == outside


def test_a_variable_watched_backwards_over_context_switches(at: Gdb) -> None:
    assert len(threads_of_switches_backwards(at, "timer_tick", 40, "schedule")) >= 2


def lost_increment(gdb: Gdb) -> None:
    """From where the kernel is told that some are missing, back to the store that lost them, and to why."""
    gdb.watch("counter")
    for _ in range(400):
        stop = gdb.cont(reverse=True)
        after, before = int(stop["value"]["old"]), int(stop["value"]["new"])
        if after <= before:
            break
    else:
        pytest.fail("no store took anything back")
    assert stop["frame"]["func"] == "worker"
    assert f"{stop['frame']['file'].rsplit('/', 1)[-1]}:{stop['frame']['line']}" == line("user.c", "/* the race */")
    gdb.delete()
    store, loser, leaving = gdb.icount, gdb.value("current"), gdb.value("&trap_exit")
    for _ in range(4):
        gdb.stepi(reverse=True)
        if gdb.pc == leaving:
            break
    # Between its load and its store this thread had been away: the other one counted meanwhile.
    assert gdb.pc == leaving
    other = gdb.break_at(line("user.c", "counted[me]++"))
    gdb.cont(reverse=True)
    assert gdb.value("current") != loser
    gdb.delete(other)
    assert gdb.icount < store


def test_the_lost_increment_is_found(at: Gdb) -> None:
    to(at, line("kernel.c", "races++"))
    lost_increment(at)


@pytest.mark.parametrize(
    ("arch", "rounds"),
    [
        ("aarch64", 45_000),
        *(pytest.param(arch, 100_000, marks=pytest.mark.slow) for arch in guests.KERNELS),
    ],
)
def test_a_race_of_once_in_a_hundred_million_instructions(arch: str, rounds: int, tmp_path: Path) -> None:
    """The kernel's own sizes: an instruction or two in 1,000 at which a tick in 10**5 instructions may come. From the
    end back to the last report, and on to its cause."""
    kernel = guests.build_kernel(arch, {"ROUNDS": rounds})
    rrgdb("record", "-o", tmp_path / "r", "-m", "32M", kernel)
    with debugging(kernel, "replay", tmp_path / "r") as gdb:
        assert gdb.cont()["reason"] == "no-history"
        assert gdb.icount > 10**8
        number = gdb.break_at(line("kernel.c", "races++"))
        assert gdb.cont(reverse=True)["reason"] == "breakpoint-hit"
        gdb.delete(number)
        lost_increment(gdb)


def test_qemu_6_steps_back_and_forth_around_a_timer_interrupt(at: Gdb) -> None:
    to(at, "*irq_entry", 10)
    back_and_forth(at, 12, 24)


def test_qemu_7_the_handlers_first_instruction_is_a_place_to_stop(at: Gdb) -> None:
    to(at, "timer_tick", 12)
    at.break_at("*irq_entry")
    at.cont(reverse=True)
    first = at.icount
    assert at.pc == at.value("&irq_entry")
    at.cont(reverse=True)
    assert at.pc == at.value("&irq_entry")
    assert at.icount < first


@pytest.mark.parametrize("first", ["irq_entry", "_start"])
def test_qemus_own_acceptance(at: Gdb, first: str) -> None:
    if first != "_start":
        to(at, f"*{first}", 5)
    qemus_acceptance(at)
