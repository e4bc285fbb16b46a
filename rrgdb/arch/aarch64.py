"""AArch64 (Armv8-A, 64-bit state; Cortex-A57 unless another model is chosen).

Sources: "Arm Architecture Reference Manual for A-profile architecture" (DDI 0487), sections C5, C6, D1, D17, D23;
GDB manual, "AArch64 Features".
"""

from __future__ import annotations

from rrgdb.arch import arm_timer
from rrgdb.arch.base import (
    LINES,
    SIGNALS,
    Arch,
    CpuException,
    ExceptionKind,
    Feature,
    IllegalInstruction,
    Interrupts,
    Register,
    Signal,
    Trap,
    TrapHost,
    flags_type,
    words,
)
from rrgdb.arch.core_format import NT_FPREGSET, CoreFormat, Note, each
from rrgdb.arch.cpu import Cpu, MemoryFault
from rrgdb.arch.system import SystemRegister, register, registers

_CPSR_TYPE = flags_type(
    "cpsr_flags",
    (
        ("SP", 0, 0),
        ("EL", 2, 3),
        ("nRW", 4, 4),
        ("F", 6, 6),
        ("I", 7, 7),
        ("A", 8, 8),
        ("D", 9, 9),
        ("BTYPE", 10, 11),
        ("SSBS", 12, 12),
        ("IL", 20, 20),
        ("SS", 21, 21),
        ("PAN", 22, 22),
        ("UAO", 23, 23),
        ("DIT", 24, 24),
        ("TCO", 25, 25),
        ("V", 28, 28),
        ("C", 29, 29),
        ("Z", 30, 30),
        ("N", 31, 31),
    ),
)
# Union of a lane width -> its vectors: (id, lane type, lanes, field name).
_VECTORS = {
    "vnd": (("v2d", "ieee_double", 2, "f"), ("v2u", "uint64", 2, "u"), ("v2i", "int64", 2, "s")),
    "vns": (("v4f", "ieee_single", 4, "f"), ("v4u", "uint32", 4, "u"), ("v4i", "int32", 4, "s")),
    "vnh": (("v8f", "ieee_half", 8, "f"), ("v8u", "uint16", 8, "u"), ("v8i", "int16", 8, "s")),
    "vnb": (("v16u", "uint8", 16, "u"), ("v16i", "int8", 16, "s")),
    "vnq": (("v1u", "uint128", 1, "u"), ("v1i", "int128", 1, "s")),
}


def _vector_types() -> str:
    vectors = "".join(
        f'<vector id="{name}" type="{lane}" count="{count}"/>'
        for group in _VECTORS.values()
        for name, lane, count, _ in group
    )
    unions = "".join(
        f'<union id="{union}">{"".join(f"""<field name="{f}" type="{name}"/>""" for name, _, _, f in group)}</union>'
        for union, group in _VECTORS.items()
    )
    whole = "".join(f'<field name="{union[-1]}" type="{union}"/>' for union in _VECTORS)
    return f'{vectors}{unions}<union id="aarch64v">{whole}</union>'


_FEATURES = (
    Feature(
        "org.gnu.gdb.aarch64.core",
        (
            *(Register(f"x{n}", 64) for n in range(31)),
            Register("sp", 64, "data_ptr"),
            Register("pc", 64, "code_ptr"),
            Register("cpsr", 32, "cpsr_flags"),
        ),
        _CPSR_TYPE,
    ),
    Feature(
        "org.gnu.gdb.aarch64.fpu",
        (
            *(Register(f"v{n}", 128, "aarch64v", "vector") for n in range(32)),
            Register("fpsr", 32, group="float"),
            Register("fpcr", 32, group="float"),
        ),
        _vector_types(),
    ),
)

