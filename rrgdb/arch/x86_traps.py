"""x86: which instructions the engine stops before, what those do, and how interrupts are delivered.

Sources: "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 2 (chapters 2, 4) and volume 3A
(chapter 6, "Interrupt and Exception Handling").
"""

from __future__ import annotations

from dataclasses import dataclass

from rrgdb.arch import x87
from rrgdb.arch.base import CpuException, ExceptionKind, IllegalInstruction, Signal, Trap, TrapHost, words
from rrgdb.arch.cpu import Cpu, MemoryFault

NAMES32 = words("eax ecx edx ebx esp ebp esi edi")
"""in encoding order"""
HIDDEN = words("cs_selector cs_base ss_base modes")
"""the descriptor caches that decide where real mode's code and stack are; of ``modes`` bit 4 says that code is 32-bit,
bit 15 that it is 64-bit"""
NAMES64 = (*words("rax rcx rdx rbx rsp rbp rsi rdi"), *(f"r{n}" for n in range(8, 16)))

_LEGACY_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_CR0_PE = 1
_CR4_TSD, _CR4_DE, _CR4_PCE = 1 << 2, 1 << 3, 1 << 8
_IF, _TF, _NT, _RF, _VM, _AC = 1 << 9, 1 << 8, 1 << 14, 1 << 16, 1 << 17, 1 << 18
_DR6_BS = 1 << 14
_MODE_CS32, _MODE_CS64 = 1 << 4, 1 << 15
_GENERAL_PROTECTION = 13


@dataclass(frozen=True, slots=True)
class _Decoded:
    trap: Trap
    what: str
    length: int
    register: int = 0
    """destination of RDRAND, RDSEED and SMSW; of x87's instructions the second byte"""
    other_size: bool = False
    """prefixed for the operand size that is not the code's own"""
    wide: bool = False
    """64-bit operands"""


def _prefixes(code: bytes, long_mode: bool) -> tuple[set[int], int, int]:
    """(legacy prefixes, REX or 0, index of the opcode)."""
    legacy: set[int] = set()
    at = 0
    while at < len(code) and code[at] in _LEGACY_PREFIXES:
        legacy.add(code[at])
        at += 1
    rex = 0
    if long_mode and at < len(code) and code[at] & 0xF0 == 0x40:
        rex = code[at]
        at += 1
    return legacy, rex, at


def _operand_bits(cpu: Cpu, decoded: _Decoded) -> int:
    if decoded.wide:
        return 64
    short = not cpu.read("modes") & (_MODE_CS32 | _MODE_CS64)
    return 16 if decoded.other_size != short else 32


def _decode_group7(modrm: int, at: int, legacy: set[int], rex: int) -> _Decoded | None:
    """Opcode 0F 01."""
    if modrm == 0xF9:
        return _Decoded(Trap.COUNTER, "rdtscp", at + 3)
    operation = modrm >> 3 & 7
    if operation == 6:
        return _Decoded(Trap.MMU, "lmsw", at + 3)
    if operation == 7 and modrm >> 6 != 3:
        return _Decoded(Trap.MMU, "invlpg", at + 3)
    if operation == 4 and modrm >> 6 == 3:  # the engine writes 16 bits outside long mode
        return _Decoded(Trap.COMPUTE, "smsw", at + 3, modrm & 7 | (rex & 1) << 3, 0x66 in legacy, bool(rex & 8))
    return None


