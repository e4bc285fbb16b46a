"""What every CPU family says about itself: data first, a few functions after.

Nothing here imports an engine. Engine ids are strings that the engine resolves (for the Unicorn
engine ``"RISCV_REG_X1"`` is ``unicorn.riscv_const.UC_RISCV_REG_X1``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from functools import cached_property
from typing import Protocol

from rrgdb.errors import Error


def words(text: str) -> tuple[str, ...]:
    """Names out of a table written as one string."""
    return tuple(text.split())


@dataclass(frozen=True, slots=True)
class Register:
    """One register as GDB sees it.

    ``bits`` is its width in GDB's ``g`` packet. ``engine`` is the engine's id for it, or None for a
    register that the engine lacks: it reads as ``constant`` and ignores writes.
    ``type`` and ``group`` are attributes of ``<reg>`` in the target description (GDB manual,
    "Target Description Format").

    The last fields say what the engine must heed beyond reading ``bits / 8`` bytes, little-endian.
    """

    name: str
    bits: int
    engine: str | None
    type: str = "int"
    group: str | None = None
    constant: int = 0
    engine_bits: int = 0
    """width in the engine if narrower than ``bits`` (zero-extended in the ``g`` packet, cut on writes); 0: the same"""
    privilege: int = 0
    """least RISC-V privilege at which the engine's API reaches it; below, the API reads garbage and drops writes
    without an error: the engine saves its context, raises PRIV, accesses, and for a read restores the context"""
    enabled_by: tuple[str, int] | None = None
    """(register name, mask): while that register has no bit of the mask set, the engine's API answers garbage:
    it then reads as ``constant`` and ignores writes"""
    moved: tuple[tuple[int, int], ...] = ()
    """(bit, where the engine has it): the engine's own bits of those places do not exist"""
    ones: int = 0
    """bits that read as 1 and that the engine lacks; state digests leave them out"""


@dataclass(frozen=True, slots=True)
class Feature:
    """A ``<feature>`` of the target description; ``types`` is the XML of its own type definitions."""

    name: str
    registers: tuple[Register, ...]
    types: str = ""


class Trap(Enum):
    """Instructions that the engine stops before, because they cannot run natively.

    ``Arch.classify`` names them from their bytes; the guest then calls ``Arch.emulate`` or acts itself.
    """

    COUNTER = auto()
    """reads virtual time or a cycle counter: ``Arch.emulate`` answers from the icount"""
    ENTROPY = auto()
    """reads random numbers (RDRAND, RNDR): ``Arch.emulate`` asks the host"""
    COMPUTE = auto()
    """what the engine computes wrong, or as this host does (x87's sines): ``Arch.emulate`` computes it"""
    SEMIHOST = auto()
    """semihosting call: the board serves it"""
    HYPERCALL = auto()
    """HVC/SMC/PSCI: the board serves it"""
    HALT = auto()
    """WFI, HLT: the board decides whether anything can wake the CPU"""
    SYSTEM = auto()
    """a system register that the engine lacks or has wrong: ``Arch.emulate``"""
    STATUS = auto()
    """a status register some of whose bits the engine lacks: runs natively unless it writes those, which is for
    ``Arch.emulate``; the engine corrects what was read"""
    MMU = auto()
    """changes address translation or drops TLB entries: runs natively, the engine drops its own caches"""


@dataclass(frozen=True, slots=True)
class Protection:
    """Physical addresses ``first`` to ``last`` (inclusive; ``last`` below ``first``: none) and who may access them:
    ``permissions`` are 1 read, 2 write, 4 execute; the highest privilege is bound by them only if ``locked``."""

    first: int
    last: int
    permissions: int
    locked: bool


class ExceptionKind(Enum):
    """What the engine reports when an instruction could not retire, normalised over families."""

    SYSCALL = auto()
    UNDEFINED = auto()
    BREAKPOINT = auto()
    FETCH_FAULT = auto()
    READ_FAULT = auto()
    WRITE_FAULT = auto()
    NATIVE = auto()
    """any other exception; ``number`` is the engine's own (x86: the vector)"""


@dataclass(frozen=True, slots=True)
class CpuException:
    """``pc`` is the address of the instruction that raised it; ``next_pc`` the address behind it. ``number`` is the
    engine's own, negative where it has none."""

    kind: ExceptionKind
    number: int
    pc: int
    next_pc: int
    address: int = 0
    """the data or fetch address of a fault"""
    detail: int | None = None
    """the hardware's own word for it where the engine can tell (AArch64: ESR; x86: error code); None: unknown"""


