"""Exception entry: what the guest's handler sees, on a fake CPU and on the engine, whose own return instruction must
then lead back."""

from __future__ import annotations

import dataclasses
import struct

import pytest

from rrgdb.arch import ARCHES
from rrgdb.arch.base import Arch, CpuException, ExceptionKind
from rrgdb.arch.cpu import Cpu
from rrgdb_tests.arch.cpus import FakeCpu, UnicornCpu

EVERY_ARCH = pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES.keys())
SYSCALL, UNDEFINED, BREAKPOINT, FETCH, READ, WRITE, NATIVE = ExceptionKind
CODE, HANDLER, TABLE, STACK = 0x10000, 0x11000, 0x14000, 0x18000


def _exception(kind: ExceptionKind, number: int = -1, length: int = 4, **extra: int) -> CpuException:
    return CpuException(kind, number, CODE, CODE + length, **extra)


def _engine(name: str, code: bytes = b"") -> UnicornCpu:
    cpu = UnicornCpu(ARCHES[name])
    cpu.write_memory(CODE, code)
    ARCHES[name].reset(cpu, CODE, STACK)
    return cpu


def _words(*instructions: int) -> bytes:
    return b"".join(word.to_bytes(4, "little") for word in instructions)


@EVERY_ARCH
@pytest.mark.parametrize("kind", ExceptionKind)
def test_without_a_handler_nothing_changes(arch: Arch, kind: ExceptionKind) -> None:
    cpu = FakeCpu(registers={"priv": 3, "cr0": 1, "efer": 0x500, "cpsr": 0x3C5, arch.pc: CODE}, memory_limit=0)
    assert not arch.enter_exception(cpu, _exception(kind, number=3))
    assert cpu.writes == []


@EVERY_ARCH
@pytest.mark.parametrize(
    ("kind", "signal"), [(SYSCALL, 12), (UNDEFINED, 4), (BREAKPOINT, 5), (FETCH, 11), (READ, 11), (WRITE, 11)]
)
def test_signals(arch: Arch, kind: ExceptionKind, signal: int) -> None:
    assert arch.exception_signal(_exception(kind, address=0x40)) == signal


@pytest.mark.parametrize(
    ("name", "exception", "signal"),
    [
        ("riscv64", _exception(NATIVE, 0), 10),
        ("riscv64", _exception(NATIVE, 4), 10),
        ("riscv64", _exception(NATIVE, 13), 11),
        ("riscv32", _exception(WRITE, 6), 10),
        ("riscv32", _exception(FETCH, 0), 10),
        ("aarch64", _exception(NATIVE, 22, detail=0x22 << 26), 10),
        ("aarch64", _exception(NATIVE, 99), 6),
        ("x86_64", _exception(NATIVE, 0), 8),
        ("x86_64", _exception(NATIVE, 1), 5),
        ("x86_64", _exception(NATIVE, 13), 11),
        ("i386", _exception(NATIVE, 16), 8),
        ("i386", _exception(NATIVE, 17), 10),
    ],
)
def test_signals_of_native_exceptions(name: str, exception: CpuException, signal: int) -> None:
    assert ARCHES[name].exception_signal(exception) == signal


RISCV = pytest.mark.parametrize("name", ["riscv32", "riscv64"])


@RISCV
@pytest.mark.parametrize(
    ("exception", "priv", "cause", "tval"),
    [
        (_exception(SYSCALL), 3, 11, 0),
        (_exception(SYSCALL), 1, 9, 0),
        (_exception(SYSCALL), 0, 8, 0),
        (_exception(UNDEFINED), 3, 2, 0),
        (_exception(BREAKPOINT), 3, 3, 0),
        (_exception(FETCH, address=0x44), 3, 1, 0x44),
        (_exception(READ, address=0x44), 3, 5, 0x44),
        (_exception(WRITE, address=0x44), 3, 7, 0x44),
        (_exception(READ, 13, address=0x44), 3, 13, 0x44),
        (_exception(WRITE, 6, address=0x45), 3, 6, 0x45),
        (_exception(READ, 6, address=0x45), 3, 5, 0x45),
        (_exception(FETCH, 0, address=0x46), 3, 0, 0x46),
        (_exception(NATIVE, 0), 3, 0, 0),
    ],
)
def test_riscv_causes(name: str, exception: CpuException, priv: int, cause: int, tval: int) -> None:
    cpu = _engine(name)
    cpu.write("mtvec", HANDLER)
    cpu.write("mtval", 0x99)
    cpu.write("priv", priv)
    assert ARCHES[name].enter_exception(cpu, exception)
    seen = [cpu.read(register) for register in ("mcause", "mtval", "mepc", "priv", "pc")]
    assert seen == [cause, tval, CODE, 3, HANDLER]


