"""Emulated instructions: results, flags, pc, and what they refuse; forms are the hardware's."""

from __future__ import annotations

import pytest

from rrgdb.arch import ARCHES
from rrgdb.arch.base import IllegalInstruction, Trap
from rrgdb_tests.arch.cpus import FakeCpu, FakeHost, UnicornCpu

ICOUNT = 0x1_2345_6789
NANOSECONDS = 987_654_321_000
NZCV = 0xF0000000


def _run(name: str, code: bytes, trap: Trap, **registers: int) -> FakeCpu:
    arch = ARCHES[name]
    cpu = FakeCpu(icount=ICOUNT, registers={arch.pc: 0x1000, "priv": 3, **registers})
    assert arch.classify(code) is trap
    arch.emulate(cpu, trap, code, FakeHost(NANOSECONDS))
    assert cpu.registers[arch.pc] == 0x1000 + len(code)
    return cpu


def _refused(name: str, code: bytes, trap: Trap, **registers: int) -> IllegalInstruction:
    arch = ARCHES[name]
    cpu = FakeCpu(icount=ICOUNT, registers={arch.pc: 0x1000, **registers})
    with pytest.raises(IllegalInstruction) as error:
        arch.emulate(cpu, trap, code, FakeHost(NANOSECONDS))
    assert cpu.writes == []
    return error.value


def _word(word: int) -> bytes:
    return word.to_bytes(4, "little")


def _csr(number: int, funct3: int, rd: int, source: int) -> bytes:
    return _word(number << 20 | source << 15 | funct3 << 12 | rd << 7 | 0x73)


TIME = NANOSECONDS // 100  # at 10 MHz


@pytest.mark.parametrize(
    ("number", "narrow", "wide"),
    [
        (0xC00, ICOUNT & 0xFFFFFFFF, ICOUNT),
        (0xC02, ICOUNT & 0xFFFFFFFF, ICOUNT),
        (0xB00, ICOUNT & 0xFFFFFFFF, ICOUNT),
        (0xB02, ICOUNT & 0xFFFFFFFF, ICOUNT),
        (0xC01, TIME & 0xFFFFFFFF, TIME),
        (0xC80, 1, None),
        (0xC82, 1, None),
        (0xB80, 1, None),
        (0xB82, 1, None),
        (0xC81, TIME >> 32, None),
    ],
)
def test_riscv_counters(number: int, narrow: int, wide: int | None) -> None:
    code = _csr(number, 2, 10, 0)
    assert _run("riscv32", code, Trap.COUNTER).registers["a0"] == narrow
    if wide is not None:
        assert _run("riscv64", code, Trap.COUNTER).registers["a0"] == wide


@pytest.mark.parametrize("funct3", [1, 2, 3, 5, 6, 7])
@pytest.mark.parametrize("arch", ["riscv32", "riscv64"])
def test_riscv_writes_to_machine_counters_read_the_old_value(arch: str, funct3: int) -> None:
    """The next instruction reads what was written."""
    xlen = int(arch[-2:])
    operand = 5 if funct3 > 4 else 99
    for csr, name, shift in ((0xB00, "mcycle", 0), (0xB02, "minstret", 0), (0xB80, "mcycle", 32)):
        if shift and xlen == 64:
            continue
        cpu = _run(arch, _csr(csr, funct3, 11, 5), Trap.COUNTER, t0=99)
        old = ICOUNT >> shift & (1 << xlen) - 1
        assert (cpu.registers["a1"], cpu.registers["t0"]) == (old, 99)
        new = {1: operand, 2: old | operand, 3: old & ~operand}[funct3 & 3]
        kept = 0 if xlen == 64 else ICOUNT & (0xFFFFFFFF if shift else ~0xFFFFFFFF)
        assert (cpu.registers[name] + ICOUNT + 1) % (1 << 64) == new << shift | kept


@pytest.mark.parametrize("funct3", [1, 2, 3, 5, 6, 7])
def test_riscv_writes_to_read_only_counters_are_illegal(funct3: int) -> None:
    code = _csr(0xC00, funct3, 11, 5)
    assert ARCHES["riscv64"].classify(code) is None
    _refused("riscv64", code, Trap.COUNTER, priv=3)


