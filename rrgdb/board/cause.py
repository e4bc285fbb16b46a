"""Why a guest died, or waits in vain, in words for its user."""

from __future__ import annotations

from rrgdb.arch.base import CpuException, ExceptionKind
from rrgdb.arch.cpu import MemoryFault
from rrgdb.arch.disassemble import disassemble
from rrgdb.board.spec import BoardSpec
from rrgdb.engine.base import Engine

_ACCESSES = {
    ExceptionKind.FETCH_FAULT: "fetch from",
    ExceptionKind.READ_FAULT: "load of",
    ExceptionKind.WRITE_FAULT: "store to",
}
_PLAIN = {ExceptionKind.SYSCALL: "a system call", ExceptionKind.BREAKPOINT: "a breakpoint instruction"}
_WAITS = ("wfi", "wfe", "hlt")
_WORD = 8
"""bytes of the largest access that must be aligned"""


def of_death(exception: CpuException, engine: Engine, spec: BoardSpec) -> str:
    """``at pc 0x80000012: load of 0x0, where nothing is mapped``."""
    if exception.kind in _ACCESSES:
        address = exception.address
        what = f"{_ACCESSES[exception.kind]} {address:#x}, {_what_is_at(address, engine, spec)}"
    elif exception.kind is ExceptionKind.UNDEFINED:
        code = _code(exception.pc, exception.next_pc - exception.pc, engine)
        what = f"undefined instruction {code.hex(' ')}".rstrip()
    else:
        what = _PLAIN.get(exception.kind, f"exception {exception.number}")
    return f"at pc {exception.pc:#x}: {what}"


def of_wait(code: bytes, engine: Engine, spec: BoardSpec) -> str:
    """``wfi at pc 0x80000000 waits for an interrupt, …``; empty for an instruction that only gives way to others."""
    pc = engine.read(engine.arch.pc)
    _, text = disassemble(engine.arch, code, pc, engine.arch.in_second_set(engine))
    if not text.startswith(_WAITS):
        return ""
    why = "that only an input could bring" if spec.lines else f"and board {spec.name} raises none"
    return f"{text} at pc {pc:#x} waits for an interrupt{'' if spec.lines else ','} {why}"


def of_access(exception: CpuException, engine: Engine, spec: BoardSpec) -> int | None:
    """The physical address that an access had which nobody answers; None: it failed for another reason."""
    if exception.kind not in _ACCESSES:
        return None
    try:
        physical = engine.translate(exception.address)
    except MemoryFault:
        return None
    try:
        engine.ram.locate(physical)
    except MemoryFault:
        return None if spec.device_at(physical, 1) else physical
    return None


def spins(engine: Engine) -> bool:
    """Whether the instruction at pc is a branch to itself that no interrupt ends."""
    arch = engine.arch
    try:
        code = engine.read_memory(engine.pc, arch.max_instruction_length)
    except MemoryFault:
        return False
    return code.startswith(arch.spins) and (arch.interrupts is None or arch.interrupts.masked(engine))


def _code(pc: int, length: int, engine: Engine) -> bytes:
    try:
        return engine.read_memory(pc, length)
    except MemoryFault:
        return b""


def _what_is_at(address: int, engine: Engine, spec: BoardSpec) -> str:
    if _code(address, 1, engine):
        return "in RAM: not permitted" + (", or not aligned" if address % _WORD else "")
    device = spec.device_at(address, 1)
    return "where nothing is mapped" if device is None else f"where device {device.name} is"
