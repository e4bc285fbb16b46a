"""32-bit Arm with its MMU on, in blocks that are counted as wholes: IT blocks, and accesses in several pieces."""

from __future__ import annotations

import gc
import random

import pytest

from rrgdb.engine.base import ExitKind, Stops, Watch
from rrgdb.engine.memory import PAGE
from rrgdb_tests.engine.unicorn import twins as tw
from rrgdb_tests.engine.unicorn.rig import DATA_SIZE, assemble
from rrgdb_tests.engine.unicorn.twins import INLINES, Make, Twins

ACCESSES = (
    "ldr{c} r3, [r0]",
    "str{c} r5, [r0]",
    "strb{c} r5, [r0]",
    "ldrd{c} r2, r3, [r0]",
    "strd{c} r4, r5, [r0]",
    "ldm{c} r0, {{r2, r3, r6, r7}}",
    "stm{c} r0, {{r4, r5, r6, r7}}",
    "stm{c} r12!, {{r4, r5, r6, r7}}",
    "vldm{c} r0, {{d0-d2}}",
    "vstm{c} r0, {{d0-d2}}",
    "ldrex{c} r3, [r0]\nadd{c} r3, r3, #1\nstrex{c} r7, r3, [r0]",
)
# Of four turns of the loop two go by each half of the IT block. {0}: the access, {1}: how many of it there are
IT = """
1: add.w r1, r1, #1
 mov r12, r0
 tst.w r1, #2
 it{more} ne
 {access}
 itee eq
 addeq.w r4, r4, r3
 eorne.w r4, r4, r7
 addne.w r8, r8, #3
 bl 2f
 b 1b
2: tst.w r1, #1
 it ne
 bxne lr
 ite eq
 addeq.w r9, r9, r4
 addne.w r9, r9, #1
 bx lr
"""
PLAIN = """
1: add r1, r1, #1
 mov r12, r0
 tst r1, #2
 {access}
 addne r4, r4, r3
 eoreq r4, r4, r7
 bl 2f
 b 1b
2: tst r1, #1
 bxne lr
 addeq r9, r9, r4
 bx lr
"""
CODE_OF = {"arm": PLAIN, "thumb": IT}
PLACES = (
    tw.DATA_AT + 64,
    tw.DEVICE_AT + 16,
    tw.HOLE_AT,
    tw.DATA_ALIAS + DATA_SIZE - 8,  # and on into nothing
    tw.DEVICE_AT + PAGE - 8,  # the same from a device
    tw.DATA_AT + DATA_SIZE - 8,  # into code
    tw.DEVICE_AT - 8,  # from code into a device
    tw.ALIAS + 0x800,
)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    gc.collect()
    return tw.maker(monkeypatch)


def source(family: str, access: str) -> str:
    lines = access.format(c="ne")
    return CODE_OF[family].format(access=lines, more="t" * lines.count("\n"))


def going(make: Make, family: str, access: str, offset: int = 64) -> Twins:
    twins = make(family, source(family, access), paged=True, offset=offset)
    twins.write("r0", tw.DATA_AT + 16)
    twins.write("r5", int.from_bytes(assemble(family, "nop" if family == "arm" else "nop.w"), "little"))
    twins.run(2_000)
    assert not INLINES or twins.sites
    return twins


def wander(twins: Twins, chosen: random.Random, runs: int) -> int:
    """Runs of random lengths; behind an exception the pointer leads to data again. How many exceptions there were; two
    a run at most, since what stands there now may be no code."""
    failed = 0
    for _ in range(runs):
        end = twins.slow.engine.icount + chosen.randrange(1, chosen.choice((4, 60, 600, 1_500)))
        for _ in range(2):
            if twins.run(end).kind is ExitKind.LIMIT:
                break
            twins.run(end)  # it fails again
            twins.write("r0", tw.DATA_AT + 64)
            twins.write("r12", tw.DATA_AT + 64)
            failed += 1
    return failed


@pytest.mark.parametrize("access", ACCESSES)
@pytest.mark.parametrize("family", ["arm", "thumb"])
def test_accesses_that_fail_or_must_be_looked_at(make: Make, family: str, access: str) -> None:
    """Where they stand, what of them is done, and how it goes on behind them: also within an IT block."""
    twins, chosen = going(make, family, access), random.Random(access)
    failed = 0
    for turn in range(3):
        for place in PLACES:
            twins.write("r0", place)
            failed += wander(twins, chosen, runs=5)
        if turn == 1:
            twins.arm(Stops(watches=(Watch(tw.DATA_AT + 68, 4, "w"),), collect=True))
    assert failed >= 2
    twins.collected()