@pytest.mark.parametrize(
    ("number", "priv", "mcounteren", "scounteren", "allowed"),
    [
        (0xC00, 3, 0, 0, True),
        (0xC00, 1, 1, 0, True),
        (0xC00, 1, 6, 7, False),
        (0xC00, 0, 1, 1, True),
        (0xC00, 0, 1, 0, False),
        (0xC00, 0, 0, 1, False),
        (0xC01, 1, 2, 0, True),
        (0xC01, 1, 5, 0, False),
        (0xC82, 1, 4, 0, True),
        (0xB00, 1, 7, 7, False),
        (0xB00, 0, 7, 7, False),
    ],
)
def test_riscv_counter_enables(number: int, priv: int, mcounteren: int, scounteren: int, allowed: bool) -> None:
    code = _csr(number, 2, 10, 0)
    state = {"priv": priv, "mcounteren": mcounteren, "scounteren": scounteren}
    if allowed:
        _run("riscv32", code, Trap.COUNTER, **state)
    else:
        _refused("riscv32", code, Trap.COUNTER, **state)


COUNT = NANOSECONDS * 625 // 10_000  # at 62.5 MHz


@pytest.mark.parametrize("word", [0xD53BE040, 0xD53BE020])
def test_aarch64_counters(word: int) -> None:
    assert _run("aarch64", _word(word | 7), Trap.COUNTER, cpsr=0x3C5).registers["x7"] == COUNT
    assert _run("aarch64", _word(word | 31), Trap.COUNTER, cpsr=0x3C5).writes == ["pc"]


def test_aarch64_cycle_counter() -> None:
    assert _run("aarch64", _word(0xD53B9D06), Trap.COUNTER, cpsr=0x3C5).registers["x6"] == ICOUNT
    assert _run("aarch64", _word(0xD51B9D06), Trap.COUNTER, cpsr=0x3C5, x6=5).writes == ["pc"]
    for event_counter in (0xD53BE806, 0xD53BEBC6, 0xD53B9D46):
        cpu = _run("aarch64", _word(event_counter), Trap.COUNTER, cpsr=0x3C5)
        assert cpu.registers["x6"] == ICOUNT & 0xFFFFFFFF


@pytest.mark.parametrize("timer", ["cntp", "cntv"])
def test_aarch64_timer_value(timer: str) -> None:
    bank = 0x200 if timer == "cntp" else 0x300
    read, write = 0xD53BE002 | bank, 0xD51BE002 | bank
    compare = f"{timer}_cval_el0"
    for ahead in (0, 1000, -1000, 0x7FFFFFFF):
        cpu = _run("aarch64", _word(write), Trap.COUNTER, cpsr=0x3C5, x2=0xABCD00000000 | ahead & 0xFFFFFFFF)
        assert cpu.registers[compare] == COUNT + ahead
        cpu = _run("aarch64", _word(read), Trap.COUNTER, cpsr=0x3C5, **{compare: COUNT + ahead})
        assert cpu.registers["x2"] == ahead & 0xFFFFFFFF
    assert _run("aarch64", _word(write | 31), Trap.COUNTER, cpsr=0x3C5, x2=9).registers[compare] == COUNT


@pytest.mark.parametrize(
    ("control", "ahead", "expected"), [(0, -1, 0), (1, -1, 5), (1, 0, 5), (1, 1, 1), (3, -1, 7), (2, -1, 2), (7, 1, 3)]
)
def test_aarch64_timer_status(control: int, ahead: int, expected: int) -> None:
    state = {"cpsr": 0x3C5, "cntv_ctl_el0": control, "cntv_cval_el0": COUNT + ahead}
    assert _run("aarch64", _word(0xD53BE324), Trap.COUNTER, **state).registers["x4"] == expected
    assert _run("aarch64", _word(0xD51BE324), Trap.COUNTER, cpsr=0x3C5, x4=0xF).registers["cntv_ctl_el0"] == 3


@pytest.mark.parametrize(
    ("word", "enables", "allowed"),
    [
        (0xD53BE040, {"cntkctl_el1": 2}, True),
        (0xD53BE040, {"cntkctl_el1": 1}, False),
        (0xD53BE020, {"cntkctl_el1": 1}, True),
        (0xD53BE020, {"cntkctl_el1": 2}, False),
        (0xD53BE300, {"cntkctl_el1": 0x100}, True),
        (0xD53BE300, {"cntkctl_el1": 0x2FF}, False),
        (0xD53BE200, {"cntkctl_el1": 0x200}, True),
        (0xD53B9D00, {"pmuserenr_el0": 4}, True),
        (0xD51B9D00, {"pmuserenr_el0": 4}, False),
        (0xD51B9D00, {"pmuserenr_el0": 1}, True),
        (0xD53B9D00, {}, False),
        (0xD53BE800, {"pmuserenr_el0": 4}, False),
        (0xD53BE800, {"pmuserenr_el0": 8}, True),
        (0xD51BE800, {"pmuserenr_el0": 8}, False),
    ],
)
def test_aarch64_counters_from_el0(word: int, enables: dict[str, int], allowed: bool) -> None:
    if allowed:
        _run("aarch64", _word(word), Trap.COUNTER, cpsr=0, **enables)
    else:
        _refused("aarch64", _word(word), Trap.COUNTER, cpsr=0, **enables)


