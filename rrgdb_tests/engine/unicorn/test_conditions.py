"""Conditions judged in the hooks agree with the evaluator of agent expressions, which is the specification."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrgdb.agent.bytecode import AgentError
from rrgdb.agent.evaluate import _decode, judge
from rrgdb.board.machine import Board
from rrgdb.engine.base import Collected, ExitKind, Stops, armed
from rrgdb.engine.unicorn.engine import _hot
from rrgdb_tests.agent.test_evaluate import MASK, MEMORY, NUMBERS, OPERATIONS, assemble
from rrgdb_tests.engine.unicorn.rig import CODE, DATA, DATA_SIZE, DEVICE, FAMILIES, Bench, Saved, board_with, pass_by
from rrgdb_tests.guests import AWKWARD, build

NAMES = {number: name for name, number in NUMBERS.items()}
UNREADABLE = {
    "x86_64": "eflags",
    "i386": "eflags",
    "arm": "cpsr",
    "thumb": "cpsr",
    "riscv64": "fcsr",
    "riscv32": "fcsr",
}
"""a register that hooks do not read"""


def native(bench: Bench, codes: Sequence[bytes]) -> bool | None:
    """What the hook of an instruction at CODE says of conditions; None: the caller is to judge."""
    core = bench.engine._core
    core.limit = 1 << 40
    with armed(bench.engine, Stops(((CODE, tuple(codes)),), collect=True)):
        if core.arrive(CODE) == _hot.BREAKPOINT:
            return None
        return bench.engine.collected().breakpoint is not None


class Spec:
    """The specification on the same machine; ``beyond``: it read what a hook does not."""

    def __init__(self, bench: Bench) -> None:
        self.engine = bench.engine
        self.readable = [number != _hot.REGISTER_ASK for number, _ in bench.engine._registers.in_hooks()]
        self.beyond = False

    def register(self, number: int) -> int:
        registers = self.engine.arch.registers
        if number >= len(registers) or not self.readable[number]:
            self.beyond = True
        if number >= len(registers):
            raise AgentError("no such register")
        return self.engine.read(registers[number].name)

    def memory(self, address: int, length: int) -> bytes:
        self.beyond |= not any(
            r.base <= address and address + length <= r.base + r.size for r in self.engine.ram.regions
        )
        return self.engine.read_memory(address, length)

    def judge(self, code: bytes) -> tuple[bool, bool]:
        """(whether the condition holds, whether a hook may leave it open)"""
        self.beyond = False
        holds, _ = judge([code], self.register, self.memory)
        try:
            _decode(code)
        except AgentError:
            return holds, True
        named = {step.operand for step in _split(code) if step.name == "reg"}
        return holds, self.beyond or any(n >= len(self.readable) or not self.readable[n] for n in named)


@dataclass(frozen=True)
class Step:
    name: str
    operand: int


def _split(code: bytes) -> list[Step]:
    sizes = {"const8": 1, "const16": 2, "const32": 4, "const64": 8, "reg": 2, "goto": 2, "if_goto": 2}
    names = NAMES | {0x22: "const8", 0x23: "const16", 0x24: "const32", 0x25: "const64"}
    steps, at = [], 0
    while at < len(code):
        name = names[code[at]]
        size = sizes.get(name, int(name in ("ext", "zero_ext", "pick")))
        steps.append(Step(name, int.from_bytes(code[at + 1 : at + 1 + size], "big")))
        at += 1 + size
    return steps


BENCHES = {family: Bench.with_code(family, "nop\n" * 8) for family in ("riscv64", "x86_64", "i386", "thumb")}


def compare(family: str, codes: Sequence[bytes]) -> bool | None:
    """The native answer; it is the specified one, or open for a reason."""
    bench = BENCHES[family]
    spec = Spec(bench)
    judged = [spec.judge(code) for code in codes]
    answer = native(bench, codes)
    if answer is None:
        assert any(may_be_open for _, may_be_open in judged), codes
    else:
        assert answer == any(holds for holds, _ in judged), codes
    return answer


_EDGES = [
    0,
    1,
    2,
    7,
    8,
    31,
    32,
    63,
    64,
    65,
    200,
    255,
    0x8000,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 63,
    (1 << 64) - 1,
]
_ADDRESSES = [
    CODE,
    CODE + DATA_SIZE - 8,
    *range(DATA + DATA_SIZE - 9, DATA + DATA_SIZE + 2),
    DATA - 1,
    DATA,
    DEVICE,
    (1 << 64) - 4,
]
_NUMBERS = st.sampled_from(_EDGES) | st.sampled_from(_ADDRESSES) | st.integers(0, (1 << 64) - 1)
_PLAIN = [name for name in NUMBERS if name not in ("ext", "zero_ext", "pick", "reg", "goto", "if_goto", "end")]
_OPERAND = {
    "ext": st.integers(1, 64),
    "zero_ext": st.integers(1, 64),
    "pick": st.integers(0, 5),
    "reg": st.integers(0, 90),
}
_STEPS = (
    st.builds(Step, st.just("const"), _NUMBERS)
    | st.sampled_from([Step(name, 0) for name in _PLAIN])
    | st.one_of(*(st.builds(Step, st.just(name), operand) for name, operand in _OPERAND.items()))
    | st.builds(Step, st.sampled_from(["goto", "if_goto"]), st.integers(0, 60))
)


def encode(steps: list[Step]) -> bytes:
    """Jumps go to the step of that number, round and round."""
    sizes = {"const": 9, "goto": 3, "if_goto": 3, "reg": 3, "ext": 2, "zero_ext": 2, "pick": 2}
    offsets = [0]
    for step in steps:
        offsets.append(offsets[-1] + sizes.get(step.name, 1))
    words = []
    for name, operand in ((s.name, s.operand) for s in steps):
        if name == "const":
            words.append(f"{operand}")
        elif name in ("goto", "if_goto"):
            words.append(f"{name}:{offsets[operand % len(steps)]}")
        else:
            words.append(f"{name}:{operand}" if name in _OPERAND else name)
    return assemble(" ".join(words))


EXPRESSIONS = st.lists(_STEPS, max_size=25).map(
    lambda steps: encode([*(Step("const", n) for n in (DATA + 8, 3, 5, 9)), *steps, Step("end", 0)])
)


ANY_BYTES = st.binary(max_size=40) | st.lists(st.sampled_from(list(range(0x36))), max_size=40).map(bytes)


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(sorted(BENCHES)), st.lists(EXPRESSIONS, min_size=1, max_size=3))
def test_programs_come_to_the_same(family: str, codes: list[bytes]) -> None:
    compare(family, codes)


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None)
@given(st.sampled_from(sorted(BENCHES)), st.lists(EXPRESSIONS, min_size=1, max_size=3))
def test_many_more_programs_come_to_the_same(family: str, codes: list[bytes]) -> None:
    compare(family, codes)


@settings(deadline=None)
@given(ANY_BYTES)
def test_any_bytes_come_to_the_same(code: bytes) -> None:
    compare("riscv64", [code])


@pytest.mark.parametrize(("text", "expected"), OPERATIONS)
def test_operations(text: str, expected: int) -> None:
    bench = BENCHES["riscv64"]
    bench.engine.write_memory(DATA, MEMORY)
    for n in range(1, 4):
        bench.engine.write(bench.engine.arch.registers[n].name, 100 * n)
    text = " ".join(f"{DATA} {word} " if word.startswith("ref") else word for word in text.split())
    text = text.replace(f" {DATA} ref", f" {DATA} add ref")
    assert native(bench, [assemble(f"{text} {expected} equal end")]) is True
    assert native(bench, [assemble(f"{text} {expected} equal log_not end")]) is False


@pytest.mark.parametrize(
    "text",
    [
        "1 0 div_signed",
        "1 0 div_unsigned",
        "1 0 rem_signed",
        "1 0 rem_unsigned",
        "0 add",
        "0 pick:1",
        "0 goto:9 end",
        "0 dup goto:9 end",
        " ".join(["0"] * 101),
    ],
)
def test_what_fails_counts_as_true(text: str) -> None:
    """Among it an endless loop, and one that fills the stack."""
    assert compare("riscv64", [assemble(f"{text} end")]) is True
    assert compare("riscv64", [assemble("0 end"), assemble(f"{text} end")]) is True


def test_a_hundred_values_fit_on_the_stack_and_ten_thousand_steps_into_a_run() -> None:
    assert compare("riscv64", [assemble(" ".join(["0"] * 100) + " end")]) is False
    for steps, fails in ((10_000, False), (10_001, True)):
        turns, more = divmod(steps - 2, 4)
        assert compare("riscv64", [assemble(f"{turns} 1 sub dup if_goto:9 {'dup ' * more}end")]) is fails


@pytest.mark.parametrize("family", UNREADABLE)
def test_registers_that_hooks_do_not_read_are_left_to_the_caller(family: str) -> None:
    bench = Bench.with_code(family, "nop")
    number = bench.engine.arch.register_index[UNREADABLE[family]]
    assert native(bench, [assemble(f"reg:{number} end")]) is None
    assert native(bench, [assemble(f"reg:{len(bench.engine.arch.registers)} end")]) is None
    assert native(bench, [assemble("0 end"), assemble(f"reg:{number} end")]) is None


def test_only_ram_at_the_address_as_it_is_is_read() -> None:
    bench = BENCHES["riscv64"]
    last = DATA + DATA_SIZE - 4
    bench.engine.write_memory(last, bytes(4))
    assert native(bench, [assemble(f"{last} ref32 end")]) is False
    assert native(bench, [assemble(f"{last + 1} ref32 end")]) is None
    assert native(bench, [assemble(f"{last} ref64 end")]) is None
    assert native(bench, [assemble(f"{DEVICE} ref8 end")]) is None
    assert bench.accesses == []
    assert native(bench, [assemble(f"{DEVICE} ref8 end"), assemble("1 end")]) is True


def test_mapped_memory_of_a_family_whose_ways_are_not_known_is_not_read() -> None:
    bench = BENCHES["x86_64"]
    bench.engine._core.mmu_seen = 1
    try:
        assert native(bench, [assemble(f"{DATA} ref32 end")]) is None
        assert native(bench, [assemble(f"reg:{bench.engine.arch.register_index['rax']} end")]) is False
    finally:
        bench.engine._core.mmu_seen = 0


def test_code_that_is_changed_from_outside_before_a_breakpoint() -> None:
    """Positions in a block that is counted as a whole are worked out anew."""
    bench = Bench.with_code("x86_64", "1: nop\nnop\nnop\ninc ecx\njmp 1b")
    engine = bench.engine
    engine.arm(Stops(((CODE + 3, (assemble("1 end"),)),), collect=True))
    assert bench.run(1_000).kind is ExitKind.LIMIT
    assert engine.collected().breakpoint == 998
    engine.write_memory(CODE, b"\x0f\x1f\x00")  # one nop
    assert bench.run(2_200).kind is ExitKind.LIMIT
    assert engine.collected().breakpoint == 2_198


def _board(family: str, program: str, *, fast: bool) -> Board:
    path = build(family, program, {"LOOPS": 3} if program in AWKWARD[family] else None)
    return board_with(path, fast=fast)


FIRST, LENGTH = 100, 3_000
"""where the traces begin, and how many instructions they are long"""


@dataclass
class Trace:
    """pc and registers by GDB's numbers at each position from ``first`` on, found by single steps."""

    first: int
    pcs: list[int]
    values: list[list[int]]

    @classmethod
    def of(cls, family: str, program: str) -> Trace:
        guest = _board(family, program, fast=False)
        engine = guest.engine
        guest.run_until(FIRST)
        sizes = [r.bits + 7 >> 3 for r in engine.arch.registers]
        pcs, values = [], []
        while guest.end is None and engine.icount < FIRST + LENGTH:
            pcs.append(engine.read(engine.arch.pc))
            data, row = engine.read_registers(), []
            for size in sizes:
                row.append(int.from_bytes(data[:size][:8], "little"))
                data = data[size:]
            values.append(row)
            guest.run_until(engine.icount + 1)
        return cls(FIRST, pcs, values)

    def where(self, pc: int, holds: Callable[[list[int]], bool]) -> list[int]:
        return [self.first + i for i, at in enumerate(self.pcs) if at == pc and holds(self.values[i])]


