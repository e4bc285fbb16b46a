"""32-bit ARM (Armv7-A with A32 and Thumb; Cortex-A15 unless another model is chosen).

Sources: "ARM Architecture Reference Manual, ARMv7-A and ARMv7-R edition" (DDI 0406), sections A2.5, A5, A6, B1.8, B1.9,
B3.12, B4.1, B8; GDB manual, "ARM Features".
"""

from __future__ import annotations

from rrgdb.arch import arm_timer, thumb
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
    SecondSet,
    Signal,
    Trap,
    TrapHost,
    flags_type,
    words,
)
from rrgdb.arch.core_format import AT_HWCAP, NT_ARM_VFP, NT_AUXV, CoreFormat, Note, each
from rrgdb.arch.cpu import Cpu, MemoryFault
from rrgdb.arch.system import SystemRegister, register, registers

_T, _F, _I, _A, _E, _J = 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 9, 1 << 24
_MODE, _USR = 0x1F, 0x10
_MASK = 0xFFFFFFFF

_CPSR_FIELDS = (
    ("M", 0, 4),
    ("T", 5, 5),
    ("F", 6, 6),
    ("I", 7, 7),
    ("A", 8, 8),
    ("E", 9, 9),
    ("IT_2_7", 10, 15),
    ("GE", 16, 19),
    ("J", 24, 24),
    ("IT_0_1", 25, 26),
    ("Q", 27, 27),
    ("V", 28, 28),
    ("C", 29, 29),
    ("Z", 30, 30),
    ("N", 31, 31),
)
_CPSR_TYPE = flags_type("cpsr_flags", _CPSR_FIELDS)

_FEATURES = (
    Feature(
        "org.gnu.gdb.arm.core",
        (
            *(Register(f"r{n}", 32, "uint32") for n in range(13)),
            Register("sp", 32, "data_ptr"),
            Register("lr", 32),
            Register("pc", 32, "code_ptr"),
            Register("cpsr", 32, "cpsr_flags"),
        ),
        _CPSR_TYPE,
    ),
    Feature(
        "org.gnu.gdb.arm.vfp",
        (
            *(Register(f"d{n}", 64, "ieee_double", "float") for n in range(32)),
            Register("fpscr", 32, group="float"),
        ),
    ),
    # GDB shows q0 to q15 and vector types for it, made of the registers above.
    Feature("org.gnu.gdb.arm.neon", ()),
)

NAMED = ("spsr", "fpexc")
COPROCESSOR = {
    "id_pfr1": (0, 1, 0, 1),
    "sctlr": (1, 0, 0, 0),
    "cpacr": (1, 0, 0, 2),
    "scr": (1, 1, 0, 0),
    "nsacr": (1, 1, 0, 2),
    "ttbr0": (2, 0, 0, 0),
    "ttbr1": (2, 0, 0, 1),
    "ttbcr": (2, 0, 0, 2),
    "dacr": (3, 0, 0, 0),
    "dfsr": (5, 0, 0, 0),
    "ifsr": (5, 0, 0, 1),
    "dfar": (6, 0, 0, 0),
    "ifar": (6, 0, 0, 2),
    "par": (7, 4, 0, 0),
    "pmuserenr": (9, 14, 0, 0),
    "prrr": (10, 2, 0, 0),
    "nmrr": (10, 2, 0, 1),
    "vbar": (12, 0, 0, 0),
    "contextidr": (13, 0, 0, 1),
    "tpidrurw": (13, 0, 0, 2),
    "tpidruro": (13, 0, 0, 3),
    "tpidrprw": (13, 0, 0, 4),
}
"""registers of coprocessor 15, by encoding: (CRn, CRm, opc1, opc2)"""
TIMER = {
    "cntkctl": (14, 1, 0, 0),
    "cntp_ctl": (14, 2, 0, 1),
    "cntp_cval": (14, 2),
    "cntv_ctl": (14, 3, 0, 1),
    "cntv_cval": (14, 3),
}
"""the same of the generic timer; those of 64 bits: (CRm, opc1)"""
SHOWN = {"midr": (0, 0, 0, 0), "mpidr": (0, 0, 0, 5), "actlr": (1, 0, 0, 1), "cntfrq": (14, 0, 0, 0)}
"""registers of coprocessor 15 for a debugger alone"""
WIDE_TABLES = {"ttbr0_wide": (2, 0), "ttbr1_wide": (2, 1)}
"""TTBR0 and TTBR1 with all of their 64 bits; state digests have the lower halves"""
_SYSTEM = (*NAMED, *COPROCESSOR, *TIMER)
GENERIC_TIMER = ("id_pfr1", 0xF << 16)
"""where a model says that it has one"""