@RISCV
def test_riscv_machine_trap_and_mret(name: str) -> None:
    cpu = _engine(name)
    cpu.write_memory(HANDLER, _words(0x30200073))  # mret
    for priv in (0, 1, 3):
        for enabled in (0, 8):
            cpu.write("priv", 3)
            cpu.write("mtvec", HANDLER | 1)
            cpu.write("mstatus", 0x2000 | enabled)
            cpu.write("priv", priv)
            assert ARCHES[name].enter_exception(cpu, _exception(SYSCALL))
            assert cpu.read("pc") == HANDLER  # exceptions are not vectored
            assert cpu.read("mstatus") & 0x1888 == priv << 11 | enabled << 4
            cpu.run(1)
            assert (cpu.read("pc"), cpu.read("priv")) == (CODE, priv)
            assert cpu.read("mstatus") & 8 == enabled


@RISCV
def test_riscv_delegated_trap_and_sret(name: str) -> None:
    cpu = _engine(name)
    cpu.write_memory(HANDLER, _words(0x10200073))  # sret
    for priv in (0, 1):
        for enabled in (0, 2):
            cpu.write("priv", 3)
            cpu.write("medeleg", 1 << 8 | 1 << 13)
            cpu.write("stvec", HANDLER)
            cpu.write("sstatus", 0x2000 | enabled)
            cpu.write("priv", priv)
            assert ARCHES[name].enter_exception(cpu, _exception(READ, 13, address=0x123))
            seen = [cpu.read(register) for register in ("scause", "stval", "sepc", "priv", "pc")]
            assert seen == [13, 0x123, CODE, 1, HANDLER]
            assert cpu.read("sstatus") & 0x122 == priv << 8 | enabled << 4
            cpu.run(1)
            assert (cpu.read("pc"), cpu.read("priv")) == (CODE, priv)
            assert cpu.read("sstatus") & 2 == enabled


@RISCV
def test_riscv_delegation_does_not_apply_in_machine_mode(name: str) -> None:
    cpu = FakeCpu(registers={"priv": 3, "medeleg": 1 << 11 | 1 << 2, "mtvec": HANDLER, "stvec": 0x100})
    assert ARCHES[name].enter_exception(cpu, _exception(UNDEFINED))
    assert cpu.registers["pc"] == HANDLER
    cpu.registers.update({"priv": 1, "stvec": 3})
    assert not ARCHES[name].enter_exception(cpu, _exception(UNDEFINED))  # delegated, but nobody there


AARCH64 = ARCHES["aarch64"]
SVC, BRK, ERET = 0xD4000001 | 0x1A2B << 5, 0xD4200000 | 0x77 << 5, 0xD69F03E0


