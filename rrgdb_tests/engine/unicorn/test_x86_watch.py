"""x86: watches change nothing, in either gear: flags are set before an access, and consumed behind it."""

from __future__ import annotations

import random

import pytest

from rrgdb.engine.base import NO_STOPS, Exit, ExitKind, Stops, Watch
from rrgdb_tests.engine.unicorn.rig import CODE, DATA, DATA_SIZE, HOLE, Bench, assemble
from rrgdb_tests.engine.unicorn.test_x86_gears import bench, random_code

FAMILIES = ("i386", "x86_64")
STACK = DATA + DATA_SIZE - 64
# {si}, {di}, {cx}, {sp}: pointers; {m} is eight bytes at {si}
ACCESSES = (
    "{op} dword ptr {m}, ecx|add or adc sbb and sub xor cmp xchg xadd cmpxchg bts btr btc bt test",
    "lock {op} dword ptr {m}, ecx|add adc sbb xadd cmpxchg bts",
    "{op} dword ptr {m}|inc dec neg not mul div",
    "lock {op} dword ptr {m}|inc neg",
    "{op} dword ptr {m}, 3|rol ror rcl rcr shl shr sar bts",
    "{op} byte ptr {m}, 1|rol rcl rcr shl sar",
    "{op} word ptr {m}, cl|rol rcl rcr shl shr sar",
    "{op} dword ptr {m}, eax, cl|shld shrd",
    "{op} byte ptr {m}|setc setbe setle seto setp setns",
    "{op} eax, dword ptr {m}|add adc sbb cmp imul bsf bsr cmovc cmovle",
    "{op}|pushf popf stosb lodsd scasb cmpsb movsd",
    "rep {op}|stosb movsd lodsb",
    "repe {op}|cmpsb scasd",
    "repne {op}|scasb",
    "{op} qword ptr {m}|fld fstp",
    "{op} {wide} ptr {m}|push",
    "{op} {m}|cmpxchg8b fxsave fnstenv",
    "{op} 16, 0\nleave|enter",
    "{op} 9f\n9:|call",
)
INSTRUCTIONS = tuple(
    form.replace("{op}", op) for form, ops in (line.split("|") for line in ACCESSES) for op in ops.split()
)
CONSUMERS = "setc bl\nadc ebx, 5\npushf\npop {dx}\njbe 8f\nadd ebx, 64\n8: seto bh"
WATCHES = {
    "what it touches, r": [Watch(DATA, 8, "r")],
    "what it touches, a": [Watch(DATA, 8, "a"), Watch(STACK - 16, 16, "a")],
    "what it touches, w": [Watch(DATA, 4, "w"), Watch(DATA + 0x80, 4, "w"), Watch(STACK - 16, 16, "w")],
    "the same pages": [Watch(DATA + 0x800, 8, "a"), Watch(STACK + 32, 4, "r")],
    "the same pages, w": [Watch(DATA + 0x800, 8, "w"), Watch(STACK + 32, 4, "w")],
}


def _source(family: str, pointer: int = DATA) -> str:
    """Every instruction behind flags that are not computed yet, with the carry set and clear."""
    letter = "r" if family == "x86_64" else "e"
    names = {r: letter + r for r in ("cx", "dx", "si", "di", "sp")} | {"wide": "qword" if letter == "r" else "dword"}
    parts = [f"xor ebx, ebx\nmov {names['si']}, {pointer}\nmov {names['di']}, {pointer + 0x80}"]
    for instruction in INSTRUCTIONS:
        for setter in ("cmp eax, 0xf0000000", "add eax, eax"):
            text = instruction.format(m=f"[{names['si']}]", **names)
            parts += [f"mov {names['si']}, {pointer}\nmov {names['di']}, {pointer + 0x80}\nmov ecx, 3\nmov eax, 5"]
            parts += ["pushf" if text == "popf" else "", "xor edx, edx" if "div" in text else "", setter, text]
            parts += [CONSUMERS.format(**names)]
            if text == "pushf":
                parts += [f"pop {names['dx']}"]
            if text.startswith(("push", "call")) and text != "pushf":
                parts += [f"pop {names['dx']}"]
    return "\n".join(parts) + "\nhlt\n"


def _agree(watched: Bench, plain: Bench, target: int) -> Exit:
    """Run both to a position, the watched one through all its stops; RAM is compared where they end."""
    expected = plain.run(target)
    while (exit_ := watched.run(target)).kind is ExitKind.WATCHPOINT:
        pass
    assert (exit_, watched.engine.icount) == (expected, plain.engine.icount)
    assert watched.engine.read_registers() == plain.engine.read_registers(), target
    if exit_.kind is not ExitKind.LIMIT:
        assert watched.state() == plain.state(), target
    return exit_


