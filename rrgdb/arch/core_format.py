"""How a family's registers look in ELF core files, as data.

Sources: Linux, ``include/uapi/linux/elf.h`` and ``elfcore.h`` (``NT_…``), each family's ``user_regs_struct`` in
``arch/*/include/uapi/asm/ptrace.h`` (x86: ``asm/user_*.h``); flags of the ELF header: the families' ELF psABIs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rrgdb.arch.cpu import ByteOrder, Cpu

NT_PRSTATUS, NT_FPREGSET, NT_AUXV = 1, 2, 6
NT_PRXFPREG, NT_ARM_VFP = 0x46E62B7F, 0x400
AT_HWCAP = 16

Value = str | int | Callable[[Cpu], int]
"""a register's name, a constant, or what a function finds"""
Field = tuple[Value, int]
"""what stands there, and in how many bytes"""


@dataclass(frozen=True, slots=True)
class Note:
    owner: str
    type: int
    fields: tuple[Field, ...]

    def content(self, cpu: Cpu, byteorder: ByteOrder) -> bytes:
        parts = ((_value(cpu, value) & (1 << 8 * size) - 1, size) for value, size in self.fields)
        return b"".join(value.to_bytes(size, byteorder) for value, size in parts)


@dataclass(frozen=True, slots=True)
class CoreFormat:
    """``machine`` and ``flags`` of the ELF header, those if the guest's own file has none; ``registers`` is pr_reg,
    without what surrounds it."""

    machine: int
    registers: tuple[Field, ...]
    notes: tuple[Note, ...] = ()
    flags: int = 0
    instead: tuple[tuple[int, int], tuple[Note, ...]] | None = None
    """((mask, value), the notes where the flags have that value)"""

    def notes_for(self, flags: int) -> tuple[Note, ...]:
        if self.instead is not None:
            (mask, value), notes = self.instead
            if flags & mask == value:
                return notes
        return self.notes


def each(names: Iterable[str], size: int) -> tuple[Field, ...]:
    """Registers one behind the other, ``size`` bytes for each."""
    return tuple((name, size) for name in names)


def _value(cpu: Cpu, value: Value) -> int:
    return value if isinstance(value, int) else cpu.read(value) if isinstance(value, str) else value(cpu)