def _decode(code: bytes, long_mode: bool) -> _Decoded | None:
    """What of interest the instruction is. ``length`` is exact for those that ``emulate`` performs."""
    legacy, rex, at = _prefixes(code, long_mode)
    opcode = code[at : at + 2]
    if 0xF0 in legacy:  # LOCK: undefined, or not one of ours
        return None
    if opcode[:1] == b"\xf4":
        return _Decoded(Trap.HALT, "hlt", at + 1)
    if opcode[:1] == b"\xd9" and opcode[1:] and opcode[1] in x87.OPCODES:
        return _Decoded(Trap.COMPUTE, "x87", at + 2, opcode[1])
    if opcode == b"\x0f\x31":
        return _Decoded(Trap.COUNTER, "rdtsc", at + 2)
    if opcode == b"\x0f\x33":
        return _Decoded(Trap.COUNTER, "rdpmc", at + 2)
    if opcode == b"\x0f\x30":  # may change EFER
        return _Decoded(Trap.MMU, "wrmsr", at + 2)
    if len(code) < at + 3:
        return None
    modrm = code[at + 2]
    register = modrm >> 3 & 7 | (rex & 4) << 1
    if opcode == b"\x0f\x22":
        return _Decoded(Trap.MMU, "mov cr", at + 3) if register in (0, 3, 4) else None
    if opcode == b"\x0f\x01":
        return _decode_group7(modrm, at, legacy, rex)
    if opcode == b"\x0f\x23" and not rex & 4:  # the engine keeps breakpoints outside the CPU's state
        return _Decoded(Trap.SYSTEM, f"dr{register}", at + 3, modrm & 7 | (rex & 1) << 3)
    # F3 makes RDPID and SENDUIPI of the same opcode.
    if opcode == b"\x0f\xc7" and modrm >= 0xF0 and not legacy & {0xF2, 0xF3}:
        return _Decoded(Trap.ENTROPY, "random", at + 3, modrm & 7 | (rex & 1) << 3, 0x66 in legacy, bool(rex & 8))
    return None


def classify32(code: bytes) -> Trap | None:
    """By opcode bytes behind the prefixes; 0x40-0x4F are INC and DEC."""
    decoded = _decode(code, False)
    return decoded.trap if decoded else None


def classify64(code: bytes) -> Trap | None:
    """By opcode bytes behind the prefixes and REX."""
    decoded = _decode(code, True)
    return decoded.trap if decoded else None


_ARITHMETIC_FLAGS = 0x8D5  # OF SF ZF AF PF CF
_CF = 1


def _ring(cpu: Cpu) -> int:
    if not cpu.read("cr0") & _CR0_PE:
        return 0
    return 3 if cpu.read("eflags") & _VM else cpu.read("cs") & 3


def _check_counter(cpu: Cpu, what: str) -> None:
    if _ring(cpu):
        cr4 = cpu.read("cr4")
        if (cr4 & _CR4_TSD) if what != "rdpmc" else not (cr4 & _CR4_PCE):
            raise IllegalInstruction(_GENERAL_PROTECTION, 0)


def _write_operand(cpu: Cpu, name: str, bits: int, value: int) -> None:
    """A result of 32 bits clears those above, one of 16 leaves them."""
    kept = cpu.read(name) & ~0xFFFF if bits == 16 else 0
    cpu.write(name, value & (1 << bits) - 1 | kept)


_EMULATED = (Trap.COUNTER, Trap.ENTROPY, Trap.COMPUTE, Trap.SYSTEM)


def _write_debug_register(cpu: Cpu, name: str, value: int) -> None:
    """Volume 3B, 17.2. General detect (GD of DR7) is not there."""
    if _ring(cpu):
        raise IllegalInstruction(_GENERAL_PROTECTION, 0)
    if name in ("dr4", "dr5"):
        if cpu.read("cr4") & _CR4_DE:
            raise IllegalInstruction
        name = {"dr4": "dr6", "dr5": "dr7"}[name]
    if not cpu.read("modes") & _MODE_CS64:
        value &= 0xFFFFFFFF
    fixed = {"dr6": 0xFFFF0FF0, "dr7": 1 << 10}.get(name)
    if fixed is not None and value >> 32:
        raise IllegalInstruction(_GENERAL_PROTECTION, 0)
    cpu.write(name, value | (fixed or 0))


