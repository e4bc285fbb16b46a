"""32-bit Arm: both instruction sets' traps, counters, conditions and exception entry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrgdb.arch import ARCHES
from rrgdb.arch.base import CpuException, ExceptionKind, IllegalInstruction, Trap
from rrgdb.engine.unicorn.families import FAMILIES
from rrgdb_tests.arch.cpus import FakeCpu, FakeHost

ARM = ARCHES["arm"]
THUMB = ARM.second_set
T = 1 << 5
CODE, VECTORS = 0x10000, 0x20000
COUNT = 987_654_321_000 * 62_500_000 // 1_000_000_000
TIMER = {"id_pfr1": 0x11011, "cpsr": 0x1D3}


def _classify_thumb(code: str) -> Trap | None:
    assert THUMB
    return THUMB.classify(bytes.fromhex(code))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (0xEC510F0E, Trap.COUNTER),  # mrrc p15, 0, r0, r1, c14
        (0xEC410F2E, Trap.COUNTER),  # mcrr p15, 2, r0, r1, c14
        (0x0E1E0F33, Trap.COUNTER),  # mrceq p15, 0, r0, c14, c3, 1
        (0xEE190F1D, Trap.COUNTER),  # mrc p15, 0, r0, c9, c13, 0
        (0xEE1E0F10, None),  # mrc p15, 0, r0, c14, c0, 0: the frequency
        (0xEE010F10, Trap.MMU),  # mcr p15, 0, r0, c1, c0, 0
        (0xEE110F10, None),  # mrc of the same
        (0xEE010F50, None),  # CPACR
        (0xEE020F10, Trap.MMU),
        (0xEE080F17, Trap.MMU),  # TLBIALL
        (0xEE0D0F30, Trap.MMU),  # CONTEXTIDR
        (0xEE0D0F70, None),  # TPIDRURO
        (0xEC410F02, Trap.MMU),  # mcrr p15, 0, r0, r1, c2
        (0xE320F003, Trap.HALT),
        (0x1320F002, Trap.HALT),
        (0xE320F000, None),  # nop
        (0xE320F004, None),  # sev
        (0xE1400070, Trap.HYPERCALL),
        (0xE1600070, Trap.HYPERCALL),
        (0xEF123456, Trap.SEMIHOST),
        (0xEF000000, None),
        (0xE10F0070, Trap.SEMIHOST),
        (0xE1A00000, None),
        (0xFE190F1D, None),  # mrc2
    ],
)
def test_a32_traps(word: int, expected: Trap | None) -> None:
    assert ARM.classify(word.to_bytes(4, "little")) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("51ec0e0f", Trap.COUNTER),
        ("1eee330f", Trap.COUNTER),
        ("01ee100f", Trap.MMU),
        ("11ee100f", None),
        ("30bf", Trap.HALT),
        ("00bf", None),
        ("18bf", None),  # it ne
        ("aff30380", Trap.HALT),
        ("aff30080", None),
        ("e0f70080", Trap.HYPERCALL),
        ("f0f70080", Trap.HYPERCALL),
        ("abdf", Trap.SEMIHOST),
        ("aadf", None),
        ("bcba", Trap.SEMIHOST),
        ("c046", None),
    ],
)
def test_thumb_traps(code: str, expected: Trap | None) -> None:
    assert _classify_thumb(code) is expected


@given(word=st.integers(0, (1 << 32) - 1), shape=st.sampled_from([0, 0x0E000F10, 0x0C400F00, 0x0320F000]))
def test_the_prefilters_let_every_trap_through(word: int, shape: int) -> None:
    assert THUMB
    word |= shape
    if ARM.classify(word.to_bytes(4, "little")) is not None:
        assert any(word & mask == value for mask, value in FAMILIES["arm"].filters)
    swapped = word >> 16 | (word & 0xFFFF) << 16
    for code in (swapped.to_bytes(4, "little"), (word & 0xFFFF).to_bytes(2, "little")):
        if THUMB.classify(code) is not None:
            memory = int.from_bytes(code, "little")
            assert any(memory & mask == value for mask, value in FAMILIES["arm"].second_filters)


def _emulate(code: str, **registers: int) -> FakeCpu:
    cpu = FakeCpu(icount=0x1_2345_6789, registers={"pc": CODE, **TIMER, **registers})
    ARM.emulate(cpu, Trap.COUNTER, bytes.fromhex(code), FakeHost(987_654_321_000))
    assert cpu.registers["pc"] == CODE + 4
    return cpu


def test_counters() -> None:
    cpu = _emulate("1e0f51ec")  # mrrc p15, 1, r0, r1, c14
    assert (cpu.registers["r0"], cpu.registers["r1"]) == (COUNT & 0xFFFFFFFF, COUNT >> 32)
    assert _emulate("1d0f19ee").registers["r0"] == 0x23456789  # PMCCNTR
    thumb = _emulate("51ec1e0f", cpsr=0x1D3 | T)
    assert thumb.registers["r0"] == COUNT & 0xFFFFFFFF
    assert _emulate("130f0eee", r0=5).registers["cntv_cval"] == COUNT + 5


@pytest.mark.parametrize(
    ("code", "registers"),
    [
        ("1e0f51ec", {"cpsr": 0x10}),  # from user mode, not enabled
        ("1e0f51ec", {"id_pfr1": 0x11}),  # a model without the timer
        ("1e0f41ec", {}),  # a write
        ("1d0f19ee", {"cpsr": 0x10}),
    ],
)
def test_counters_that_are_refused(code: str, registers: dict[str, int]) -> None:
    with pytest.raises(IllegalInstruction):
        _emulate(code, **registers)


@pytest.mark.parametrize(
    ("condition", "flags", "holds"),
    [
        (0, 4, True),
        (1, 4, False),
        (2, 2, True),
        (8, 6, False),
        (8, 2, True),
        (10, 9, True),
        (12, 4, False),
        (13, 8, True),
    ],
)
def test_conditions(condition: int, flags: int, holds: bool) -> None:
    assert ARM.executes
    cpu = FakeCpu(registers={"cpsr": flags << 28 | 0x1D3})
    assert ARM.executes(cpu, (condition << 28).to_bytes(4, "little")) is holds
    state = condition << 4 | 8
    thumb = FakeCpu(registers={"cpsr": flags << 28 | 0x1D3 | T | (state & 3) << 25 | (state & 0xFC) << 8})
    assert ARM.executes(thumb, b"\0\0") is holds


@pytest.mark.parametrize(
    ("kind", "thumb", "vector", "mode", "link"),
    [
        (ExceptionKind.UNDEFINED, False, 0x04, 0x1B, CODE + 4),
        (ExceptionKind.UNDEFINED, True, 0x04, 0x1B, CODE + 2),
        (ExceptionKind.SYSCALL, False, 0x08, 0x13, CODE + 4),
        (ExceptionKind.SYSCALL, True, 0x08, 0x13, CODE + 2),
        (ExceptionKind.BREAKPOINT, True, 0x0C, 0x17, CODE + 4),
        (ExceptionKind.FETCH_FAULT, True, 0x0C, 0x17, CODE + 4),
        (ExceptionKind.READ_FAULT, False, 0x10, 0x17, CODE + 8),
        (ExceptionKind.WRITE_FAULT, True, 0x10, 0x17, CODE + 8),
    ],
)
def test_entry(kind: ExceptionKind, thumb: bool, vector: int, mode: int, link: int) -> None:
    status = 0x60000010 | (T if thumb else 0)
    cpu = FakeCpu(registers={"cpsr": status, "vbar": VECTORS, "pc": CODE})
    assert ARM.enter_exception(cpu, CpuException(kind, -1, CODE, CODE + (2 if thumb else 4), address=0x500))
    assert (cpu.registers["pc"], cpu.registers["lr"], cpu.registers["spsr"]) == (VECTORS + vector, link, status)
    assert cpu.registers["cpsr"] & 0xBF == 0x80 | mode
    if kind is ExceptionKind.WRITE_FAULT:
        assert (cpu.registers["dfsr"], cpu.registers["dfar"]) == (0x808, 0x500)


def test_the_control_register_moves_vectors_and_chooses_the_handlers_set() -> None:
    cpu = FakeCpu(registers={"cpsr": 0x1D3, "vbar": VECTORS, "sctlr": 1 << 13 | 1 << 30 | 1 << 25})
    assert ARM.enter_exception(cpu, CpuException(ExceptionKind.SYSCALL, -1, CODE, CODE + 4))
    assert cpu.registers["pc"] == 0xFFFF0008
    assert cpu.registers["cpsr"] & (T | 1 << 9) == T | 1 << 9


def test_a_system_call_inside_an_it_block_saves_the_state_behind_it() -> None:
    inside = 0x1F << 10 | 0x1D3 | T  # ITSTATE 0x7c
    cpu = FakeCpu(registers={"cpsr": inside, "vbar": VECTORS})
    assert ARM.enter_exception(cpu, CpuException(ExceptionKind.SYSCALL, -1, CODE, CODE + 2))
    assert cpu.registers["spsr"] == 0x1E << 10 | 0x1D3 | T  # 0x78
    assert cpu.registers["cpsr"] & 0x0600FC00 == 0