NAMED = ("sp_el0", "sp_el1", "tpidr_el0", "tpidrro_el0", "tpidr_el1", "elr_el1", "esr_el1", "far_el1", "vbar_el1")
ENCODED = {
    "spsr_el1": (3, 0, 4, 0, 0),
    "sctlr_el1": (3, 0, 1, 0, 0),
    "cpacr_el1": (3, 0, 1, 0, 2),
    "ttbr0_el1": (3, 0, 2, 0, 0),
    "ttbr1_el1": (3, 0, 2, 0, 1),
    "tcr_el1": (3, 0, 2, 0, 2),
    "par_el1": (3, 0, 7, 4, 0),
    "mair_el1": (3, 0, 10, 2, 0),
    "contextidr_el1": (3, 0, 13, 0, 1),
    "cntkctl_el1": (3, 0, 14, 1, 0),
    "cntp_ctl_el0": (3, 3, 14, 2, 1),
    "cntp_cval_el0": (3, 3, 14, 2, 2),
    "cntv_ctl_el0": (3, 3, 14, 3, 1),
    "cntv_cval_el0": (3, 3, 14, 3, 2),
    "pmuserenr_el0": (3, 3, 9, 14, 0),
    "mdscr_el1": (2, 0, 0, 2, 2),
    "id_aa64isar0_el1": (3, 0, 0, 6, 0),
    "id_aa64mmfr0_el1": (3, 0, 0, 7, 0),
    "hcr_el2": (3, 4, 1, 1, 0),
    "scr_el3": (3, 6, 1, 1, 0),
}
"""further system registers by encoding: (op0, op1, CRn, CRm, op2)"""
SHOWN = {
    "midr_el1": (3, 0, 0, 0, 0),
    "mpidr_el1": (3, 0, 0, 0, 5),
    "id_aa64pfr0_el1": (3, 0, 0, 4, 0),
    "ctr_el0": (3, 3, 0, 0, 1),
    "actlr_el1": (3, 0, 1, 0, 1),
    "afsr0_el1": (3, 0, 5, 1, 0),
    "afsr1_el1": (3, 0, 5, 1, 1),
    "amair_el1": (3, 0, 10, 3, 0),
    "cntfrq_el0": (3, 3, 14, 0, 0),
}
"""the same, for a debugger alone"""
_SYSTEM = (*NAMED, *ENCODED)

# Registers that depend on time or chance, by encoding: what MRS and MSR do with them.
_TIMED = {
    (3, 3, 14, 0, 1): "cntpct",
    (3, 3, 14, 0, 2): "cntvct",
    (3, 3, 14, 2, 0): "cntp_tval",
    (3, 3, 14, 2, 1): "cntp_ctl",
    (3, 3, 14, 2, 2): "cntp_cval",
    (3, 3, 14, 3, 0): "cntv_tval",
    (3, 3, 14, 3, 1): "cntv_ctl",
    (3, 3, 14, 3, 2): "cntv_cval",
    (3, 3, 9, 13, 0): "pmccntr",
    (3, 3, 9, 13, 2): "pmevcntr",  # PMXEVCNTR_EL0
    (3, 3, 9, 12, 3): "pmovs",  # PMOVSCLR_EL0
    (3, 3, 9, 14, 3): "pmovs",  # PMOVSSET_EL0
    **{(3, 3, 14, 8 | n >> 3, n & 7): "pmevcntr" for n in range(31)},
}
_RANDOM = {(3, 3, 2, 4, 0), (3, 3, 2, 4, 1)}  # RNDR, RNDRRS
_READ_ONLY = {"cntpct", "cntvct"}
# Enable bits for EL0: in PMUSERENR_EL0 for what the performance monitors count (EN; CR and ER for reads only), else
# in CNTKCTL_EL1.
_EL0_ENABLE = {"cntpct": 1 << 0, "cntvct": 1 << 1, "cntv": 1 << 8, "cntp": 1 << 9}
_EL0_MONITOR_READ = {"pmccntr": 1 << 0 | 1 << 2, "pmevcntr": 1 << 0 | 1 << 3, "pmovs": 1 << 0}

_HLT_SEMIHOST, _WFE, _WFI = 0xD45E0000, 0xD503205F, 0xD503207F
_NZCV = 0xF0000000


def _system_access(word: int) -> tuple[tuple[int, int, int, int, int], bool] | None:
    """((op0, op1, CRn, CRm, op2), whether it reads) of an MRS or MSR (register) instruction."""
    if word & 0xFFD00000 != 0xD5100000:
        return None
    encoding = (2 + (word >> 19 & 1), word >> 16 & 7, word >> 12 & 15, word >> 8 & 15, word >> 5 & 7)
    return encoding, bool(word >> 21 & 1)


def _controls_translation(encoding: tuple[int, int, int, int, int]) -> bool:
    """SCTLR_ELx; TTBR0/1_ELx, TCR_ELx; MAIR_ELx; HCR_EL2 and SCR_EL3; CONTEXTIDR_EL1."""
    op0, _, crn, crm, op2 = encoding
    if op0 != 3:
        return False
    return (crn, crm, op2) in {(1, 0, 0), (1, 1, 0), (2, 0, 0), (2, 0, 1), (2, 0, 2), (10, 2, 0), (13, 0, 1)}


