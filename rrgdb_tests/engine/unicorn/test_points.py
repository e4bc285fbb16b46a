"""Watches see every kind of access; breakpoints stop at every kind of place; collecting agrees with stopping."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rrgdb.engine.base import Collected, EngineError, ExitKind, Stops, Watch, WatchHit
from rrgdb.engine.unicorn import _hot
from rrgdb_tests.engine.unicorn.rig import CODE, DATA, DATA_SIZE, DEVICE, FAMILIES, HOLE, Bench, board, pass_by
from rrgdb_tests.guests import AWKWARD, arch_name

X86 = ("i386", "x86_64")
RISCV = ("riscv64", "riscv32")


def hits(bench: Bench, end: int) -> list[tuple[int, tuple[WatchHit, ...]]]:
    found = []
    while (exit_ := bench.run(end)).kind is not ExitKind.LIMIT:
        assert exit_.kind is ExitKind.WATCHPOINT, exit_
        found.append((bench.engine.icount, exit_.hits))
    return found


WRITES = {
    "rep stosb": ("i386", f"mov ecx, 5\nmov edi, {DATA + 5}\nmov al, 0xa5\nrep stosb\nnop", 0, 10),
    "fxsave": ("i386", f"mov eax, {DATA}\nfxsave [eax]\nnop\nnop", 24, 4),
    "fnstenv": ("x86_64", f"mov eax, {DATA}\nfnstenv [rax]\nnop\nnop", 0, 4),
    "push": ("x86_64", f"mov esp, {DATA + 16}\npush rsp\nnop\nnop", 8, 4),
    "cmpxchg8b": ("i386", f"mov esi, {DATA}\nmov eax, [esi]\nmov edx, [esi+4]\nlock cmpxchg8b [esi]\nnop", 0, 5),
    "amoadd": ("riscv64", f"li a0, {DATA}\nli a1, 1\namoadd.w a2, a1, (a0)\nnop", 0, 4),
    "sc": ("riscv32", f"li a0, {DATA}\nlr.w a1, (a0)\naddi a1, a1, 1\nsc.w a2, a1, (a0)\nnop", 0, 5),
    "dc zva": ("aarch64", f"mov x0, #{DATA}\ndc zva, x0\nnop\nnop", 60, 3),
    "stp q": ("aarch64", f"mov x0, #{DATA}\nstp q0, q1, [x0]\nnop\nnop", 28, 3),
    "stm": ("arm", f"mov r0, #{DATA}\nstmia r0, {{r1-r8}}\nnop\nnop", 12, 3),
    "push in Thumb": ("thumb", "push {r0-r3}\nnop\nnop", DATA_SIZE - 64 - 8, 2),
    "vst1": ("thumb", f"mov r0, #{DATA}\nvst1.8 {{d0-d3}}, [r0]\nnop\nnop", 12, 3),
    "strexd": (
        "arm",
        f"mov r0, #{DATA}\nldrexd r2, r3, [r0]\nadd r3, r3, #1\nstrexd r1, r2, r3, [r0]\nnop",
        0,
        5,
    ),
    "stxr": ("aarch64", f"mov x0, #{DATA}\nldxr x1, [x0]\nadd x1, x1, #1\nstxr w2, x1, [x0]\nnop", 0, 5),
}


def test_a_read_is_told_with_the_bytes_that_it_read() -> None:
    b = Bench.with_code("riscv64", f"li a0, {DATA}\nli a1, 7\nsw a1, (a0)\nlw a2, (a0)\n1: j 1b")
    b.engine.arm(Stops(watches=(Watch(DATA, 4, "r"),)))
    ((_, (hit,)),) = hits(b, 8)
    assert (hit.old, hit.new) == (b"\7\0\0\0", b"\7\0\0\0")


@pytest.mark.parametrize("what", WRITES)
def test_every_kind_of_write_is_seen_where_it_happens(what: str) -> None:
    family, source, offset, end = WRITES[what]
    watch = Watch(DATA + offset, 8, "w")
    plain = Bench.with_code(family, source)
    changes = []
    for icount in range(1, end + 1):
        before = plain.engine.read_memory(watch.address, 8)
        assert plain.run(icount).kind is ExitKind.LIMIT
        after = plain.engine.read_memory(watch.address, 8)
        if before != after:
            changes.append((icount, (WatchHit(watch.address, 8, "w", before, after),)))
    assert changes
    b = Bench.with_code(family, source)
    b.engine.arm(Stops(watches=(watch,)))
    assert hits(b, end) == changes
    b = Bench.with_code(family, source)
    b.engine.arm(Stops(watches=(watch,), collect=True))
    assert b.run(end).kind is ExitKind.LIMIT
    # what the last instruction before the limit did counts: its hit is behind it
    assert b.engine.collected() == Collected(None, *changes[-1])


# loops: part of an instruction's accesses is watched (from DATA on), and it begins again where that is seen
PIECEWISE = {
    "ldrd over its base": ("arm", "ldrd r4, r5, [r4]\nadd r6, r6, r5", Watch(DATA + 4, 4, "r")),
    "ldrd over its index": ("arm", "mov r7, #8\nldrd r6, r7, [r4, r7]\nadd r8, r8, r7", Watch(DATA + 12, 4, "a")),
    "ldrd over its base in Thumb": ("thumb", "ldrd r4, r5, [r4]\nadd r6, r6, r5", Watch(DATA + 4, 4, "r")),
    "ldm over its base": ("arm", "ldm r4, {r3, r4, r5}\nadd r6, r6, r5", Watch(DATA + 8, 4, "r")),
    "stm": ("arm", "add r3, r3, #1\nadd r5, r5, #3\nstm r4, {r3, r5}", Watch(DATA + 4, 4, "w")),
    "push and pop in Thumb": (
        "thumb",
        "adds r4, #16\nmov sp, r4\nadds r0, #1\npush {r0, r1}\npop {r2, r3}",
        Watch(DATA + 12, 2, "a"),
    ),
    "stores in an IT block": (
        "thumb",
        "adds r0, #1\nlsls r1, r0, #31\nittee ne\n"
        "strne r0, [r4]\naddne r2, r2, r0\nstreq r0, [r4, #4]\naddeq r3, r3, r0",
        Watch(DATA, 8, "w"),
    ),
    "loads in an IT block": (
        "thumb",
        "adds r0, #1\nlsls r1, r0, #31\nittee ne\n"
        "ldrne r5, [r4]\naddne r2, r2, r5\nldreq r5, [r4, #4]\naddeq r3, r3, r5",
        Watch(DATA + 4, 2, "r"),
    ),
    "ldp over its base": ("aarch64", "ldp x4, x5, [x4]\nadd x6, x6, x5", Watch(DATA + 8, 4, "r")),
    "stxp": (
        "aarch64",
        "ldxp x5, x6, [x4]\nadd x5, x5, #1\nadd x6, x6, #2\nstxp w7, x5, x6, [x4]",
        Watch(DATA + 8, 1, "w"),
    ),
    "pop to memory": ("x86_64", "push rax\ninc rax\npop qword ptr [r12]", Watch(DATA, 8, "w")),
    "movups": ("x86_64", "movups xmm0, [r12]\npaddd xmm1, xmm0\nmovups [r12 + 16], xmm1", Watch(DATA + 8, 20, "a")),
}
LOOPS = {
    "arm": (f"again: mov r4, #{DATA}", "b again"),
    "thumb": (f"again: mov r4, #{DATA}", "b again"),
    "aarch64": (f"again: mov x4, #{DATA}", "b again"),
    "x86_64": (f"again: mov r12d, {DATA}", "jmp again"),
}


@pytest.mark.parametrize("after_code", [False, True])
@pytest.mark.parametrize("what", PIECEWISE)
def test_an_instruction_of_several_accesses_begins_again_as_if_nothing_had_happened(
    what: str, after_code: bool
) -> None:
    """``after_code``: a page of code was watched before, which needs hooks that are still there."""
    family, body, watch = PIECEWISE[what]
    first, last = LOOPS[family]
    fast, slow = (Bench.with_code(family, f"{first}\n{body}\n{last}", fast=gear) for gear in (True, False))
    told: list[list[object]] = [[], []]
    for bench, seen in zip((fast, slow), told, strict=True):
        bench.engine.write_memory(DATA, bytes(range(1, 33)))
        bench.engine.arm(Stops(watches=(Watch(CODE, 4, "r"),) if after_code else ()))
        bench.run(3)
        bench.engine.arm(Stops(watches=(watch,), collect=True))
        for icount in (1_000, 5_000, 12_345, 40_000):
            seen += [bench.run(icount), bench.engine.collected(), bench.state()]
        bench.engine.arm(Stops(watches=(watch,)))
        for _ in range(20):
            seen += [bench.run(80_000), bench.engine.icount, bench.state()]
    assert told[0] == told[1]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_board_wrote_between_runs_is_told_before_the_next_instruction(family: str, fast: bool) -> None:
    b = Bench.with_code(family, "nop\n" * 2_000, fast=fast)
    b.engine.arm(Stops(watches=(Watch(DATA, 4, "w"),)))
    b.run(10)
    b.engine.write_memory(DATA, b"abcd")
    exit_ = b.run(1_000)
    assert exit_.kind is ExitKind.WATCHPOINT
    assert (b.engine.icount, exit_.hits[0].new) == (10, b"abcd")


# address register in, loads of 1, 2, 4 (8, 16) bytes
LOADS = {
    "riscv64": [("lbu a1, 0(a0)", 1), ("lhu a1, 0(a0)", 2), ("lwu a1, 0(a0)", 4), ("ld a1, 0(a0)", 8)],
    "riscv32": [("lb a1, 0(a0)", 1), ("lw a1, 0(a0)", 4)],
    "aarch64": [("ldrb w1, [x0]", 1), ("ldr w1, [x0]", 4), ("ldr x1, [x0]", 8), ("ldr q1, [x0]", 16)],
    "arm": [("ldrb r1, [r0]", 1), ("ldr r1, [r0]", 4), ("vldr d1, [r0]", 8)],
    "thumb": [("ldrb r1, [r0]", 1), ("ldr r1, [r0]", 4), ("ldmia.w r0, {r1, r2}", 8)],
    "i386": [("mov bl, [eax]", 1), ("mov bx, [eax]", 2), ("mov ebx, [eax]", 4), ("movups xmm0, [eax]", 16)],
    "x86_64": [("mov bl, [rax]", 1), ("mov rbx, [rax]", 8), ("movups xmm0, [rax]", 16)],
}
POINTER = {
    "riscv64": "a0",
    "riscv32": "a0",
    "aarch64": "x0",
    "arm": "r0",
    "thumb": "r0",
    "i386": "eax",
    "x86_64": "rax",
}
CASES = [(family, load, size) for family, loads in LOADS.items() for load, size in loads]


@pytest.mark.parametrize(("family", "load", "size"), CASES, ids=[f"{f}-{n}" for f, _, n in CASES])
def test_reads_are_seen_however_little_they_overlap(family: str, load: str, size: int) -> None:
    b = Bench.with_code(family, f"{load}\nnop\nnop")
    fresh = b.engine.save()
    for watched in (DATA + 4096 - 4, DATA + 4096, DATA + 4094, DATA + 100):
        for at in range(watched - size, watched + 5):
            if family in RISCV and at % size:
                continue  # may be done in pieces
            for kind in "ra":
                b.engine.load(fresh)
                b.engine.write(POINTER[family], at)
                b.engine.arm(Stops(watches=(Watch(watched, 4, kind),)))
                expected = ExitKind.WATCHPOINT if watched - size < at < watched + 4 else ExitKind.LIMIT
                assert b.run(2).kind is expected, (hex(at), hex(watched), kind)
                assert b.engine.icount == (1 if expected is ExitKind.WATCHPOINT else 2)


# behind a load: the same again, for ever
AGAIN = {"riscv64": "j 1b", "riscv32": "j 1b", "aarch64": "b 1b", "arm": "b 1b", "thumb": "b.n 1b", "i386": "jmp 1b"}


@pytest.mark.parametrize(("family", "load", "size"), CASES, ids=[f"{f}-{n}" for f, _, n in CASES])
def test_reads_at_the_beginning_of_a_page_behind_code_are_seen(family: str, load: str, size: int) -> None:
    page = DATA + 4096
    b = Bench.with_code(family, f"1: {load}\n{AGAIN.get(family, 'jmp 1b')}", page - 512)
    fresh = b.engine.save()
    for offset in (0, 1, 7, 8, 9, 63):
        watched = page + offset
        for at in range(watched - size, watched + 2):
            if family in RISCV and at % size:
                continue  # may be done in pieces
            for kind in "ra":
                b.engine.load(fresh)
                b.engine.write(POINTER[family], at)
                b.engine.arm(Stops(watches=(Watch(watched, 1, kind),)))
                first = b.engine.icount
                expected = ExitKind.WATCHPOINT if watched - size < at <= watched else ExitKind.LIMIT
                assert b.run(first + 1_000).kind is expected, (hex(at), hex(watched), kind)
                assert b.engine.icount == first + (1 if expected is ExitKind.WATCHPOINT else 1_000)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_read_watch_near_code_leaves_the_fast_gear_on(family: str) -> None:
    page = DATA + 4096
    load = LOADS[family][0][0]
    b = Bench.with_code(family, f"1: {load}\n{AGAIN.get(family, 'jmp 1b')}", page - 512)
    b.engine.write(POINTER[family], page)
    b.engine.arm(Stops(watches=(Watch(page + 8, 4, "a"),)))
    assert b.run(10_000).kind is ExitKind.LIMIT
    assert b.engine._core.phase != _hot.SLOW


@pytest.mark.parametrize("family", FAMILIES)
def test_many_watches(family: str) -> None:
    b = Bench.with_code(family, "nop\n" * 4)
    b.engine.arm(Stops(watches=tuple(Watch(DATA + 64 * i, 8, "w") for i in range(64))))
    assert b.run(4).kind is ExitKind.LIMIT
    armed = b.engine.stops
    with pytest.raises(EngineError, match="64 watched ranges"):
        b.engine.arm(Stops(((CODE, None),), tuple(Watch(DATA + 64 * i, 8, "w") for i in range(65))))
    assert b.engine.stops is armed


def test_collecting_goes_on_until_something_else_is_armed() -> None:
    b = Bench.with_code("riscv64", f"li a0, {DATA}\nsw a0, (a0)\nnop\nnop\nnop\nnop")
    stops = Stops(((CODE + 4, None),), (Watch(DATA, 4, "w"),), collect=True)
    b.engine.arm(stops)
    b.run(3)
    for same in (stops, replace(stops), replace(stops, within=(CODE, CODE + 64))):
        b.engine.arm(same, ignored_at=3)
        assert (b.engine.collected().breakpoint, b.engine.collected().watch) == (1, 2)
    b.engine.arm(replace(stops, breakpoints=()))
    assert b.engine.collected() == Collected(None, None, ())


# Behind a store of register 2 (x86: ebx) to the address in the pointer register, and a load from it.
TO_AND_FRO = {
    "riscv64": "sw a1, (a0)\nlw a2, (a0)",
    "riscv32": "sw a1, (a0)\nlw a2, (a0)",
    "aarch64": "str w1, [x0]\nldr w2, [x0]",
    "arm": "str r1, [r0]\nldr r2, [r0]",
    "thumb": "str r1, [r0]\nldr r2, [r0]",
    "i386": "mov [eax], ebx\nmov ecx, [eax]",
    "x86_64": "mov [rax], ebx\nmov ecx, [rax]",
}


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_accesses_to_a_device_are_seen(family: str, fast: bool) -> None:
    """Whatever is written: there are no bytes to compare."""
    b = Bench.with_code(family, f"{TO_AND_FRO[family]}\nnop\n" + "nop\n" * 500, fast=fast)
    b.engine.write(POINTER[family], DEVICE + 4)
    fresh = b.engine.save()
    for kind, positions in (("w", [1]), ("r", [2]), ("a", [1, 2])):
        for at, touched in ((DEVICE + 4, True), (DEVICE + 7, True), (DEVICE + 8, False), (DEVICE, False)):
            b.engine.load(fresh)
            b.engine.arm(Stops(watches=(Watch(at, 4 if at != DEVICE + 7 else 1, kind),)))
            found = hits(b, 400)
            assert [icount for icount, _ in found] == (positions if touched else [])
            assert all((hit.kind, hit.old, hit.new) == (kind, b"", b"") for _, (hit,) in found)
    b.engine.load(fresh)
    b.engine.arm(Stops(watches=(Watch(DEVICE, 8, "a"),), collect=True))
    assert b.run(400).kind is ExitKind.LIMIT
    assert b.engine.collected().watch == 2


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_watch_of_nothing_is_never_hit(family: str, fast: bool) -> None:
    b = Bench.with_code(family, f"nop\n{TO_AND_FRO[family]}\n", fast=fast)
    b.engine.write(POINTER[family], HOLE)
    places = (0, HOLE, DATA - 2, DATA + DATA_SIZE - 2, (1 << 64) - 4)
    b.engine.arm(Stops(watches=tuple(Watch(at, 4, kind) for kind in "wra" for at in places)))
    assert b.to_exception().address in (HOLE, 0)
    assert b.engine.icount == 1


@pytest.mark.parametrize("fast", [True, False])
def test_what_the_guest_maps_later_is_watched_where_it_is_then(fast: bool) -> None:
    """Watched before translation is switched on; mapped by a store alone; mapped anew elsewhere."""
    directory, table, later, first, second = (DATA + 4096 * n for n in (0, 1, 2, 3, 2))
    watched = 0x800010
    source = f"""
        mov dword ptr [{directory}], {table} | 3
        mov dword ptr [{directory + 8}], {later} | 3
        mov eax, {directory}
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        mov dword ptr [{later}], {first} | 3
        mov dword ptr [{watched}], 0x11
        mov ecx, [{watched}]
        mov dword ptr [{later}], {second} | 3
        invlpg [{watched}]
        mov dword ptr [{first + 16}], 0x22
        mov dword ptr [{watched}], 0x33
        mov dword ptr [{second + 16}], 0x44
        nop
    """
    b = Bench.with_code("i386", source, fast=fast)
    b.engine.write_memory(directory, bytes(3 * 4096))
    for page in (*range(CODE, CODE + DATA_SIZE, 4096), *range(DATA, DATA + DATA_SIZE, 4096)):
        b.engine.write_memory(table + (page >> 12) * 4, (page | 3).to_bytes(4, "little"))
    before = b.engine.read_memory(first + 16, 4)
    fresh = b.engine.save(), b.engine.read_memory(DATA, DATA_SIZE)
    for kind, expected in (
        ("w", [(9, before, b"\x11\0\0\0"), (14, bytes(4), b"\x33\0\0\0"), (15, b"\x33\0\0\0", b"\x44\0\0\0")]),
        ("r", [(10, b"\x11\0\0\0", b"\x11\0\0\0")]),
    ):
        b.engine.load(fresh[0])
        b.engine.write_memory(DATA, fresh[1])
        b.engine.arm(Stops(watches=(Watch(watched, 4, kind),)))
        assert [(at, hit.old, hit.new) for at, (hit,) in hits(b, 16)] == expected


# (family, instructions before, those looked at with what each reads)
STORE_CONDITIONALS = {
    "sc": ("riscv64", f"li a0, {DATA}\nlr.w a1, (a0)", ["sc.w a2, a1, (a0)", "amoswap.w zero, a1, (a0)"]),
    "sc.d": ("riscv64", f"li a0, {DATA}\nlr.d a1, (a0)", ["sc.d a2, a1, (a0)", "amoadd.d a2, a1, (a0)"]),
    "stxr": ("aarch64", f"mov x0, #{DATA}\nldxr w1, [x0]", ["stxr w2, w1, [x0]", "ldr w1, [x0]"]),
    "stlxrb": ("aarch64", f"mov x0, #{DATA}\nldaxrb w1, [x0]", ["stlxrb w2, w1, [x0]", "ldxrb w1, [x0]"]),
    "stxp": ("aarch64", f"mov x0, #{DATA}\nldxp x1, x3, [x0]", ["stxp w2, x1, x3, [x0]", "ldxp x1, x3, [x0]"]),
    "strex": ("arm", f"mov r0, #{DATA}\nldrex r1, [r0]", ["strex r2, r1, [r0]", "ldrex r1, [r0]"]),
    "strexd": ("arm", f"mov r0, #{DATA}\nldrexd r2, r3, [r0]", ["strexd r1, r2, r3, [r0]", "ldrexd r2, r3, [r0]"]),
    "strexh": ("thumb", f"mov r0, #{DATA}\nldrexh r1, [r0]", ["strexh r2, r1, [r0]", "ldrexh r1, [r0]"]),
    "strex in Thumb": ("thumb", f"mov r0, #{DATA}\nldrex r1, [r0]", ["strex r2, r1, [r0]", "ldrex r1, [r0]"]),
}  # fmt: skip


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("what", STORE_CONDITIONALS)
def test_a_store_conditional_reads_nothing(what: str, fast: bool) -> None:
    """What comes behind it does: an AMO as well."""
    family, before, (store, load) = STORE_CONDITIONALS[what]
    b = Bench.with_code(family, "\n".join((before, store, load, *["nop"] * 400)), fast=fast)
    fresh = b.engine.save()
    for kind, positions in (("r", [2, 4]), ("a", [2, 3, 4])):
        b.engine.load(fresh)
        b.engine.arm(Stops(watches=(Watch(DATA, 1, kind),)))
        assert [icount for icount, _ in hits(b, 300)] == positions


def test_a_hit_of_the_last_instruction_before_nothing_is_not_lost() -> None:
    b = Bench.with_code("x86_64", b"\x89\x18", at=DATA + DATA_SIZE - 2)  # mov [rax], ebx
    b.engine.write("rax", DATA)
    b.engine.write("rbx", 0x11223344)
    b.engine.arm(Stops(watches=(Watch(DATA, 4, "w"),)))
    assert b.run(5).kind is ExitKind.WATCHPOINT
    assert b.engine.icount == 1
    assert b.run(5).kind is ExitKind.EXCEPTION


@pytest.mark.parametrize("family", X86)
def test_breakpoints_in_rep_and_with_conditions(family: str) -> None:
    source = f"mov ecx, 3\nmov edi, {DATA}\nrep stosb\nnop\nnop\nnop"
    b = Bench.with_code(family, source)
    rep = CODE + 10
    b.engine.arm(Stops(((rep, None), (rep + 3, ()))))
    seen = []
    while (exit_ := b.run(8)).kind is ExitKind.BREAKPOINT:
        seen.append((b.engine.icount, b.pc))
        pass_by(b.engine)
    assert exit_.kind is ExitKind.LIMIT
    assert seen == [(2, rep), (3, rep), (4, rep), (5, rep), (7, rep + 3)]
    b = Bench.with_code(family, source)
    b.engine.arm(Stops(((rep, None), (rep + 3, ())), collect=True))
    assert b.run(8).kind is ExitKind.BREAKPOINT  # such conditions are judged outside
    assert b.engine.collected() == Collected(5, None, ())
    assert b.engine.icount == 7


@pytest.mark.parametrize(("family", "program"), [(f, ps[i]) for f, ps in AWKWARD.items() for i in (0, 1)])
def test_collecting_agrees_with_stopping(family: str, program: str) -> None:
    base = {"riscv64": 0x80000000, "riscv32": 0x80000000, "aarch64": 0x40000000, "arm": 0x40000000}.get(
        arch_name(family), 0x100000
    )
    probe = board(family, program, LOOPS=3)
    probe.run_until(1 << 40)
    end, stack = probe.engine.icount, probe.engine.read(probe.arch.sp)
    first = end * 2 // 3
    points = tuple((base + 2 * i, None) for i in range(0, 6000, 7))
    watches = (Watch(stack - 64, 128, "a"), Watch(stack - 256, 64, "w"), Watch(base + 0x1000, 64, "r"))

    guest = board(family, program, LOOPS=3)
    guest.run_until(first)
    guest.engine.arm(Stops(points, watches))
    last: dict[ExitKind, int] = {}
    hit: tuple[WatchHit, ...] = ()
    while (exit_ := guest.run_until(end)).kind is not ExitKind.LIMIT:
        last[exit_.kind] = guest.engine.icount
        if exit_.kind is ExitKind.WATCHPOINT:
            hit = exit_.hits
        else:
            pass_by(guest.engine)
    guest = board(family, program, LOOPS=3)
    guest.run_until(first)
    guest.engine.arm(Stops(points, watches, collect=True))
    assert guest.run_until(end).kind is ExitKind.LIMIT
    expected = Collected(last.get(ExitKind.BREAKPOINT), last.get(ExitKind.WATCHPOINT), hit)
    assert guest.engine.collected() == expected
