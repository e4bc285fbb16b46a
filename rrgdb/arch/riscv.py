"""RISC-V, 32 and 64 bits (RV32GC, RV64GC; privileged architecture 1.10 as QEMU's sifive-u54 has it).

Sources: "The RISC-V Instruction Set Manual", volumes I and II; GDB manual, "RISC-V Features".
"""

from __future__ import annotations

from rrgdb.arch import riscv_csr, riscv_interrupts, riscv_pmp
from rrgdb.arch.base import (
    SIGNALS,
    Arch,
    CpuException,
    ExceptionKind,
    Feature,
    IllegalInstruction,
    Register,
    Signal,
    Trap,
    TrapHost,
    words,
)
from rrgdb.arch.core_format import NT_FPREGSET, CoreFormat, Note, each
from rrgdb.arch.cpu import Cpu
from rrgdb.arch.riscv_levels import MACHINE, SUPERVISOR
from rrgdb.arch.system import SystemRegister, registers

INTEGER_NAMES = words(
    "zero ra sp gp tp t0 t1 t2 fp s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6"
)
_INTEGER_TYPES = {"ra": "code_ptr", "sp": "data_ptr", "gp": "data_ptr", "tp": "data_ptr", "fp": "data_ptr"}
FLOAT_NAMES = words(
    "ft0 ft1 ft2 ft3 ft4 ft5 ft6 ft7 fs0 fs1 fa0 fa1 fa2 fa3 fa4 fa5 fa6 fa7 "
    "fs2 fs3 fs4 fs5 fs6 fs7 fs8 fs9 fs10 fs11 ft8 ft9 ft10 ft11"
)
FLOAT_CONTROL = {"fflags": 5, "frm": 3, "fcsr": 8}
"""and their bits"""
_FLOAT_TYPES = (
    '<union id="riscv_double"><field name="float" type="ieee_single"/><field name="double" type="ieee_double"/></union>'
)
# Not listed, since they are functions of the icount: cycle, time, instret, mcycle, minstret.
CSRS = {
    MACHINE: words(
        "mvendorid marchid mimpid mhartid mstatus misa medeleg mideleg mie mtvec mcounteren "
        "mscratch mepc mcause mtval mip"
    ),
    SUPERVISOR: words("sstatus sie stvec scounteren sscratch sepc scause stval sip satp"),
}

MSTATUS_FS = 3 << 13
_MSTATUS_TW = 1 << 21
_MSTATUS_FS_INITIAL = 1 << 13


def _features(xlen: int) -> tuple[Feature, ...]:
    integer = tuple(
        Register(name, xlen, _INTEGER_TYPES.get(name, "int"), constant=None if n else 0)
        for n, name in enumerate(INTEGER_NAMES)
    )
    pc = Register("pc", xlen, "code_ptr")
    floats = tuple(Register(name, 64, "riscv_double", "float") for name in FLOAT_NAMES)
    float_control = tuple(Register(name, 32, group="float", width=width) for name, width in FLOAT_CONTROL.items())
    csrs = tuple(Register(name, xlen) for names in CSRS.values() for name in names)
    priv = Register("priv", xlen)
    return (
        Feature("org.gnu.gdb.riscv.cpu", (*integer, pc)),
        Feature("org.gnu.gdb.riscv.fpu", (*floats, *float_control), _FLOAT_TYPES),
        Feature("org.gnu.gdb.riscv.csr", csrs),
        Feature("org.gnu.gdb.riscv.virtual", (priv,)),
    )


_EBREAK, _WFI = 0x00100073, 0x10500073
_CSR_SATP = 0x180


def _classify(xlen: int, code: bytes) -> Trap | None:
    if len(code) < 4:
        return None
    word = int.from_bytes(code[:4], "little")
    if word == _EBREAK:
        return Trap.SEMIHOST
    if word == _WFI:
        return Trap.HALT
    if word & 0xFE007FFF == 0x12000073:  # SFENCE.VMA
        return Trap.MMU
    access = riscv_csr.access(word)
    if access is None:
        return None
    if access.csr == _CSR_SATP and access.writes:
        return Trap.MMU
    return riscv_csr.classify(access, xlen)


def _classify32(code: bytes) -> Trap | None:
    """By bit patterns. An ``ebreak`` is SEMIHOST whatever surrounds it: the board compares its neighbours with
    ``slli x0,x0,0x1f`` and ``srai x0,x0,7`` ("RISC-V Semihosting", section 2)."""
    return _classify(32, code)


def _classify64(code: bytes) -> Trap | None:
    """As on RV32, but the high halves of counters do not exist."""
    return _classify(64, code)


def _emulate(xlen: int, cpu: Cpu, code: bytes, host: TrapHost) -> None:
    access = riscv_csr.access(int.from_bytes(code[:4], "little"))
    if access is None:
        raise IllegalInstruction
    riscv_csr.perform(cpu, access, xlen, host, INTEGER_NAMES)
    cpu.write("pc", (cpu.read("pc") + 4) & ((1 << xlen) - 1))


def _emulate32(cpu: Cpu, _trap: Trap, code: bytes, host: TrapHost) -> None:
    """Instructions that access CSRs. Counters are functions of the icount and of what was written to them."""
    _emulate(32, cpu, code, host)


def _emulate64(cpu: Cpu, _trap: Trap, code: bytes, host: TrapHost) -> None:
    """Instructions that access CSRs. Counters are functions of the icount and of what was written to them."""
    _emulate(64, cpu, code, host)