def _classify(code: bytes) -> Trap | None:
    """By bit patterns."""
    if len(code) < 4:
        return None
    word = int.from_bytes(code[:4], "little")
    if word == _HLT_SEMIHOST:
        return Trap.SEMIHOST
    if word in (_WFE, _WFI):
        return Trap.HALT
    if word & 0xFFE0001F in (0xD4000002, 0xD4000003):  # HVC, SMC
        return Trap.HYPERCALL
    if word & 0xFFF8F000 == 0xD5088000:  # TLBI
        return Trap.MMU
    access = _system_access(word)
    if access is None:
        return None
    encoding, reads = access
    if encoding in _TIMED:
        return Trap.COUNTER
    if encoding in _RANDOM:
        return Trap.ENTROPY if reads else None
    return Trap.MMU if not reads and _controls_translation(encoding) else None


def _exception_level(cpu: Cpu) -> int:
    return cpu.read("cpsr") >> 2 & 3


def _emulate(cpu: Cpu, trap: Trap, code: bytes, host: TrapHost) -> None:
    """Counters are functions of the icount; what the performance monitors count is always retired instructions, and
    writes to their counters are accepted and ignored, and none overflows. RNDR never fails."""
    word = int.from_bytes(code[:4], "little")
    access = _system_access(word)
    if access is None:
        raise IllegalInstruction
    encoding, reads = access
    target = f"x{word & 31}" if word & 31 != 31 else None
    if trap is Trap.ENTROPY and encoding in _RANDOM and reads:
        if not cpu.read("id_aa64isar0_el1") >> 60 & 15:
            raise IllegalInstruction
        value = int.from_bytes(host.entropy(8), "little")
        cpu.write("cpsr", cpu.read("cpsr") & ~_NZCV)
        if target:
            cpu.write(target, value)
    elif trap is Trap.COUNTER and encoding in _TIMED:
        name = _TIMED[encoding]
        if not reads and name in _READ_ONLY:
            raise IllegalInstruction
        if _exception_level(cpu) == 0:
            if name in _EL0_MONITOR_READ:
                allowed = cpu.read("pmuserenr_el0") & (_EL0_MONITOR_READ[name] if reads else 1)
            else:
                allowed = cpu.read("cntkctl_el1") & _EL0_ENABLE[name.partition("_")[0]]
            if not allowed:
                raise IllegalInstruction
        now = arm_timer.count(host)
        if not reads:
            arm_timer.write(cpu, name, cpu.read(target) if target else 0, now, "_el0")
        elif target:
            monitored = {"pmccntr": cpu.icount, "pmevcntr": cpu.icount & 0xFFFFFFFF, "pmovs": 0}
            cpu.write(target, monitored[name] if name in monitored else arm_timer.read(cpu, name, now, "_el0"))
    else:
        raise IllegalInstruction
    cpu.write("pc", (cpu.read("pc") + 4) & 0xFFFFFFFFFFFFFFFF)


_IL = 1 << 25
_ADDRESS_SIZE, _EXTERNAL_ABORT = 0, 0x10
_PHYSICAL_BITS = (32, 36, 40, 42, 44, 48, 52)
"""by ID_AA64MMFR0_EL1.PARange"""


def _abort(cpu: Cpu, address: int) -> int:
    """Fault status of an access that nothing answers: with translation off, an address may be too large for the CPU
    (section D8.1.4, "VMSAv8-64 address translation disabled")."""
    known = _PHYSICAL_BITS[min(cpu.read("id_aa64mmfr0_el1") & 15, len(_PHYSICAL_BITS) - 1)]
    return _EXTERNAL_ABORT if cpu.read("sctlr_el1") & 1 or not address >> known else _ADDRESS_SIZE


def _instruction(cpu: Cpu, address: int) -> int:
    try:
        return int.from_bytes(cpu.read_memory(address, 4), "little")
    except MemoryFault:
        return 0