def _emulate(long_mode: bool, cpu: Cpu, trap: Trap, code: bytes, host: TrapHost) -> None:
    decoded = _decode(code, long_mode)
    if decoded is None or decoded.trap is not trap or trap not in _EMULATED:
        raise IllegalInstruction
    names = NAMES64 if long_mode else NAMES32
    if trap is Trap.COUNTER:
        _check_counter(cpu, decoded.what)
        value = cpu.icount if decoded.what == "rdpmc" else host.virtual_ns()
        cpu.write(names[0], value & 0xFFFFFFFF)
        cpu.write(names[2], value >> 32 & 0xFFFFFFFF)
        if decoded.what == "rdtscp":
            cpu.write(names[1], cpu.read("tsc_aux") & 0xFFFFFFFF)
    elif trap is Trap.SYSTEM:
        _write_debug_register(cpu, decoded.what, cpu.read(names[decoded.register]))
    elif decoded.what == "x87":
        x87.execute(cpu, decoded.register)
    elif trap is Trap.COMPUTE:
        _write_operand(cpu, names[decoded.register], _operand_bits(cpu, decoded), cpu.read("cr0"))
    else:
        bits = _operand_bits(cpu, decoded)
        _write_operand(cpu, names[decoded.register], bits, int.from_bytes(host.entropy(bits // 8), "little"))
        cpu.write("eflags", cpu.read("eflags") & ~_ARITHMETIC_FLAGS | _CF)
    pc, mask = ("rip", (1 << 64) - 1) if long_mode else ("eip", (1 << 32) - 1)
    cpu.write(pc, (cpu.read(pc) + decoded.length) & mask)


def emulate32(cpu: Cpu, trap: Trap, code: bytes, host: TrapHost) -> None:
    """The TSC counts virtual nanoseconds, RDPMC the icount; RDRAND and RDSEED never fail. All of them exist on every
    model, whatever its CPUID says."""
    _emulate(False, cpu, trap, code, host)


def emulate64(cpu: Cpu, trap: Trap, code: bytes, host: TrapHost) -> None:
    """The TSC counts virtual nanoseconds, RDPMC the icount; RDRAND and RDSEED never fail. All of them exist on every
    model, whatever its CPUID says."""
    _emulate(True, cpu, trap, code, host)


def single_step(cpu: Cpu) -> int | None:
    """#DB, as the engine raises it behind the instructions that it runs while TF is set."""
    if not cpu.read("eflags") & _TF:
        return None
    cpu.write("dr6", cpu.read("dr6") | _DR6_BS)
    return _DEBUG


_DEBUG, _OVERFLOW, _PAGE_FAULT = 1, 4, 14
_KIND_VECTORS = {
    ExceptionKind.UNDEFINED: 6,
    ExceptionKind.BREAKPOINT: 3,
    ExceptionKind.FETCH_FAULT: _PAGE_FAULT,
    ExceptionKind.READ_FAULT: _PAGE_FAULT,
    ExceptionKind.WRITE_FAULT: _PAGE_FAULT,
}
_TRAPS = frozenset((1, 3, 4, 8))  # reported behind an instruction (#DB as far as the engine has it), or an abort
_WITH_ERROR_CODE = frozenset((8, 10, 11, 12, 13, 14, 17))
_INT3, _INT_N, _INTO, _INT1 = 0xCC, 0xCD, 0xCE, 0xF1
_FAULTS = (ExceptionKind.FETCH_FAULT, ExceptionKind.READ_FAULT, ExceptionKind.WRITE_FAULT)
_INTERRUPT_GATE, _TRAP_GATE = 0xE, 0xF
_EFER_LMA = 1 << 10
_RESET_IDTR_LIMIT = 0x3FF
_PRESENT = 0x80


def _vector(exception: CpuException) -> int:
    return _KIND_VECTORS.get(exception.kind, exception.number)


def _is_software(cpu: Cpu, exception: CpuException) -> bool:
    """Whether the instruction asked for the interrupt: then it has retired, and there is no error code. The engine
    reports ``int n`` by its vector alone, so the instruction decides."""
    if exception.kind in (ExceptionKind.SYSCALL, ExceptionKind.BREAKPOINT):
        return True
    if exception.kind is not ExceptionKind.NATIVE:
        return False
    try:
        code = cpu.read_memory(exception.pc, exception.next_pc - exception.pc)
    except (MemoryFault, ValueError):
        return False
    while code[:1] and code[0] in _LEGACY_PREFIXES:
        code = code[1:]
    if code[:1] == bytes((_INT_N,)):
        return code[1:2] == bytes((exception.number & 0xFF,))
    return (code[0] if code else None, exception.number) in ((_INT3, 3), (_INTO, _OVERFLOW), (_INT1, _DEBUG))


def _error_code(cpu: Cpu, exception: CpuException) -> int:
    if exception.detail is not None:
        return exception.detail & 0xFFFF
    if _vector(exception) != _PAGE_FAULT:
        return 0
    # Not present; W/R and U/S. The I/D bit exists only with no-execute pages, and those come with ``detail``.
    write = 2 if exception.kind is ExceptionKind.WRITE_FAULT else 0
    return write | (4 if cpu.read("cs") & 3 == 3 else 0)


def _same_privilege(cpu: Cpu, selector: int) -> bool:
    """Whether a gate to this code segment stays in the current ring. Raises ``MemoryFault``."""
    current = cpu.read("cs")
    if selector & ~3 == current & ~3:
        return True  # also the boot state, whose segments have no descriptors
    if not selector & ~7 or selector & 4 or selector | 7 > cpu.read("gdtr_limit"):
        return False
    access = cpu.read_memory(cpu.read("gdtr_base") + (selector & ~7), 8)[5]
    code_segment = access & 0x98 == 0x98
    conforming = bool(access & 4)
    return code_segment and (conforming or access >> 5 & 3 == current & 3)


def _read_gate(cpu: Cpu, vector: int, long_mode: bool) -> bytes | None:
    size = 16 if long_mode else 8
    if vector < 0 or vector * size + size - 1 > cpu.read("idtr_limit"):
        return None
    gate = cpu.read_memory(cpu.read("idtr_base") + vector * size, size)
    if not gate[5] & _PRESENT or gate[5] & 0x1F not in (_INTERRUPT_GATE, _TRAP_GATE):
        return None
    return gate


def _stack(cpu: Cpu, gate: bytes, long_mode: bool) -> int:
    if not long_mode:
        return cpu.read("esp")
    ist = gate[4] & 7
    if not ist:
        return cpu.read("rsp") & ~15
    pointer = cpu.read_memory(cpu.read("tr_base") + 0x1C + 8 * ist, 8)
    return int.from_bytes(pointer, "little") & ~15


def _flags_image(flags: int, vector: int, software: bool) -> int:
    """As the frame holds them: RF is set for a fault, so that its instruction passes over its own breakpoint when it
    is done again (volume 3B, 17.3.1.1)."""
    return flags & ~_RF if software or vector in _TRAPS else flags | _RF


def _deliver_real(cpu: Cpu, exception: CpuException, sp: str, pc: str) -> bool:
    """Through the interrupt vector table. All that may fail comes before the first change of state; a missing page of
    memory is no exception of real mode. Raises ``MemoryFault``."""
    vector = _vector(exception)
    base, limit = cpu.read("idtr_base"), cpu.read("idtr_limit")
    if not base and not limit:
        limit = _RESET_IDTR_LIMIT  # not loaded yet
    if exception.kind in _FAULTS or vector < 0 or 4 * vector + 3 > limit:
        return False
    entry = int.from_bytes(cpu.read_memory(base + 4 * vector, 4), "little")
    flags, top, stack = cpu.read("eflags"), cpu.read(sp), cpu.read("ss_base")
    back = exception.next_pc if _is_software(cpu, exception) else exception.pc
    frame = [value & 0xFFFF for value in (flags, cpu.read("cs"), back - cpu.read("cs_base"))]
    places = [stack + (top - 2 * n & 0xFFFF) for n in (1, 2, 3)]
    if any(len(cpu.read_memory(at, 2)) < 2 for at in places):
        return False
    for at, value in zip(places, frame, strict=True):
        cpu.write_memory(at, value.to_bytes(2, "little"))
    cpu.write(sp, top & ~0xFFFF | top - 6 & 0xFFFF)
    cpu.write("eflags", flags & ~(_IF | _TF | _AC | _RF))
    cpu.write("cs_selector", entry >> 16)
    cpu.write("cs_base", entry >> 16 << 4)
    cpu.write(pc, entry & 0xFFFF)
    return True


def _deliver(cpu: Cpu, exception: CpuException, long_mode: bool) -> bool:
    """All that may fail comes before the first change of state. Raises ``MemoryFault``."""
    sp, pc, word = ("rsp", "rip", 8) if long_mode else ("esp", "eip", 4)
    mask = (1 << 8 * word) - 1
    vector = _vector(exception)
    gate = _read_gate(cpu, vector, long_mode)
    if gate is None:
        return False
    flags, cs = cpu.read("eflags"), cpu.read("cs")
    if flags & _VM:
        return False  # to another ring
    software = _is_software(cpu, exception)
    selector = int.from_bytes(gate[2:4], "little")
    checked = software and (vector != _DEBUG or exception.next_pc - exception.pc > 1)  # INT1 enters any gate
    if (checked and gate[5] >> 5 & 3 < cs & 3) or not _same_privilege(cpu, selector):
        return False
    frame = [cpu.read("ss"), cpu.read("rsp")] if long_mode else []
    back = exception.next_pc if software else exception.pc
    frame += [_flags_image(flags, vector, software), cs, back - cpu.read("cs_base")]
    if vector in _WITH_ERROR_CODE and not software:
        frame.append(_error_code(cpu, exception))
    top = (_stack(cpu, gate, long_mode) - word * len(frame)) & mask
    cpu.write_memory(top, b"".join((value & mask).to_bytes(word, "little") for value in reversed(frame)))
    cpu.write(sp, top)
    cpu.write("eflags", flags & ~(_TF | _NT | _RF | _VM | (_IF if gate[5] & 0xF == _INTERRUPT_GATE else 0)))
    if exception.kind in _FAULTS:  # a native one has its address in CR2 already
        cpu.write("cr2", exception.address)
    entered = selector & ~3 | cs & 3
    if entered != cs:
        cpu.write("cs", entered)
    cpu.write(pc, int.from_bytes(gate[:2] + gate[6:8] + (gate[8:12] if long_mode else b""), "little"))
    return True


def enter_exception32(cpu: Cpu, exception: CpuException) -> bool:
    """Through a 32-bit interrupt or trap gate at the same privilege, stack segment flat, or in real mode through the
    vector table. Task gates, 16-bit gates and changes of privilege, so all of virtual-8086 mode, are not delivered."""
    try:
        if not cpu.read("cr0") & _CR0_PE:
            return _deliver_real(cpu, exception, "esp", "eip")
        return _deliver(cpu, exception, False)
    except MemoryFault:
        return False


def enter_exception64(cpu: Cpu, exception: CpuException) -> bool:
    """Through a 64-bit interrupt or trap gate at the same privilege, interrupt stack table included; only in long
    mode and in real mode. A SYSCALL instruction is not delivered."""
    try:
        if not cpu.read("cr0") & _CR0_PE:
            return _deliver_real(cpu, exception, "rsp", "rip")
        if not cpu.read("efer") & _EFER_LMA:
            return False
        if exception.kind is ExceptionKind.SYSCALL and cpu.read_memory(exception.pc, 2) == b"\x0f\x05":
            return False
        return _deliver(cpu, exception, True)
    except MemoryFault:
        return False


_SIGNALS = {
    **dict.fromkeys((0, 7, 16, 19), Signal.SIGFPE),
    **dict.fromkeys((1, 3), Signal.SIGTRAP),
    6: Signal.SIGILL,
    17: Signal.SIGBUS,
}


def exception_signal(exception: CpuException) -> int:
    if exception.kind is ExceptionKind.SYSCALL:
        return Signal.SIGSYS
    return _SIGNALS.get(_vector(exception), Signal.SIGSEGV)
