"""Registers as ELF core files hold them: the notes of Linux's core dumps, family by family, as data.

Sources: Linux, ``include/uapi/linux/elf.h`` and ``elfcore.h`` (``NT_…``, ``struct elf_prstatus``), each
family's ``user_regs_struct`` in ``arch/*/include/uapi/asm/ptrace.h`` (x86: ``asm/user_*.h``); FXSAVE: Intel SDM
volume 1, 10.5.1; flags of the ELF header: the families' ELF psABIs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from rrgdb.arch.base import Arch, Cpu, words

NT_PRSTATUS, NT_FPREGSET, NT_AUXV = 1, 2, 6
NT_PRXFPREG, NT_ARM_VFP = 0x46E62B7F, 0x400
_AT_HWCAP = 16
_PID = 1
_ARM_HWCAP = 1 << 6 | 1 << 12 | 1 << 13
"""VFP, NEON, VFPv3 with 32 registers: GDB looks for them there before it reads NT_ARM_VFP"""

Value = str | int | Callable[[Cpu], int]
"""a register's name, a constant, or what a function finds"""
Field = tuple[Value, int]
"""what stands there, and in how many bytes, little-endian"""


@dataclass(frozen=True, slots=True)
class Note:
    owner: str
    type: int
    fields: tuple[Field, ...]

    def content(self, cpu: Cpu) -> bytes:
        parts = ((_value(cpu, value) & (1 << 8 * size) - 1, size) for value, size in self.fields)
        return b"".join(value.to_bytes(size, "little") for value, size in parts)


@dataclass(frozen=True, slots=True)
class CoreFormat:
    """``machine`` and ``flags`` of the ELF header, those if the guest's own file has none; ``registers`` is pr_reg,
    without what surrounds it. ``single``: the notes where the flags say that floats are of single precision."""

    machine: int
    registers: tuple[Field, ...]
    notes: tuple[Note, ...]
    flags: int = 0
    single: tuple[Note, ...] = ()


def _value(cpu: Cpu, value: Value) -> int:
    return value if isinstance(value, int) else cpu.read(value) if isinstance(value, str) else value(cpu)


def notes(cpu: Cpu, arch: Arch, signal: int, flags: int) -> bytes:
    """The PT_NOTE segment of a core of the one CPU, which stopped with ``signal`` (Linux's number; 0: none)."""
    form = FORMATS[arch.name]
    others = form.single if form.single and flags & _RISCV_FLOAT_ABI == _RISCV_SINGLE else form.notes
    parts = []
    for note in (_prstatus(arch, form, signal), *others):
        owner, content = note.owner.encode() + b"\0", note.content(cpu)
        parts.append(struct.pack("<III", len(owner), len(content), note.type))
        parts += [part.ljust(-(-len(part) // 4) * 4, b"\0") for part in (owner, content)]
    return b"".join(parts)


def _each(names: str | tuple[str, ...], size: int) -> tuple[Field, ...]:
    return tuple((name, size) for name in (words(names) if isinstance(names, str) else names))


def _prstatus(arch: Arch, form: CoreFormat, signal: int) -> Note:
    long = arch.bits // 8
    # signo, code, errno; cursig; two masks; pid; ppid, pgrp, sid; four times.
    head = (0, 12), (signal, 4), (0, 2 * long), (_PID, 4), (0, 12), (0, 8 * long)
    return Note("CORE", NT_PRSTATUS, (*head, *form.registers, (0, long)))


def _abridged_tag(cpu: Cpu) -> int:
    """FXSAVE's tag: one bit for each x87 register that is not empty."""
    tag = cpu.read("ftag")
    return sum(1 << n for n in range(8) if tag >> 2 * n & 3 != 3)


def _fxsave(vectors: int) -> tuple[Field, ...]:
    return (
        *(("fctrl", 2), ("fstat", 2), (_abridged_tag, 1), (0, 1), ("fop", 2)),
        *(("fioff", 4), ("fiseg", 4), ("fooff", 4), ("foseg", 4), ("mxcsr", 4), (0xFFFF, 4)),
        *(field for n in range(8) for field in ((f"st{n}", 10), (0, 6))),
        *((f"xmm{n}", 16) for n in range(vectors)),
        (0, 16 * (16 - vectors) + 96),
    )


_RISCV_INTEGER = "pc ra sp gp tp t0 t1 t2 fp s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6"
_RISCV_FLOAT = (
    "ft0 ft1 ft2 ft3 ft4 ft5 ft6 ft7 fs0 fs1 fa0 fa1 fa2 fa3 fa4 fa5 fa6 fa7 "
    "fs2 fs3 fs4 fs5 fs6 fs7 fs8 fs9 fs10 fs11 ft8 ft9 ft10 ft11"
)
_RISCV_DOUBLES = (Note("CORE", NT_FPREGSET, (*_each(_RISCV_FLOAT, 8), ("fcsr", 4), (0, 4))),)
_RISCV_SINGLES = (Note("CORE", NT_FPREGSET, (*_each(_RISCV_FLOAT, 4), ("fcsr", 4), (0, 4))),)
# GDB takes the width of the float registers from the flags.
_RISCV_FLAGS = 0x5  # EF_RISCV_RVC, EF_RISCV_FLOAT_ABI_DOUBLE
_RISCV_FLOAT_ABI, _RISCV_SINGLE = 6, 2
_ARM_FLAGS = 0x05000000  # EF_ARM_EABI_VER5
_NO_CALL = -1
"""orig_eax: not in a system call"""

FORMATS: dict[str, CoreFormat] = {
    "riscv64": CoreFormat(243, _each(_RISCV_INTEGER, 8), _RISCV_DOUBLES, _RISCV_FLAGS, _RISCV_SINGLES),
    "riscv32": CoreFormat(243, _each(_RISCV_INTEGER, 4), _RISCV_DOUBLES, _RISCV_FLAGS, _RISCV_SINGLES),
    "aarch64": CoreFormat(
        183,
        _each((*(f"x{n}" for n in range(31)), "sp", "pc", "cpsr"), 8),
        (
            Note(
                "CORE",
                NT_FPREGSET,
                (*_each(tuple(f"v{n}" for n in range(32)), 16), ("fpsr", 4), ("fpcr", 4), (0, 8)),
            ),
        ),
    ),
    "arm": CoreFormat(
        40,
        (*_each((*(f"r{n}" for n in range(13)), "sp", "lr", "pc", "cpsr"), 4), (0, 4)),
        (
            Note("LINUX", NT_ARM_VFP, (*_each(tuple(f"d{n}" for n in range(32)), 8), ("fpscr", 4))),
            Note("CORE", NT_AUXV, ((_AT_HWCAP, 4), (_ARM_HWCAP, 4), (0, 8))),
        ),
        _ARM_FLAGS,
    ),
    "i386": CoreFormat(
        3,
        (
            *_each("ebx ecx edx esi edi ebp eax ds es fs gs", 4),
            (_NO_CALL, 4),
            *_each("eip cs eflags esp ss", 4),
        ),
        (Note("LINUX", NT_PRXFPREG, _fxsave(8)),),
    ),
    "x86_64": CoreFormat(
        62,
        (
            *_each("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi", 8),
            (_NO_CALL, 8),
            *_each("rip cs eflags rsp ss fs_base gs_base ds es fs gs", 8),
        ),
        (Note("CORE", NT_FPREGSET, _fxsave(16)),),
    ),
}
"""arch -> how its cores look"""