# What depends on time, by encoding: (CRn, CRm, opc1, opc2) of MRC and MCR, (CRm, opc1) of MRRC and MCRR.
_TIMED = {
    (14, 2, 0, 0): "cntp_tval",
    (14, 2, 0, 1): "cntp_ctl",
    (14, 3, 0, 0): "cntv_tval",
    (14, 3, 0, 1): "cntv_ctl",
    (9, 13, 0, 0): "pmccntr",
    (9, 13, 0, 2): "pmxevcntr",
    (9, 12, 0, 3): "pmovsr",
    (9, 14, 0, 3): "pmovsr",  # PMOVSSET
}
_TIMED_WIDE = {
    (14, 0): "cntpct",
    (14, 1): "cntvct",
    (14, 2): "cntp_cval",
    (14, 3): "cntv_cval",
}
_READ_ONLY = {"cntpct", "cntvct"}
# Enable bits for PL0: in PMUSERENR for what the performance monitors count, else in CNTKCTL.
_USER_ENABLE = {"cntpct": 1 << 0, "cntvct": 1 << 1, "cntv": 1 << 8, "cntp": 1 << 9}
_MONITORS = {"pmccntr", "pmxevcntr", "pmovsr"}

_SVC_SEMIHOST, _HLT_SEMIHOST = 0x0F123456, 0xE10F0070
_SVC_SEMIHOST_T, _HLT_SEMIHOST_T = 0xDFAB, 0xBABC


def _classify_word(word: int) -> Trap | None:
    """An A32 instruction without regard to its condition. Thumb's coprocessor instructions have the same encodings
    as those of A32 that always execute."""
    if word & 0x0F000F10 == 0x0E000F10:  # MRC, MCR of coprocessor 15
        reads = word >> 20 & 1
        encoding = (word >> 16 & 15, word & 15, word >> 21 & 7, word >> 5 & 7)
        if encoding in _TIMED:
            return Trap.COUNTER
        return Trap.MMU if not reads and _controls_translation(encoding) else None
    if word & 0x0FE00F00 == 0x0C400F00:  # MRRC, MCRR of coprocessor 15
        if (word & 15, word >> 4 & 15) in _TIMED_WIDE:
            return Trap.COUNTER
        return Trap.MMU if not word >> 20 & 1 and word & 15 == 2 else None
    return None


def _controls_translation(encoding: tuple[int, int, int, int]) -> bool:
    """SCTLR and SCR; TTBR0, TTBR1, TTBCR; DACR; TLB maintenance; PRRR and NMRR; CONTEXTIDR."""
    crn, crm, opc1, opc2 = encoding
    if opc1:
        return False
    return (crn, crm, opc2) in {(1, 0, 0), (1, 1, 0), (13, 0, 1)} or crn in {2, 3, 8, 10}


