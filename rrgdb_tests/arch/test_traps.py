"""Classification of instructions: hand-assembled tables, cross-checked against capstone's reading of the same bytes."""

from __future__ import annotations

import capstone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrgdb.arch import ARCHES
from rrgdb.arch.base import Arch, Trap
from rrgdb.engine.unicorn.families import FAMILIES

EVERY_ARCH = pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES.keys())

COUNTER, ENTROPY, SEMIHOST, HYPERCALL, HALT, SYSTEM, STATUS, MMU, COMPUTE = (
    Trap.COUNTER,
    Trap.ENTROPY,
    Trap.SEMIHOST,
    Trap.HYPERCALL,
    Trap.HALT,
    Trap.SYSTEM,
    Trap.STATUS,
    Trap.MMU,
    Trap.COMPUTE,
)

# RISC-V and AArch64 words: (word, capstone's text or None where it cannot tell, class).
RISCV = [
    (0xC0002573, "rdcycle a0", COUNTER),
    (0xC0102573, "rdtime a0", COUNTER),
    (0xC0202573, "rdinstret a0", COUNTER),
    (0xC0001073, "unimp", None),
    (0xB0002573, "csrr a0, mcycle", COUNTER),
    (0xB0202573, "csrr a0, minstret", COUNTER),
    (0xB0051073, "csrw mcycle, a0", COUNTER),
    (0xB0205073, "csrwi minstret, 0", COUNTER),
    (0xB000E5F3, "csrrsi a1, mcycle, 1", COUNTER),
    (0xC0302573, "csrr a0, hpmcounter3", None),
    (0x10500073, "wfi", HALT),
    (0x00100073, "ebreak", SEMIHOST),
    (0x00000073, "ecall", None),
    (0x30200073, "mret", None),
    (0x12000073, "sfence.vma", MMU),
    (0x12B50073, "sfence.vma a0, a1", MMU),
    (0x18051073, "csrw satp, a0", MMU),
    (0x18059573, "csrrw a0, satp, a1", MMU),
    (0x18002573, "csrr a0, satp", None),
    (0x30051073, "csrw mstatus, a0", STATUS),
    (0x10016573, "csrrsi a0, sstatus, 2", STATUS),
    (0x3A001073, "csrw pmpcfg0, zero", SYSTEM),
    (0x3A102573, "csrr a0, pmpcfg1", SYSTEM),
    (0x3BF51073, "csrw pmpaddr15, a0", SYSTEM),
    (0x3C051073, None, None),
    (0x7A002573, "csrr a0, tselect", SYSTEM),
    (0x7A151073, "csrw tdata1, a0", SYSTEM),
    (0x34002573, "csrr a0, mscratch", None),
    (0x00000013, "nop", None),
    (0x00000513, "mv a0, zero", None),
    (0x0000100F, "fence.i", None),
]
RISCV32_ONLY = [
    (0xC8002573, "rdcycleh a0", COUNTER),
    (0xC8102573, "rdtimeh a0", COUNTER),
    (0xC8202573, "rdinstreth a0", COUNTER),
    (0xB8002573, "csrr a0, mcycleh", COUNTER),
    (0xB8202573, "csrr a0, minstreth", COUNTER),
]
AARCH64 = [
    (0xD53BE040, "mrs x0, cntvct_el0", COUNTER),
    (0xD53BE021, "mrs x1, cntpct_el0", COUNTER),
    (0xD53BE202, "mrs x2, cntp_tval_el0", COUNTER),
    (0xD53BE303, "mrs x3, cntv_tval_el0", COUNTER),
    (0xD51BE303, "msr cntv_tval_el0, x3", COUNTER),
    (0xD51BE324, "msr cntv_ctl_el0, x4", COUNTER),
    (0xD53BE345, "mrs x5, cntv_cval_el0", COUNTER),
    (0xD53B9D06, "mrs x6, pmccntr_el0", COUNTER),
    (0xD53B9D46, "mrs x6, pmxevcntr_el0", COUNTER),
    (0xD53BE806, "mrs x6, pmevcntr0_el0", COUNTER),
    (0xD53BEBC6, "mrs x6, pmevcntr30_el0", COUNTER),
    (0xD53BEFE6, "mrs x6, pmccfiltr_el0", None),
    (0xD53BE000, "mrs x0, cntfrq_el0", None),
    (0xD53B2400, None, ENTROPY),
    (0xD53B2421, None, ENTROPY),
    (0xD53BD041, "mrs x1, tpidr_el0", None),
    (0xD45E0000, "hlt #0xf000", SEMIHOST),
    (0xD4400000, "hlt #0", None),
    (0xD4000002, "hvc #0", HYPERCALL),
    (0xD4000003, "smc #0", HYPERCALL),
    (0xD41FFFE2, "hvc #0xffff", HYPERCALL),
    (0xD4000001, "svc #0", None),
    (0xD4200000, "brk #0", None),
    (0xD503207F, "wfi", HALT),
    (0xD503205F, "wfe", HALT),
    (0xD503201F, "nop", None),
    (0xD503203F, "yield", None),
    (0xD508871F, "tlbi vmalle1", MMU),
    (0xD508831F, "tlbi vmalle1is", MMU),
    (0xD5088722, "tlbi vae1, x2", MMU),
    (0xD5181000, "msr sctlr_el1, x0", MMU),
    (0xD5182000, "msr ttbr0_el1, x0", MMU),
    (0xD5182021, "msr ttbr1_el1, x1", MMU),
    (0xD5182040, "msr tcr_el1, x0", MMU),
    (0xD518A200, "msr mair_el1, x0", MMU),
    (0xD518D020, "msr contextidr_el1, x0", MMU),
    (0xD5381000, "mrs x0, sctlr_el1", None),
    (0xD5181040, "msr cpacr_el1, x0", None),
    (0xD5033FDF, "isb", None),
    (0x8B020020, "add x0, x1, x2", None),
]
# x86 bytes: (hexadecimal, capstone's text, class on i386, class on x86_64).
X86 = [
    ("0f31", "rdtsc", COUNTER, COUNTER),
    ("660f31", "rdtsc", COUNTER, COUNTER),
    ("0f01f9", "rdtscp", COUNTER, COUNTER),
    ("0f33", "rdpmc", COUNTER, COUNTER),
    ("0fc7f0", "rdrand eax", ENTROPY, ENTROPY),
    ("0fc7fb", "rdseed ebx", ENTROPY, ENTROPY),
    ("660fc7f2", "rdrand dx", ENTROPY, ENTROPY),
    ("0fc70f", "cmpxchg8b", None, None),
    ("f4", "hlt", HALT, HALT),
    ("0f01c9", "mwait", None, None),
    ("0f22c0", "mov cr0, ", MMU, MMU),
    ("0f22d8", "mov cr3, ", MMU, MMU),
    ("0f22e0", "mov cr4, ", MMU, MMU),
    ("0f22d0", "mov cr2, ", None, None),
    ("0f20c0", "mov ", None, None),
    ("0f0138", "invlpg", MMU, MMU),
    ("0f01f0", "lmsw ax", MMU, MMU),
    ("0f01e0", "smsw eax", COMPUTE, COMPUTE),
    ("0f23c1", "mov ", SYSTEM, SYSTEM),
    ("0f21c1", "mov ", None, None),
    ("d9fe", "fsin", COMPUTE, COMPUTE),
    ("d9f8", "fprem", COMPUTE, COMPUTE),
    ("d9fa", "fsqrt", None, None),
    ("d9f4", "fxtract", None, None),
    ("d8fe", "fdivr", None, None),
    ("0f0120", "smsw word", None, None),
    ("0f0110", "lgdt", None, None),
    ("0f30", "wrmsr", MMU, MMU),
    ("0f32", "rdmsr", None, None),
    ("0fa2", "cpuid", None, None),
    ("0f05", "syscall", None, None),
    ("0fb6c0", "movzx eax, al", None, None),
    ("90", "nop", None, None),
    ("f390", "pause", None, None),
    ("cc", "int3", None, None),
]
X86_64_ONLY = [
    ("480fc7f0", "rdrand rax", ENTROPY),
    ("490fc7f7", "rdrand r15", ENTROPY),
    ("66410fc7f8", "rdseed r8w", ENTROPY),
    ("480f31", "rdtsc", COUNTER),
    ("450f22c0", "mov cr8, r8", None),
    ("410f22d8", "mov cr3, r8", MMU),
    ("0f01f8", "swapgs", None),
]


