"""A family that rrgdb does not have: big-endian, six registers. Its instructions are some of PowerPC's."""

from __future__ import annotations

from rrgdb.arch.base import SIGNALS, Arch, CpuException, Feature, IllegalInstruction, Register, Signal, Trap, TrapHost
from rrgdb.arch.core_format import CoreFormat, each
from rrgdb.arch.cpu import Cpu

_TIME = 0x7C6C42E6
"""mftb r3"""
_GENERAL = ("r3", "r4", "r5")
REGISTERS = (*_GENERAL, "sp", "flags", "pc")


def _classify(code: bytes) -> Trap | None:
    return Trap.COUNTER if code == _TIME.to_bytes(4, "big") else None


def _emulate(cpu: Cpu, _trap: Trap, code: bytes, host: TrapHost) -> None:
    if code != _TIME.to_bytes(4, "big"):
        raise IllegalInstruction
    cpu.write("r3", host.virtual_ns() & 0xFFFFFFFF)
    cpu.write("pc", cpu.read("pc") + 4)


def _enter_exception(_cpu: Cpu, _exception: CpuException) -> bool:
    return False


def _exception_signal(exception: CpuException) -> int:
    return SIGNALS.get(exception.kind, Signal.SIGABRT)


def _reset(cpu: Cpu, entry: int, stack_top: int) -> None:
    cpu.write("sp", stack_top)
    cpu.write("pc", entry)


MADE_UP = Arch(
    name="made-up",
    gdb_architecture="powerpc:common",
    bits=32,
    features=(
        Feature(
            "org.rrgdb.made-up",
            (
                *(Register(name, 32) for name in _GENERAL),
                Register("sp", 32, "data_ptr"),
                Register("flags", 64, "uint64", width=32),
                Register("pc", 32, "code_ptr"),
            ),
        ),
    ),
    pc="pc",
    sp="sp",
    expedite=("pc", "sp"),
    elf_machine="EM_PPC",
    models=("first", "second"),
    capstone_arch="CS_ARCH_PPC",
    capstone_mode=("CS_MODE_32",),
    instruction_alignment=4,
    max_instruction_length=4,
    breakpoint_kinds=(4,),
    nonsteppable_watchpoint=True,
    classify=_classify,
    emulate=_emulate,
    exception_signal=_exception_signal,
    enter_exception=_enter_exception,
    reset=_reset,
    byteorder="big",
    core=CoreFormat(20, each(REGISTERS, 4)),
)
