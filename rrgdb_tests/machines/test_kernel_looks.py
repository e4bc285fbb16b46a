"""gdb looks at the preemptive kernel: memory through the page tables in use, system registers, exceptions by lines."""

from __future__ import annotations

import re

import pytest

from rrgdb_tests.e2e.harness import Gdb
from rrgdb_tests.machines.test_kernel_gdb import USER, line, state, to

pytestmark = pytest.mark.e2e

_RISCV = ("stval", "sepc", "scause", {12, 13, 15})
FAULT = {
    "riscv64": _RISCV,
    "riscv32": _RISCV,
    "aarch64": ("FAR_EL1", "ELR_EL1", "ESR_EL1 >> 26", {0x20, 0x24}),
    "arm": ("DFAR", "LR_abt", "DFSR & 0x40f", {3, 5, 6, 7}),
    "arm fetch": ("IFAR", "LR_abt", "IFSR & 0x40f", {3, 5, 6, 7}),
}
"""where the manuals have the address of a fault, that of its instruction, and its cause; on Arm once the kernel has
subtracted what the manual says"""
TABLE = {"riscv64": "satp", "riscv32": "satp", "aarch64": "TTBR0_EL1", "arm": "TTBR0"}


def _mapped(gdb: Gdb) -> dict[int, tuple[int, int, str]]:
    """`monitor info tlb`: virtual -> (physical, bytes, rights)."""
    head, rule, *lines = gdb.cli("monitor info tlb").splitlines()
    assert (head.split(), set(rule)) == (["vaddr", "paddr", "size", "attr"], {"-", " "})
    found = {}
    for each in lines:
        virtual, physical, size, rights = each.split(maxsplit=3)
        found[int(virtual, 16)] = int(physical, 16), int(size, 16), rights
    return found


def test_memory_is_where_the_tables_in_use_say(at: Gdb) -> None:
    """In the space of whichever thread was interrupted: what gdb reads is what lies at the physical address."""
    seen = set()
    at.break_at("timer_tick")
    for _ in range(6):
        at.cont()
        mapped = _mapped(at)
        (code,) = (virtual for virtual in mapped if virtual == USER.start)
        physical, size, rights = mapped[code]
        assert size >= 4096
        assert rights[4] == "r"
        assert rights[6] == "x"
        assert rights[5] == "-"
        shown = at.cli(f"monitor x /8xb {code:#x}").split()[1:]
        assert shown == at.cli(f"monitor xp /8xb {physical:#x}").split()[1:]
        at.cli("maintenance packet Qqemu.PhyMemMode:1")
        assert at.value(f"*(unsigned *){physical:#x}") == int("".join(b[2:] for b in shown[3::-1]), 16)
        at.cli("maintenance packet Qqemu.PhyMemMode:0")
        seen.add((at.value("current"), at.value("counter")))
    assert len(seen) > 1
    assert at.cli("monitor x /1xw 0x10").rstrip().endswith("Cannot access memory")


def test_a_breakpoint_in_a_program_that_several_spaces_map(at: Gdb) -> None:
    """Placed while another space is in use, and in the kernel: it stops whoever comes to that address."""
    to(at, "timer_tick", 3)
    at.break_at(line("user.c", "counted[me]++"))
    threads = set()
    for _ in range(60):
        assert at.cont()["reason"] == "breakpoint-hit"
        assert at.pc in USER
        threads.add(at.value("current"))
    here = state(at)
    assert at.cont()["reason"] == "breakpoint-hit"
    at.cont(reverse=True)
    assert state(at) == here
    assert len(threads) >= 1


def test_a_fault_in_its_registers(arch: str, at: Gdb) -> None:
    """At a page fault: what the kernel is told is what the registers say, and a step back is where it was raised."""
    for _ in range(3):
        to(at, "page_fault")
        fetch = " fetch" if arch == "arm" and at.value("access == FETCH") else ""
        address, instruction, cause, known = FAULT[arch + fetch]
        assert at.value("address") == at.value(f"${address}")
        assert at.value(f"${cause}") in known
        at_fault, told = at.value(f"${instruction}"), at.value("address")
        number = at.break_at(f"*{at_fault:#x}")
        at.cont(reverse=True)
        at.delete(number)
        assert at.pc == at_fault
        before = at.icount
        at.stepi()
        assert at.pc not in USER
        assert at.icount == before + 1
        assert at.value(f"${address}") == told
        to(at, "page_fault")
    assert at.value(f"${TABLE[arch]}") != 0


def test_next_and_finish_over_and_out_of_a_handler(at: Gdb) -> None:
    to(at, "timer_tick", 30)
    inside = state(at)
    stops = []
    for _ in range(3):
        at.next()
        stops.append(state(at))
    for expected in reversed([inside, *stops[:-1]]):
        at.next(reverse=True)
        assert state(at)[0] <= expected[0]
    to(at, "timer_tick")
    entered = state(at)
    depth = int(at.command("-stack-info-depth")["depth"])
    if depth > 1:
        at.finish()
        assert at.icount > entered[0]
        number = at.break_at("timer_tick")
        at.cont(reverse=True)
        at.delete(number)
        assert state(at) == entered


def test_steps_by_lines_over_a_system_call(at: Gdb) -> None:
    """`next` in a program over a line with a call; kernel, timer and other threads run in between."""
    to(at, line("user.c", "counted[me]++"), 5)
    first = state(at)
    lines = []
    for _ in range(8):
        stop = at.next()
        lines.append((stop["frame"]["func"], at.icount))
    assert {function for function, _ in lines} & {"worker"}
    assert [icount for _, icount in lines] == sorted({icount for _, icount in lines})
    for _ in range(8):
        at.next(reverse=True)
    assert at.icount <= lines[0][1]
    at.cli(f"monitor seek {first[0]}")
    at.cli("maintenance flush register-cache")
    assert state(at) == first


def test_what_the_machine_is(arch: str, at: Gdb) -> None:
    tree = at.cli("monitor info mtree")
    assert re.search(r"^    [0-9a-f]{16}-[0-9a-f]{16} \(prio 0, ram\): ram$", tree, re.MULTILINE)
    to(at, "timer_tick", 2)
    lines = at.cli("monitor info irq")
    assert "lines that are high:" in lines
    assert ("plic" if arch.startswith("riscv") else "gic") in lines
