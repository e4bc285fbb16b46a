"""Register tables against Unicorn: every id exists, every register round-trips at its full width."""

from __future__ import annotations

import pytest

from rrgdb.arch import ARCHES, by_elf
from rrgdb.arch.base import Arch, words
from rrgdb.arch.cpu import ByteOrder
from rrgdb.engine.unicorn import _hot
from rrgdb.engine.unicorn.families import FAMILIES
from rrgdb_tests.arch.cpus import UnicornCpu

EVERY_ARCH = pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES.keys())

# Registers whose hardware keeps only some bits, or none.
READ_ONLY = {"mvendorid", "marchid", "mimpid", "mhartid", "misa", "zero", "id_aa64isar0_el1"}
LEGAL_VALUES_ONLY = READ_ONLY | set(
    words(
        "xpsr control "
        "midr mpidr actlr midr_el1 mpidr_el1 ctr_el0 actlr_el1 afsr0_el1 afsr1_el1 amair_el1 "
        "mstatus sstatus medeleg mideleg mie sie mip sip mtvec stvec satp priv "
        "cpsr fpsr fpcr scr_el3 vbar_el1 "
        "fpscr fpexc sctlr cpacr scr nsacr ttbcr vbar pmuserenr id_pfr1 spsr "
        "eflags cs ss ds es fs gs ftag efer cr0 cr3 cr4 cr8 dr7 sysenter_cs tsc_aux mxcsr"
    )
)


def _reset(arch: Arch) -> UnicornCpu:
    cpu = UnicornCpu(arch)
    arch.reset(cpu, 0x10000, 0x20000)
    return cpu


@EVERY_ARCH
def test_names_are_unique_and_tables_agree(arch: Arch) -> None:
    names = [register.name for register in arch.registers]
    assert len(names) == len(set(names))
    assert {arch.pc, arch.sp, *arch.expedite, *arch.written_first} <= set(names)
    assert not set(arch.system_registers) & set(names)
    assert set(arch.digest_registers) <= set(arch.system_registers)
    assert [arch.register_index[name] for name in names] == list(range(len(names)))
    for register in arch.registers:
        assert register.bits % 8 == 0
        assert register.width <= register.bits


@EVERY_ARCH
def test_the_engine_knows_all_of_the_family_and_nothing_else(arch: Arch) -> None:
    family = FAMILIES[arch.name]
    own = {register.name for register in arch.registers if register.constant is None} | set(arch.system_registers)
    assert set(family.registers) == own
    assert set(family.quirks) | set(family.translation) <= own
    assert tuple(family.models) == arch.models
    assert family.native in _hot.FAMILIES
    assert bool(family.second_filters) == (arch.second_set is not None)


def test_every_family_has_both_its_modules() -> None:
    assert ARCHES.keys() == FAMILIES.keys()
    assert all(name == family.name for name, family in FAMILIES.items())


@EVERY_ARCH
def test_every_register_round_trips_at_full_width(arch: Arch) -> None:
    for register in arch.registers:
        if register.name in LEGAL_VALUES_ONLY or (arch.second_set and register.name == arch.pc):
            continue
        cpu = _reset(arch)
        width = register.width or register.bits
        for value in (int("a5" * 16, 16), (1 << 128) - 1, 0, 1 << width - 1, int("0123456789abcdef" * 2, 16)):
            cpu.write(register.name, value & (1 << width) - 1)
            assert cpu.read(register.name) == value & (1 << width) - 1, register.name


@EVERY_ARCH
def test_every_system_register_round_trips(arch: Arch) -> None:
    for name in arch.system_registers:
        if name in LEGAL_VALUES_ONLY or name.startswith("id_") or name.endswith(("_limit", "_selector", "_flags")):
            continue
        cpu = _reset(arch)
        for value in (0x80000010, 0x7FF0, 0):
            cpu.write(name, value)
            assert cpu.read(name) == value, name


@EVERY_ARCH
def test_writing_one_register_leaves_the_others(arch: Arch) -> None:
    """Each register has storage of its own (aliases by architecture excepted)."""
    aliases = {"fflags": "fcsr", "frm": "fcsr", "fcsr": "fflags frm", "sp": "msp", "msp": "sp"}
    for victim in arch.registers:
        if victim.name in LEGAL_VALUES_ONLY or victim.name == "fstat" or (arch.second_set and victim.name == arch.pc):
            continue
        cpu = _reset(arch)
        before = {register.name: cpu.read(register.name) for register in arch.registers}
        cpu.write(victim.name, before[victim.name] ^ 1)
        changed = {name for name, value in before.items() if cpu.read(name) != value}
        # A value in an x87 register changes its tag. frm and fflags set mstatus.FS to Dirty.
        # On the M profile sp is the one of two stack pointers that is in use.
        allowed = {*aliases.get(victim.name, "").split(), "ftag", "mstatus", "sstatus"}
        assert victim.name in changed, victim.name
        assert changed - {victim.name} <= allowed, victim.name