class Signal(IntEnum):
    """Numbers of GDB's remote protocol (gdb/signals.def): the same on every host."""

    SIGILL = 4
    SIGTRAP = 5
    SIGABRT = 6
    SIGFPE = 8
    SIGBUS = 10
    SIGSEGV = 11
    SIGSYS = 12


SIGNALS: Mapping[ExceptionKind, Signal] = {
    ExceptionKind.SYSCALL: Signal.SIGSYS,
    ExceptionKind.UNDEFINED: Signal.SIGILL,
    ExceptionKind.BREAKPOINT: Signal.SIGTRAP,
    ExceptionKind.FETCH_FAULT: Signal.SIGSEGV,
    ExceptionKind.READ_FAULT: Signal.SIGSEGV,
    ExceptionKind.WRITE_FAULT: Signal.SIGSEGV,
}
"""what an exception is to GDB, unless its family says otherwise"""


class Cpu(Protocol):
    """What arch code may do to a CPU; every engine offers it. Values are unsigned ints."""

    @property
    def icount(self) -> int: ...
    def read(self, name: str) -> int:
        """Read a register by its GDB name or by a name out of ``Arch.system_registers`` or ``hidden_registers``."""

    def write(self, name: str, value: int) -> None: ...
    def read_memory(self, address: int, length: int) -> bytes:
        """Virtual address; raises ``MemoryFault``."""

    def write_memory(self, address: int, data: bytes) -> None: ...


class MemoryFault(Error):
    """A debugger or emulation access to memory that is not there; ``address`` is the first bad byte."""

    def __init__(self, address: int) -> None:
        super().__init__(f"no memory at {address:#x}")
        self.address = address


class IllegalInstruction(Exception):
    """``Arch.emulate`` refused: the instruction raises the exception UNDEFINED, or, where ``number`` is given,
    NATIVE with that number and ``detail`` (x86: #GP)."""

    def __init__(self, number: int | None = None, detail: int | None = None) -> None:
        super().__init__("illegal instruction" if number is None else f"exception {number}")
        self.number = number
        self.detail = detail


class TrapHost(Protocol):
    """Non-determinism that ``Arch.emulate`` may need; served through the host and logged."""

    def entropy(self, length: int) -> bytes: ...
    def virtual_ns(self) -> int:
        """Virtual time in nanoseconds: a pure function of the icount."""


@dataclass(frozen=True, slots=True)
class SecondSet:
    """Another instruction set of the same CPU (Thumb): ``trap_prefilter``, ``classify`` and ``capstone_mode`` as in
    ``Arch``; shorter instructions are filtered with zeros behind."""

    selected_by: tuple[str, int]
    """(register, mask): it is in use while that bit is set"""
    trap_prefilter: tuple[tuple[int, int], ...]
    classify: Callable[[bytes], Trap | None]
    capstone_mode: tuple[str, ...]