@pytest.mark.parametrize(
    ("pstate", "code", "exception", "offset", "esr", "far"),
    [
        (0x3C5, SVC, _exception(SYSCALL), 0x200, 0x56001A2B, None),
        (0x3C4, SVC, _exception(SYSCALL), 0x000, 0x56001A2B, None),
        (0x000, SVC, _exception(SYSCALL), 0x400, 0x56001A2B, None),
        (0x010, SVC, _exception(SYSCALL), 0x600, 0x56001A2B, None),
        (0x3C5, BRK, _exception(BREAKPOINT), 0x200, 0xF2000077, None),
        (0x3C5, 0, _exception(UNDEFINED), 0x200, 0x02000000, None),
        (0x3C5, 0, _exception(FETCH, address=0x40), 0x200, 0x86000010, 0x40),
        (0x000, 0, _exception(FETCH, address=0x40), 0x400, 0x82000010, 0x40),
        (0x3C5, 0, _exception(READ, address=0x41), 0x200, 0x96000010, 0x41),
        (0x000, 0, _exception(WRITE, address=0x41), 0x400, 0x92000050, 0x41),
        (0x3C5, 0, _exception(READ, address=0x41, detail=0x96000007), 0x200, 0x96000007, 0x41),
        # mrs x5, cntvct_el0 that CNTKCTL_EL1 forbids
        (0x000, 0xD53BE045, _exception(UNDEFINED), 0x400, 0x6234F8A1, None),
        (0x3C5, 0xD51BE045, _exception(UNDEFINED), 0x200, 0x02000000, None),
    ],
)
def test_aarch64_entry(pstate: int, code: int, exception: CpuException, offset: int, esr: int, far: int | None) -> None:
    cpu = FakeCpu(registers={"vbar_el1": TABLE, "cpsr": pstate, "sp": 1, "sp_el0": 2, "sp_el1": 3, "pc": CODE})
    cpu.write_memory(CODE, _words(code))
    assert AARCH64.enter_exception(cpu, exception)
    state = cpu.registers
    assert (state["pc"], state["esr_el1"], state.get("far_el1")) == (TABLE + offset, esr, far)
    assert (state["spsr_el1"], state["cpsr"]) == (pstate, 0x3C5)
    assert state["elr_el1"] == (CODE + 4 if exception.kind is SYSCALL else CODE)
    assert (state["sp"], state["sp_el0"]) == ((1, 2) if pstate & 1 else (3, 1))


def test_aarch64_higher_levels_have_no_handlers() -> None:
    for pstate in (0x3C9, 0x3CD):
        assert not AARCH64.enter_exception(
            FakeCpu(registers={"vbar_el1": TABLE, "cpsr": pstate}), _exception(UNDEFINED)
        )


def test_aarch64_svc_from_el0_and_back() -> None:
    cpu = _engine("aarch64", _words(SVC))
    cpu.write("vbar_el1", TABLE)
    cpu.write_memory(TABLE + 0x400, _words(0xD5384101, ERET))  # mrs x1, sp_el0: undefined in EL0
    cpu.write("sp_el0", 0x17000)
    cpu.write("spsr_el1", 0x60000000)
    cpu.write("elr_el1", CODE)
    cpu.write("pc", TABLE + 0x404)
    cpu.run(1)
    assert (cpu.read("pc"), cpu.read("sp"), cpu.read("cpsr")) == (CODE, 0x17000, 0x60000000)
    cpu.write("sp", 0x16FF0)
    assert AARCH64.enter_exception(cpu, _exception(SYSCALL))
    assert (cpu.read("pc"), cpu.read("sp"), cpu.read("cpsr")) == (TABLE + 0x400, STACK, 0x3C5)
    cpu.run(2)
    assert cpu.read("x1") == 0x16FF0
    assert (cpu.read("pc"), cpu.read("sp"), cpu.read("cpsr")) == (CODE + 4, 0x16FF0, 0x60000000)


X86 = pytest.mark.parametrize("name", ["i386", "x86_64"])
RF = 1 << 16


def _gate(name: str, selector: int, target: int, kind: int = 0x8E, ist: int = 0) -> bytes:
    low = (target & 0xFFFF).to_bytes(2, "little") + selector.to_bytes(2, "little") + bytes((ist, kind))
    wide = bytes(4) + bytes(4) if name == "x86_64" else b""
    return low + (target >> 16 & 0xFFFF).to_bytes(2, "little") + wide


def _install(name: str, cpu: Cpu, vector: int, gate: bytes) -> None:
    cpu.write("idtr_base", TABLE)
    cpu.write("idtr_limit", 256 * len(gate) - 1)
    cpu.write_memory(TABLE + vector * len(gate), gate)