def _text(arch: Arch, code: bytes) -> str:
    mode = 0
    for name in arch.capstone_mode:
        mode |= getattr(capstone, name)
    lines = list(capstone.Cs(getattr(capstone, arch.capstone_arch), mode).disasm(code, 0))
    assert len(lines) == 1
    assert lines[0].size == len(code)
    return f"{lines[0].mnemonic} {lines[0].op_str}".strip()


def _prefiltered(arch: Arch, word: int) -> bool:
    return any(word & mask == value for mask, value in FAMILIES[arch.name].filters)


FIXED_WIDTH = (
    [("riscv32", *row) for row in RISCV + RISCV32_ONLY]
    + [("riscv64", *row) for row in RISCV]
    + [("aarch64", *row) for row in AARCH64]
)


@pytest.mark.parametrize(("name", "word", "text", "expected"), FIXED_WIDTH)
def test_fixed_width(name: str, word: int, text: str | None, expected: Trap | None) -> None:
    arch = ARCHES[name]
    code = word.to_bytes(4, "little")
    if text is not None:
        assert _text(arch, code) == text
    assert arch.classify(code) is expected
    assert expected is None or _prefiltered(arch, word)


@pytest.mark.parametrize(("word", "text", "expected"), RISCV32_ONLY)
def test_high_halves_do_not_exist_on_rv64(word: int, text: str, expected: Trap) -> None:
    assert ARCHES["riscv64"].classify(word.to_bytes(4, "little")) is None