@pytest.mark.parametrize("word", [0xD53B9C60, 0xD53B9E60])
def test_aarch64_counters_never_overflow(word: int) -> None:
    assert _run("aarch64", _word(word), Trap.COUNTER, cpsr=0x3C5, x0=5).registers["x0"] == 0
    _run("aarch64", _word(word), Trap.COUNTER, cpsr=0, pmuserenr_el0=1)
    _refused("aarch64", _word(word), Trap.COUNTER, cpsr=0, pmuserenr_el0=8)


def test_aarch64_counters_are_read_only() -> None:
    _refused("aarch64", _word(0xD51BE040), Trap.COUNTER, cpsr=0x3C5)


@pytest.mark.parametrize("word", [0xD53B2403, 0xD53B2423])
def test_aarch64_random(word: int) -> None:
    state = {"cpsr": 0x3C5 | NZCV, "id_aa64isar0_el1": 1 << 60}
    cpu = _run("aarch64", _word(word), Trap.ENTROPY, **state)
    assert (cpu.registers["x3"], cpu.registers["cpsr"]) == (0x8887868584838281, 0x3C5)
    _refused("aarch64", _word(word), Trap.ENTROPY, cpsr=0x3C5)  # a model without FEAT_RNG


FLAGS = 0x8D5  # OF SF ZF AF PF CF


@pytest.mark.parametrize(
    ("code", "destination", "value"),
    [
        ("0fc7f1", "rcx", 0x84838281),
        ("0fc7f9", "rcx", 0x84838281),
        ("660fc7f1", "rcx", 0x1122334455668281),
        ("480fc7f1", "rcx", 0x8887868584838281),
        ("66480fc7f1", "rcx", 0x8887868584838281),
        ("410fc7f7", "r15", 0x84838281),
        ("490fc7ff", "r15", 0x8887868584838281),
        ("66410fc7f7", "r15", 0x1122334455668281),
    ],
)
def test_x86_64_random(code: str, destination: str, value: int) -> None:
    state = {destination: 0x1122334455667788, "eflags": 0x202 | FLAGS & ~1}
    cpu = _run("x86_64", bytes.fromhex(code), Trap.ENTROPY, **state)
    assert (cpu.registers[destination], cpu.registers["eflags"]) == (value, 0x203)


@pytest.mark.parametrize(("code", "value"), [("0fc7f6", 0x84838281), ("660fc7f6", 0x55668281)])
def test_i386_random(code: str, value: int) -> None:
    cpu = _run("i386", bytes.fromhex(code), Trap.ENTROPY, esi=0x55667788, eflags=2)
    assert (cpu.registers["esi"], cpu.registers["eflags"]) == (value, 3)


@pytest.mark.parametrize("name", ["i386", "x86_64"])
def test_x86_counters(name: str) -> None:
    low, high, aux = ("rax", "rdx", "rcx") if name == "x86_64" else ("eax", "edx", "ecx")
    old = dict.fromkeys((low, high, aux), 1431655765)
    for code, value in (("0f31", NANOSECONDS), ("0f33", ICOUNT), ("0f01f9", NANOSECONDS), ("2e0f31", NANOSECONDS)):
        cpu = _run(name, bytes.fromhex(code), Trap.COUNTER, tsc_aux=7, **old)
        assert cpu.registers[low] | cpu.registers[high] << 32 == value
        assert cpu.registers[aux] == (7 if code == "0f01f9" else 0x55555555)


@pytest.mark.parametrize(
    ("code", "cs", "cr4", "allowed"),
    [
        ("0f31", 0x1B, 0, True),
        ("0f31", 0x1B, 4, False),
        ("0f31", 0x08, 4, True),
        ("0f01f9", 0x1B, 4, False),
        ("0f33", 0x08, 0, True),
        ("0f33", 0x1B, 0, False),
        ("0f33", 0x1B, 0x100, True),
    ],
)
def test_x86_counter_permissions(code: str, cs: int, cr4: int, allowed: bool) -> None:
    if allowed:
        _run("i386", bytes.fromhex(code), Trap.COUNTER, cr0=1, cs=cs, cr4=cr4)
    else:
        error = _refused("i386", bytes.fromhex(code), Trap.COUNTER, cr0=1, cs=cs, cr4=cr4)
        assert (error.number, error.detail) == (13, 0)