def _frame(name: str, cpu: Cpu, count: int) -> list[int]:
    word = 8 if name == "x86_64" else 4
    data = cpu.read_memory(cpu.read(ARCHES[name].sp), word * count)
    return [int.from_bytes(data[at : at + word], "little") for at in range(0, len(data), word)]


def _x86(name: str) -> FakeCpu:
    arch = ARCHES[name]
    cpu = FakeCpu(memory_limit=0x20000)
    cpu.registers.update({"cr0": 0x11, "efer": 0x500, "eflags": 0x302, arch.pc: CODE, arch.sp: STACK - 4})
    return cpu


@X86
@pytest.mark.parametrize(
    ("exception", "vector", "back", "error"),
    [
        (_exception(SYSCALL, 0x80, 2), 0x80, CODE + 2, None),
        (_exception(SYSCALL, 13, 2), 13, CODE + 2, None),
        (_exception(BREAKPOINT, 3, 1), 3, CODE + 1, None),
        (_exception(UNDEFINED, 0, 2), 6, CODE, None),
        (_exception(NATIVE, 0), 0, CODE, None),
        (_exception(NATIVE, 13, detail=0x1A), 13, CODE, 0x1A),
        (_exception(NATIVE, 8), 8, CODE, 0),
        (_exception(NATIVE, 17), 17, CODE, 0),
        (_exception(READ, address=0x99), 14, CODE, 0),
        (_exception(WRITE, address=0x99), 14, CODE, 2),
        (_exception(FETCH, address=0x99, detail=0x10), 14, CODE, 0x10),
        (_exception(NATIVE, 1), 1, CODE, None),
    ],
)
@pytest.mark.parametrize("kind", [0x8E, 0x8F])
def test_x86_entry(name: str, exception: CpuException, vector: int, back: int, error: int | None, kind: int) -> None:
    cpu = _x86(name)
    _install(name, cpu, vector, _gate(name, 0, HANDLER, kind))
    assert ARCHES[name].enter_exception(cpu, exception)
    assert cpu.registers[ARCHES[name].pc] == HANDLER
    # IF falls for an interrupt gate only; TF always.
    assert cpu.registers["eflags"] == (0x002 if kind == 0x8E else 0x202)
    # RF: the instruction is to be done again.
    fault = back == CODE and vector not in (1, 8)
    frame = [back, 0, 0x302 | RF * fault] + ([STACK - 4, 0] if name == "x86_64" else [])
    assert _frame(name, cpu, len(frame) + (error is not None)) == ([] if error is None else [error]) + frame
    assert cpu.registers.get("cr2") == (0x99 if vector == 14 else None)


@X86
@pytest.mark.parametrize(
    ("code", "vector", "length"),
    [("cd80", 0x80, 2), ("cd0e", 14, 2), ("cd03", 3, 2), ("cc", 3, 1), ("ce", 4, 1), ("f1", 1, 1)],
)
def test_x86_software_interrupts_that_come_as_native(name: str, code: str, vector: int, length: int) -> None:
    """The engine tells ``int n`` and a fault apart by nothing but the instruction itself."""
    cpu = _x86(name)
    cpu.write_memory(CODE, bytes.fromhex(code))
    _install(name, cpu, vector, _gate(name, 0, HANDLER))
    assert ARCHES[name].enter_exception(cpu, _exception(NATIVE, vector, length))
    assert _frame(name, cpu, 3) == [CODE + length, 0, 0x302]
    assert "cr2" not in cpu.registers


@X86
def test_x86_native_page_fault_keeps_the_address_that_the_engine_noted(name: str) -> None:
    cpu = _x86(name)
    cpu.registers["cr2"] = 0x77
    _install(name, cpu, 14, _gate(name, 0, HANDLER))
    assert ARCHES[name].enter_exception(cpu, _exception(NATIVE, 14, detail=2))
    assert (cpu.registers["cr2"], _frame(name, cpu, 2)) == (0x77, [2, CODE])


