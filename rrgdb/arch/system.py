"""System registers as a debugger sees them: one at a time, under the manuals' names, and in no digest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rrgdb.arch.cpu import Cpu

FEATURE = "org.rrgdb.system"
"""of the target description; GDB takes features that it does not know as they are"""
GROUP = "system"
"""GDB's: ``info registers system``"""


@dataclass(frozen=True, slots=True)
class SystemRegister:
    """``type`` as in ``Register``. Without ``write`` it cannot be written: the hardware has it so, or nothing would
    follow from it."""

    name: str
    bits: int
    read: Callable[[Cpu], int]
    write: Callable[[Cpu, int], None] | None = None
    type: str = "int"


def register(
    name: str, bits: int, source: str | None = None, *, type: str | None = None, fixed: bool = False
) -> SystemRegister:
    """One that a Cpu has: by the name ``source``, or else by its own in small letters. ``fixed``: it is read only."""
    known = source or name.lower()

    def read(cpu: Cpu) -> int:
        return cpu.read(known)

    def write(cpu: Cpu, value: int) -> None:
        cpu.write(known, value)

    return SystemRegister(name, bits, read, None if fixed else write, type or f"uint{bits}")


def registers(names: Iterable[str], bits: int, *, fixed: bool = False) -> tuple[SystemRegister, ...]:
    """Several of ``register``'s."""
    return tuple(register(name, bits, fixed=fixed) for name in names)
