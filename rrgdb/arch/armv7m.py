"""Armv7-M: Thumb alone, two stack pointers, exceptions by the NVIC (Cortex-M3).

Sources: DDI 0403 ("ARMv7-M Architecture Reference Manual"), sections A5, B1.4, B3.2; GDB manual, "ARM Features".
"""

from __future__ import annotations

from rrgdb.arch import armv7m_exceptions as exceptions
from rrgdb.arch import armv7m_mpu as mpu
from rrgdb.arch import armv7m_nvic as nvic
from rrgdb.arch import thumb
from rrgdb.arch.base import (
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
)
from rrgdb.arch.cpu import Cpu, MemoryFault
from rrgdb.arch.system import registers

_XPSR_FIELDS = (
    ("ISR", 0, 8),
    ("IT_2_7", 10, 15),
    ("T", 24, 24),
    ("IT_0_1", 25, 26),
    ("Q", 27, 27),
    ("V", 28, 28),
    ("C", 29, 29),
    ("Z", 30, 30),
    ("N", 31, 31),
)
_XPSR_TYPE = flags_type("xpsr_flags", _XPSR_FIELDS)
_FEATURES = (
    Feature(
        "org.gnu.gdb.arm.m-profile",
        (
            *(Register(f"r{n}", 32, "uint32") for n in range(13)),
            Register("sp", 32, "data_ptr"),
            Register("lr", 32),
            Register("pc", 32, "code_ptr"),
            Register("xpsr", 32, "xpsr_flags"),
        ),
        _XPSR_TYPE,
    ),
    Feature(
        "org.gnu.gdb.arm.m-system",
        (
            Register("msp", 32, "data_ptr"),
            Register("psp", 32, "data_ptr"),
            Register("primask", 32, width=1),
            Register("basepri", 32, width=8),
            Register("faultmask", 32, width=1),
            Register("control", 32, width=2),
        ),
    ),
)

_SYSTEM_CONTROL = {
    "vtor": 32,
    "scr": 32,
    "ccr": 32,
    "cfsr": 32,
    "hfsr": 32,
    "dfsr": 32,
    "mmfar": 32,
    "bfar": 32,
    "mpu_ctrl": 3,
    "mpu_rnr": 3,
    **{f"mpu_rbar{n}": 32 for n in range(mpu.REGIONS)},
    **{f"mpu_rasr{n}": 32 for n in range(mpu.REGIONS)},
}
_AT_RESET = {"nvic_enabled": nvic.ENABLED_AT_RESET, "ccr": exceptions.CCR_STKALIGN}
_XPSR_AT_RESET, _LR_AT_RESET = 1 << 30, 0xFFFFFFFF
_BKPT_SEMIHOST = 0xBEAB
_YIELD, _WFE, _WFI = 0xBF10, 0xBF20, 0xBF30
_YIELD_W, _WFE_W, _WFI_W = 0xF3AF8001, 0xF3AF8002, 0xF3AF8003


def _classify(code: bytes) -> Trap | None:
    if len(code) == 2:
        halfword = int.from_bytes(code, "little")
        if halfword == _BKPT_SEMIHOST:
            return Trap.SEMIHOST
        return Trap.HALT if halfword in (_YIELD, _WFE, _WFI) else None
    return Trap.HALT if len(code) == 4 and thumb.word_of(code) in (_YIELD_W, _WFE_W, _WFI_W) else None


def _executes(cpu: Cpu, code: bytes) -> bool:
    """By ITSTATE; BKPT always does."""
    xpsr = cpu.read("xpsr")
    state = thumb.it_state(xpsr)
    return not state or int.from_bytes(code, "little") == _BKPT_SEMIHOST or thumb.holds(state >> 4, xpsr)


def _step_over(cpu: Cpu, length: int) -> None:
    cpu.write("pc", cpu.read("pc") + length & 0xFFFFFFFF)
    xpsr = cpu.read("xpsr")
    if thumb.after(xpsr) != xpsr:
        cpu.write("xpsr", thumb.after(xpsr))


def _emulate(cpu: Cpu, trap: Trap, code: bytes, host: TrapHost) -> None:
    raise IllegalInstruction


def _exception_signal(exception: CpuException) -> int:
    return SIGNALS.get(exception.kind, Signal.SIGILL if exception.kind is ExceptionKind.NATIVE else Signal.SIGABRT)


def _halts(cpu: Cpu, code: bytes) -> bool:
    """WFI. WFE only gives way, as QEMU's does: there is an event for it at any time."""
    return int.from_bytes(code, "little") == _WFI or (len(code) == 4 and thumb.word_of(code) == _WFI_W)


def _reset(cpu: Cpu, entry: int, stack_top: int) -> None:
    """Stack pointer and program counter come out of the vector table at 0 (section B1.5.5); where there is no memory,
    they are what the caller says."""
    for name in (*nvic.KEPT, *_SYSTEM_CONTROL):
        cpu.write(name, _AT_RESET.get(name, 0))
    try:
        table = cpu.read_memory(0, 8)
        stack, start = (int.from_bytes(table[at : at + 4], "little") for at in (0, 4))
    except MemoryFault:
        stack, start = stack_top, entry | 1
    for name in ("primask", "basepri", "faultmask", *(f"r{n}" for n in range(13))):
        cpu.write(name, 0)
    cpu.write("xpsr", _XPSR_AT_RESET | (exceptions.T if start & 1 else 0))
    cpu.write("control", 0)
    cpu.write("msp", stack & ~3)
    cpu.write("psp", 0)
    cpu.write("lr", _LR_AT_RESET)
    cpu.write("pc", start & ~1)


ARMV7M = Arch(
    name="armv7m",
    gdb_architecture="arm",
    bits=32,
    features=_FEATURES,
    pc="pc",
    sp="sp",
    expedite=("pc", "sp", "r7", "lr", "xpsr", "r0"),
    elf_machine="EM_ARM",
    models=("cortex-m3",),
    capstone_arch="CS_ARCH_ARM",
    capstone_mode=("CS_MODE_THUMB", "CS_MODE_MCLASS"),
    instruction_alignment=2,
    max_instruction_length=4,
    breakpoint_kinds=(2, 3),
    nonsteppable_watchpoint=True,
    classify=lambda code: None,
    emulate=_emulate,
    exception_signal=_exception_signal,
    enter_exception=exceptions.enter,
    reset=_reset,
    kept_registers={**nvic.KEPT, **_SYSTEM_CONTROL},
    rules=exceptions.rules,
    hidden_registers=("exclusive",),
    shown_registers=registers((name.upper() for name in _SYSTEM_CONTROL), 32),
    halts=_halts,
    interrupts=Interrupts(
        lines={"nmi": 0},
        raised=nvic.waiting,
        pending=nvic.ready,
        enter=exceptions.interrupt,
        wakes=nvic.wakes,
        masked=lambda cpu: bool((cpu.read("primask") | cpu.read("faultmask")) & 1),
    ),
    spins=(bytes.fromhex("fee7"),),
    second_set=SecondSet(
        selected_by=("xpsr", exceptions.T),
        classify=_classify,
        capstone_mode=("CS_MODE_THUMB", "CS_MODE_MCLASS"),
    ),
    executes=_executes,
    step=_step_over,
)
