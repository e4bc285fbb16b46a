"""Blocks that are counted inside the code that Unicorn generates: the slow gear says what is right."""

from __future__ import annotations

import gc
import mmap
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from rrgdb.arch.base import IllegalInstruction, Trap
from rrgdb.arch.cpu import Cpu
from rrgdb.arch.riscv_interrupts import SEIP
from rrgdb.arch.riscv_levels import SUPERVISOR
from rrgdb.engine.base import NO_STOPS, ExitKind, Ranges, Stops, Watch
from rrgdb.engine.memory import PAGE
from rrgdb.engine.unicorn import engine as engine_module
from rrgdb.engine.unicorn.counting import INLINE
from rrgdb_tests.engine.unicorn import twins as tw
from rrgdb_tests.engine.unicorn.rig import CODE, DATA, DATA_SIZE, DEVICE, FAMILIES, HOLE, Bench, assemble
from rrgdb_tests.engine.unicorn.twins import INLINES, PAGED, Make, Twins, walk

ARM = ("arm", "thumb")
RISCV = ("riscv64", "riscv32")
X86 = ("i386", "x86_64")
# {p}: address register, {v}: the word that is stored, {patch}: what is stored over, in the block of the store and in
# another one
_RISCV = """
.option norvc
1: addi a1, a1, 1
 andi a2, a1, 3
 bnez a2, 2f
 lw a3, 0(a0)
 add a4, a4, a3
 sw a5, 0(a0)
 {patch}
 xor a4, a4, a6
2: jal ra, 3f
 j 1b
3: {patch}
 xor a4, a4, a6
 ret
"""
_A64 = """
1: add w1, w1, #1
 and w2, w1, #3
 cbnz w2, 2f
 ldr w3, [x0]
 add w4, w4, w3
 str w5, [x0]
 {patch}
 eor w4, w4, w6
2: bl 3f
 b 1b
3: {patch}
 eor w4, w4, w6
 ret
"""
_A32 = """
1: add r1, r1, #1
 ands r2, r1, #3
 bne 2f
 ldr r3, [r0]
 add r4, r4, r3
 str r5, [r0]
 {patch}
 eor r4, r4, r6
2: bl 3f
 b 1b
3: {patch}
 eor r4, r4, r6
 bx lr
"""
_T32 = """
1: add.w r1, r1, #1
 ands.w r2, r1, #3
 bne.w 2f
 ldr.w r3, [r0]
 add.w r4, r4, r3
 str.w r5, [r0]
 {patch}
 eor.w r4, r4, r6
2: bl 3f
 tst.w r1, #5
 ite ne
 addne.w r8, r8, #3
 eoreq.w r8, r8, r1
 b.w 1b
 .balign 4
3: {patch}
 eor.w r4, r4, r6
 bx lr
"""
_X86 = """
1: inc ebx
 test ebx, 3
 jnz 2f
 mov ecx, [{p}]
 add edx, ecx
 mov [{p}], ebp
 {patch}
 xor edx, esi
2: call 3f
 jmp 1b
3: {patch}
 xor edx, esi
 ret
"""


@dataclass(frozen=True)
class Program:
    pointer: str
    value: str
    source: str
    patches: tuple[str, str]
    """instructions of four bytes"""

    def code(self, family: str) -> bytes:
        return assemble(family, self.source.format(p=self.pointer, patch=self.patches[0]))

    def word(self, family: str, which: int) -> int:
        return int.from_bytes(assemble(family, self.patches[which]), "little")

    def places(self, family: str) -> list[int]:
        """Where the two patches stand in the code."""
        patch, code = assemble(family, self.patches[0]), self.code(family)
        assert len(patch) == 4, self.patches[0]
        first = code.index(patch)
        return [first, code.index(patch, first + 4)]


_X86_PATCHES = ("add esi, 1\nnop", "add esi, 5\nnop")
PROGRAMS = {
    **dict.fromkeys(
        RISCV, Program("a0", "a5", _RISCV, (".option norvc\naddi a6, a6, 1", ".option norvc\naddi a6, a6, 5"))
    ),
    "aarch64": Program("x0", "x5", _A64, ("add w6, w6, #1", "add w6, w6, #5")),
    "arm": Program("r0", "r5", _A32, ("add r6, r6, #1", "add r6, r6, #5")),
    "thumb": Program("r0", "r5", _T32, ("add.w r6, r6, #1", "add.w r6, r6, #5")),
    "i386": Program("eax", "ebp", _X86, _X86_PATCHES),
    "x86_64": Program("rax", "rbp", _X86, _X86_PATCHES),
}
NOP = {**dict.fromkeys(RISCV, ".option norvc\nnop\n"), "thumb": "nop.w\n"}
EVERY = [(family, False) for family in FAMILIES] + [(family, True) for family in PAGED]
"""families, and whether the guest translates addresses"""
every = pytest.mark.parametrize(("family", "paged"), EVERY, ids=[f"{f}{'-paged' * p}" for f, p in EVERY])


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    gc.collect()  # buffers of engines that are not needed any more push new ones out of reach
    return tw.maker(monkeypatch)


def running(make: Make, family: str, paged: bool, *, offset: int = 0, warm: int = 2_000) -> Twins:
    """The program of a family, with its pointer to data, and its blocks counted inside."""
    program = PROGRAMS[family]
    twins = make(family, program.code(family), paged=paged, offset=offset)
    twins.write(program.pointer, data(paged) + 16)
    twins.write(program.value, program.word(family, 1))
    twins.run(warm)
    assert not INLINES or twins.sites >= 3
    assert not INLINES or twins.inlined.engine._core.exit_looks >= 2  # behind its load and its store
    return twins


def data(paged: bool) -> int:
    return tw.DATA_AT if paged else DATA


def code(paged: bool) -> int:
    return tw.VIRTUAL if paged else CODE


def device(paged: bool) -> int:
    return tw.DEVICE_AT if paged else DEVICE


def on(twins: Twins, runs: int = 6, seed: int = 1) -> None:
    walk(twins, random.Random(seed), runs)