def _may_halt(cpu: Cpu) -> bool:
    """Volume II, section 3.1.6.5 (mstatus.TW): WFI is illegal in user mode, and in supervisor mode if TW is set."""
    privilege = cpu.read("priv")
    return privilege == MACHINE or (privilege == SUPERVISOR and not cpu.read("mstatus") & _MSTATUS_TW)


_FAULT_CAUSES = {  # access fault (the default), page fault, misaligned
    ExceptionKind.FETCH_FAULT: (1, 12, 0),
    ExceptionKind.READ_FAULT: (5, 13, 4),
    ExceptionKind.WRITE_FAULT: (7, 15, 6),
}
_MISALIGNED = (0, 4, 6)


def _cause(exception: CpuException, privilege: int) -> int:
    kind = exception.kind
    if kind is ExceptionKind.SYSCALL:
        return 8 + privilege
    if kind is ExceptionKind.UNDEFINED:
        return 2
    if kind is ExceptionKind.BREAKPOINT:
        return 3
    if kind in _FAULT_CAUSES:
        causes = _FAULT_CAUSES[kind]
        return exception.number if exception.number in causes else causes[0]
    return exception.number


def _enter_exception(cpu: Cpu, exception: CpuException) -> bool:
    """Volume II, sections 3.1.6-3.1.17 and 4.1. A vector of 0 counts as none.

    xtval is the address of a fault and else 0, as in QEMU's privileged-1.10 CPUs."""
    privilege = cpu.read("priv")
    cause = _cause(exception, privilege)
    tval = exception.address if exception.kind in _FAULT_CAUSES else 0
    supervisor = privilege <= SUPERVISOR and cpu.read("medeleg") >> cause & 1 != 0
    vector = cpu.read("stvec" if supervisor else "mtvec") & ~3
    if not vector:
        return False
    riscv_interrupts.enter(cpu, cause, supervisor, exception.pc, tval, vector)
    return True


def _exception_signal(exception: CpuException) -> int:
    if _cause(exception, MACHINE) in _MISALIGNED:
        return Signal.SIGBUS
    return SIGNALS.get(exception.kind, Signal.SIGSEGV)


def _reset(cpu: Cpu, entry: int, stack_top: int) -> None:
    """Machine mode, floating point on (mstatus.FS = Initial), everything else as at power-up."""
    cpu.write("priv", MACHINE)
    cpu.write("mstatus", _MSTATUS_FS_INITIAL)
    cpu.write("sp", stack_top)
    cpu.write("pc", entry)


def _counter(name: str, source: str) -> SystemRegister:
    """A counter of instructions; ``source`` is how far it is ahead of the icount."""

    def read(cpu: Cpu) -> int:
        return (cpu.icount + cpu.read(source)) & (1 << 64) - 1

    def write(cpu: Cpu, value: int) -> None:
        cpu.write(source, (value - cpu.icount) & (1 << 64) - 1)

    return SystemRegister(name, 64, read, write if name == source else None, "uint64")


def _shown(xlen: int) -> tuple[SystemRegister, ...]:
    counters = (("cycle", "mcycle"), ("instret", "minstret"), ("mcycle", "mcycle"), ("minstret", "minstret"))
    return (
        *registers(riscv_pmp.registers(xlen), xlen),
        *(_counter(name, source) for name, source in counters),
    )


_CORE_INTEGERS = "pc ra sp gp tp t0 t1 t2 fp s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6"
_CORE_FLAGS, _FLOAT_ABI, _SINGLE = 0x5, 6, 2
"""EF_RISCV_RVC and EF_RISCV_FLOAT_ABI_DOUBLE; GDB takes the width of the floating-point registers from the flags"""


def _core(xlen: int) -> CoreFormat:
    doubles, singles = (Note("CORE", NT_FPREGSET, (*each(FLOAT_NAMES, n), ("fcsr", 4), (0, 4))) for n in (8, 4))
    return CoreFormat(
        243, each(words(_CORE_INTEGERS), xlen // 8), (doubles,), _CORE_FLAGS, ((_FLOAT_ABI, _SINGLE), (singles,))
    )


def _arch(xlen: int) -> Arch:
    return Arch(
        name=f"riscv{xlen}",
        gdb_architecture=f"riscv:rv{xlen}",
        bits=xlen,
        features=_features(xlen),
        pc="pc",
        sp="sp",
        expedite=("pc", "sp", "fp", "ra", "a0"),
        elf_machine="EM_RISCV",
        models=("sifive-u54",) if xlen == 64 else ("sifive-u34",),
        capstone_arch="CS_ARCH_RISCV",
        capstone_mode=(f"CS_MODE_RISCV{xlen}", "CS_MODE_RISCVC"),
        instruction_alignment=2,
        max_instruction_length=4,
        breakpoint_kinds=(2, 4),
        nonsteppable_watchpoint=True,
        classify=_classify64 if xlen == 64 else _classify32,
        emulate=_emulate64 if xlen == 64 else _emulate32,
        exception_signal=_exception_signal,
        enter_exception=_enter_exception,
        reset=_reset,
        core=_core(xlen),
        kept_registers=riscv_pmp.registers(xlen) | riscv_csr.KEPT,
        protections=lambda cpu: riscv_pmp.protections(cpu, xlen),
        may_halt=_may_halt,
        interrupts=riscv_interrupts.interrupts(xlen),
        computed=riscv_interrupts.COMPUTED,
        shown_registers=_shown(xlen),
        spins=(bytes.fromhex("6f000000"), bytes.fromhex("01a0")),
    )


RISCV32 = _arch(32)
RISCV64 = _arch(64)