@X86
def test_x86_refusals_change_nothing(name: str) -> None:
    arch = ARCHES[name]
    size = 16 if name == "x86_64" else 8
    good = _gate(name, 0, HANDLER)
    cases: list[tuple[str, bytes, dict[str, int]]] = [
        ("limit", good, {"idtr_limit": 6 * size + size - 2}),
        ("not present", _gate(name, 0, HANDLER, 0x0E), {}),
        ("16-bit gate", _gate(name, 0, HANDLER, 0x86), {}),
        ("task gate", _gate(name, 0, HANDLER, 0x85), {}),
        ("unmapped table", good, {"idtr_base": 0x20000}),
        ("unmapped stack", good, {arch.sp: 0x30000}),
        ("selector outside the GDT", _gate(name, 8, HANDLER), {}),
        ("local selector", _gate(name, 0xC, HANDLER), {"gdtr_limit": 0xFF}),
        ("data segment", _gate(name, 0x10, HANDLER), {"gdtr_limit": 0xFF}),
        ("inner ring", _gate(name, 8, HANDLER), {"gdtr_limit": 0xFF, "cs": 0x1B}),
        ("virtual-8086 mode", good, {"eflags": 0x20302}),
        ("real mode, beyond the table", good, {"cr0": 0, "efer": 0, "idtr_limit": 6 * 4 + 2}),
        ("real mode, unmapped table", good, {"cr0": 0, "efer": 0, "idtr_base": 0x20000}),
        ("real mode, unmapped stack", good, {"cr0": 0, "efer": 0, "ss_base": 0x18006}),
    ]
    for label, gate, state in cases:
        cpu = _x86(name)
        _install(name, cpu, 6, gate)
        # A GDT at 0x13000: null, ring 0 code, ring 0 data, ring 3 code.
        gdt = [0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFFB000000FFFF]
        cpu.write_memory(0x13000, b"".join(entry.to_bytes(8, "little") for entry in gdt))
        cpu.registers |= {"gdtr_base": 0x13000} | state
        before, cpu.writes = dict(cpu.registers), []
        memory = dict(cpu.memory)
        assert not arch.enter_exception(cpu, _exception(UNDEFINED)), label
        assert (cpu.registers, cpu.memory, cpu.writes) == (before, memory, []), label


@X86
def test_x86_user_code_needs_a_gate_for_software_interrupts(name: str) -> None:
    for kind, entered in ((0xEE, True), (0x8E, False)):
        cpu = _x86(name)
        _install(name, cpu, 0x80, _gate(name, 0x1B, HANDLER, kind))
        cpu.registers["cs"] = 0x1B
        assert ARCHES[name].enter_exception(cpu, _exception(SYSCALL, 0x80)) is entered


@X86
@pytest.mark.parametrize(
    ("exception", "code", "vector", "back"),
    [
        (_exception(NATIVE, 0x21, 2), "cd21", 0x21, 2),
        (_exception(BREAKPOINT, 3, 1), "cc", 3, 1),
        (_exception(NATIVE, 4, 1), "ce", 4, 1),
        (_exception(UNDEFINED, -1, 2), "0f0b", 6, 0),
        (_exception(NATIVE, 0, 2), "f7f1", 0, 0),
        (_exception(NATIVE, 13, 2, detail=0x1A), "8ed8", 13, 0),
        (_exception(NATIVE, 1, 1), "90", 1, 0),
    ],
)
@pytest.mark.parametrize("loaded", [True, False])
def test_x86_real_mode(name: str, exception: CpuException, code: str, vector: int, back: int, loaded: bool) -> None:
    """Three words, no error code, a stack that ends with its segment; the table is at 0 as long as none was loaded."""
    cpu = _x86(name)
    base = TABLE if loaded else 0
    segment = 0x1200  # code at CODE is 0x1200:CODE - 0x12000
    flags = 0x302 | 1 << 18
    cpu.registers |= {"cr0": 0x10, "efer": 0, "eflags": flags, "ss_base": 0x8000, ARCHES[name].sp: 0xABC0002}
    cpu.registers |= {"cs": segment + 3, "cs_base": segment << 4, "modes": 0}
    cpu.registers |= {"idtr_base": base, "idtr_limit": 0x3FF} if loaded else {}
    at = segment << 4
    cpu.write_memory(at, bytes.fromhex(code))
    cpu.write_memory(base + 4 * vector, (0x567890AB).to_bytes(4, "little"))
    exception = dataclasses.replace(exception, pc=at, next_pc=at + exception.next_pc - exception.pc)
    assert ARCHES[name].enter_exception(cpu, exception)
    assert cpu.registers[ARCHES[name].sp] == 0xABCFFFC
    assert cpu.read_memory(0x8000, 2) == (flags & 0xFFFF).to_bytes(2, "little")
    assert cpu.read_memory(0x17FFC, 4) == struct.pack("<HH", back, segment + 3)
    assert (cpu.read("cs_selector"), cpu.read("cs_base"), cpu.read(ARCHES[name].pc)) == (0x5678, 0x56780, 0x90AB)
    assert cpu.read("eflags") == 2