@pytest.mark.parametrize("collect", [False, True])
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("watches", WATCHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_watches_leave_the_flags_alone(family: str, watches: str, fast: bool, collect: bool) -> None:
    code = assemble(family, _source(family))
    for length in (3, 29, 5_000):
        watched, plain = (bench(family, code, fast=gear) for gear in (fast, False))
        watched.engine.arm(Stops(watches=tuple(WATCHES[watches]), collect=collect))
        while _agree(watched, plain, plain.engine.icount + length).kind is ExitKind.LIMIT:
            pass
        assert plain.pc == CODE + len(code) - 1


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_faults_under_watches_leave_the_flags_alone(family: str, fast: bool) -> None:
    letter = "r" if family == "x86_64" else "e"
    for instruction in INSTRUCTIONS:
        if "{m}" not in instruction:
            continue
        text = instruction.format(m=f"[{letter}si]", wide="qword" if letter == "r" else "dword")
        source = f"mov {letter}si, {HOLE}\nmov ecx, 3\nmov eax, 5\ncmp eax, 0xf0000000\n{text}\nhlt"
        code = assemble(family, source)
        watched, plain = (bench(family, code, fast=gear) for gear in (fast, False))
        watched.engine.arm(Stops(watches=(Watch(DATA, 8, "a"),)))
        assert _agree(watched, plain, 10).kind is ExitKind.EXCEPTION, text


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("instruction", ["in al, dx", "rep insb", "rep outsb", "outsd"])
@pytest.mark.parametrize("family", FAMILIES)
def test_ports_leave_the_flags_alone(family: str, instruction: str, fast: bool) -> None:
    letter = "r" if family == "x86_64" else "e"
    source = (
        f"mov {letter}di, {DATA}\nmov {letter}si, {DATA}\nmov ecx, 3\nmov edx, 0x60\nmov eax, 5\ncmp eax, 0xf0000000\n"
        f"{instruction}\n{CONSUMERS.format(dx=letter + 'dx')}\nhlt"
    )
    code = assemble(family, source)
    watched, plain = (bench(family, code, fast=gear) for gear in (fast, False))
    for each in (watched, plain):
        each.engine.map_ports(0x60, 8, lambda _offset, _size: 5, lambda _offset, _size, _value: None)
    watched.engine.arm(Stops(watches=(Watch(DATA, 8, "a"),)))
    for target in range(1, 30):  # what each step leaves is what one run leaves
        if _agree(watched, plain, target).kind is not ExitKind.LIMIT:
            break
    whole = bench(family, code, fast=fast)
    whole.engine.map_ports(0x60, 8, lambda _offset, _size: 5, lambda _offset, _size, _value: None)
    whole.run(plain.engine.icount)
    assert whole.state() == plain.state()


def _watches(rng: random.Random) -> tuple[Watch, ...]:
    places = [DATA + 0x1000 + rng.randrange(128), DATA + 0x2000 + rng.randrange(80), STACK - rng.randrange(32)]
    some = rng.sample(places, rng.randrange(3))
    return tuple(Watch(at, rng.choice((1, 4, 8, 40)), rng.choice("rwa")) for at in some)


def _compare(family: str, seed: int, limit: int) -> None:
    """One gear with watches and the slow one without reach the same states, whether it stops or collects; the gears
    tell of the same accesses."""
    rng = random.Random(seed)
    code = random_code(family, rng)
    fast, slow, plain = (bench(family, code, fast=gear) for gear in (True, False, False))
    while plain.engine.icount < limit:
        if rng.random() < 0.3:
            watches, collect = _watches(rng), rng.random() < 0.7
            for each in (fast, slow):
                each.engine.arm(NO_STOPS)
                each.engine.arm(Stops(watches=watches, collect=collect))
        target = plain.engine.icount + rng.randrange(rng.choice((3, 50, 1_000, 5_000))) + 1
        told: list[list[object]] = [[], []]
        for each, seen in zip((fast, slow), told, strict=True):
            while (exit_ := each.run(target)).kind is ExitKind.WATCHPOINT:
                seen.append((each.engine.icount, exit_))
            seen += [exit_, each.engine.icount, each.engine.collected()]
        assert told[0] == told[1], target
        exit_ = plain.run(target)
        assert told[0][-3] == exit_, target
        registers = [each.engine.read_registers() for each in (fast, slow, plain)]
        assert registers[0] == registers[1] == registers[2], target
        if exit_.kind is not ExitKind.LIMIT:
            break
    assert fast.state() == slow.state() == plain.state()


FOUND = (11, 31, 59)
"""programs in which a watch once changed the flags"""


@pytest.mark.parametrize("seed", [*range(10), *FOUND])
@pytest.mark.parametrize("family", FAMILIES)
def test_watches_change_nothing_in_random_programs(family: str, seed: int) -> None:
    _compare(family, seed, 8_000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60, 1_000))
@pytest.mark.parametrize("family", FAMILIES)
def test_watches_change_nothing_in_many_more_random_programs(family: str, seed: int) -> None:
    _compare(family, seed, 40_000)
