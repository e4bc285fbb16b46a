"""Exceptions that the native half enters: the same states at all positions as where Python does it, stop by stop."""

from __future__ import annotations

import random
from unittest.mock import Mock

import pytest

from rrgdb.arch.riscv_levels import MACHINE, SUPERVISOR, USER
from rrgdb.engine.base import Exit, ExitKind, Stops, Watch
from rrgdb_tests.engine.unicorn.rig import CODE, DATA, HOLE, Bench
from rrgdb_tests.engine.unicorn.twins import DATA_ALIAS, DATA_AT, HOLE_AT, TABLES, VIRTUAL, Make, Twins, maker

RISCV = ("riscv64", "riscv32")
SUPERVISORS, MACHINES, VECTORS = 0x400, 0x500, 0x800
"""where handlers stand in the code"""
RISCV_LOOP = f"""
.option norvc
1: addi a0, a0, 1
lw a1, 0(s1)
addi a2, a2, 1
sw a2, 8(s1)
amoadd.w a3, a2, (s1)
lr.w a4, (s1)
xori a5, a0, 3
ecall
lw a6, 0(s2)
sw a0, 16(s2)
flw ft0, 20(s2)
flw ft1, 4(s1)
fadd.s ft1, ft1, ft0
ecall
j 1b
.org {SUPERVISORS}
csrr t1, sepc
addi t1, t1, 4
csrw sepc, t1
csrr t2, scause
add s3, s3, t2
csrr t3, stval
xor s4, s4, t3
sret
.org {MACHINES}
csrr t1, mepc
addi t1, t1, 4
csrw mepc, t1
csrr t2, mcause
add s3, s3, t2
csrr t3, mtval
xor s4, s4, t3
mret
"""
HANDLER = """
mrs x9, esr_el1
lsr x10, x9, #26
cmp x10, #0x15
b.eq 8f
mrs x11, elr_el1
add x11, x11, #4
msr elr_el1, x11
8: add x12, x12, x9
mrs x13, far_el1
eor x14, x14, x13
eret
"""
AARCH64_LOOP = f"""
1: add x0, x0, #1
svc #5
ldr x1, [x20]
add x2, x2, #1
str x2, [x20, #8]
stp x0, x2, [x21]
{{more}}
ldp x3, x4, [x20]
svc #0x1234
b 1b
.org {VECTORS}
{HANDLER}
.org {VECTORS + 0x200}
{HANDLER}
.org {VECTORS + 0x400}
{HANDLER}
"""
MODES = [
    ("aarch64", "EL0", False),
    ("aarch64", "EL1", False),
    ("aarch64", "EL1", True),
    *((family, level, False) for family in RISCV for level in ("user", "user to machine", "machine")),
    *((family, level, True) for family in RISCV for level in ("supervisor", "supervisor to machine")),
]
LEVELS = {"user": USER, "supervisor": SUPERVISOR, "machine": MACHINE}


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    return maker(monkeypatch)


def _prepare(twins: Twins, family: str, level: str, *, paged: bool) -> None:
    start, hole, data = (VIRTUAL, HOLE_AT, DATA_AT) if paged else (CODE, HOLE, DATA)
    values = {"vbar_el1": start + VECTORS, "x20": hole, "x21": data}
    if family == "aarch64":
        values |= {"sp_el0": data + 0x100, "sp_el1": data + 0x200}
        values |= {"cpsr": 0} if level == "EL0" else {}
    else:
        delegated = 0 if "machine" in level else 0xB1FF
        values = {"s1": hole, "s2": data, "stvec": start + SUPERVISORS, "mtvec": CODE + MACHINES, "medeleg": delegated}
        values |= {
            "mstatus": twins.slow.engine.read("mstatus") | 1 << 13,
            "priv": LEVELS[level.split(" ", maxsplit=1)[0]],
        }
    for name, value in values.items():
        twins.write(name, value)


def _enter(bench: Bench, exit_: Exit) -> None:
    """As a board does it."""
    assert exit_.exception is not None
    assert bench.engine.arch.enter_exception(bench.engine, exit_.exception), exit_
    bench.engine.count_one()


def _to(bench: Bench, icount: int) -> int:
    """Over all exceptions up to there; how many Python entered."""
    engine, entered = bench.engine, 0
    while (exit_ := bench.run(icount)).kind is ExitKind.EXCEPTION:
        _enter(bench, exit_)
        entered += 1
    assert (exit_.kind, engine.icount) == (ExitKind.LIMIT, icount)
    return entered


def _both_to(twins: Twins, icount: int) -> tuple[int, int]:
    entered = _to(twins.inlined, icount), _to(twins.slow, icount)
    twins.compare()
    return entered


def _hits(bench: Bench, end: int) -> list[int]:
    """Where breakpoints and watches stop it on the way there."""
    engine, hits = bench.engine, []
    while (exit_ := bench.run(end)).kind is not ExitKind.LIMIT:
        if exit_.kind is ExitKind.EXCEPTION:
            _enter(bench, exit_)
            continue
        hits.append(engine.icount)
        if exit_.kind is ExitKind.BREAKPOINT:
            engine.arm(engine.stops, engine.icount)
    return hits


def _code(family: str, level: str) -> str:
    if family != "aarch64":
        return RISCV_LOOP
    # With the other stack pointer too, which EL0 cannot choose.
    return AARCH64_LOOP.format(more="" if level == "EL0" else "msr spsel, #0\nsvc #7\nldr x5, [x20]\nmsr spsel, #1")