def _syndrome(cpu: Cpu, exception: CpuException, from_el0: bool) -> int:
    """ESR_EL1 (section D23, "ESR_EL1") for an exception that came without a syndrome."""
    kind = exception.kind
    if kind is ExceptionKind.SYSCALL:
        return 0x15 << 26 | _IL | _instruction(cpu, exception.pc) >> 5 & 0xFFFF
    if kind is ExceptionKind.BREAKPOINT:
        return 0x3C << 26 | _IL | _instruction(cpu, exception.pc) >> 5 & 0xFFFF
    if kind is ExceptionKind.FETCH_FAULT:
        return (0x20 if from_el0 else 0x21) << 26 | _IL | _abort(cpu, exception.address)
    if kind in (ExceptionKind.READ_FAULT, ExceptionKind.WRITE_FAULT):
        write = 1 << 6 if kind is ExceptionKind.WRITE_FAULT else 0
        return (0x24 if from_el0 else 0x25) << 26 | _IL | write | _abort(cpu, exception.address)
    word = _instruction(cpu, exception.pc)
    access = _system_access(word) if kind is ExceptionKind.UNDEFINED and from_el0 else None
    if access and access[0] in _TIMED:
        # A trapped MRS or MSR: EC 0x18 names the register.
        (op0, op1, crn, crm, op2), reads = access
        fields = op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | (word & 31) << 5 | crm << 1 | reads
        return 0x18 << 26 | _IL | fields
    return _IL


_FAULTS = (ExceptionKind.FETCH_FAULT, ExceptionKind.READ_FAULT, ExceptionKind.WRITE_FAULT)


def _offset(pstate: int) -> int:
    """Of the vector of a synchronous exception."""
    if not pstate >> 2 & 3:
        return 0x600 if pstate & 0x10 else 0x400
    return 0x200 if pstate & 1 else 0


def _has_vectors(cpu: Cpu, offset: int) -> bool:
    """VBAR_EL1 of 0 counts as none, but where firmware has something at that physical address."""
    if cpu.read("vbar_el1"):
        return True
    return not cpu.read("sctlr_el1") & 1 and _instruction(cpu, offset) != 0


def _vector(cpu: Cpu, pstate: int) -> int:
    """That of a synchronous exception, and the stack pointer of EL1 in use from now on."""
    if not pstate >> 2 & 3 or not pstate & 1:
        # Engines do not bank the stack pointer by themselves.
        cpu.write("sp_el0", cpu.read("sp"))
        cpu.write("sp", cpu.read("sp_el1"))
    return cpu.read("vbar_el1") + _offset(pstate)


def _enter(cpu: Cpu, pstate: int, back: int, vector: int) -> None:
    cpu.write("elr_el1", back)
    cpu.write("cpsr", 0x3C5)
    # Last: an engine may take a new PSTATE into account only when a register with an encoding is written.
    cpu.write("spsr_el1", pstate)
    cpu.write("pc", vector & 0xFFFFFFFFFFFFFFFF)


def _enter_exception(cpu: Cpu, exception: CpuException) -> bool:
    """Into EL1 (section D1.3, "AArch64.TakeException"). EL2 and EL3 have no vectors."""
    pstate = cpu.read("cpsr")
    level = pstate >> 2 & 3
    if level > 1 or not _has_vectors(cpu, _offset(pstate)):
        return False
    syndrome = exception.detail if exception.detail is not None else _syndrome(cpu, exception, level == 0)
    vector = _vector(cpu, pstate)
    cpu.write("esr_el1", syndrome)
    if exception.kind in _FAULTS:
        cpu.write("far_el1", exception.address)
    _enter(cpu, pstate, exception.next_pc if exception.kind is ExceptionKind.SYSCALL else exception.pc, vector)
    return True


_IRQ, _FIQ = 0, 1
_PSTATE_I, _PSTATE_F = 1 << 7, 1 << 6


def _pending(cpu: Cpu) -> int | None:
    """From EL0 and EL1 alone: EL2 and EL3 do not ask for interrupts, so theirs stay pending (section D1.3.5)."""
    lines, pstate = cpu.read(LINES), cpu.read("cpsr")
    if pstate >> 2 & 3 > 1:
        return None
    if lines >> _FIQ & 1 and not pstate & _PSTATE_F:
        return _FIQ
    return _IRQ if lines >> _IRQ & 1 and not pstate & _PSTATE_I else None


def _enter_interrupt(cpu: Cpu, number: int) -> None:
    pstate = cpu.read("cpsr")
    _enter(cpu, pstate, cpu.read("pc"), _vector(cpu, pstate) + (0x80 if number == _IRQ else 0x100))


_ALIGNMENT_CLASSES = (0x22, 0x26)  # PC alignment, SP alignment


def _exception_signal(exception: CpuException) -> int:
    if exception.kind in SIGNALS:
        return SIGNALS[exception.kind]
    return Signal.SIGBUS if (exception.detail or 0) >> 26 in _ALIGNMENT_CLASSES else Signal.SIGABRT


