"""Conditions that the generated code itself judges: the slow gear says what is right."""

from __future__ import annotations

import gc
import random

import pytest
from hypothesis import given, settings

from rrgdb.engine.base import ExitKind, Stops
from rrgdb_tests.agent.test_evaluate import assemble
from rrgdb_tests.engine.unicorn import twins as tw
from rrgdb_tests.engine.unicorn.rig import CODE, DATA, DATA_SIZE, DEVICE, FAMILIES
from rrgdb_tests.engine.unicorn.test_conditions import ANY_BYTES, EXPRESSIONS, Step, encode
from rrgdb_tests.engine.unicorn.test_inline import PROGRAMS, running
from rrgdb_tests.engine.unicorn.twins import INLINES, Make, Twins

COUNTERS = {
    "riscv64": ("a1", "a4", "a6"),
    "riscv32": ("a1", "a4", "a6"),
    "aarch64": ("x1", "x4", "x6"),
    "arm": ("r1", "r4", "r6"),
    "thumb": ("r1", "r4", "r6"),
    "i386": ("ebx", "edx", "esi"),
    "x86_64": ("rbx", "rdx", "rsi"),
}
"""what the programs count with and compute"""
EDGES = (0, 1, 2, 3, 7, 8, 255, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 32, 1 << 63, (1 << 64) - 1)
ADDRESSES = (DATA + 16, DATA, DATA + DATA_SIZE - 8, CODE)
BINARY = ("add", "sub", "mul", "bit_and", "bit_or", "bit_xor", "equal", "less_signed", "less_unsigned")
UNARY = ("log_not", "bit_not", "ext", "zero_ext")
LEFT_TO_THE_HOOK = ("div_signed", "rem_unsigned", "lsh", "rsh_signed", "pick", "rot")
OFTEN, SELDOM = (1, 3, 7, 15), (127, 255, 511)
"""masks of what is compared"""
SPAN = 1_500
"""instructions that a condition is judged over"""


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    gc.collect()  # buffers of engines that are not needed any more push new ones out of reach
    return tw.maker(monkeypatch)


class Writer:
    """Makes up expressions; each method returns steps that leave one value."""

    def __init__(self, chosen: random.Random, registers: list[int]) -> None:
        self.chosen = chosen
        self.registers = registers

    def leaf(self) -> list[Step]:
        kind = self.chosen.randrange(4)
        if kind == 0:
            return [Step("const", self.chosen.choice(EDGES))]
        if kind == 1:
            size = self.chosen.choice((8, 16, 32, 64))
            return [Step("const", self.chosen.choice(ADDRESSES)), Step(f"ref{size}", 0)]
        return [Step("reg", self.chosen.choice(self.registers))]

    def value(self, depth: int) -> list[Step]:
        if depth == 0:
            return self.leaf()
        if self.chosen.randrange(3) == 0:
            name = self.chosen.choice(UNARY)
            return [*self.value(depth - 1), Step(name, self.chosen.choice((1, 8, 13, 16, 32, 63, 64)))]
        if self.chosen.randrange(8) == 0:
            left, right = self.value(depth - 1), self.value(depth - 1)
            return [*left, *right, Step("swap", 0), Step(self.chosen.choice(BINARY), 0)]
        return [*self.value(depth - 1), *self.value(depth - 1), Step(self.chosen.choice(BINARY), 0)]

    def test(self, depth: int, masks: tuple[int, ...]) -> list[Step]:
        """Of some values that come by, it holds."""
        mask = self.chosen.choice(masks)
        wanted = Step("const", self.chosen.randrange(mask + 1))
        return [*self.value(depth), Step("const", mask), Step("bit_and", 0), wanted, Step("equal", 0)]

    def expression(self, masks: tuple[int, ...]) -> bytes:
        """One test, or two of which both must hold, as GDB writes ``a && b``."""
        first = self.test(self.chosen.randrange(4), masks)
        if self.chosen.randrange(3):
            return encode([*first, Step("end", 0)])
        second = self.test(self.chosen.randrange(3), masks)
        steps = [*first, Step("if_goto", len(first) + 3), Step("const", 0), Step("end", 0), *second, Step("end", 0)]
        return encode(steps)


def addresses(twins: Twins) -> list[int]:
    """Of the instructions that run again and again."""
    slow, found = twins.slow, set()
    for _ in range(60):
        slow.run(slow.engine.icount + 1)
        found.add(slow.pc)
    twins.inlined.run(slow.engine.icount)
    return sorted(found)


def numbers(twins: Twins, family: str) -> list[int]:
    index = twins.slow.engine.arch.register_index
    return [index[name] for name in (*COUNTERS[family], PROGRAMS[family].pointer)]


def judged(twins: Twins) -> int:
    """How many calls of hooks stand behind their conditions."""
    return twins.inlined.engine._core.judged


def compare(make: Make, family: str, seed: int, conditions: int) -> int:
    """How often the code itself judged."""
    chosen = random.Random(f"{family} {seed}")
    inside, stops = 0, 100
    for _ in range(conditions):
        if stops > 20:  # where they come thick, the slow gear takes over for a while
            twins = running(make, family, False)
            places = addresses(twins)
            writer = Writer(chosen, numbers(twins, family))
        collect = chosen.random() < 0.7
        masks = OFTEN if collect else SELDOM
        codes = tuple(writer.expression(masks) for _ in range(chosen.choice((1, 1, 2))))
        points = [(place, codes) for place in sorted(chosen.sample(places, chosen.choice((1, 1, 2))))]
        twins.arm(Stops(tuple(points), collect=collect))
        stops = twins.to(twins.slow.engine.icount + SPAN)
        inside += judged(twins) > 0
        if collect:
            twins.collected()
    return inside