@X86
def test_x86_real_mode_has_no_page_faults(name: str) -> None:
    cpu = _x86(name)
    cpu.registers["cr0"] = 0
    assert not ARCHES[name].enter_exception(cpu, _exception(READ, address=0x99))


def test_x86_64_interrupt_stack_and_alignment() -> None:
    cpu = _x86("x86_64")
    _install("x86_64", cpu, 6, _gate("x86_64", 0, HANDLER, ist=2))
    cpu.registers["tr_base"] = 0x12000
    cpu.write_memory(0x12000 + 0x2C, (0x1700C).to_bytes(8, "little"))  # IST2
    assert ARCHES["x86_64"].enter_exception(cpu, _exception(UNDEFINED))
    assert cpu.registers["rsp"] == 0x17000 - 5 * 8


def test_x86_64_syscall_instruction_is_not_delivered() -> None:
    cpu = _x86("x86_64")
    cpu.write_memory(CODE, b"\x0f\x05")
    _install("x86_64", cpu, 0, _gate("x86_64", 0, HANDLER))
    assert not ARCHES["x86_64"].enter_exception(cpu, _exception(SYSCALL, 0, 2))


@X86
@pytest.mark.parametrize("error", [False, True])
def test_x86_entry_and_iret_on_the_engine(name: str, error: bool) -> None:
    """With a GDT of the guest's own, loaded as a kernel does; iret pops what we pushed."""
    arch = ARCHES[name]
    wide = name == "x86_64"
    cpu = _engine(name, b"\x90" * 16)
    code = 0x00AF9B000000FFFF if wide else 0x00CF9B000000FFFF
    gdt = [0, code, 0x00CF93000000FFFF]
    cpu.write_memory(0x13000, b"".join(entry.to_bytes(8, "little") for entry in gdt))
    cpu.write("gdtr_base", 0x13000)
    cpu.write("gdtr_limit", 23)
    for segment, selector in (("cs", 8), ("ss", 0x10), ("ds", 0x10), ("es", 0x10)):
        cpu.write(segment, selector)
    drop = ("4883c408" if wide else "83c404") if error else ""  # add rsp, 8
    iret = "48cf" if wide else "cf"
    cpu.write_memory(HANDLER, bytes.fromhex(drop + iret))
    exception = dataclasses.replace(_exception(WRITE if error else NATIVE, 0, address=0x1234), pc=CODE + 1)
    _install(name, cpu, 14 if error else 0, _gate(name, 8, HANDLER))
    cpu.write("eflags", 0xA02)  # OF, IF
    assert arch.enter_exception(cpu, exception)
    assert (cpu.read(arch.pc), cpu.read("eflags")) == (HANDLER, 0x802)
    assert cpu.read("cr2") == (0x1234 if error else 0)
    cpu.run(2 if error else 1)
    assert (cpu.read(arch.pc), cpu.read(arch.sp), cpu.read("cs")) == (CODE + 1, STACK, 8)
    assert cpu.read("eflags") == 0xA02 | RF