@dataclass(frozen=True)
class Arch:
    """One CPU family in one width. All functions are pure or act on the given Cpu alone."""

    name: str
    """rrgdb's name: riscv32 riscv64 arm aarch64 i386 x86_64"""
    gdb_architecture: str
    """``<architecture>`` in the target description, as in GDB's ``set architecture``"""
    bits: int
    features: tuple[Feature, ...]
    pc: str
    sp: str
    expedite: tuple[str, ...]
    """registers sent with every stop reply (pc, sp, fp, flags)"""
    elf_machine: str
    """pyelftools' name: EM_RISCV, EM_ARM, EM_AARCH64, EM_386, EM_X86_64"""
    engine_arch: str
    """Unicorn: ``UC_ARCH_…`` """
    engine_mode: str
    engine_models: dict[str, str]
    """``--cpu`` name -> Unicorn's CPU model constant; the first is the default"""
    capstone_arch: str
    capstone_mode: tuple[str, ...]
    instruction_alignment: int
    max_instruction_length: int
    breakpoint_kinds: tuple[int, ...]
    """kinds that GDB sends in Z0/Z1 for this family"""
    nonsteppable_watchpoint: bool
    """GDB's ``have_nonsteppable_watchpoint``: forward hits are reported before the access"""
    precise_smc: bool
    """the engine itself restarts a block that modifies itself (x86 in Unicorn)"""
    trap_prefilter: tuple[tuple[int, int], ...]
    """(mask, value) pairs over the first 4 instruction bytes (little-endian word); only words that match one
    are passed to ``classify``. Empty: every new instruction is passed (x86 filters by opcode natively)."""
    classify: Callable[[bytes], Trap | None]
    """instruction bytes -> trap class; pure; the engine caches the answer by the bytes"""
    emulate: Callable[[Cpu, Trap, bytes, TrapHost], None]
    """perform a COUNTER, ENTROPY, COMPUTE, SYSTEM or STATUS instruction: write its results and advance pc; raises
    ``IllegalInstruction``, with nothing changed, where the hardware would"""
    exception_signal: Callable[[CpuException], int]
    """GDB signal number for an exception that no guest handler takes"""
    enter_exception: Callable[[Cpu, CpuException], bool]
    """enter the guest's handler as the hardware does; False: the guest has none (nothing was changed)"""
    reset: Callable[[Cpu, int, int], None]
    """(cpu, entry, stack_top): register state at the first instruction"""
    kept_registers: dict[str, int] = field(default_factory=dict)
    """name -> bits of registers that the engine lacks and that have no effect but what ``emulate`` and ``protections``
    make of them; 0 at the start. The engine keeps their values with its state"""
    protections: Callable[[Cpu], tuple[Protection, ...]] | None = None
    """what of physical memory is protected, by ``kept_registers`` alone; empty: nothing is. Of several that an access
    touches the first one decides, and must hold all of it; where there is none, only the highest privilege passes"""
    may_halt: Callable[[Cpu], bool] | None = None
    """whether the halt instruction is legal in the present state; None: always"""
    halt_waits_forever: bool = False
    """the halt instruction ends with an interrupt only (HLT); others may end for any reason (WFI)"""
    system_registers: dict[str, str] = field(default_factory=dict)
    """further registers by name -> engine id: what exception entry needs. Besides a plain id there are
    ``ARM64_REG_CP_REG(op0,op1,CRn,CRm,op2)`` (uc_arm64_cp_reg), ``ARM_REG_CP_REG(coprocessor,wide,secure,CRn,CRm,
    opc1,opc2)`` (uc_arm_cp_reg), ``X86_REG_MSR(number)`` (uc_x86_msr) and
    ``X86_REG_GDTR.base``, ``.limit``, ``.selector``, ``.flags`` (uc_x86_mmr; a write keeps the other fields)"""
    system_enabled_by: dict[str, tuple[str, int]] = field(default_factory=dict)
    """those of the above that not every model has: ``Register.enabled_by``"""
    hidden_registers: tuple[str, ...] = ()
    """further ones that the engine finds without an id; no part of the digest, since others imply them"""
    digest_registers: tuple[str, ...] = ()
    """names whose values, together with all of ``features``, identify the architectural state"""
    second_set: SecondSet | None = None
    executes: Callable[[Cpu, bytes], bool] | None = None
    """whether the condition of the trapped instruction at pc holds; None: there are no conditions"""
    single_step: Callable[[Cpu], int | None] | None = None
    """the number of the exception (NATIVE) that comes behind an instruction which ``emulate`` has performed, if any"""
    step: Callable[[Cpu, int], None] | None = None
    """(cpu, length): go behind the instruction at pc, where more than pc moves on (ARM: ITSTATE)"""

    def step_over(self, cpu: Cpu, length: int) -> None:
        """Go behind the instruction at pc, which is ``length`` bytes long and was performed by the caller."""
        if self.step is not None:
            self.step(cpu, length)
        else:
            cpu.write(self.pc, (cpu.read(self.pc) + length) & (1 << self.bits) - 1)

    def in_second_set(self, cpu: Cpu) -> bool:
        if self.second_set is None:
            return False
        name, mask = self.second_set.selected_by
        return cpu.read(name) & mask != 0

    @cached_property
    def registers(self) -> tuple[Register, ...]:
        """All registers in the order of the ``g`` packet."""
        return tuple(r for f in self.features for r in f.registers)

    @cached_property
    def register_index(self) -> dict[str, int]:
        return {r.name: i for i, r in enumerate(self.registers)}