@pytest.mark.parametrize(
    ("code", "state", "register", "value"),
    [
        ("0f23c1", {"rcx": 1 << 40}, "dr0", 1 << 40),
        ("410f23df", {"r15": 7}, "dr3", 7),
        ("0f23f1", {"rcx": 0x4001}, "dr6", 0xFFFF4FF1),
        ("0f23e1", {"rcx": 0x4001}, "dr6", 0xFFFF4FF1),
        ("0f23f9", {"rcx": 3}, "dr7", 0x403),
        ("0f23e9", {"rcx": 3}, "dr7", 0x403),
    ],
)
def test_x86_debug_registers(code: str, state: dict[str, int], register: str, value: int) -> None:
    assert _run("x86_64", bytes.fromhex(code), Trap.SYSTEM, cr0=1, **state).registers[register] == value


@pytest.mark.parametrize(
    ("code", "state", "number"),
    [
        ("0f23c1", {"cs": 3}, 13),
        ("0f23f9", {"rcx": 1 << 32}, 13),
        ("0f23e1", {"cr4": 8}, None),
    ],
)
def test_x86_debug_registers_refuse(code: str, state: dict[str, int], number: int | None) -> None:
    assert _refused("x86_64", bytes.fromhex(code), Trap.SYSTEM, cr0=1, **state).number == number


@pytest.mark.parametrize(("cr0", "eflags", "cs", "allowed"), [(0, 2, 0x1B, True), (1, 1 << 17, 0x18, False)])
def test_x86_rings_of_real_and_virtual_8086_mode(cr0: int, eflags: int, cs: int, allowed: bool) -> None:
    state = {"cr0": cr0, "eflags": eflags, "cs": cs, "cr4": 4}
    if allowed:
        _run("i386", b"\x0f\x31", Trap.COUNTER, **state)
    else:
        assert _refused("i386", b"\x0f\x31", Trap.COUNTER, **state).number == 13


@pytest.mark.parametrize(
    ("name", "code", "modes", "value"),
    [
        ("i386", "0f01e1", 0x10, 0xE000003B),
        ("i386", "660f01e1", 0x10, 0x5566003B),
        ("i386", "0f01e1", 0, 0x5566003B),
        ("i386", "660f01e1", 0, 0xE000003B),
        ("x86_64", "0f01e1", 0x8010, 0xE000003B),
        ("x86_64", "480f01e1", 0x8010, 0xE000003B),
        ("x86_64", "660f01e1", 0x8010, 0x112233445566003B),
    ],
)
def test_x86_machine_status_word(name: str, code: str, modes: int, value: int) -> None:
    register = "rcx" if name == "x86_64" else "ecx"
    state = {register: 0x1122334455667788 if name == "x86_64" else 0x55667788, "cr0": 0xE000003B, "modes": modes}
    assert _run(name, bytes.fromhex(code), Trap.COMPUTE, **state).registers[register] == value


@pytest.mark.parametrize("name", ARCHES)
@pytest.mark.parametrize("trap", Trap)
def test_other_instructions_are_refused(name: str, trap: Trap) -> None:
    for code in (b"", b"\x90", bytes(4), b"\xff" * 8):
        _refused(name, code, trap, priv=3)


@pytest.mark.parametrize(
    ("name", "code", "trap", "destination", "value"),
    [
        ("riscv32", _csr(0xC80, 2, 10, 0), Trap.COUNTER, "a0", ICOUNT >> 32),
        ("riscv64", _csr(0xC01, 2, 10, 0), Trap.COUNTER, "a0", TIME),
        ("aarch64", _word(0xD53BE043), Trap.COUNTER, "x3", COUNT),
        ("aarch64", _word(0xD51BE303), Trap.COUNTER, "cntv_cval_el0", COUNT),
        ("i386", bytes.fromhex("0f31"), Trap.COUNTER, "edx", NANOSECONDS >> 32),
        ("x86_64", bytes.fromhex("490fc7f7"), Trap.ENTROPY, "r15", 0x8887868584838281),
    ],
)
def test_on_the_engine(name: str, code: bytes, trap: Trap, destination: str, value: int) -> None:
    arch = ARCHES[name]
    cpu = UnicornCpu(arch)
    arch.reset(cpu, 0x10000, 0x20000)
    cpu.icount = ICOUNT
    arch.emulate(cpu, trap, code, FakeHost(NANOSECONDS))
    assert (cpu.read(destination), cpu.read(arch.pc)) == (value, 0x10000 + len(code))