def _classify(code: bytes) -> Trap | None:
    """A32, by bit patterns. The condition is looked at when the instruction executes."""
    if len(code) < 4:
        return None
    word = int.from_bytes(code[:4], "little")
    if word >> 28 == 15:
        return None
    if word & 0x0FFFFFFF == _SVC_SEMIHOST or word == _HLT_SEMIHOST:
        return Trap.SEMIHOST
    if word & 0x0FFFFFFF in (0x0320F001, 0x0320F002, 0x0320F003):  # YIELD, WFE, WFI
        return Trap.HALT
    if word & 0xFFF000F0 == 0xE1400070 or word & 0x0FF000F0 == 0x01600070:  # HVC, SMC
        return Trap.HYPERCALL
    return _classify_word(word)


def _classify_thumb(code: bytes) -> Trap | None:
    """Thumb, by bit patterns."""
    if len(code) == 2:
        halfword = int.from_bytes(code, "little")
        if halfword in (_SVC_SEMIHOST_T, _HLT_SEMIHOST_T):
            return Trap.SEMIHOST
        return Trap.HALT if halfword in (0xBF10, 0xBF20, 0xBF30) else None  # YIELD, WFE, WFI
    if len(code) != 4:
        return None
    word = thumb.word_of(code)
    if word in (0xF3AF8001, 0xF3AF8002, 0xF3AF8003):
        return Trap.HALT
    if word & 0xFFF0F000 in (0xF7E08000, 0xF7F08000):  # HVC, SMC
        return Trap.HYPERCALL
    return _classify_word(word) if word >> 28 == 14 else None


def _executes(cpu: Cpu, code: bytes) -> bool:
    """By the condition field, or by ITSTATE in Thumb. BKPT and HLT are not asked about."""
    cpsr = cpu.read("cpsr")
    if cpsr & _T:
        state = thumb.it_state(cpsr)
        return not state or thumb.holds(state >> 4, cpsr)
    condition = code[3] >> 4
    return condition >= 14 or thumb.holds(condition, cpsr)


def _after(cpsr: int) -> int:
    """CPSR behind one more instruction."""
    return thumb.after(cpsr) if cpsr & _T else cpsr


def _step_over(cpu: Cpu, length: int) -> None:
    cpu.write("pc", cpu.read("pc") + length & _MASK)
    cpsr = cpu.read("cpsr")
    if _after(cpsr) != cpsr:
        cpu.write("cpsr", _after(cpsr))


def _allowed(cpu: Cpu, name: str) -> None:
    if cpu.read("cpsr") & _MODE != _USR:
        return
    if name in _MONITORS:
        enabled = cpu.read("pmuserenr") & 1
    else:
        enabled = cpu.read("cntkctl") & _USER_ENABLE[name.partition("_")[0]]
    if not enabled:
        raise IllegalInstruction


def _emulate(cpu: Cpu, trap: Trap, code: bytes, host: TrapHost) -> None:
    """Counters are functions of the icount; what the performance monitors count is always retired instructions, and
    writes to their counters are accepted and ignored, and none overflows."""
    word = _word(cpu, code)
    wide = word & 0x0F000000 == 0x0C000000
    if wide:
        name = _TIMED_WIDE.get((word & 15, word >> 4 & 15))
    else:
        name = _TIMED.get((word >> 16 & 15, word & 15, word >> 21 & 7, word >> 5 & 7))
    if trap is not Trap.COUNTER or name is None:
        raise IllegalInstruction
    reads = bool(word >> 20 & 1)
    low, high = word >> 12 & 15, word >> 16 & 15
    if 15 in ((low, high) if wide else ()) or (low == 15 and not wide) or (not reads and name in _READ_ONLY):
        raise IllegalInstruction
    if name not in _MONITORS and not cpu.read(GENERIC_TIMER[0]) & GENERIC_TIMER[1]:
        raise IllegalInstruction
    _allowed(cpu, name)
    names = [*(f"r{n}" for n in range(13)), "sp", "lr"]
    now = arm_timer.count(host)
    if reads:
        monitored = 0 if name == "pmovsr" else cpu.icount
        value = monitored if name in _MONITORS else arm_timer.read(cpu, name, now)
        cpu.write(names[low], value & _MASK)
        if wide:
            cpu.write(names[high], value >> 32 & _MASK)
    elif name not in _MONITORS:
        value = cpu.read(names[low]) | (cpu.read(names[high]) << 32 if wide else 0)
        arm_timer.write(cpu, name, value, now)
    _step_over(cpu, 4)


