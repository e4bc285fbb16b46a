"""x86: the resume flag, and what selectors and the machine status word read, in every gear and however runs are cut."""

from __future__ import annotations

import pytest

from rrgdb.arch.base import ExceptionKind, Trap
from rrgdb.engine.base import ExitKind
from rrgdb_tests.engine.unicorn.rig import CODE, DATA, Bench

FAMILIES = ("i386", "x86_64")
RF = 1 << 16
GDT = DATA + 0x100
# lgdt; then to a code segment of the table
START = {
    "i386": (
        f"start: lgdt [{DATA}]\nmov eax, 16\nmov ss, eax\npush 8\npush {CODE} + (segment - start)\nretf\nsegment:\n"
    ),
    "x86_64": f"start: lgdt [{DATA}]\npush 8\npush {CODE} + (segment - start)\nretfq\nsegment:\n",
}
# What a handler does: back to {0}, with RF in the flags
RETURN = {
    "i386": "pushf\nor dword ptr [esp], 0x10000\npush 8\npush {CODE} + ({0} - start)\niretd\n",
    "x86_64": (
        "pushf\npop rax\nor eax, 0x10000\nmov rdx, rsp\n"
        "push 0\npush rdx\npush rax\npush 8\npush {CODE} + ({0} - start)\niretq\n"
    ),
}
PROGRAMS = {
    "a loop of direct jumps": ["a", "nop\njmp c\nc: dec ebx\njnz c\nnop\nnop"],
    "in the middle of a page's last block": ["a", "nop\n.p2align 12, 0x90\nnop\nc: dec ebx\njnz c\nmov ecx, 3\nnop"],
    "to what repeats": ["a", "rep stosb\nnop\nmov ecx, 2\nrep stosb\nnop"],
    "to another return": ["a", "nop\nnop", "b", "nop\nnop"],
    "to a device": ["a", "mov eax, dword ptr [0x400000]\nnop"],
    "to flags that are computed": ["a", "mov eax, 5\ncmp eax, 0xf0000000\nsetc bl\npushf\npop {dx}"],
    "to a restart": ["a", f"mov byte ptr [{CODE} + (n - start)], 0x90\nn: nop\nnop\nnop"],
}


class NoHost:
    def entropy(self, length: int) -> bytes:
        raise AssertionError(length)

    def virtual_ns(self) -> int:
        raise AssertionError


def _source(family: str, name: str) -> str:
    wide = family == "x86_64"
    parts = PROGRAMS[name]
    text = START[family] + f"mov ebx, 3\nmov ecx, 5\nmov edi, {DATA + 0x800}\n"
    for label, code in zip(parts[::2], parts[1::2], strict=True):
        text += RETURN[family].replace("{CODE}", str(CODE)).format(label) + f"{label}:\n"
        text += code.replace("{dx}", "rdx" if wide else "edx") + "\n"
    return text + "hlt"


def _bench(family: str, name: str, *, fast: bool = True) -> Bench:
    b = Bench.with_code(family, _source(family, name), fast=fast)
    code = 0x00AF9B000000FFFF if family == "x86_64" else 0x00CF9B000000FFFF
    b.engine.write_memory(DATA, (23).to_bytes(2, "little") + GDT.to_bytes(8, "little"))
    b.engine.write_memory(GDT, b"".join(e.to_bytes(8, "little") for e in (0, code, 0x00CF93000000FFFF)))
    return b


def _returned(before: bytes) -> bool:
    return before[:1] == b"\xcf" or before[:2] == b"\x48\xcf"


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_rf_stands_for_the_one_instruction_behind_a_return(family: str, name: str) -> None:
    b, states, codes = _bench(family, name), [], []
    while not codes or b.run(len(codes)).kind is ExitKind.LIMIT:
        returned = bool(codes) and _returned(codes[-1])
        assert bool(b.engine.read("eflags") & RF) == returned, len(codes)
        codes.append(b.engine.read_memory(b.pc, 2))
        states.append(b.state())
    assert sum(_returned(code) for code in codes) == name.count("another") + 1
    for fast in (True, False):
        whole = _bench(family, name, fast=fast)
        assert whole.run(1000).kind is ExitKind.TRAP
        assert (whole.engine.icount, whole.state()) == (len(states) - 1, states[-1])
    for first in range(1, len(states)):
        cut = _bench(family, name)
        cut.run(first)
        assert cut.state() == states[first], first
        saved = cut.engine.save()
        cut.engine.load(saved)
        cut.run(1000)
        assert cut.state() == states[-1], first


