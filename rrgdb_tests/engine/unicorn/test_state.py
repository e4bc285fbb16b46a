"""Saved CPU states: their bytes, what they hold beyond registers, and guests with translation on."""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from rrgdb.arch.base import ExceptionKind, words
from rrgdb.arch.cpu import MemoryFault
from rrgdb.engine.base import EngineError, ExitKind, Stops, Watch
from rrgdb.engine.unicorn.families.base import find_layout
from rrgdb.engine.unicorn.probes import aarch64
from rrgdb.engine.unicorn.probes.layout import Context, Layout
from rrgdb_tests.engine.unicorn.rig import CODE, DATA, FAMILIES, Bench, assemble

RISCV = ("riscv64", "riscv32")
MAPPING, MAPPING_BYTES = 1 << 32, 16 << 20
GENERAL = frozenset(
    words("eax ecx edx ebx ebp esi edi rax rbx rcx rdx rsi rdi rbp t0 t1 t2 t3 t4 t5 t6 s1 s2 s3 s4 s5 a2 a3 a4 a5")
) | {f"{letter}{n}" for letter in "rx" for n in range(2, 16)}
STORE = {
    "riscv64": f"li a0, {DATA}\nsw a0, 0(a0)\nlw a1, 4(a0)\nnop",
    "riscv32": f"li a0, {DATA}\nsw a0, 0(a0)\nlw a1, 4(a0)\nnop",
    "aarch64": f"mov x0, #{DATA}\nstr x0, [x0]\nldr x1, [x0, #8]\nnop",
    **dict.fromkeys(("arm", "thumb"), f"mov r0, #{DATA}\nstr r0, [r0]\nvldr d0, [r0, #8]\nnop"),
    "i386": f"mov eax, {DATA}\nmov [eax], eax\nmov ecx, [eax+8]\nfld dword ptr [eax]\nnop",
    "x86_64": f"mov eax, {DATA}\nmov [rax], eax\nmov ecx, [rax+8]\nfld dword ptr [rax]\nnop",
}


def _saved(family: str) -> bytes:
    b = Bench.with_code(family, STORE[family])
    b.run(4)
    return b.engine.save()


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_states_have_equal_bytes_in_every_process(family: str) -> None:
    here = _saved(family)
    assert here == _saved(family)
    script = f"import sys\nfrom {__name__} import _saved\nsys.stdout.write(_saved({family!r}).hex())"
    there = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert bytes.fromhex(there) == here


@pytest.fixture
def mapping_above_4_gib() -> Iterator[int]:
    """Address of 16 MiB of this process just above 4 GiB, where two small words side by side may point to."""
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    flags = 0x2 | 0x20 | 0x100000  # private, anonymous, fixed but in nobody's place
    assert libc.mmap(MAPPING, MAPPING_BYTES, 3, flags, -1, 0) == MAPPING
    find_layout.cache_clear()
    yield MAPPING
    libc.munmap(ctypes.c_void_p(MAPPING), ctypes.c_size_t(MAPPING_BYTES))
    find_layout.cache_clear()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_guest_may_hold_what_looks_like_a_pointer(family: str, mapping_above_4_gib: int) -> None:
    b = Bench.with_code(family, STORE[family])
    engine = b.engine
    b.run(3)
    general = (r for r in engine.arch.registers if r.name in GENERAL)
    for number, register in enumerate(general):
        wide = mapping_above_4_gib + 0x1008 * number
        engine.write(register.name, wide if register.bits == 64 else 1 if number % 2 else wide & 0xFFFFFFFF)
    known = find_layout(engine.family)
    saved = engine.save()
    raw = Context(engine._uc, Layout(known.more_bytes)).save()
    changed = {at for at in range(0, len(raw) - 7, 8) if raw[at : at + 8] != saved[16 + at : 24 + at]}
    for at in changed:  # what is left out is no small number, and no guest's
        assert int.from_bytes(raw[at : at + 8], "little") >> 32 > 1, at
    fresh = Bench.with_code(family, STORE[family])
    fresh.engine.load(saved)
    assert fresh.engine.registers_digest() == engine.registers_digest()
    fresh.engine.write_memory(DATA, engine.read_memory(DATA, 16))
    for both in (b, fresh):
        both.run(4)
    assert fresh.state() == b.state()