@pytest.mark.parametrize(
    ("name", "code", "text", "expected"),
    [("i386", code, text, narrow) for code, text, narrow, _ in X86]
    + [("x86_64", code, text, wide) for code, text, _, wide in X86]
    + [("x86_64", *row) for row in X86_64_ONLY],
)
def test_x86(name: str, code: str, text: str, expected: Trap | None) -> None:
    arch = ARCHES[name]
    assert _text(arch, bytes.fromhex(code)).startswith(text)
    assert arch.classify(bytes.fromhex(code)) is expected


@pytest.mark.parametrize("name", ["i386", "x86_64"])
@pytest.mark.parametrize("prefix", ["2e", "36", "3e", "26", "64", "65", "66", "67", "6665", "673e"])
def test_x86_prefixes_do_not_hide_an_instruction(name: str, prefix: str) -> None:
    classify = ARCHES[name].classify
    assert classify(bytes.fromhex(prefix + "0f31")) is COUNTER
    assert classify(bytes.fromhex(prefix + "f4")) is HALT
    assert classify(bytes.fromhex(prefix + "0fc7f0")) is ENTROPY


@pytest.mark.parametrize("name", ["i386", "x86_64"])
@pytest.mark.parametrize("code", ["f00f31", "f00fc7f0", "f30fc7f8", "f20fc7f0"])
def test_x86_forms_that_are_other_instructions_or_undefined(name: str, code: str) -> None:
    assert ARCHES[name].classify(bytes.fromhex(code)) is None


def test_rex_is_an_instruction_of_its_own_on_i386() -> None:
    assert ARCHES["i386"].classify(b"\x48\x0f\x31") is None


@EVERY_ARCH
@given(code=st.binary(max_size=15))
def test_classify_takes_any_bytes(arch: Arch, code: bytes) -> None:
    assert arch.classify(code) in {None, *Trap}


@pytest.mark.parametrize("name", ["riscv32", "riscv64", "aarch64"])
@given(word=st.integers(0, (1 << 32) - 1), system=st.booleans())
def test_prefilter_lets_every_trap_through(name: str, word: int, system: bool) -> None:
    arch = ARCHES[name]
    if system:  # steer half the words into the space where traps are
        word = word & 0x003FFFFF | 0xD5000000 if name == "aarch64" else word & ~0x7F | 0x73
    if arch.classify(word.to_bytes(4, "little")) is not None:
        assert _prefiltered(arch, word)


@pytest.mark.parametrize("name", ["riscv32", "riscv64", "aarch64"])
def test_prefilter_is_sharp(name: str) -> None:
    """Of ordinary instructions fewer than one in a hundred reaches ``classify``."""
    arch = ARCHES[name]
    words = [(n * 0x9E3779B1) & 0xFFFFFFFF for n in range(20_000)]
    assert sum(_prefiltered(arch, word) for word in words) < 200