@pytest.mark.parametrize("family", FAMILIES)
def test_rf_that_a_debugger_writes_stands_for_one_instruction(family: str) -> None:
    for fast in (True, False):
        b = Bench.with_code(family, "nop\nnop\nnop\nnop", fast=fast)
        b.run(1)
        b.engine.write("eflags", b.engine.read("eflags") | RF)
        b.run(1)
        assert b.engine.read("eflags") & RF
        b.run(3)
        assert not b.engine.read("eflags") & RF


def test_sysret_clears_rf() -> None:
    source = (
        "mov ecx, 0xc0000080\nrdmsr\nor eax, 1\nwrmsr\nmov ecx, 0xc0000081\nxor eax, eax\nmov edx, 0x130008\nwrmsr\n"
        f"mov r11d, 0x10202\nmov ecx, {CODE + 0x100}\nsysretq\n.org 0x100\nnop\nnop"
    )
    b = Bench.with_code("x86_64", source)
    for icount in range(1, 14):
        assert b.run(icount).kind is ExitKind.LIMIT
        assert not b.engine.read("eflags") & RF
    assert b.pc > CODE + 0x100


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trap_behind_a_return_ends_rf(family: str) -> None:
    b = Bench.with_code(family, "rdtsc\nnop")
    b.engine.write("eflags", RF | 2)
    assert b.run(5).kind is ExitKind.TRAP
    assert b.engine.read("eflags") & RF
    b.engine.count_one()
    assert not b.engine.read("eflags") & RF


@pytest.mark.parametrize("family", FAMILIES)
def test_selectors_fill_a_whole_register(family: str) -> None:
    names = ("rbx", "rcx", "rdx") if family == "x86_64" else ("ebx", "ecx", "edx")
    ones = "".join(f"mov {name}, -1\n" for name in names)
    b = Bench.with_code(family, f"{ones}str {names[0]}\nsldt {names[1]}\nmov {names[2]}, ds\nstr ax")
    for name, value in (("tr_selector", 0x28), ("ldtr_selector", 0x30)):
        b.engine.write(name, value)
    b.run(6)
    assert [b.engine.read(name) for name in names] == [0x28, 0x30, 0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("fast", [True, False])
def test_a_breakpoint_of_the_guests_own_stands_before_its_instruction(family: str, fast: bool) -> None:
    """At any of its registers; RF passes over it once, a data breakpoint is none."""
    b = Bench.with_code(family, "mov ecx, 1000\nagain: nop\nnop\ndec ecx\njnz again\nnop", fast=fast)
    for number in range(4):
        b.engine.write(f"dr{number}", CODE + 6)
    b.engine.write("dr7", 0x300000 | 0b10_01 << 2)  # 1 is for data, 2 for code; 0 and 3 are off
    for hit in range(3):
        exception = b.to_exception()
        assert (exception.kind, exception.number, exception.pc) == (ExceptionKind.NATIVE, 1, CODE + 6)
        assert (b.engine.icount, b.engine.read("dr6") & 15) == (2 + 4 * hit, 15)
        assert b.to_exception() == exception
        b.engine.write("eflags", b.engine.read("eflags") | RF)
    state = b.engine.save()
    b.engine.write("dr7", 0)
    assert b.run(1 << 20).kind is ExitKind.EXCEPTION  # off the end
    assert b.engine.icount > 4000
    b.engine.load(state)
    assert (b.to_exception().number, b.engine.icount) == (1, 14)


@pytest.mark.parametrize("family", FAMILIES)
def test_debug_registers_are_written_by_the_guest(family: str) -> None:
    a = "rax" if family == "x86_64" else "eax"
    b = Bench.with_code(family, f"mov {a}, 0x1234\nmov dr3, {a}\nmov dr7, {a}\nmov ecx, 2\nnop")
    for icount in (1, 2):
        exit_ = b.run(9)
        assert (exit_.kind, exit_.trap, b.engine.icount) == (ExitKind.TRAP, Trap.SYSTEM, icount)
        b.engine.arch.emulate(b.engine, Trap.SYSTEM, exit_.code, NoHost())
        b.engine.count_one()
    assert (b.engine.read("dr3"), b.engine.read("dr7")) == (0x1234, 0x1634)
    assert b.run(4).kind is ExitKind.LIMIT
