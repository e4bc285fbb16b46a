"""What every CPU family says about itself: data first, a few functions after.

Nothing here knows which engine runs a family, nor what that calls its registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from functools import cached_property
from typing import Protocol

from rrgdb.arch.core_format import CoreFormat
from rrgdb.arch.cpu import ByteOrder, Cpu
from rrgdb.arch.system import SystemRegister


def words(text: str) -> tuple[str, ...]:
    """Names out of a table written as one string."""
    return tuple(text.split())


@dataclass(frozen=True, slots=True)
class Register:
    """One register as GDB sees it.

    ``bits`` is its width in GDB's ``g`` packet, where it has ``Arch.byteorder``. ``type`` and ``group`` are
    attributes of ``<reg>`` in the target description (GDB manual, "Target Description Format").
    """

    name: str
    bits: int
    type: str = "int"
    group: str | None = None
    width: int = 0
    """its own bits if they are fewer than ``bits`` (zero-extended there, cut on writes); 0: as many"""
    constant: int | None = None
    """what it always reads as, and ignores writes"""


@dataclass(frozen=True, slots=True)
class Feature:
    """A ``<feature>`` of the target description; ``types`` is the XML of its own type definitions."""

    name: str
    registers: tuple[Register, ...]
    types: str = ""


def flags_type(name: str, fields: Iterable[tuple[str, int, int]], size: int = 4) -> str:
    """The XML of a type of ``size`` bytes whose ``fields`` are (name, first bit, last bit)."""
    each = "".join(f'<field name="{field}" start="{start}" end="{end}"/>' for field, start, end in fields)
    return f'<flags id="{name}" size="{size}">{each}</flags>'


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
    """any other exception; ``number`` says which (x86: the vector; RISC-V: the cause)"""


DIVISION_BY_ZERO = 0x100
"""number of a NATIVE exception where the engine has none"""


@dataclass(frozen=True, slots=True)
class CpuException:
    """``pc`` is the address of the instruction that raised it; ``next_pc`` the address behind it. ``number`` is
    negative where there is none."""

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


class TrapHost(Protocol):
    """Non-determinism that ``Arch.emulate`` may need; served through the host and logged."""

    def entropy(self, length: int) -> bytes: ...
    def virtual_ns(self) -> int:
        """Virtual time in nanoseconds: a pure function of the icount."""


LINES = "interrupt_lines"
"""the kept register that holds the levels of the CPU's interrupt inputs"""


@dataclass(frozen=True)
class Interrupts:
    """How a family takes interrupts. The engine takes none by itself: ``pending`` is asked between two instructions,
    where an input, or what masks one, may have changed; to enter a handler counts as one instruction."""

    lines: Mapping[str, int]
    """inputs of the CPU, by the manual's names -> their bits in the kept register LINES"""
    raised: Callable[[Cpu], int]
    """not 0 while there is any interrupt, masked or not: by kept registers alone"""
    pending: Callable[[Cpu], int | None]
    """the number, as ``enter`` takes it, of the interrupt that comes before the next instruction; None: none does"""
    enter: Callable[[Cpu, int], None]
    """enter its handler as the hardware does"""
    wakes: Callable[[Cpu], bool]
    """whether an interrupt ends the wait of the halt instruction: it may be masked"""
    masked: Callable[[Cpu], bool] = lambda _cpu: False
    """whether none can come before the next instruction, whatever there is"""
    kept: Mapping[str, int] = field(default_factory=dict)
    """name -> bits of further registers that only this is about; kept as ``Arch.kept_registers``, and 0 at the start"""

    @property
    def registers(self) -> dict[str, int]:
        """All that is kept: name -> bits."""
        return {LINES: max(self.lines.values()) + 1, **self.kept}


@dataclass(frozen=True)
class Computed:
    """A register that others hold the value of."""

    read: Callable[[Cpu], int]
    write: Callable[[Cpu, int], None]


@dataclass(frozen=True)
class CpuTimers:
    """Timers that are a part of the CPU, by the names that a board gives lines to."""

    outputs: Callable[[Cpu, TrapHost], Mapping[str, tuple[bool, int | None]]]
    """by name: whether its output is high now, and the virtual nanoseconds at which it rises, None: at no time"""
    written_by: Callable[[Cpu, bytes], bool]
    """whether that instruction, a COUNTER, may change an output"""