_FIQ_MODE, _IRQ_MODE, _SVC_MODE, _ABT_MODE, _UND_MODE = 0x11, 0x12, 0x13, 0x17, 0x1B
# Kind -> (vector offset, mode, bits of CPSR that it sets).
_ENTRIES = {
    ExceptionKind.UNDEFINED: (0x04, _UND_MODE, _I),
    ExceptionKind.SYSCALL: (0x08, _SVC_MODE, _I),
    ExceptionKind.BREAKPOINT: (0x0C, _ABT_MODE, _I | _A),
    ExceptionKind.FETCH_FAULT: (0x0C, _ABT_MODE, _I | _A),
    ExceptionKind.READ_FAULT: (0x10, _ABT_MODE, _I | _A),
    ExceptionKind.WRITE_FAULT: (0x10, _ABT_MODE, _I | _A),
}
_HIGH_VECTORS, _SCTLR_V, _SCTLR_EE, _SCTLR_TE = 0xFFFF0000, 1 << 13, 1 << 25, 1 << 30
_EXTERNAL_ABORT, _DEBUG_EVENT, _WRITE = 0x008, 0x002, 1 << 11


def _enter_exception(cpu: Cpu, exception: CpuException) -> bool:
    """Into the mode of the exception (section B1.8). Vectors that are not in memory are none, and
    neither are those at physical address 0 that hold nothing."""
    entry = _ENTRIES.get(exception.kind)
    if entry is None:
        return False
    offset, mode, masks = entry
    base = _base(cpu)
    vector = base + offset & _MASK
    try:
        code = cpu.read_memory(vector, 4)
    except MemoryFault:
        return False
    # Where boards have flash that nobody has filled.
    empty = not base and not cpu.read("sctlr") & 1 and not any(code)
    if len(code) < 4 or empty:
        return False
    kind, cpsr = exception.kind, cpu.read("cpsr")
    if kind is ExceptionKind.SYSCALL:
        cpsr, back = _after(cpsr), exception.next_pc
    elif kind is ExceptionKind.UNDEFINED:
        back = exception.pc + (2 if cpsr & _T else 4)
    else:
        back = exception.pc + (8 if offset == 0x10 else 4)
    status = exception.detail
    if kind in (ExceptionKind.READ_FAULT, ExceptionKind.WRITE_FAULT):
        write = _WRITE if kind is ExceptionKind.WRITE_FAULT else 0
        cpu.write("dfsr", _EXTERNAL_ABORT | write if status is None else status)
        cpu.write("dfar", exception.address)
    elif kind is ExceptionKind.FETCH_FAULT:
        cpu.write("ifsr", _EXTERNAL_ABORT if status is None else status & ~_WRITE)
        cpu.write("ifar", exception.address)
    elif kind is ExceptionKind.BREAKPOINT:
        cpu.write("ifsr", _DEBUG_EVENT)
    _enter(cpu, cpsr, mode, masks, back, vector)
    return True


def _enter(cpu: Cpu, cpsr: int, mode: int, masks: int, back: int, vector: int) -> None:
    control = cpu.read("sctlr")
    entered = cpsr & ~(_MODE | _T | _E | _J | thumb.IT) | mode | masks
    entered |= (_E if control & _SCTLR_EE else 0) | (_T if control & _SCTLR_TE else 0)
    cpu.write("cpsr", entered)
    cpu.write("spsr", cpsr)
    cpu.write("lr", back & _MASK)
    cpu.write("pc", vector)