def _reset(cpu: Cpu, entry: int, stack_top: int) -> None:
    """EL1h, interrupts masked, MMU off, FP and SIMD not trapped; EL2 and EL3 configured to stay out of the way."""
    cpu.write("scr_el3", 0x531)  # RW, HCE, RES1, NS
    cpu.write("cpsr", 0x3C5)
    cpu.write("cpacr_el1", 3 << 20)  # FPEN
    # Last, for the same reason as in _enter_exception.
    cpu.write("hcr_el2", 1 << 31)  # RW
    cpu.write("sp", stack_top)
    cpu.write("pc", entry)


def _stack(name: str, own: bool) -> SystemRegister:
    """SP_EL0 or SP_EL1 (``own``): engines hold the one in use elsewhere, which PSTATE.SP chooses."""

    def place(cpu: Cpu) -> str:
        return "sp" if bool(cpu.read("cpsr") & 1) == own else name.lower()

    return SystemRegister(
        name, 64, lambda cpu: cpu.read(place(cpu)), lambda cpu, value: cpu.write(place(cpu), value), "data_ptr"
    )


_SHOWN = (
    register("ELR_EL1", 64, type="code_ptr"),
    register("ESR_EL1", 64),
    register("FAR_EL1", 64, type="data_ptr"),
    register("SPSR_EL1", 64),
    register("VBAR_EL1", 64, type="code_ptr"),
    _stack("SP_EL0", own=False),
    _stack("SP_EL1", own=True),
    *registers(words("SCTLR_EL1 CPACR_EL1 TCR_EL1 TTBR0_EL1 TTBR1_EL1 MAIR_EL1 AMAIR_EL1 CONTEXTIDR_EL1 PAR_EL1"), 64),
    *registers(words("TPIDR_EL0 TPIDRRO_EL0 TPIDR_EL1 ACTLR_EL1 AFSR0_EL1 AFSR1_EL1 MDSCR_EL1"), 64),
    *registers(words("CNTKCTL_EL1 CNTP_CTL_EL0 CNTP_CVAL_EL0 CNTV_CTL_EL0 CNTV_CVAL_EL0"), 64),
    register("CNTFRQ_EL0", 64),
    register("PMUSERENR_EL0", 64),
    *registers(words("HCR_EL2 SCR_EL3"), 64),
    *registers(words("MIDR_EL1 MPIDR_EL1 CTR_EL0 ID_AA64PFR0_EL1 ID_AA64ISAR0_EL1 ID_AA64MMFR0_EL1"), 64, fixed=True),
)


AARCH64 = Arch(
    name="aarch64",
    gdb_architecture="aarch64",
    bits=64,
    features=_FEATURES,
    pc="pc",
    sp="sp",
    expedite=("pc", "sp", "x29", "x30", "cpsr", "x0"),
    elf_machine="EM_AARCH64",
    models=("cortex-a57", "cortex-a53", "cortex-a72", "max"),
    capstone_arch="CS_ARCH_ARM64",
    capstone_mode=("CS_MODE_ARM",),
    instruction_alignment=4,
    max_instruction_length=4,
    breakpoint_kinds=(4,),
    nonsteppable_watchpoint=True,
    classify=_classify,
    emulate=_emulate,
    exception_signal=_exception_signal,
    enter_exception=_enter_exception,
    reset=_reset,
    core=CoreFormat(
        183,
        each((*(f"x{n}" for n in range(31)), "sp", "pc", "cpsr"), 8),
        (
            Note(
                "CORE",
                NT_FPREGSET,
                (*each(tuple(f"v{n}" for n in range(32)), 16), ("fpsr", 4), ("fpcr", 4), (0, 8)),
            ),
        ),
    ),
    halts=lambda _cpu, code: int.from_bytes(code, "little") == _WFI,
    interrupts=Interrupts(
        lines={"irq": _IRQ, "fiq": _FIQ},
        raised=lambda cpu: cpu.read(LINES),
        pending=_pending,
        enter=_enter_interrupt,
        wakes=lambda cpu: cpu.read(LINES) != 0,
        masked=lambda cpu: cpu.read("cpsr") & (_PSTATE_I | _PSTATE_F) == _PSTATE_I | _PSTATE_F,
    ),
    timers=arm_timer.timers("_el0", lambda _cpu, code: not int.from_bytes(code, "little") >> 21 & 1),
    system_registers=(*_SYSTEM, *SHOWN),
    shown_registers=_SHOWN,
    spins=(bytes.fromhex("00000014"),),
    digest_registers=tuple(name for name in _SYSTEM if not name.startswith("id_")),
)