def _stops(guest: Board, end: int) -> list[int]:
    engine = guest.engine
    found = []
    while engine.icount < end and guest.end is None:
        if guest.run_until(end).kind is ExitKind.BREAKPOINT:
            found.append(engine.icount)
            pass_by(engine)
    return found


def _test_traced(family: str, program: str) -> None:
    trace = Trace.of(family, program)
    end = trace.first + len(trace.pcs)
    places = sorted(set(trace.pcs), key=trace.pcs.count)
    rare = places[:-6]
    places = places[-6:] + random.Random(3).sample(rare, min(14, len(rare)))
    for fast in (True, False):
        guest = _board(family, program, fast=fast)
        engine = guest.engine
        guest.run_until(trace.first)
        readable = [n for n, (how, _) in enumerate(engine._registers.in_hooks()) if how != _hot.REGISTER_ASK]
        state = Saved.of(guest)
        for k, pc in enumerate(places):
            hits = trace.where(pc, lambda _: True)
            wanted = trace.values[hits[len(hits) * 2 // 3] - trace.first]
            for masks in (dict.fromkeys(readable, MASK), {readable[k * 5 % len(readable)]: 7}):
                expected = trace.where(pc, lambda row, w=wanted, m=masks: all(row[n] & m[n] == w[n] & m[n] for n in m))
                assert expected
                equal = (f"reg:{n} {mask} bit_and {wanted[n] & mask} equal bit_and" for n, mask in masks.items())
                code = assemble(f"1 {' '.join(equal)} end")
                for collect in (False, True):
                    state.load(guest)
                    with armed(engine, Stops(((pc, (assemble("0 end"), code)),), collect=collect)):
                        assert _stops(guest, end) == ([] if collect else expected), (fast, hex(pc), masks)
                        assert engine.collected() == Collected(expected[-1] if collect else None, None, ())
            # left to the caller where the lowest bit of a register is set, zero elsewhere
            number = readable[k * 3 % len(readable)]
            code = assemble(f"reg:{number} 1 bit_and if_goto:26 0 end {MASK - 16} ref8 end")
            for collect in (False, True):
                state.load(guest)
                with armed(engine, Stops(((pc, (code,)),), collect=collect)):
                    assert _stops(guest, end) == trace.where(pc, lambda row, n=number: row[n] & 1 == 1)
                    assert engine.collected() == Collected(None, None, ())


@pytest.mark.parametrize("family", FAMILIES)
def test_conditions_on_registers_hold_where_single_steps_say_so(family: str) -> None:
    _test_traced(family, "ticker")


@pytest.mark.parametrize(
    ("family", "program"), [(f, p) for f in FAMILIES for p in AWKWARD[f][:2]] + [("thumb", "arm_it")]
)
def test_conditions_in_awkward_programs(family: str, program: str) -> None:
    _test_traced(family, program)