_IRQ, _FIQ = 0, 1
_INTERRUPTS = {_IRQ: (0x18, _IRQ_MODE, _I | _A), _FIQ: (0x1C, _FIQ_MODE, _I | _A | _F)}
"""number -> (vector offset, mode, bits of CPSR that it sets)"""


def _pending(cpu: Cpu) -> int | None:
    lines, cpsr = cpu.read(LINES), cpu.read("cpsr")
    if lines >> _FIQ & 1 and not cpsr & _F:
        return _FIQ
    return _IRQ if lines >> _IRQ & 1 and not cpsr & _I else None


def _enter_interrupt(cpu: Cpu, number: int) -> None:
    offset, mode, masks = _INTERRUPTS[number]
    _enter(cpu, cpu.read("cpsr"), mode, masks, cpu.read("pc") + 4, _base(cpu) + offset)


def _base(cpu: Cpu) -> int:
    """Of the vectors."""
    return _HIGH_VECTORS if cpu.read("sctlr") & _SCTLR_V else cpu.read("vbar")


def _word(cpu: Cpu, code: bytes) -> int:
    """The bits of an instruction of either set, as the manual writes them."""
    return thumb.word_of(code) if cpu.read("cpsr") & _T and len(code) == 4 else int.from_bytes(code, "little")


def _halts(cpu: Cpu, code: bytes) -> bool:
    """WFI, in either set; YIELD and WFE only give way."""
    word = _word(cpu, code)
    return word & 0x0FFFFFFF == 0x0320F003 if not cpu.read("cpsr") & _T else word in (0xBF30, 0xF3AF8003)


_ALIGNMENT = 0x001


def _exception_signal(exception: CpuException) -> int:
    if exception.detail is not None and exception.detail & 0x40F == _ALIGNMENT:
        return Signal.SIGBUS
    return SIGNALS.get(exception.kind, Signal.SIGABRT)


def _reset(cpu: Cpu, entry: int, stack_top: int) -> None:
    """SVC mode, interrupts masked, MMU off, FP and SIMD on; the secure world stays out of the way. Bit 0 of the entry
    chooses Thumb."""
    cpu.write("scr", 0x31)  # NS; FW and AW: CPSR.F and CPSR.A may be changed
    cpu.write("nsacr", 3 << 10)  # FP and SIMD
    cpu.write("cpsr", 0x1D3 | (_T if entry & 1 else 0))
    cpu.write("cpacr", 0xF << 20)
    cpu.write("fpexc", 1 << 30)
    cpu.write("sp", stack_top)
    cpu.write("pc", entry & ~1)


_BANKS = {"usr": (_USR, 0x1F), "svc": (0x13,), "abt": (0x17,), "und": (0x1B,), "irq": (0x12,), "fiq": (0x11,)}
"""the manual's suffixes -> the modes (CPSR.M) that have these registers; system mode has the user's"""
BANKED = (
    *(f"{name}_{bank}" for bank in _BANKS for name in ("spsr", "sp", "lr") if (name, bank) != ("spsr", "usr")),
    *(f"r{n}_{bank}" for bank in ("usr", "fiq") for n in range(8, 13)),
)
"""what the modes have of their own, where those of other modes than the present one are (section B1.3.2)"""


def _banked(hidden: str) -> SystemRegister:
    """The register of a mode, wherever it is now."""
    name, _, bank = hidden.partition("_")

    def place(cpu: Cpu) -> str:
        mode = cpu.read("cpsr") & _MODE
        here = (mode == _FIQ_MODE) == (bank == "fiq") if name.startswith("r") else mode in _BANKS[bank]
        return name if here else hidden

    return SystemRegister(
        f"{name.upper()}_{bank}",
        32,
        lambda cpu: cpu.read(place(cpu)),
        lambda cpu, value: cpu.write(place(cpu), value),
        {"sp": "data_ptr", "lr": "code_ptr"}.get(name, "uint32"),
    )