@pytest.mark.parametrize(("family", "level", "paged"), MODES, ids=[f"{f}-{n}{'-paged' * p}" for f, n, p in MODES])
def test_they_are_entered_as_python_enters_them(make: Make, family: str, level: str, paged: bool) -> None:
    twins = make(family, _code(family, level), paged=paged)
    _prepare(twins, family, level, paged=paged)
    chosen, native = random.Random(family + level), 0
    position = twins.slow.engine.icount
    for turn in range(300):
        # Each position of a round, then runs of all lengths.
        position += 1 if turn < 150 else chosen.choice((1, 7, chosen.randrange(1, 2_000)))
        by_python, all_of_them = _both_to(twins, position)
        native += all_of_them - by_python
        # The last one is left to Python where the run ends with it, and so is what a device might have to hear of.
        assert by_python <= 1 or not paged
    core = twins.inlined.engine._core
    assert 0 < native <= core.exceptions
    assert twins.slow.engine._core.exceptions == 0


@pytest.mark.parametrize("family", ["aarch64", "riscv64"])
def test_a_breakpoint_on_a_handler_is_hit_each_time(make: Make, family: str) -> None:
    level = "EL1" if family == "aarch64" else "supervisor"
    twins = make(family, _code(family, level), paged=True)
    _prepare(twins, family, level, paged=True)
    handler = VIRTUAL + (VECTORS + 0x200 if family == "aarch64" else SUPERVISORS)
    _both_to(twins, twins.slow.engine.icount + 500)
    twins.arm(Stops(breakpoints=((handler, None),)))
    hits = [_hits(bench, twins.slow.engine.icount + 400) for bench in (twins.inlined, twins.slow)]
    assert hits[0] == hits[1]
    assert len(hits[0]) > 5
    twins.compare()


@pytest.mark.parametrize("family", RISCV)
@pytest.mark.parametrize("offset", [16, 64], ids=["written each round", "never written"])
def test_a_watch_is_found_again_behind_machine_mode(
    make: Make, family: str, offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In machine mode its address is another one; each round goes there several times."""
    twins = make(family, RISCV_LOOP, paged=True)
    _prepare(twins, family, "supervisor to machine", paged=True)
    _both_to(twins, twins.slow.engine.icount + 100)
    found = Mock(side_effect=twins.inlined.engine._watches.find)
    monkeypatch.setattr(twins.inlined.engine._watches, "find", found)
    watches = (Watch(DATA_AT + offset, 4, "w"),)
    twins.arm(Stops(watches=watches, collect=True))
    _both_to(twins, twins.slow.engine.icount + 4_000)
    assert (twins.collected().watch is not None) is (offset == 16)
    assert found.call_count < 10
    twins.arm(Stops(watches=watches))
    places = [_hits(bench, twins.slow.engine.icount + 400) for bench in (twins.inlined, twins.slow)]
    assert places[0] == places[1]
    assert len(places[0]) > 3 or offset == 64
    twins.compare()


WALKED = f"""
.option norvc
1: addi a0, a0, 1
{{store}} s5, 0(s6)
sfence.vma
xori a5, a0, 3
lw a1, 0(s1)
addi a2, a2, 1
sw a2, 8(s1)
addi a3, a3, 1
j 1b
.org {SUPERVISORS}
csrr t1, sepc
addi t1, t1, 4
csrw sepc, t1
sret
"""


@pytest.mark.parametrize("family", RISCV)
@pytest.mark.parametrize("collect", [False, True])
def test_a_watch_sees_the_bits_that_a_walk_to_nothing_sets(make: Make, family: str, collect: bool) -> None:
    """The entry of a page table leads to where there is nothing, and is given back its old value each round."""
    wide = family == "riscv64"
    size, store, leaf = (8, "sd", TABLES + 0x2000) if wide else (4, "sw", TABLES + 0x1000)
    twins = make(family, WALKED.format(store=store), paged=True)
    _prepare(twins, family, "supervisor", paged=True)
    entry, nothing = (HOLE_AT >> 12) % (4096 // size) * size, 0x7000_1000 >> 12 << 10 | 0x7
    for bench in (twins.inlined, twins.slow):
        at = leaf + (DATA_ALIAS >> 12) % (4096 // size) * size
        bench.engine.ram.write(at, (leaf >> 12 << 10 | 0xC7).to_bytes(size, "little"))
        bench.engine.drop_translations()
    twins.write("s6", DATA_ALIAS + entry)
    twins.write("s5", nothing)
    _both_to(twins, twins.slow.engine.icount + 200)
    twins.arm(Stops(watches=(Watch(DATA_ALIAS + entry, size, "w"),), collect=collect))
    hits = [_hits(bench, twins.slow.engine.icount + 600) for bench in (twins.inlined, twins.slow)]
    assert hits[0] == hits[1]
    if collect:
        assert twins.collected().watch is not None
    else:
        assert len(hits[0]) > 60, "A, D, and both away again"
    twins.compare()


def test_without_a_handler_it_is_told(make: Make) -> None:
    for family in ("aarch64", "riscv64"):
        twins = make(family, "svc #1" if family == "aarch64" else "ecall")
        exits = [bench.to_exception() for bench in (twins.inlined, twins.slow)]
        assert exits[0] == exits[1]
        assert twins.inlined.engine._core.exceptions == 0