@pytest.mark.parametrize("family", FAMILIES)
def test_made_up_conditions(make: Make, family: str) -> None:
    inside = compare(make, family, 1, 40)
    assert not INLINES or inside >= 20


@pytest.mark.parametrize("family", ["riscv64", "i386"])
def test_any_programs_and_bytes(make: Make, family: str) -> None:
    """What a debugger sends may be anything."""
    twins = running(make, family, False)
    place = addresses(twins)[2]

    @settings(max_examples=120, deadline=None)
    @given(EXPRESSIONS | ANY_BYTES)
    def come_to_the_same(code: bytes) -> None:
        twins.arm(Stops(((place, (code,)),), collect=True))
        stops = twins.to(twins.slow.engine.icount + 300)
        assert stops == 0 or not judged(twins)
        twins.collected()

    come_to_the_same()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("family", FAMILIES)
def test_many_more_conditions(make: Make, family: str, seed: int) -> None:
    assert not INLINES or compare(make, family, 100 + seed, 60) >= 25


def word(twins: Twins, family: str, text: str) -> bytes:
    """{counter}, {pointer}: numbers of registers."""
    found = numbers(twins, family)
    return assemble(text.format(counter=found[0], pointer=found[3], data=DATA + 16))


NEVER = "reg:{counter} 4294967295 bit_and 4294967295 equal end"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", LEFT_TO_THE_HOOK)
def test_what_is_left_to_the_hook(make: Make, family: str, name: str) -> None:
    twins = running(make, family, False)
    operand = f"{name}:1" if name == "pick" else name
    code = word(twins, family, f"0 reg:{{counter}} 31 bit_and reg:{{counter}} 3 {operand} 5 equal end")
    twins.arm(Stops(((addresses(twins)[2], (code,)),)))
    twins.to(twins.slow.engine.icount + SPAN)
    assert not judged(twins)


@pytest.mark.parametrize("family", FAMILIES)
def test_other_breakpoints_and_none(make: Make, family: str) -> None:
    """Nothing is left of a condition that was armed before."""
    twins = running(make, family, False)
    places = addresses(twins)
    never = word(twins, family, NEVER)
    seldom = word(twins, family, "reg:{counter} 127 bit_and 2 equal end")
    for _ in range(3):
        for code in (never, seldom):
            twins.arm(Stops(((places[1], (code,)),)))
            stops = twins.to(twins.slow.engine.icount + 3_000)
            assert (stops == 0) is (code is never)
            assert not INLINES or judged(twins)
        twins.arm(Stops(((places[1], None),), collect=True))
        twins.to(twins.slow.engine.icount + SPAN)
        assert twins.collected().breakpoint
        assert not judged(twins)
        twins.arm(Stops())
        twins.to(twins.slow.engine.icount + SPAN)


@pytest.mark.parametrize("family", FAMILIES)
def test_memory_that_is_not_ram_is_left_to_the_caller(make: Make, family: str) -> None:
    twins = running(make, family, False)
    place, pointer = addresses(twins)[1], PROGRAMS[family].pointer
    code = word(twins, family, "reg:{pointer} ref32 77 equal end")
    twins.arm(Stops(((place, (code,)),)))
    twins.to(twins.slow.engine.icount + 300)
    assert not INLINES or judged(twins)
    for at in (DATA + 16, DEVICE + 8, DATA + DATA_SIZE - 4, DATA + 32):
        twins.write(pointer, at)
        twins.write_memory(DATA + 32, (77).to_bytes(4, "little"))
        twins.to(twins.slow.engine.icount + 300)


@pytest.mark.parametrize("family", FAMILIES)
def test_code_that_is_changed_under_a_condition(make: Make, family: str) -> None:
    program = PROGRAMS[family]
    twins = running(make, family, False)
    at = CODE + program.places(family)[1]
    twins.arm(Stops(((at, (word(twins, family, NEVER),)),)))
    for which in (0, 1, 0):
        twins.to(twins.slow.engine.icount + 500)
        assert not INLINES or judged(twins)
        twins.write_memory(at, program.word(family, which).to_bytes(4, "little"))
    twins.to(twins.slow.engine.icount + 500)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exception_and_limits_at_the_instruction_itself(make: Make, family: str) -> None:
    """Flags and positions are those of an instruction that had a hook."""
    twins = running(make, family, False)
    places = addresses(twins)
    never = word(twins, family, NEVER)
    twins.arm(Stops(tuple((place, (never,)) for place in places)))
    chosen = random.Random(family)
    for _ in range(40):
        twins.to(twins.slow.engine.icount + chosen.randrange(1, 400))
    twins.write(PROGRAMS[family].pointer, 0x50_0000 if family != "aarch64" else 0x51_0000)
    exit_ = twins.run(twins.slow.engine.icount + 500)
    assert exit_.kind in (ExitKind.EXCEPTION, ExitKind.BREAKPOINT)