def test_the_environment_switches_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    for value, inlined in ((None, INLINES), ("1", INLINES), ("0", False)):
        if value is None:
            monkeypatch.delenv(INLINE, raising=False)
        else:
            monkeypatch.setenv(INLINE, value)
        gc.collect()
        for family, paged in EVERY:
            bench = tw.make(family, PROGRAMS[family].code(family), paged=paged)
            bench.engine.write(PROGRAMS[family].pointer, data(paged))
            bench.run(3_000)
            assert bool(bench.engine._core.inlined) is inlined, (family, paged, value)


def test_a_process_in_which_little_is_free_near_the_code(make: Make) -> None:
    """Gigabytes of this process's own lie below Unicorn's buffer, without a gap."""
    twins = make("riscv64", PROGRAMS["riscv64"].code("riscv64"))
    twins.write("a0", DATA)
    twins.run(3)
    others = [mmap.mmap(-1, 128 << 20) for _ in range(20)]
    twins.run(3_000)
    assert bool(twins.sites) is INLINES
    for other in others:
        other.close()


def test_code_that_was_there_before_is_left_alone(make: Make) -> None:
    """Behind a block lies what Unicorn has generated earlier, or keeps of the next block."""
    load = "lw a3, 0(a0)\n"
    hooked = f".option norvc\n1: fadd.s fa0, fa0, fa1\n{load * 20}j 1b"  # is not counted inside
    twins = make("riscv64", hooked)
    twins.write("mstatus", 1 << 13)
    twins.write("a0", DATA)
    for operand in ("fa0", "fa1"):
        twins.write(operand, 0xFFFFFFFF_3F800000)
    twins.run(2_000)
    assert not twins.inlined.engine._core.exit_looks
    short = assemble("riscv64", f".option norvc\n1: addi a1, a1, 1\n{load}j 1b")
    twins.write("pc", CODE)
    twins.write_memory(CODE, short)
    for bench in (twins.inlined, twins.slow):
        bench.engine.drop_translations()
    twins.run(4_000)
    assert twins.inlined.engine._core.exit_looks == INLINES


@every
def test_every_limit_is_kept(make: Make, family: str, paged: bool) -> None:
    """From one position to each of those behind it that need more than one block."""
    twins = running(make, family, paged)
    slow, fast = twins.slow, twins.inlined
    first, state = slow.engine.icount, slow.engine.save()
    content = slow.engine.read_memory(data(paged) + 16, 4)
    states = []
    for position in range(first, first + 256 + 70):
        slow.run(position)
        states.append(slow.state())
    for length in (*range(256, 256 + 70), *range(70)):
        fast.engine.load(state)
        fast.engine.write_memory(data(paged) + 16, content)
        assert fast.run(first + length).kind is ExitKind.LIMIT
        assert fast.engine.icount == first + length
        assert fast.state() == states[length], length
    assert not INLINES or twins.sites >= 3


@every
def test_runs_of_any_length(make: Make, family: str, paged: bool) -> None:
    on(running(make, family, paged), runs=60)


@every
@pytest.mark.parametrize("length", [126, 127, 128, 129, 300])
def test_long_blocks(make: Make, family: str, paged: bool, length: int) -> None:
    """Their counts need more bytes than others."""
    jump = {**dict.fromkeys(RISCV, "j 1b"), "i386": "jmp 1b", "x86_64": "jmp 1b", "thumb": "b.w 1b"}.get(family, "b 1b")
    add = PROGRAMS[family].patches[0]
    twins = make(family, ".option norvc\n" * (family in RISCV) + "1:\n" + f"{add}\n" * (length - 1) + jump, paged=paged)
    twins.run(5_000)
    first = twins.slow.engine.icount
    for icount in (first + 1, first + 2_000, first + 2_001, first + 2_000 + length, first + 4_001 + length):
        twins.run(icount)
    on(twins, runs=4)


@every
def test_an_interrupt_ends_a_run_without_a_limit(make: Make, family: str, paged: bool) -> None:
    twins = running(make, family, paged)
    engine = twins.inlined.engine
    for delay in (0.0, 0.02):
        timer = threading.Timer(delay, engine.interrupt)
        timer.start()
        exit_ = twins.inlined.run(1 << 60)
        timer.join()
        engine.clear_interrupt()
        assert exit_.kind is ExitKind.INTERRUPT
    if engine.icount < 20_000_000:
        assert twins.slow.run(engine.icount).kind is ExitKind.LIMIT
        twins.compare()


def _inside(found: Ranges, number: int) -> bool:
    i = int(np.searchsorted(found[:, 0], np.uint64(number), side="right")) - 1
    return i >= 0 and number <= int(found[i, 1])


@every
def test_footprints_hold_every_pc_of_their_span(make: Make, family: str, paged: bool) -> None:
    twins = running(make, family, paged)
    chosen = random.Random(family)
    for bench in (twins.inlined, twins.slow):
        bench.engine.forget_footprint()
    for turn in range(16):
        begin, pcs = twins.slow.engine.icount, set()
        end = begin + chosen.choice((1, 20, 300, 700, 1_500))
        while twins.slow.engine.icount < end:
            pcs.add(twins.slow.pc)
            twins.slow.run(twins.slow.engine.icount + 1)
        while twins.inlined.engine.icount < end:
            twins.inlined.run(min(end, twins.inlined.engine.icount + chosen.choice((100, 400, 2_000))))
        found = twins.inlined.engine.take_footprint()
        assert found is not None
        assert (found.begin, found.end) == (begin, end)
        assert [hex(pc) for pc in sorted(pcs) if not _inside(found.code, pc)] == []
        size = len(PROGRAMS[family].code(family))
        assert found.code.size == 0 or int(found.code[0, 0]) >= code(paged)
        assert int(found.code[-1, 1]) < code(paged) + size + 16
        if turn % 4 == 1:
            twins.inlined.run(end + 1_000)
            twins.slow.run(end + 1_000)
            twins.inlined.engine.forget_footprint()
        if turn % 4 == 2:
            twins.write_memory(code(paged) + size + 16, bytes(4))  # nothing is counted inside any more
            assert not twins.sites
    twins.run(twins.slow.engine.icount + 2_000)
    assert not INLINES or twins.sites


