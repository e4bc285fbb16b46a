"""gdb watches the preemptive kernel's memory by physical addresses, and that of one of its processes."""

from __future__ import annotations

import re

import pytest

from rrgdb_tests.e2e.harness import Gdb, Record
from rrgdb_tests.machines.test_kernel_gdb import line, to

pytestmark = pytest.mark.e2e

ARENA = 0x23000000
HIT = re.compile(r"watch-physical (0x[0-9a-f]+): (0x[0-9a-f]+) -> (0x[0-9a-f]+)")


def _watch_physical(gdb: Gdb, variable: str) -> int:
    """Watch a variable of the program that runs by its physical address, which is returned."""
    found = re.search(r"gpa: (0x[0-9a-f]+)", gdb.cli(f"monitor gva2gpa {gdb.value(f'&{variable}'):#x}"))
    assert found is not None
    assert f"watching {found[1]} 4 w" in gdb.cli(f"monitor watch-physical {found[1]} 4")
    return int(found[1], 16)


def _hit(gdb: Gdb, stop: Record) -> tuple[int, int, int]:
    """Address, old and new value, as `monitor when` tells them."""
    assert (stop["reason"], stop["signal-name"]) == ("signal-received", "0")
    told = HIT.search(gdb.cli("monitor when"))
    assert told is not None
    address, old, new = (int(number, 16) for number in told.groups())
    return address, old, new


def test_a_physical_word_that_several_programs_write(at: Gdb) -> None:
    """Where a race has lost an increment, found by a debugger that knows no address of the programs."""
    to(at, line("user.c", "counted[me]++"))
    place = _watch_physical(at, "counter")
    forward = []
    for _ in range(12):
        address, old, new = _hit(at, at.cont())
        assert address == place
        assert at.value("counter") == new
        forward.append((at.icount, old, new))
    backward = []
    for _ in range(11):
        at.cont(reverse=True)
        backward.append((at.icount + 1, *_hit(at, at.cont())[1:]))
        at.cont(reverse=True)
    assert backward[::-1] == forward[1:]
    at.cli("monitor unwatch-physical all")
    to(at, line("kernel.c", "races++"))
    at.cli(f"monitor watch-physical {place:#x} 4")
    for _ in range(400):
        _, old, new = _hit(at, at.cont(reverse=True))
        if new <= old:
            break
    else:
        pytest.fail("no store took anything back")


@pytest.mark.parametrize("arch", ["riscv64", "aarch64"])
def test_gdb_stops_for_it_in_the_middle_of_its_own_steps(at: Gdb) -> None:
    """Of a line, and over a breakpoint."""
    to(at, line("user.c", "/* the race */"), 5)
    _watch_physical(at, "counter")
    _hit(at, at.next())
    assert at.next()["reason"] == "end-stepping-range"
    at.cont(reverse=True)
    store, before = at.pc, at.icount
    at.break_at(f"*{store:#x}")
    _hit(at, at.cont())
    assert at.icount == before + 1
    _hit(at, at.stepi(reverse=True))
    assert at.icount == before


def test_memory_that_each_program_has_at_the_same_address(at: Gdb) -> None:
    to(at, line("user.c", "/* the race */"), 3)
    first = at.value("current")
    threads = []
    for space in ("any", "current"):
        at.cli(f"monitor watch-space {space}")
        number = at.watch(f"*(unsigned char (*)[4096]) {ARENA:#x}")
        here, seen = at.icount, []
        for _ in range(16):
            assert at.cont()["reason"] == "watchpoint-trigger"
            seen.append((at.icount, at.value("current")))
        at.delete(number)
        at.cli(f"monitor seek {here}")
        at.cli("maintenance flush register-cache")
        threads.append(seen)
    whoever, own = threads
    assert {thread for _, thread in own} == {first}
    assert first in {thread for _, thread in whoever}
    assert len({thread for _, thread in whoever}) > 1
    assert {stop for stop in whoever if stop[1] == first} == set(own[: sum(thread == first for _, thread in whoever)])


@pytest.mark.parametrize("arch", ["riscv64", "riscv32"])
def test_what_all_programs_share_is_watched_in_whichever_runs(at: Gdb) -> None:
    """The kernel's own variables are no process's."""
    to(at, line("user.c", "/* the race */"), 3)
    assert "page tables at 0x" in at.cli("monitor watch-space current")
    at.watch("switches")
    threads = set()
    for _ in range(12):
        assert at.cont()["reason"] == "watchpoint-trigger"
        threads.add(at.value("current"))
    assert len(threads) > 1