@pytest.mark.parametrize("access", ["str{c} r5, [r0]", "stm{c} r0, {{r5, r6}}", "strex{c} r7, r5, [r0]"])
@pytest.mark.parametrize("family", ["arm", "thumb"])
@pytest.mark.parametrize("offset", [0, 64, PAGE - 4, PAGE])
def test_code_that_writes_over_itself(make: Make, family: str, access: str, offset: int) -> None:
    """Before the store, behind it, and in another block; where the block begins a page as well, and ends one."""
    twins, chosen = going(make, family, access, offset), random.Random(offset)
    for base in (tw.VIRTUAL, tw.ALIAS):
        for at in (0, 8, 20, 24, 36, 40, 44):
            twins.write("r0", base + offset + at)
            state = [bench.engine.save() for bench in (twins.inlined, twins.slow)]
            memory = twins.slow.engine.read_memory(tw.VIRTUAL + offset, 64)
            if wander(twins, chosen, runs=2) or chosen.random() < 0.5:
                twins.write_memory(tw.VIRTUAL + offset, memory)
                for bench, saved in zip((twins.inlined, twins.slow), state, strict=True):
                    bench.engine.load(saved)
                twins.write("r0", tw.DATA_AT + 16)
                wander(twins, chosen, runs=2)


def test_every_position_of_it_blocks(make: Make) -> None:
    """Each is reached from any that lies 300 before it, within the blocks and without."""
    twins = going(make, "thumb", "str{c} r5, [r0]")
    slow, fast = twins.slow, twins.inlined
    first, state = slow.engine.icount, slow.engine.save()
    states = []
    for position in range(first, first + 400):
        slow.run(position)
        states.append((slow.pc, slow.engine.registers_digest()))
    fast.engine.load(state)
    for position in range(100):
        fast.run(first + position)
        middle = fast.engine.save()
        fast.run(first + position + 300)
        assert (fast.pc, fast.engine.registers_digest()) == states[position + 300]
        fast.engine.load(middle)


@pytest.mark.skipif(not INLINES, reason="the code of this host is not counted inside")
@pytest.mark.parametrize("family", ["arm", "thumb"])
def test_hooks_are_where_they_are_needed_alone(make: Make, family: str) -> None:
    """Blocks that have failed keep their hooks, and are counted as wholes all the same."""
    twins, chosen = going(make, family, "str{c} r5, [r0]"), random.Random(family)
    for _ in range(4):
        twins.write("r0", tw.HOLE_AT)
        wander(twins, chosen, runs=8)
    twins.write("r0", tw.DATA_AT)
    core = twins.inlined.engine._core
    asked, looked = core.hooks_asked, core.looked
    twins.run(twins.slow.engine.icount + 20_000)
    assert core.hooks_asked - asked <= 4
    assert core.looked - looked < 200


READS = ("ldr{c} r3, [r0]", "ldrd{c} r2, r3, [r0]", "ldm{c} r0, {{r2, r3, r6, r7}}")


@pytest.mark.parametrize("access", READS)
@pytest.mark.parametrize("family", ["arm", "thumb"])
def test_code_that_reads_itself(make: Make, family: str, access: str) -> None:
    """Where Unicorn asks what is mapped, since its TLB does not have the page."""
    twins, chosen = going(make, family, access), random.Random(access)
    for turn in range(12):
        twins.write("r0", (tw.VIRTUAL, tw.ALIAS)[turn % 2] + 64 + 4 * turn)
        for bench in (twins.inlined, twins.slow):
            bench.engine.drop_translations()
        assert not wander(twins, chosen, runs=2)


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("access", ["str{c} r5, [r0]", "stm{c} r0, {{r5}}", "strd{c} r4, r5, [r0]"])
def test_stores_before_what_is_asked_about(make: Make, access: str, watched: bool) -> None:
    """By an IT block, beneath the page of its own code or of watched bytes, where no hook lies."""
    twins, chosen = going(make, "thumb", access), random.Random(access)
    begin = tw.MANY + 0x10000
    twins.write_memory(begin, assemble("thumb", source("thumb", access)))
    twins.write("pc", begin)
    twins.write("cpsr", twins.slow.engine.read("cpsr") | 1 << 5)
    if watched:
        twins.arm(Stops(watches=(Watch(begin + 0x20000, 4, "w"),), collect=True))
    for place in (begin - 8, begin - 4, begin + 0x20000 - 8, begin + 0x20000 - 4, begin + 0x800):
        twins.write("r0", place)
        for _ in range(3):
            for bench in (twins.inlined, twins.slow):
                bench.engine.drop_translations()
            assert not wander(twins, chosen, runs=2)
            twins.collected()


UNMASKS = """
1: cpsid i
 add.w r1, r1, #1
 b.w 2f
2: add.w r3, r3, #1
 tst.w r1, #1
 itttt ne
 addne.w r4, r4, #1
 msrne cpsr_c, r2
 addne.w r8, r8, #1
 addne.w r9, r9, r8
 b.w 1b
"""


@pytest.mark.parametrize("paged", [False, True])
def test_an_interrupt_that_is_unmasked_within_an_it_block(make: Make, paged: bool) -> None:
    twins = make("thumb", UNMASKS, paged=paged, offset=64)
    twins.write("r2", 0x53)
    twins.run(3_000)
    told = 0
    for turn in range(30):
        twins.run(twins.slow.engine.icount + turn)
        for bench in (twins.inlined, twins.slow):
            bench.engine.await_unmasked(True)
        told += twins.run(twins.slow.engine.icount + 400).kind is ExitKind.UNMASKED
        for bench in (twins.inlined, twins.slow):
            bench.engine.await_unmasked(False)
    assert told == 30
