"""What a debugger sees of system registers, on a real engine."""

from __future__ import annotations

import pytest

from rrgdb.arch import ARCHES
from rrgdb.arch.base import Arch, words
from rrgdb.arch.system import SystemRegister
from rrgdb.engine.memory import Ram
from rrgdb.engine.unicorn.engine import UnicornEngine

EVERY_MODEL = pytest.mark.parametrize(
    ("arch", "model"), [pytest.param(arch, model, id=model) for arch in ARCHES.values() for model in arch.models]
)
START, SIZE = 0x10000, 0x10000
SOME = (0x80000010, 0x7FF0, 0)
# Of these the hardware keeps some bits, or, by the model, none.
NOT_ALL = words(
    "VBAR ACTLR CPACR SCR TTBCR PAR CNTFRQ CNTKCTL CNTP_CTL CNTV_CTL CNTP_CVAL CNTV_CVAL AMAIR_EL1 ACTLR_EL1 AFSR0_EL1 "
    "AFSR1_EL1 SCR_EL3 MPU_CTRL MPU_RNR gdtr_limit idtr_limit ldtr_selector tr_selector sysenter_cs"
)


def _engine(arch: Arch, model: str | None = None) -> UnicornEngine:
    engine = UnicornEngine(arch, Ram(SIZE), model)
    engine.map_ram(START, SIZE)
    arch.reset(engine, START, START + SIZE)
    return engine


def _of(engine: UnicornEngine, name: str) -> SystemRegister:
    return next(r for r in engine.arch.shown_registers if r.name == name)


def _read(engine: UnicornEngine, name: str) -> int:
    return _of(engine, name).read(engine)


def _write(engine: UnicornEngine, name: str, value: int) -> None:
    write = _of(engine, name).write
    assert write is not None
    write(engine, value)


@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES)
def test_names_are_unique_and_no_names_of_plain_registers(arch: Arch) -> None:
    names = [r.name for r in arch.shown_registers]
    assert names
    assert len(names) == len(set(names))
    assert not set(names) & set(arch.register_index)


@EVERY_MODEL
def test_all_are_read_without_a_change_and_keep_what_is_written(arch: Arch, model: str) -> None:
    engine = _engine(arch, model)
    state = engine.save()
    before = [r.read(engine) for r in arch.shown_registers]
    assert engine.save() == state
    for register, old in zip(arch.shown_registers, before, strict=True):
        assert 0 <= old < 1 << register.bits, register.name
        if register.write is None or register.name in ("efer", "cr0"):
            continue  # on x86, LMA of flat 64-bit mode would not come back
        for value in SOME:
            register.write(engine, value)
            if register.name not in NOT_ALL:
                assert register.read(engine) == value, register.name
        register.write(engine, old)
    assert [r.read(engine) for r in arch.shown_registers] == before


USR, FIQ, IRQ, SVC, ABT, UND, SYS = 0x10, 0x11, 0x12, 0x13, 0x17, 0x1B, 0x1F
MODES = {"usr": USR, "fiq": FIQ, "irq": IRQ, "svc": SVC, "abt": ABT, "und": UND}


def _set_mode(engine: UnicornEngine, mode: int) -> None:
    engine.write("cpsr", engine.read("cpsr") & ~0x1F | mode)


@pytest.mark.parametrize("mode", [USR, FIQ, IRQ, SVC, ABT, UND, SYS])
def test_each_mode_of_arm_has_registers_of_its_own_seen_from_any(mode: int) -> None:
    engine = _engine(ARCHES["arm"])
    expected = {}
    for number, (bank, of_bank) in enumerate(MODES.items()):
        _set_mode(engine, of_bank)
        for at, (name, register) in enumerate((("SP", "sp"), ("LR", "lr"), ("SPSR", "spsr"))):
            if (name, bank) != ("SPSR", "usr"):
                engine.write(register, 0x1000 * number + at << 8)
                expected[f"{name}_{bank}"] = 0x1000 * number + at << 8
        for n in range(8, 13):
            engine.write(f"r{n}", n + 0x100 * (bank == "fiq"))
            expected[f"R{n}_{'fiq' if bank == 'fiq' else 'usr'}"] = n + 0x100 * (bank == "fiq")
    _set_mode(engine, mode)
    assert {name: _read(engine, name) for name in expected} == expected
    for name in expected:
        _write(engine, name, 0x123450)
    for bank, of_bank in MODES.items():
        _set_mode(engine, of_bank)
        assert {engine.read(name) for name in ("sp", "lr", *(f"r{n}" for n in range(8, 13)))} == {0x123450}, bank


def test_the_stack_pointer_in_use_on_aarch64_is_that_of_the_mode() -> None:
    engine = _engine(ARCHES["aarch64"])
    engine.write("sp", 0x1110)
    engine.write("sp_el0", 0x2220)
    assert (_read(engine, "SP_EL1"), _read(engine, "SP_EL0")) == (0x1110, 0x2220)
    _write(engine, "SP_EL1", 0x3330)
    assert engine.read("sp") == 0x3330


def test_a_translation_table_of_arm_has_64_bits_with_long_descriptors() -> None:
    engine = _engine(ARCHES["arm"])
    _write(engine, "TTBR0", 0x12345000)
    assert (_read(engine, "TTBR0"), engine.read("ttbr0")) == (0x12345000, 0x12345000)
    _write(engine, "TTBCR", 1 << 31)
    _write(engine, "TTBR0", 0x25_00004000)
    assert (_read(engine, "TTBR0"), engine.read("ttbr0")) == (0x25_00004000, 0x4000)


def test_a_new_table_is_looked_at_at_once() -> None:
    """What a debugger writes drops translations that were made by what it was before."""
    engine = _engine(ARCHES["aarch64"])
    tables, other = START + 0x4000, START + 0x8000
    code = bytes.fromhex("1f2003d5") * 64  # nop
    for root, target in ((tables, START), (other, START + 0x1000)):
        entries = (
            (root, root + 0x1003),
            (root + 0x1000, root + 0x2003),
            (root + 0x2000 + (START >> 9), target | 0x783),
        )
        for at, value in entries:
            engine.write_memory(at, value.to_bytes(8, "little"))
    engine.write_memory(START, code)
    engine.write_memory(START + 0x1000, bytes.fromhex("400580d2") * 64)  # mov x0, #42
    _write(engine, "TCR_EL1", 25 | 25 << 16)
    _write(engine, "TTBR0_EL1", tables)
    _write(engine, "SCTLR_EL1", _read(engine, "SCTLR_EL1") | 1)
    engine.run_until(4)
    assert engine.read("x0") == 0
    _write(engine, "TTBR0_EL1", other)
    engine.run_until(8)
    assert engine.read("x0") == 42


@pytest.mark.parametrize("name", ["riscv32", "riscv64"])
def test_counters_of_riscv_go_on_from_what_is_written(name: str) -> None:
    engine = _engine(ARCHES[name])
    engine.write_memory(START, bytes.fromhex("13000000") * 8)  # nop
    assert _read(engine, "mcycle") == 0
    _write(engine, "mcycle", 1000)
    assert (_read(engine, "mcycle"), _read(engine, "cycle"), _read(engine, "minstret")) == (1000, 1000, 0)
    engine.run_until(3)
    assert (_read(engine, "mcycle"), _read(engine, "cycle"), _read(engine, "instret")) == (1003, 1003, 3)