@pytest.mark.parametrize("family", FAMILIES)
def test_states_of_another_size_are_refused(family: str) -> None:
    b = Bench.with_code(family, "nop")
    state = b.engine.save()
    for bad in (b"", state[:-1], state + b"\0"):
        with pytest.raises(EngineError, match="does not fit"):
            b.engine.load(bad)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_own_state_is_put_back_as_any_other(family: str) -> None:
    """In the midst of code, after the engine has gone elsewhere."""
    b = Bench.with_code(family, STORE[family])
    b.run(2)
    state, here = b.engine.save(), b.state()
    memory = b.engine.read_memory(DATA, 16)
    for own in (True, False):
        b.run(4)
        assert b.state() != here
        b.engine.write_memory(DATA, memory)
        b.engine.load(state, own=own)
        assert (b.state(), b.engine.save(), b.engine.translates) == (here, state, False)


@pytest.mark.parametrize("own", [True, False])
def test_protection_goes_back_with_the_state(own: bool) -> None:
    """Of physical memory, on RISC-V: what was off is off again, what was set binds again."""
    b = Bench.with_code("riscv64", "li t0, 5\nsw t0, 0(sp)\nsw t0, 4(sp)\nnop")
    engine = b.engine
    engine.write("sp", DATA)
    free = engine.save()
    engine.write("pmpaddr0", DATA >> 2 | 0x1FF)
    engine.write("pmpcfg0", 0x99)  # NAPOT, locked, readable
    bound = engine.save()
    for state, faults in ((free, False), (bound, True), (free, False), (bound, True)):
        engine.load(state, own=own)
        exit_ = engine.run_until(3)
        assert (exit_.kind is ExitKind.EXCEPTION) == faults


@pytest.mark.parametrize("family", FAMILIES)
def test_the_probe_finds_everything_in_this_unicorn(family: str) -> None:
    assert Bench.with_code(family, "nop").engine.unknown == ()


def test_a_probe_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aarch64, "found_at", lambda _state, _value: set())
    found = aarch64.layout()
    assert (found.syndrome, found.fault_address) == (None, None)
    assert found.missing == ("syndrome", "fault address")


@pytest.mark.parametrize("family", RISCV)
def test_floating_point_flags_are_saved(family: str) -> None:
    b = Bench.with_code(family, "nop")
    b.engine.write("fflags", 21)
    state = b.engine.save()
    b.engine.write("fflags", 2)
    b.engine.load(state)
    assert b.engine.read("fflags") == 21
    fresh = Bench.with_code(family, "nop")
    fresh.engine.load(state)
    assert fresh.engine.read("fflags") == 21


VIRTUAL = 0x4000_0000


def _paged(code: str) -> Bench:
    """RV64 in S mode at VIRTUAL, which is CODE; the page behind it is DATA; nothing else is mapped (Sv39)."""
    b = Bench.with_code("riscv64", code)
    engine = b.engine
    root, middle, leaf = DATA + 0x1000, DATA + 0x2000, DATA + 0x3000
    engine.write_memory(root, bytes(0x2800))
    entries = [
        (root + 8 * (VIRTUAL >> 30), middle, 0x01),  # V
        (middle, leaf, 0x01),
        (leaf, CODE, 0xCF),  # D A X W R V
        (leaf + 8, DATA, 0xC7),  # D A W R V
    ]
    for at, target, flags in entries:
        engine.write_memory(at, struct.pack("<Q", target >> 12 << 10 | flags))
    engine.write_memory(CODE + 0x800, assemble("riscv64", "mret"))
    engine.write("satp", 8 << 60 | root >> 12)
    engine.write("mstatus", 1 << 11 | 1 << 13)  # MPP = S, FS on
    engine.write("mepc", VIRTUAL)
    engine.write("pc", CODE + 0x800)
    return b


PAGED = f"li a0, {VIRTUAL + 0x1000}\nsw a0, 16(a0)\nlw a1, 16(a0)\nsw a1, 24(a0)\nli a2, 0x123000\nlw a3, 8(a2)\nnop"