@pytest.mark.parametrize(
    ("arch", "name", "value"),
    [
        ("riscv64", "mstatus", 1 << 63 | 0x6000 | 3 << 11),
        ("riscv64", "mtvec", 0x10001),
        ("riscv64", "satp", 8 << 60 | 0x10),
        ("riscv32", "satp", 1 << 31 | 0x10),
        ("riscv32", "medeleg", 0x100),
        ("aarch64", "cpsr", 0x600003C5),
        ("aarch64", "fpsr", 0x08000001),
        ("aarch64", "fpcr", 0x00C00000),
        ("aarch64", "vbar_el1", 0x10800),
        ("arm", "cpsr", 0x600001D3),
        ("arm", "cpsr", 0x0600FDF3),
        ("arm", "fpscr", 0x08C00001),
        ("arm", "fpexc", 0),
        ("arm", "vbar", 0x10820),
        ("arm", "spsr", 0x60000010),
        ("i386", "eflags", 0xCD7),
        ("x86_64", "eflags", 0x246),
        ("x86_64", "mxcsr", 0x1FBF),
        ("x86_64", "ftag", 0xFFFF),
        ("x86_64", "cs", 0x8),
        ("x86_64", "efer", 0x500),
        ("x86_64", "idtr_limit", 0xFFF),
        ("x86_64", "cr8", 5),
    ],
)
def test_legal_values_round_trip(arch: str, name: str, value: int) -> None:
    cpu = _reset(ARCHES[arch])
    cpu.write(name, value)
    assert cpu.read(name) == value


def test_x87_stack_is_relative_to_top() -> None:
    cpu = _reset(ARCHES["x86_64"])
    cpu.write("st0", 0x3FFF8000000000000000)
    cpu.write("fstat", 7 << 11)
    assert cpu.read("st1") == 0x3FFF8000000000000000


@pytest.mark.parametrize("name", ["riscv32", "riscv64"])
def test_float_control_needs_mstatus_fs(name: str) -> None:
    cpu = _reset(ARCHES[name])
    cpu.write("fcsr", 0xE1)
    assert (cpu.read("frm"), cpu.read("fflags")) == (7, 1)
    cpu.write("mstatus", 0)
    assert cpu.read("fcsr") == 0
    cpu.write("fcsr", 0x1F)
    cpu.write("mstatus", 0x2000)
    assert cpu.read("fcsr") == 0xE1


@pytest.mark.parametrize("name", ["riscv32", "riscv64"])
def test_privileged_csrs_are_readable_from_user_mode_through_the_context(name: str) -> None:
    cpu = _reset(ARCHES[name])
    cpu.write("mscratch", 0x1234)
    cpu.write("sscratch", 0x5678)
    cpu.write("priv", 0)
    assert (cpu.read("mscratch"), cpu.read("sscratch"), cpu.read("priv")) == (0x1234, 0x5678, 0)


@EVERY_ARCH
def test_reset_state_runs_code(arch: Arch) -> None:
    """The first instruction uses floating point, which reset must have made usable."""
    code = {
        "riscv32": "53051000",  # fadd.s fa0, ft0, ft1
        "riscv64": "53051000",
        "arm": "200a30ee",  # vadd.f32 s0, s0, s1
        "armv7m": "00f10100",  # add.w r0, r0, #1: it has no floating point
        "aarch64": "0028211e",  # fadd s0, s0, s1
        "i386": "f30f58c1",  # addss xmm0, xmm1
        "x86_64": "f30f58c1",
    }[arch.name]
    cpu = UnicornCpu(arch)
    cpu.write_memory(0x10000, bytes.fromhex(code))
    arch.reset(cpu, 0x10000, 0x20000)
    assert (cpu.read(arch.pc), cpu.read(arch.sp)) == (0x10000, 0x20000)
    cpu.run(1)
    assert cpu.read(arch.pc) == 0x10004


def test_by_elf() -> None:
    for arch in ARCHES.values():
        # That of the M profile is told by its build attributes.
        expected = ARCHES["arm"] if arch.name == "armv7m" else arch
        assert by_elf(arch.elf_machine, arch.bits, arch.byteorder) is expected
    others: tuple[tuple[str, int, ByteOrder], ...] = (
        ("EM_MIPS", 32, "little"),
        ("EM_AARCH64", 64, "big"),
        ("EM_X86_64", 32, "little"),
    )
    for machine, elfclass, byteorder in others:
        with pytest.raises(ValueError, match=f"unsupported ELF machine {machine}, {elfclass}-bit"):
            by_elf(machine, elfclass, byteorder)


@EVERY_ARCH
def test_reading_changes_no_state(arch: Arch) -> None:
    """Not even the LR reservation, which lies in the context."""
    cpu = _reset(arch)
    if arch.name.startswith("riscv"):
        cpu.write("a0", 0x10000)
        cpu.write("mepc", 0x10000)
        cpu.write_memory(0x10000, bytes.fromhex("af250510"))  # lr.w a1, (a0)
        cpu.write_memory(0x10004, bytes.fromhex("73002030"))  # mret, into user mode
        cpu.write("pc", 0x10004)
        cpu.run(2)
        assert cpu.read("priv") == 0
    before = bytes(cpu.uc.context_save())
    values = [cpu.read(name) for name in (*arch.register_index, *arch.system_registers)]
    # The first 40 bytes are the context's own header.
    assert bytes(cpu.uc.context_save())[40:] == before[40:]
    assert values == [cpu.read(name) for name in (*arch.register_index, *arch.system_registers)]
