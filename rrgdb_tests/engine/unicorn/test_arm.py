"""Thumb's IT blocks, instruction by instruction, and conditions of instructions that are performed by the board."""

from __future__ import annotations

import pytest

from rrgdb.arch.base import ExceptionKind, Trap
from rrgdb.engine.base import Exit, ExitKind, Stops, Watch
from rrgdb_tests.board.test_machine import raw
from rrgdb_tests.engine.unicorn.rig import CODE, DATA, DEVICE, HOLE, Bench, pass_by

# Z is set: of the block's four, the second and the third execute.
BLOCK = "movs r0, #0\nitett ne\naddne r0, #1\nstreq r2, [r1]\naddne r0, #4\nstrne r2, [r1, #4]\nnop\nnop"
ADDRESSES = [CODE + 2 * n for n in range(8)]


def bench(source: str = BLOCK, pointer: int = DATA) -> Bench:
    b = Bench.with_code("thumb", source)
    b.engine.write("r1", pointer)
    b.engine.write("r2", 0x1234)
    b.engine.write_memory(DATA, bytes(16))
    return b


def test_every_instruction_of_an_it_block_is_a_position() -> None:
    whole = bench()
    whole.run(8)
    states = set()
    for limit in range(1, 9):
        straight, stepped = bench(), bench()
        assert straight.run(limit).kind is ExitKind.LIMIT
        for icount in range(1, limit + 1):
            stepped.run(icount)
        assert (straight.engine.icount, straight.pc) == (limit, CODE + 2 * limit)
        assert straight.state() == stepped.state()
        states.add(straight.state())
        straight.run(8)
        assert straight.state() == whole.state()
    assert len(states) == 8


def test_a_state_saved_inside_an_it_block_goes_on() -> None:
    whole = bench()
    whole.run(8)
    for limit in range(1, 8):
        b, fresh = bench(), bench()
        b.run(limit)
        fresh.engine.write_memory(DATA, b.engine.read_memory(DATA, 16))
        fresh.engine.load(b.engine.save())
        fresh.run(8)
        assert fresh.state() == whole.state()


def test_breakpoints_stop_at_instructions_that_are_passed_over() -> None:
    b = bench()
    b.engine.arm(Stops(tuple((at, None) for at in ADDRESSES)))
    seen = []
    while True:
        pass_by(b.engine)
        if b.run(8).kind is not ExitKind.BREAKPOINT:
            break
        seen.append(b.pc)
    assert seen == ADDRESSES[1:]
    b = bench()
    b.engine.arm(Stops(((ADDRESSES[2], None),), collect=True))
    b.run(8)
    assert b.engine.collected().breakpoint == 2


def test_a_watch_hit_inside_an_it_block_stands_behind_its_store() -> None:
    b = bench()
    b.engine.arm(Stops(watches=(Watch(DATA, 4, "w"),)))
    exit_ = b.run(8)
    assert (exit_.kind, b.engine.icount, b.pc) == (ExitKind.WATCHPOINT, 4, ADDRESSES[4])
    assert b.run(8).kind is ExitKind.LIMIT
    b = bench()
    b.engine.arm(Stops(watches=(Watch(DATA, 4, "w"),), collect=True))
    b.run(8)
    assert b.engine.collected().watch == 4


@pytest.mark.parametrize("access", ["str", "ldr"])
def test_a_fault_inside_an_it_block_stands_at_its_instruction(access: str) -> None:
    b = bench(f"movs r0, #0\nittt eq\naddeq r0, #1\n{access}eq r2, [r1]\naddeq r0, #4\nnop", HOLE)
    b.run(3)
    before = b.state()
    for _ in range(2):
        exception = b.to_exception()
        kind = ExceptionKind.WRITE_FAULT if access == "str" else ExceptionKind.READ_FAULT
        assert (exception.kind, exception.pc, exception.address) == (kind, ADDRESSES[3], HOLE)
        assert (b.engine.icount, b.engine.read("r0")) == (3, 1)
        assert b.state() == before


def test_a_device_stops_the_run_inside_an_it_block() -> None:
    b = bench(pointer=DEVICE)
    b.on_access = lambda: b.engine.limit(b.engine.icount)
    assert b.run(100).kind is ExitKind.LIMIT
    assert (b.engine.icount, b.pc, len(b.accesses)) == (4, ADDRESSES[4], 1)


def test_arm_code_behind_a_thumb_block_that_ends_inside_an_it_block_stops_where_it_should() -> None:
    source = (
        ".arm\nadr r9, 1f + 1\nblx r9\nadd r3, r3, #1\nadd r3, r3, #1\nadd r3, r3, #1\nb .\n"
        ".thumb\n1: tst r9, r9\nit ne\nbxne lr\nnop"
    )
    b = Bench.with_code("arm", source)
    for limit in range(1, 8):
        assert b.run(limit).kind is ExitKind.LIMIT
        assert b.engine.icount == limit
    assert b.engine.read("r3") == 2


def _trap(family: str, source: str) -> Exit:
    return Bench.with_code(family, source).run(10)


@pytest.mark.parametrize(
    ("family", "source", "trap"),
    [
        ("arm", "wfe", Trap.HALT),
        ("thumb", "wfe.w", Trap.HALT),
        ("arm", "yield", Trap.HALT),
        ("thumb", "yield", Trap.HALT),
        ("arm", "svc #0x123456", Trap.SEMIHOST),
        ("arm", ".word 0xe10f0070", Trap.SEMIHOST),
        ("thumb", "svc #0xab", Trap.SEMIHOST),
        ("thumb", ".short 0xbabc", Trap.SEMIHOST),
        ("arm", "hvc #3", Trap.HYPERCALL),
        ("thumb", "hvc #3", Trap.HYPERCALL),
        ("arm", "smc #3", Trap.HYPERCALL),
        ("thumb", "smc #3", Trap.HYPERCALL),
    ],
)
def test_traps_of_both_sets(family: str, source: str, trap: Trap) -> None:
    exit_ = _trap(family, source)
    assert (exit_.kind, exit_.trap) == (ExitKind.TRAP, trap)


@pytest.mark.parametrize(("flags", "expected"), [(0x40000000, 0), (0, 77)])
def test_a_trapped_instruction_whose_condition_fails_does_nothing(flags: int, expected: int) -> None:
    guest = raw("arm", "mov r5, #77\nmrceq p15, 0, r5, c14, c3, 1\nwfene\nnop\nnop")
    guest.engine.write("cpsr", 0x1D3 | flags)
    guest.run_until(4)
    assert guest.engine.icount == 4
    assert guest.engine.read("r5") == expected


def test_a_trapped_instruction_moves_the_it_block_on() -> None:
    b = Bench.with_code("thumb", "movs r0, #0\nite eq\nmrceq p15, 0, r5, c14, c3, 1\naddne r0, #1\nnop")
    exit_ = b.run(10)
    assert (exit_.trap, b.engine.icount) == (Trap.COUNTER, 2)
    b.engine.arch.step_over(b.engine, 4)
    b.engine.count_one()
    assert b.run(5).kind is ExitKind.LIMIT
    assert (b.engine.read("r0"), b.engine.read("cpsr") & 0x0600FC00) == (0, 0)


def test_registers_of_other_modes_are_part_of_the_digest() -> None:
    digests = []
    for value in (1, 2):
        b = Bench.with_code("arm", "nop")
        b.engine.write("cpsr", 0x1D7)  # abort mode
        b.engine.write("lr", value)
        b.engine.write("cpsr", 0x1D3)
        digests.append(b.engine.registers_digest())
    assert digests[0] != digests[1]