class IllegalInstruction(Exception):
    """``Arch.emulate`` refused: the instruction raises the exception UNDEFINED, or, where ``number`` is given,
    NATIVE with that number and ``detail`` (x86: #GP)."""

    def __init__(self, number: int | None = None, detail: int | None = None) -> None:
        super().__init__("illegal instruction" if number is None else f"exception {number}")
        self.number = number
        self.detail = detail


@dataclass(frozen=True, slots=True)
class SecondSet:
    """Another instruction set of the same CPU (Thumb): ``classify`` and ``capstone_mode`` as in ``Arch``."""

    selected_by: tuple[str, int]
    """(register, mask): it is in use while that bit is set"""
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
    """registers sent with every stop reply: what GDB asks for at a stop (pc, sp, fp, link, flags), and what a function
    returns its value in"""
    elf_machine: str
    """pyelftools' name: EM_RISCV, EM_ARM, EM_AARCH64, EM_386, EM_X86_64"""
    models: tuple[str, ...]
    """``--cpu`` names; the first is the default"""
    capstone_arch: str
    capstone_mode: tuple[str, ...]
    """without the byte order"""
    instruction_alignment: int
    max_instruction_length: int
    breakpoint_kinds: tuple[int, ...]
    """kinds that GDB sends in Z0/Z1 for this family"""
    nonsteppable_watchpoint: bool
    """GDB's ``have_nonsteppable_watchpoint``: forward hits are reported before the access"""
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
    written_first: tuple[str, ...] = ()
    """where all registers are written, those that say what the others are"""
    byteorder: ByteOrder = "little"
    """of data in memory, of registers in the ``g`` packet, and of core files"""
    core: CoreFormat | None = None
    """how core files hold its registers; None: they are not known"""
    kept_registers: dict[str, int] = field(default_factory=dict)
    """name -> bits of registers that have no effect but what ``emulate`` and ``protections`` make of them; 0 at the
    start. The engine keeps their values with its state"""
    protections: Callable[[Cpu], tuple[Protection, ...]] | None = None
    """what of physical memory is protected, by ``kept_registers`` alone; empty: nothing is. Of several that an access
    touches the first one decides, and must hold all of it; where there is none, only the highest privilege passes"""
    rules: Callable[[Cpu], tuple[int, tuple[tuple[int, int, int, int], ...]]] | None = None
    """what the engine must find faults in that it would pass over: bits that the family's native half knows, and
    regions of memory (first address, last, permissions with privilege, without). By ``kept_registers`` alone"""
    may_halt: Callable[[Cpu], bool] | None = None
    """whether the halt instruction is legal in the present state; None: always"""
    halts: Callable[[Cpu, bytes], bool] | None = None
    """whether the halt instruction waits for an interrupt (WFI), or only gives way to others (WFE); None: it waits"""
    halt_waits_forever: bool = False
    """the halt instruction ends with an interrupt only (HLT); others may end for any reason (WFI)"""
    system_registers: tuple[str, ...] = ()
    """further registers, of 64 bits at most: what exception entry needs"""
    interrupts: Interrupts | None = None
    timers: CpuTimers | None = None
    spins: tuple[bytes, ...] = ()
    """branches to themselves"""
    computed: Mapping[str, Computed] = field(default_factory=dict)
    """registers, of ``registers`` too, that the engine has as 0"""
    hidden_registers: tuple[str, ...] = ()
    """further ones that no instruction names; no part of the digest, since others imply them"""
    shown_registers: tuple[SystemRegister, ...] = ()
    """what a debugger sees of system registers. Their numbers follow those of ``registers``, and stand in recordings: a
    new one comes last"""
    shown_types: str = ""
    """XML of their types"""
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

    def read_numbered(self, cpu: Cpu, number: int) -> int:
        """A register by its number in the target description: one of ``registers`` or of ``shown_registers``."""
        known = len(self.registers)
        return (
            cpu.read(self.registers[number].name) if number < known else self.shown_registers[number - known].read(cpu)
        )

    def write_numbered(self, cpu: Cpu, number: int, value: int) -> None:
        """The same; one that is not writable stays."""
        known = len(self.registers)
        if number < known:
            cpu.write(self.registers[number].name, value)
            return
        write = self.shown_registers[number - known].write
        if write is not None:
            write(cpu, value)

    def is_writable(self, number: int) -> bool:
        known = len(self.registers)
        return number < known or self.shown_registers[number - known].write is not None

    @property
    def numbered(self) -> int:
        """How many registers the target description has."""
        return len(self.registers) + len(self.shown_registers)

    @cached_property
    def register_index(self) -> dict[str, int]:
        return {r.name: i for i, r in enumerate(self.registers)}