def _table_base(name: str) -> SystemRegister:
    """TTBR0 or TTBR1: with the long descriptors (TTBCR.EAE) it has 64 bits."""

    def place(cpu: Cpu) -> str:
        return f"{name.lower()}_wide" if cpu.read("ttbcr") >> 31 else name.lower()

    return SystemRegister(
        name, 64, lambda cpu: cpu.read(place(cpu)), lambda cpu, value: cpu.write(place(cpu), value), "uint64"
    )


_SHOWN = (
    *registers(words("DFSR IFSR"), 32),
    *(register(name, 32, type="data_ptr") for name in ("DFAR", "IFAR")),
    register("SPSR", 32),
    register("VBAR", 32, type="code_ptr"),
    *registers(words("SCTLR ACTLR CPACR NSACR SCR TTBCR"), 32),
    _table_base("TTBR0"),
    _table_base("TTBR1"),
    *registers(words("DACR PAR PRRR NMRR CONTEXTIDR TPIDRURW TPIDRURO TPIDRPRW FPEXC PMUSERENR"), 32),
    *registers(words("CNTFRQ CNTKCTL CNTP_CTL CNTV_CTL"), 32),
    *registers(words("CNTP_CVAL CNTV_CVAL"), 64),
    *(_banked(hidden) for hidden in BANKED),
    *registers(words("MIDR MPIDR ID_PFR1"), 32, fixed=True),
)
_HWCAP = 1 << 6 | 1 << 12 | 1 << 13
"""VFP, NEON, VFPv3 with 32 registers: GDB looks for them in a core before it reads NT_ARM_VFP"""

ARM = Arch(
    name="arm",
    gdb_architecture="arm",
    bits=32,
    features=_FEATURES,
    pc="pc",
    sp="sp",
    expedite=("pc", "sp", "r11", "r7", "lr", "cpsr", "r0"),
    elf_machine="EM_ARM",
    models=("cortex-a15", "cortex-a7", "cortex-a8", "cortex-a9"),
    capstone_arch="CS_ARCH_ARM",
    capstone_mode=("CS_MODE_ARM",),
    instruction_alignment=2,
    max_instruction_length=4,
    breakpoint_kinds=(2, 3, 4),
    nonsteppable_watchpoint=True,
    classify=_classify,
    emulate=_emulate,
    exception_signal=_exception_signal,
    enter_exception=_enter_exception,
    reset=_reset,
    core=CoreFormat(
        40,
        (*each((*(f"r{n}" for n in range(13)), "sp", "lr", "pc", "cpsr"), 4), (0, 4)),
        (
            Note("LINUX", NT_ARM_VFP, (*each(tuple(f"d{n}" for n in range(32)), 8), ("fpscr", 4))),
            Note("CORE", NT_AUXV, ((AT_HWCAP, 4), (_HWCAP, 4), (0, 8))),
        ),
        0x05000000,  # EF_ARM_EABI_VER5
    ),
    halts=_halts,
    interrupts=Interrupts(
        lines={"irq": _IRQ, "fiq": _FIQ},
        raised=lambda cpu: cpu.read(LINES),
        pending=_pending,
        enter=_enter_interrupt,
        wakes=lambda cpu: cpu.read(LINES) != 0,
        masked=lambda cpu: cpu.read("cpsr") & (_I | _F) == _I | _F,
    ),
    timers=arm_timer.timers("", lambda cpu, code: not _word(cpu, code) >> 20 & 1),
    system_registers=(*_SYSTEM, *SHOWN, *WIDE_TABLES),
    hidden_registers=BANKED,
    shown_registers=_SHOWN,
    spins=(bytes.fromhex("feffffea"), bytes.fromhex("fee7")),
    digest_registers=tuple(name for name in _SYSTEM if name != "id_pfr1"),
    second_set=SecondSet(
        selected_by=("cpsr", _T),
        classify=_classify_thumb,
        capstone_mode=("CS_MODE_THUMB",),
    ),
    executes=_executes,
    step=_step_over,
)