def test_a_footprint_holds_no_block_that_ran_before_it(make: Make) -> None:
    twins = make("riscv64", "1: addi a0, a0, 1\nblt a0, a1, 1b\n.option norvc\n2: addi a2, a2, 1\nj 2b")
    twins.write("a1", 2_000)
    twins.run(6_000)
    twins.inlined.engine.forget_footprint()
    twins.run(10_000)
    found = twins.inlined.engine.take_footprint()
    assert found is not None
    assert found.code.tolist() == [[CODE + 6, CODE + 13]]


class _Looker:
    """At the accesses to the device of a bench; every seventh ends the run."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.seen = bench, list[int]()
        bench.on_access = self._look

    def _look(self) -> None:
        engine = self.bench.engine
        self.seen.append(engine.icount)
        if len(self.seen) % 7 == 0:
            engine.limit(engine.icount)


@every
def test_a_device_in_a_hot_block(make: Make, family: str, paged: bool) -> None:
    """It sees the position at which it is accessed, and may end the run behind it."""
    twins = running(make, family, paged)
    lookers = [_Looker(bench) for bench in (twins.inlined, twins.slow)]
    for _ in range(3):
        for place in (device(paged) + 8, data(paged) + 32):
            twins.write(PROGRAMS[family].pointer, place)
            on(twins, runs=12)
    assert lookers[0].seen == lookers[1].seen
    assert len(lookers[1].seen) > 40


@every
def test_a_fault_in_a_hot_block(make: Make, family: str, paged: bool) -> None:
    """It stands at its instruction, with all before it done; where memory is there again, the guest goes on."""
    twins = running(make, family, paged)
    for _ in range(4):
        twins.write(PROGRAMS[family].pointer, tw.HOLE_AT if paged else HOLE)
        for _ in range(2):
            assert twins.run(1 << 40).kind is ExitKind.EXCEPTION
        twins.write(PROGRAMS[family].pointer, data(paged) + 64)
        on(twins, runs=3)


@every
def test_breakpoints_come_and_go(make: Make, family: str, paged: bool) -> None:
    twins = running(make, family, paged)
    own, other = (code(paged) + at for at in PROGRAMS[family].places(family))
    beside = code(paged) + len(PROGRAMS[family].code(family)) + 4
    # (register 3 & 3) == 1
    condition = (bytes.fromhex("26000322030f22011327"),)
    for points in (
        (),
        ((beside, None),),
        ((own, None),),
        ((other, None),),
        (),
        ((other, condition),),
        ((own, condition), (other, ())),
        (),
    ):
        for collect in (False, True):
            twins.arm(Stops(points, collect=collect))
            on(twins, runs=2, seed=len(points))
            if collect:
                twins.collected()


@every
def test_watches_come_and_go(make: Make, family: str, paged: bool) -> None:
    twins = running(make, family, paged)
    place = data(paged) + 16
    for watches in ((Watch(place, 4, "w"),), (Watch(place + 64, 4, "a"),), (Watch(place, 2, "r"),), ()):
        for collect in (False, True):
            twins.write_memory(place, bytes(4))
            twins.arm(Stops(watches=watches, collect=collect))
            on(twins, runs=2)
            if collect:
                twins.collected()


@pytest.mark.parametrize("family", PAGED)
def test_only_blocks_that_need_it_have_hooks_of_their_instructions(make: Make, family: str) -> None:
    twins = running(make, family, True)
    core = twins.inlined.engine._core
    asked, looked, executed = core.hooks_asked, core.looked, core.executed
    on(twins, runs=20)
    assert core.inlined > 0
    assert core.hooks_asked - asked <= 20 * 3, "a block is translated anew again and again"
    assert core.looked - looked < (core.executed - executed) // 10


@pytest.mark.parametrize("family", ["aarch64", "arm", *RISCV])
def test_blocks_are_counted_as_wholes_with_a_watch(make: Make, family: str) -> None:
    """A page whose watched bytes are written now and then, and others of it all the time."""
    twins, pointer = running(make, family, True), PROGRAMS[family].pointer
    twins.write(pointer, tw.DATA_AT + 16)
    twins.write_memory(tw.DATA_AT + 24, bytes(8))
    twins.arm(Stops(watches=(Watch(tw.DATA_AT + 24, 4, "w"),), collect=True))
    core = twins.inlined.engine._core
    on(twins, runs=10)
    assert core.watches_asked
    looked, executed = core.looked, core.executed
    on(twins, runs=10)
    assert core.looked - looked < (core.executed - executed) // 10
    for place in (tw.DATA_AT + 24, tw.DATA_ALIAS + 24, tw.DATA_AT + 16):
        twins.write(pointer, place)
        on(twins, runs=5)
        twins.collected()


@pytest.mark.parametrize("family", RISCV)
def test_a_watch_sees_the_bits_that_a_walk_sets(make: Make, family: str) -> None:
    """The page of an entry of a page table is mapped, and watched; the walk sets accessed and dirty bits."""
    twins, size = running(make, family, True), 8 if family == "riscv64" else 4
    leaf = tw.TABLES + (0x2000 if family == "riscv64" else 0x1000)
    entries = 4096 // size

    def entry(address: int) -> int:
        return leaf + (address >> 12) % entries * size

    def set_entry(bench: Bench, address: int, clear: int, physical: int) -> None:
        flags = 0xC7 & ~clear
        bench.engine.ram.write(entry(address), (physical >> 12 << 10 | flags).to_bytes(size, "little"))
        bench.engine.drop_translations()

    twins.write(PROGRAMS[family].pointer, tw.DATA_AT + 16)
    seen = tw.DATA_ALIAS + (entry(tw.DATA_AT) - leaf)
    found = 0
    for turn in range(24):
        for bench in (twins.inlined, twins.slow):
            set_entry(bench, tw.DATA_ALIAS, 0, leaf)
            set_entry(bench, tw.DATA_AT, (0xC0, 0x80, 0)[turn % 3], DATA)
        twins.arm(Stops(watches=(Watch(seen, size, "w"),), collect=turn % 2 == 0))
        on(twins, runs=2, seed=turn)
        found += twins.collected().watch is not None
    assert found > 4


@every
def test_a_range_step_between_runs(make: Make, family: str, paged: bool) -> None:
    twins = running(make, family, paged)
    own, other = (code(paged) + at for at in PROGRAMS[family].places(family))
    for within in ((own, own + 4), (code(paged), other), (own, other + 4)):
        twins.arm(Stops(within=within))
        twins.run(twins.slow.engine.icount + 5_000)
        twins.arm(NO_STOPS)
        on(twins, runs=2)


@every
@pytest.mark.parametrize("which", [0, 1])
def test_code_that_the_debugger_changes(make: Make, family: str, paged: bool, which: int) -> None:
    twins, program = running(make, family, paged), PROGRAMS[family]
    for turn in range(6):
        word = program.word(family, turn % 2).to_bytes(4, "little")
        twins.write_memory(code(paged) + program.places(family)[which], word)
        on(twins, runs=2, seed=turn)


@pytest.mark.parametrize(
    ("family", "paged", "alias"), [(*one, False) for one in EVERY] + [(family, True, True) for family in PAGED]
)
@pytest.mark.parametrize("which", [0, 1])
def test_code_that_the_guest_changes(make: Make, family: str, paged: bool, which: int, alias: bool) -> None:
    """In the block of the store, and in another one; through its own mapping, or through another."""
    twins, program = running(make, family, paged), PROGRAMS[family]
    place = (tw.ALIAS if alias else code(paged)) + program.places(family)[which]
    for turn in range(4):
        twins.write(program.value, program.word(family, turn + 1 & 1))
        twins.write(program.pointer, place)
        on(twins, runs=2, seed=turn)
        twins.write(program.pointer, data(paged) + 16)
        on(twins, runs=2, seed=turn)


# register 0: where it stores, 3: where it goes then, 5 and 7: what it stores by turns
GENERATE = {
    **dict.fromkeys(RISCV, ".option norvc\n1: sw a5, 0(a0)\nxor a5, a5, a7\njalr ra, a3\nj 1b\nnop"),
    "aarch64": "1: str w5, [x0]\neor w5, w5, w7\nblr x3\nb 1b\nnop",
    **dict.fromkeys(ARM, "1: str.w r5, [r0]\neor.w r5, r5, r7\nblx r3\nb.w 1b\nnop"),
}
GENERATED = {
    **dict.fromkeys(RISCV, ".option norvc\nnop\nadd a4, a4, a6\nret"),
    "aarch64": "nop\nadd w4, w4, w6\nret",
    "arm": "nop\nadd r4, r4, r6\nbx lr",
    "thumb": "nop.w\nadd.w r4, r4, r6\nbx lr",
}


@pytest.mark.parametrize("stores", [tw.DATA_AT, tw.DATA_ALIAS])
@pytest.mark.parametrize("family", PAGED)
def test_code_on_a_page_that_was_written_before_it_held_any(make: Make, family: str, stores: int) -> None:
    source = GENERATE[family].replace(".w", "") if family == "arm" else GENERATE[family]
    twins, program = make(family, source, paged=True), PROGRAMS[family]
    letter = {"aarch64": "x", "arm": "r", "thumb": "r"}.get(family, "a")
    words = program.word(family, 0), program.word(family, 1)
    offset = 2 * PAGE + 0x100
    generated = tw.DATA_ALIAS + offset + (family == "thumb")
    twins.write_memory(tw.DATA_AT + offset, assemble(family, GENERATED[family]))
    for number, value in (
        (0, stores + offset),
        (3, generated),
        (5, words[0]),
        (7, words[0] ^ words[1]),
    ):
        twins.write(f"{letter}{number}", value)
    first = twins.slow.engine.icount
    for length in (6, 12, 18, 1_000, 3_001, 3_333, 10_000):
        twins.run(first + length)
    assert twins.slow.engine.read(f"{letter}6") > 10


# a loop of one block that stores over its first instruction
LOOPS = {
    **dict.fromkeys(RISCV, ".option norvc\n1: {patch}\nsw a5, 0(a0)\nadd a4, a4, a6\nj 1b"),
    "aarch64": "1: {patch}\nstr w5, [x0]\nadd w4, w4, w6\nb 1b",
    "arm": "1: {patch}\nstr r5, [r0]\nadd r4, r4, r6\nb 1b",
    "thumb": "1: {patch}\nstr.w r5, [r0]\nadd.w r4, r4, r6\nb.w 1b",
    **dict.fromkeys(X86, "1: {patch}\nmov [{p}], ebp\nadd edx, esi\njmp 1b"),
}


@every
def test_a_loop_that_stores_over_what_it_has_executed(make: Make, family: str, paged: bool) -> None:
    """Wherever runs are stopped, the next round executes what was stored."""
    program = PROGRAMS[family]
    source = LOOPS[family].format(patch=program.patches[0], p=program.pointer)
    found = set()
    for steps in (1, 7, 700):
        twins = make(family, source, paged=paged)
        twins.write(program.pointer, data(paged) + 16)
        twins.write(program.value, program.word(family, 1))
        twins.run(2_000)
        twins.write(program.pointer, code(paged))
        end = twins.slow.engine.icount + 700
        while twins.slow.engine.icount < end:
            twins.run(min(end, twins.slow.engine.icount + steps))
        found.add(twins.slow.state())
    assert len(found) == 1


@every
def test_data_on_the_page_of_the_code(make: Make, family: str, paged: bool) -> None:
    twins = running(make, family, paged)
    for place in (code(paged) + 0x800, data(paged) + 16, code(paged) + len(PROGRAMS[family].code(family)) + 4):
        twins.write(PROGRAMS[family].pointer, place)
        on(twins, runs=4)


@every
def test_states_are_loaded_at_any_position(make: Make, family: str, paged: bool) -> None:
    twins = running(make, family, paged)
    chosen = random.Random(family)
    kept = []
    for _ in range(12):
        if len(kept) < 5:
            memory = twins.slow.engine.read_memory(data(paged) + 16, 4)
            kept.append([(bench.engine.save(), memory) for bench in (twins.inlined, twins.slow)])
        on(twins, runs=1, seed=chosen.randrange(100))
        for bench, (state, memory) in zip((twins.inlined, twins.slow), chosen.choice(kept), strict=True):
            bench.engine.write_memory(data(paged) + 16, memory)
            bench.engine.load(state, own=chosen is not None)
        twins.compare()
        on(twins, runs=2, seed=chosen.randrange(100))


@every
def test_blocks_that_cross_a_page(make: Make, family: str, paged: bool) -> None:
    places = PROGRAMS[family].places(family)
    for offset in (PAGE - 8, PAGE - places[0], PAGE - places[1] - 4):
        on(running(make, family, paged, offset=offset & -4), runs=5)


UNDEFINED = {
    **dict.fromkeys(RISCV, (".word 0xffffffff", ".hword 0", ".word 0x0b")),
    "aarch64": (".word 0", ".word 0xffffffff", ".word 0xd5385ba0"),
    "arm": (".word 0xe7f000f0",),
    "thumb": (".hword 0xde00", ".word 0xa000f7f0"),
    **dict.fromkeys(X86, ("ud2", ".byte 0x0f, 0xff")),
}
STRANGE = [(family, paged, undefined) for family, paged in EVERY for undefined in UNDEFINED[family]]


@pytest.mark.parametrize(("family", "paged", "undefined"), STRANGE)
def test_what_cannot_be_decoded_behind_a_hot_block(make: Make, family: str, paged: bool, undefined: str) -> None:
    program = PROGRAMS[family]
    skip = {
        **dict.fromkeys(RISCV, "bnez a2, 4f\naddi a4, a4, 1\n"),
        "aarch64": "cbnz w2, 4f\nadd w4, w4, #1\n",
        "arm": "tst r1, #12\nbne 4f\nadd r4, r4, #1\n",
        "thumb": "tst.w r1, #12\nbne.w 4f\nadd.w r4, r4, #1\n",
    }.get(family, "test ebx, 12\njnz 4f\nadd edx, 1\n")
    source = program.source.replace("2: ", f"2: {skip}{undefined}\n4: ", 1)
    twins = make(family, source.format(p=program.pointer, patch=program.patches[0]), paged=paged)
    twins.write(program.pointer, data(paged))
    size = len(assemble(family, undefined))
    found = 0
    while twins.slow.engine.icount < 6_000:
        if twins.run(twins.slow.engine.icount + 700).kind is ExitKind.EXCEPTION:
            found += 1
            twins.write(twins.slow.engine.arch.pc, twins.slow.pc + size)
    assert found > 50


ZERO = "1: add w1, w1, #1\ndc zva, x0\nadd w2, w2, w1\nadd w3, w3, #3\n{patch}\nb 1b\n.balign 64\nnop\nnop"


@pytest.mark.parametrize("paged", [False, True])
def test_zeroing_by_blocks(make: Make, paged: bool) -> None:
    """Of data, of a device, of code that runs later, and of the code that does it."""
    twins = make("aarch64", ZERO.format(patch="nop"), paged=paged)
    twins.write("x0", data(paged) + 64)
    twins.run(3_000)
    for place in (device(paged), data(paged) + 256, code(paged) + 64, data(paged)):
        twins.write("x0", place)
        on(twins, runs=3)
    twins.write("x0", code(paged))
    assert twins.run(twins.slow.engine.icount + 1_000).kind is ExitKind.EXCEPTION


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("store", ["stxp w7, x5, x6, [x0]", "stp x5, x6, [x0]", "stp q0, q1, [x0]"])
def test_stores_in_several_pieces(make: Make, paged: bool, store: str) -> None:
    load = "ldxp x5, x6, [x0]\nadd x5, x5, #1\n" if "stxp" in store else ""
    twins = make("aarch64", f"1: add w1, w1, #1\n{load}{store}\nadd w9, w9, w7\nadd w10, w10, #3\nb 1b", paged=paged)
    twins.write("x0", data(paged) + 64)
    twins.run(3_000)
    for place in (device(paged), data(paged) + 256, code(paged) + 64, data(paged) + 128):
        twins.write("x0", place)
        on(twins, runs=3)
    if paged and "xp" not in store:
        twins.write("x0", tw.DEVICE_AT - 8)  # into nothing, then into the device
        twins.run(twins.slow.engine.icount + 100)
        twins.write("x0", tw.DEVICE_AT + PAGE - 8)
        assert twins.run(twins.slow.engine.icount + 100).kind is ExitKind.EXCEPTION


# a hot loop that masks and unmasks
MASKS = {
    **dict.fromkeys(
        RISCV,
        "li a2, 2\n1: csrc sstatus, a2\naddi a1, a1, 1\nj 2f\n2: addi a3, a3, 1\nj 3f\n3: csrs sstatus, a2\n"
        "addi a4, a4, 1\nj 1b",
    ),
    "aarch64": "1: msr daifset, #2\nadd x1, x1, #1\nb 2f\n2: add x3, x3, #1\nb 3f\n3: add x5, x5, #1\n"
    "msr daifclr, #2\nadd x4, x4, #1\nb 1b",
    **dict.fromkeys(
        ARM,
        "1: cpsid i\nadd.w r1, r1, #1\nb.w 2f\n2: add.w r3, r3, #1\nb.w 3f\n3: add.w r5, r5, #1\n"
        "cpsie i\nadd.w r4, r4, #1\nb.w 1b",
    ),
}
MASKED = [(family, paged) for family, paged in EVERY if family in MASKS]


@pytest.mark.parametrize(("family", "paged"), MASKED, ids=[f"{f}{'-paged' * p}" for f, p in MASKED])
def test_an_interrupt_that_waits_is_told_of_the_first_unmasking(make: Make, family: str, paged: bool) -> None:
    source = MASKS[family].replace(".w", "") if family == "arm" else MASKS[family]
    twins = make(family, source, paged=paged)
    raised = 1
    if family in RISCV:
        raised = 1 << SEIP
        for bench in (twins.inlined, twins.slow):
            for name, value in (("mie", raised), ("mideleg", raised), ("priv", SUPERVISOR)):
                bench.engine.write(name, value)
    twins.run(3_000)
    assert not INLINES or twins.sites
    told = 0
    for turn in range(24):
        twins.run(twins.slow.engine.icount + turn % 11 + 1_000 * (turn % 3))
        while family in RISCV and twins.slow.engine.read("sstatus") & 2:
            # There is nothing to wait for.
            twins.run(twins.slow.engine.icount + 1)
        for bench in (twins.inlined, twins.slow):
            bench.engine.await_unmasked(raised)
        exit_ = twins.run(twins.slow.engine.icount + 1_500)
        told += exit_.kind is ExitKind.UNMASKED
        for bench in (twins.inlined, twins.slow):
            bench.engine.await_unmasked(0)
    assert told == 24


class _Clock:
    """A host whose virtual time is that of one engine; the counters of the other are read by Python."""

    def __init__(self, bench: Bench, shift: int, native: Callable[[Cpu], bool] = lambda _cpu: False) -> None:
        """``native``: whether reads of the counters need no Python."""
        self.bench, self.shift, self.slept, self.native = bench, shift, 0, native

    def virtual_ns(self) -> int:
        return (self.bench.engine.icount << self.shift) + self.slept

    def run(self, icount: int, *, native: bool) -> Iterator[object]:
        """What came up on the way."""
        engine = self.bench.engine
        while True:
            if native:
                engine.keep_time(self.shift, self.slept)
            exit_ = self.bench.run(icount)
            if exit_.kind is ExitKind.LIMIT:
                return
            assert exit_.kind is ExitKind.TRAP
            if exit_.trap is Trap.HALT:
                self.slept += 123_457
                engine.write("pc", engine.pc + len(exit_.code))
                yield engine.icount, "halt"
            elif engine.arch.executes is not None and not engine.arch.executes(engine, exit_.code):
                engine.arch.step_over(engine, len(exit_.code))
                yield engine.icount, "passed over"
            else:
                assert exit_.trap is not None
                assert not native or not self.native(engine)
                try:
                    engine.arch.emulate(engine, exit_.trap, exit_.code, self)  # type: ignore[arg-type]
                except IllegalInstruction:
                    yield engine.icount, "illegal"
                    engine.write("pc", engine.pc + 4)
            engine.count_one()


def _read_alike(twins: Twins, inlined: _Clock, slow: _Clock) -> None:
    for length in (1, 2, 3, 300, 5, 1_001, 4_000):
        end = twins.slow.engine.icount + length
        assert list(inlined.run(end, native=True)) == list(slow.run(end, native=False))
        twins.compare()


def _at_el1(cpu: Cpu) -> bool:
    return bool(cpu.read("cpsr") & 12)


COUNTERS = (
    "1: mrs x1, cntvct_el0\nmrs x2, cntpct_el0\nadd x3, x3, x1\nmrs xzr, cntvct_el0\nmrs x30, cntvct_el0\n"
    "eor x3, x3, x30\nmrs x28, cntpct_el0\nadd x4, x4, #1\ntst x4, #63\nb.ne 1b\n{sleep}\nb 1b"
)


@pytest.mark.parametrize(
    ("el1", "enabled", "paged"),
    [(True, 0, False), (True, 3, False), (True, 0, True), (False, 0, False), (False, 2, False), (False, 3, False)],
)
def test_counters_are_those_that_python_reads(make: Make, el1: bool, enabled: int, paged: bool) -> None:
    twins = make("aarch64", COUNTERS.format(sleep="wfi" if el1 else "nop"), paged=paged)
    twins.write("cntkctl_el1", enabled)
    if not el1:
        twins.write("cpsr", 0)
    for shift in (0, 3):
        _read_alike(twins, _Clock(twins.inlined, shift, _at_el1), _Clock(twins.slow, shift))


COUNTS = (
    "1: mrrc p15, 1, r1, r2, c14\nmrrc p15, 0, r2, lr, c14\nadd r3, r3, r1\nadd r3, r3, r2\ncmp r3, #0\n{it}"
    "mrrcmi p15, 1, r1, r2, c14\neor r3, r3, lr\nmrrc p15, 1, r8, r9, c14\nadd r3, r3, r8\nadd r4, r4, #1\n"
    "tst r4, #63\nbne 1b\n{sleep}\nb 1b"
)


@pytest.mark.parametrize("family", ARM)
@pytest.mark.parametrize(
    ("mode", "enabled", "paged"),
    [(0x13, 0, False), (0x1F, 3, False), (0x13, 0, True), (0x10, 0, True), (0x10, 2, False), (0x10, 3, True)],
)
def test_arm_counts_are_those_that_python_reads(make: Make, family: str, mode: int, enabled: int, paged: bool) -> None:
    """But conditional ones, and those of user mode."""
    source = COUNTS.format(it="" if family == "arm" else "it mi\n", sleep="nop" if mode == 0x10 else "wfi")
    twins = make(family, source, paged=paged)
    twins.write("cntkctl", enabled)
    twins.write("cpsr", twins.slow.engine.read("cpsr") & ~31 | mode)

    def native(cpu: Cpu) -> bool:
        conditional = cpu.read("cpsr") & 0x0600FC00 if family == "thumb" else cpu.read_memory(cpu.pc, 4)[3] >> 4 != 14
        return mode != 0x10 and not conditional

    for shift in (0, 3):
        _read_alike(twins, _Clock(twins.inlined, shift, native), _Clock(twins.slow, shift))


TIME = (
    "1: rdtime a1\n{more}\nadd a3, a3, a1\nrdtime zero\nrdtime ra\nxor a3, a3, ra\nrdtime t6\naddi a4, a4, 1\n"
    "csrrs a5, time, zero\ncsrrc a6, time, zero\nandi a2, a4, 63\nbnez a2, 1b\n{sleep}\nj 1b"
)


@pytest.mark.parametrize("family", RISCV)
@pytest.mark.parametrize(
    ("level", "enabled", "paged"),
    [(3, 0, False), (3, 2, False), (1, 2, True), (1, 0, True), (1, 5, True), (0, 7, False)],
)
def test_the_time_is_that_which_python_reads(make: Make, family: str, level: int, enabled: int, paged: bool) -> None:
    more = "rdtimeh a7\nadd a3, a3, a7" if family == "riscv32" else "nop"
    twins = make(family, TIME.format(more=more, sleep="wfi" if level == 3 else "nop"), paged=paged)
    twins.write("mcounteren", enabled)
    if level == 0:
        twins.write("priv", 0)

    def native(cpu: Cpu) -> bool:
        """But of the form that clears."""
        return (level == 3 or (level == 1 and enabled & 2 > 0)) and cpu.read_memory(cpu.pc, 2)[1] & 0x30 != 0x30

    for shift, ahead in ((0, 0), (3, 12_345), (20, (1 << 64) - 7)):
        twins.write("time_ahead", ahead)
        _read_alike(twins, _Clock(twins.inlined, shift, native), _Clock(twins.slow, shift))


def test_a_breakpoint_at_a_counter_and_behind_it(make: Make) -> None:
    twins = make("aarch64", COUNTERS.format(sleep="nop"))
    for place in (CODE, CODE + 4, CODE + 8):
        stopped = []
        for bench, native in ((twins.inlined, True), (twins.slow, False)):
            engine, clock = bench.engine, _Clock(bench, 1)
            engine.arm(Stops(((place, None),)), engine.icount)
            if native:
                engine.keep_time(1, 0)
            seen: list[int] = []
            while len(seen) < 20:
                exit_ = bench.run(1 << 40)
                if exit_.kind is ExitKind.BREAKPOINT:
                    seen.append(engine.icount)
                    engine.arm(engine.stops, engine.icount)
                else:
                    assert exit_.trap is Trap.COUNTER
                    engine.arch.emulate(engine, exit_.trap, exit_.code, clock)  # type: ignore[arg-type]
                    engine.count_one()
            engine.arm(NO_STOPS)
            stopped.append(seen)
        assert stopped[0] == stopped[1]
        twins.compare()


def _many_blocks(family: str) -> bytes:
    """Short blocks, one behind the other, more than fit into a small buffer, and back to the first."""
    jump = {**dict.fromkeys(RISCV, "j"), "i386": "jmp", "x86_64": "jmp"}.get(family, "b")
    add = PROGRAMS[family].patches[0]
    skip = f"{jump} 9f\n{add}\n9:\n"
    far = {**dict.fromkeys(RISCV, "la t0, 1b\njr t0"), "thumb": "b.w 1b"}.get(family, f"{jump} 1b")
    blocks = "".join(f"{add}\n{skip}" if n % 3 else f"{add}\n{add}\n{skip}" for n in range(3_500))
    return assemble(family, (".option norvc\n" if family in RISCV else "") + f"1:\n{blocks}{far}")


@every
def test_code_that_does_not_fit_the_buffer(
    make: Make, monkeypatch: pytest.MonkeyPatch, family: str, paged: bool
) -> None:
    """Unicorn drops all of it, and puts other code there, or the same again."""
    monkeypatch.setattr(engine_module, "TRANSLATED_BYTES", 1 << 20)
    twins = make(family, "nop", paged=paged)
    many = _many_blocks(family)
    twins.write_memory(tw.MANY if paged else tw.MORE, many)
    twins.write(twins.slow.engine.arch.pc, tw.MANY if paged else tw.MORE)
    if family == "thumb":
        twins.write("cpsr", twins.slow.engine.read("cpsr") | 32)
    for length in (30_000, 1_000, 5_003, 12_001, 20_000):
        twins.run(twins.slow.engine.icount + length)
    twins.write_memory((tw.MANY if paged else tw.MORE) + 64, many[64:68])
    for length in (20_000, 12_001):
        twins.run(twins.slow.engine.icount + length)


@every
def test_two_engines_by_turns_and_one_that_is_dropped(make: Make, family: str, paged: bool) -> None:
    first = running(make, family, paged)
    second = running(make, "x86_64" if family == "riscv64" else "riscv64", False)
    third = running(make, family, paged)
    for turn in range(3):
        for twins in (first, second, third):
            on(twins, runs=2, seed=turn)
    del third, twins
    gc.collect()
    fourth = running(make, family, paged)
    for twins in (first, fourth, second):
        on(twins, runs=2)


def test_an_engine_that_runs_within_a_device_of_another(make: Make) -> None:
    inner = running(make, "aarch64", True)
    outer = running(make, "riscv64", True)
    for bench, within in ((outer.inlined, inner.inlined), (outer.slow, inner.slow)):
        bench.on_access = lambda bench=within: bench.run(bench.engine.icount + 400)  # type: ignore[misc]
    outer.write("a0", tw.DEVICE_AT)
    on(outer, runs=3)
    outer.write("a0", tw.DATA_AT)
    on(outer, runs=3)
    inner.compare()
    assert outer.slow.accesses


@pytest.mark.parametrize("family", ["aarch64", "arm", "riscv64"])
def test_watches_from_before_addresses_were_translated(make: Make, family: str) -> None:
    """Their guards are taken away when they are of no use any more, which Unicorn must be able to do."""
    twins = make(family, PROGRAMS[family].code(family))
    twins.write(PROGRAMS[family].pointer, DATA)
    twins.arm(Stops(watches=(Watch(DATA + 64, 4, "w"),)))
    twins.run(2_000)
    for bench in (twins.inlined, twins.slow):
        tables = bench.engine
        if family == "riscv64":
            tw._map_riscv64(bench, [tw.VIRTUAL])  # not for machine mode
        elif family == "aarch64":
            tables.write_memory(tw.TABLES, (0x701).to_bytes(8, "little"))
            tables.write("tcr_el1", 0x803519)
            tables.write("mair_el1", 0xFF)
            tables.write("ttbr0_el1", tw.TABLES)
            tables.write("sctlr_el1", tables.read("sctlr_el1") | 1)
        else:
            tables.write_memory(tw.TABLES, (0xC02).to_bytes(4, "little"))
            tables.write("ttbr0", tw.TABLES)
            tables.write("dacr", 3)
            tables.write("sctlr", tables.read("sctlr") | 1)
    twins.to(twins.slow.engine.icount + 10_000)
    twins.arm(NO_STOPS)
    assert twins.inlined.run(1_200_000).kind is ExitKind.LIMIT  # long enough for guards to be taken away
    assert twins.slow.run(1_200_000).kind is ExitKind.LIMIT
    twins.compare()


class _Storm:
    """Everything at once, as chance has it."""

    def __init__(self, twins: Twins, family: str, paged: bool, seed: int) -> None:
        self.twins, self.family, self.paged = twins, family, paged
        self.program, self.chosen = PROGRAMS[family], random.Random(seed)
        self.kept: list[list[tuple[bytes, bytes, bytes]]] = []

    def _places(self) -> list[int]:
        base, size = code(self.paged), len(self.program.code(self.family))
        aliases = [tw.ALIAS] if self.paged else []
        near = [at + place for at in (base, *aliases) for place in self.program.places(self.family)]
        return [*near, base + size + 4, base + 0x800, device(self.paged) + 8, *[data(self.paged) + 16] * 5]

    def _memory(self) -> tuple[bytes, bytes]:
        engine = self.twins.slow.engine
        return engine.read_memory(data(self.paged), 128), engine.read_memory(code(self.paged), PAGE)

    def act(self) -> None:
        twins, chosen, program = self.twins, self.chosen, self.program
        own, other = (code(self.paged) + at for at in program.places(self.family))
        what = chosen.randrange(9)
        if what < 2:
            twins.write(program.pointer, chosen.choice(self._places()))
        elif what == 2:
            twins.write(program.value, program.word(self.family, chosen.randrange(2)))
        elif what == 3:
            condition = (bytes.fromhex("26000322030f22011327"),)
            points = {(chosen.choice((own, other, other + 4)), chosen.choice((None, (), condition)))}
            watches = {Watch(data(self.paged) + chosen.choice((16, 40)), 4, chosen.choice("wra"))}
            twins.arm(
                Stops(
                    tuple(points if chosen.random() < 0.4 else ()),
                    tuple(watches if chosen.random() < 0.3 else ()),
                    collect=chosen.random() < 0.7,
                )
            )
        elif what == 4:
            word = program.word(self.family, chosen.randrange(2)).to_bytes(4, "little")
            twins.write_memory(chosen.choice((own, other)), word)
        elif what == 5:
            saved = [(bench.engine.save(), *self._memory()) for bench in (twins.inlined, twins.slow)]
            self.kept.append(saved)
        elif what == 6 and self.kept:
            for bench, (state, memory, there) in zip(
                (twins.inlined, twins.slow), chosen.choice(self.kept), strict=True
            ):
                bench.engine.write_memory(data(self.paged), memory)
                bench.engine.write_memory(code(self.paged), there)
                bench.engine.load(state)
        elif what == 7:
            twins.inlined.engine.forget_footprint()
            pc = twins.slow.pc
            twins.run(twins.slow.engine.icount + chosen.choice((1, 600)))
            found = twins.inlined.engine.take_footprint()
            assert found is not None
            assert _inside(found.code, pc)
        else:
            twins.arm(NO_STOPS)

    def run(self, turns: int) -> None:
        twins = self.twins
        for _ in range(turns):
            self.act()
            end = twins.slow.engine.icount + self.chosen.randrange(1, self.chosen.choice((3, 300, 1_500, 6_000)))
            while twins.slow.engine.icount < end:
                exit_ = twins.run(end)
                if exit_.kind is ExitKind.EXCEPTION:
                    return
                for bench in (twins.inlined, twins.slow):
                    bench.engine.arm(bench.engine.stops, bench.engine.icount)


@every
def test_everything_at_once(make: Make, family: str, paged: bool) -> None:
    for seed in range(3):
        _Storm(running(make, family, paged), family, paged, seed).run(40)


@pytest.mark.slow
@every
def test_much_more_at_once(make: Make, family: str, paged: bool) -> None:
    for seed in range(100, 140):
        gc.collect()
        _Storm(running(make, family, paged), family, paged, seed).run(150)


def test_a_counter_before_memory_that_is_not_there(make: Make) -> None:
    """The limit behind it comes first."""
    end = DATA + DATA_SIZE
    twins = make("aarch64", "nop")
    twins.write_memory(end - 8, assemble("aarch64", "nop\nmrs x1, cntvct_el0"))
    clocks = _Clock(twins.inlined, 4), _Clock(twins.slow, 4)
    for length in (1, 2, 2):
        twins.write("pc", end - 8)
        first = twins.slow.engine.icount
        for clock, native in zip(clocks, (True, False), strict=True):
            assert list(clock.run(first + length, native=native)) == []
        twins.compare()
    assert twins.run(1 << 40).kind is ExitKind.EXCEPTION


@pytest.mark.skipif(not INLINES, reason="the code of this host is not counted inside")
def test_a_guest_with_much_memory_is_counted_inside_too() -> None:
    """Its RAM is mapped first, as it is when a guest is opened; in a process of its own, where nothing else is."""
    script = (
        "from rrgdb_tests.engine.unicorn import rig\n"
        "ram = rig.Ram(3 << 30)\n"
        "bench = rig.Bench.with_code('aarch64', '1: add x0, x0, #1\\nb 1b', ram=ram)\n"
        "bench.run(10_000)\n"
        "print(bench.engine._core.inlined)"
    )
    environment = os.environ | {"RRGDB_INLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) > 0