def test_a_guest_with_translation_on_stops_where_it_should() -> None:
    b = _paged(PAGED)
    assert b.run(1).kind is ExitKind.LIMIT
    assert (b.engine.read("priv"), b.pc) == (1, VIRTUAL)
    assert b.engine.translate(VIRTUAL + 0x1010) == DATA + 0x10
    with pytest.raises(MemoryFault):
        b.engine.read_memory(VIRTUAL + 0x2000, 1)
    assert len(b.engine.read_memory(VIRTUAL + 0x1FF0, 64)) == 16
    b.engine.arm(Stops(watches=(Watch(VIRTUAL + 0x1018, 4, "w"), Watch(VIRTUAL + 0x1010, 2, "r"))))
    seen = []
    while (exit_ := b.run(100)).kind is ExitKind.WATCHPOINT:
        seen.append((b.pc - VIRTUAL, [h.address - VIRTUAL for h in exit_.hits]))
    assert [addresses for _, addresses in seen] == [[0x1010], [0x1018]]
    assert exit_.kind is ExitKind.EXCEPTION
    assert exit_.exception is not None
    assert (exit_.exception.kind, exit_.exception.number) == (ExceptionKind.READ_FAULT, 13)
    assert exit_.exception.address == 0x123008
    end = b.engine.icount
    sliced = _paged(PAGED)
    for icount in range(1, end + 1):
        assert sliced.run(icount).kind is ExitKind.LIMIT
        sliced.engine.load(sliced.engine.save())
    assert sliced.state() == b.state()
    assert sliced.to_exception().address == 0x123008


def test_a_jump_to_a_page_without_translation_retires() -> None:
    b = _paged(f"li a0, {VIRTUAL + 0x5000}\njr a0")
    exception = b.to_exception()
    assert (exception.kind, exception.number) == (ExceptionKind.FETCH_FAULT, 12)
    assert (exception.pc, exception.address) == (VIRTUAL + 0x5000, VIRTUAL + 0x5000)
    count = b.engine.icount
    assert b.to_exception().pc == VIRTUAL + 0x5000
    assert b.engine.icount == count


def test_running_into_a_page_that_may_not_be_executed() -> None:
    b = _paged(f"li a0, {VIRTUAL + 0xFF8}\njr a0")
    b.engine.write("pc", CODE + 0x800)
    b.engine.ram.write(CODE + 0xFF8, b"\x01\x00" * 4)
    b.engine.pages_changed([0])
    exception = b.to_exception()
    assert (exception.kind, exception.pc) == (ExceptionKind.FETCH_FAULT, VIRTUAL + 0x1000)


@pytest.mark.parametrize("family", FAMILIES)
def test_states_that_no_cpu_can_be_in_are_refused(family: str) -> None:
    """Unicorn looks things up by these values, unchecked: privilege levels, modes of rounding, the top of the x87
    stack, and what translated code was made for."""
    b = Bench.with_code(family, STORE[family])
    b.run(4)
    engine = b.engine
    state, digest = engine.save(), engine.registers_digest()
    bounds = find_layout(engine.family).bounds
    assert bounds
    for bound in bounds:
        place = 16 + bound.at
        for value in (b"\xff" * bound.size, b"\x7f" * bound.size, b"\x80".rjust(bound.size, b"\0")):
            with pytest.raises((EngineError, ValueError), match="that no CPU has"):
                engine.load(state[:place] + value + state[place + bound.size :])
    engine.load(state)
    assert (engine.save(), engine.registers_digest()) == (state, digest)


@pytest.mark.parametrize("family", ["arm", "aarch64"])
def test_what_arm_works_out_of_the_state_is_compared(family: str) -> None:
    """The flags by which code is translated name the table in which addresses are looked up."""
    b = Bench.with_code(family, STORE[family])
    b.run(4)
    state = b.engine.save()
    refused = set()
    for at in range(16 + 320, 16 + 352, 4):
        for value in (b"\xff" * 4, b"\x02\0\0\0"):
            try:
                b.engine.load(state[:at] + value + state[at + 4 :])
            except EngineError as e:
                refused.add(str(e))
    assert "a CPU state that does not agree with itself" in refused
    assert any("which there is not" in said for said in refused)
    b.engine.load(state)
    assert b.engine.save() == state
