"""Exceptions of the M profile as state: which are pending, active and enabled, their priorities, and who goes first.

All of it is in kept registers of the CPU; the device at 0xe000e000 (``board.devices.irq.nvic``) shows them. Source: DDI
0403 ("ARMv7-M Architecture Reference Manual"), sections B1.5.4 and B3.2; where it is open, QEMU's ``armv7m_nvic``.
"""

from __future__ import annotations

from typing import Protocol

NMI, HARD_FAULT, MEM_MANAGE, BUS_FAULT, USAGE_FAULT = 2, 3, 4, 5, 6
SVCALL, DEBUG_MONITOR, PENDSV, SYSTICK = 11, 12, 14, 15
FIRST_IRQ, IRQS = 16, 32
EXCEPTIONS = FIRST_IRQ + IRQS

KEPT = {
    "nvic_pending": EXCEPTIONS,
    "nvic_active": EXCEPTIONS,
    "nvic_enabled": EXCEPTIONS,
    "nvic_level": EXCEPTIONS,
    **{f"nvic_priority{n}": 64 for n in range(EXCEPTIONS // 8)},
    "prigroup": 3,
}
"""kept registers, name -> bits. Bit n of the first four is exception n, ``nvic_level`` the external line as it stands;
byte n of the priorities is exception n's"""
ENABLED_AT_RESET = 1 << NMI | 1 << HARD_FAULT | 1 << SVCALL | 1 << PENDSV | 1 << SYSTICK

NO_PRIORITY = 0x100
"""of a CPU that handles nothing: lower than any exception's"""
_FIXED = {1: -3, NMI: -2, HARD_FAULT: -1}
_SYNCHRONOUS = range(HARD_FAULT, PENDSV)
_HANDLER = 0x1FF
"""xPSR.IPSR"""


class Registers(Protocol):
    """A CPU, or what is to become of one."""

    def read(self, name: str) -> int: ...
    def write(self, name: str, value: int) -> None: ...


class Lockup(Exception):
    """The CPU cannot take an exception that it must take."""


def bits_of(mask: int) -> list[int]:
    """Numbers of the bits that are set, ascending."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found


def priority(cpu: Registers, number: int) -> int:
    """Of an exception, subpriority included."""
    fixed = _FIXED.get(number)
    if fixed is not None:
        return fixed
    return cpu.read(f"nvic_priority{number >> 3}") >> 8 * (number & 7) & 0xFF


def set_priority(cpu: Registers, number: int, value: int) -> None:
    name, shift = f"nvic_priority{number >> 3}", 8 * (number & 7)
    cpu.write(name, cpu.read(name) & ~(0xFF << shift) | (value & 0xFF) << shift)


def group(cpu: Registers, value: int) -> int:
    """The part of a priority that preempts (AIRCR.PRIGROUP)."""
    return value if value < 0 else value & -(2 << cpu.read("prigroup"))


def waiting(cpu: Registers) -> int:
    """Bits of the exceptions that are pending and enabled; NMI and HardFault always are."""
    return cpu.read("nvic_pending") & (cpu.read("nvic_enabled") | 1 << NMI | 1 << HARD_FAULT)


def first_pending(cpu: Registers) -> tuple[int, int]:
    """(number, group priority) of the pending exception that goes first; (0, ``NO_PRIORITY``) if there is none."""
    bits = waiting(cpu)
    if not bits:
        return 0, NO_PRIORITY
    value, number = min((priority(cpu, n), n) for n in bits_of(bits))
    return number, group(cpu, value)


def active_priority(cpu: Registers) -> int:
    """Of the handlers that have begun and not ended."""
    active = cpu.read("nvic_active")
    return group(cpu, min(priority(cpu, n) for n in bits_of(active))) if active else NO_PRIORITY


def execution_priority(cpu: Registers) -> int:
    """What an exception must be above (below, as a number) to be taken (section B1.5.4)."""
    boosted, base = NO_PRIORITY, cpu.read("basepri")
    if base:
        boosted = group(cpu, base)
    if cpu.read("primask") & 1:
        boosted = min(boosted, 0)
    if cpu.read("faultmask") & 1:
        boosted = -1
    return min(boosted, active_priority(cpu))


def ready(cpu: Registers) -> int | None:
    """The exception that is taken before the next instruction."""
    if not waiting(cpu):
        return None
    number, value = first_pending(cpu)
    return number if value < execution_priority(cpu) else None


def wakes(cpu: Registers) -> bool:
    """Whether there is one that would be taken if PRIMASK, FAULTMASK and BASEPRI did not mask it."""
    return first_pending(cpu)[1] < active_priority(cpu)


def change(cpu: Registers, name: str, number: int, on: bool) -> None:
    """Set or clear one exception's bit in ``nvic_pending``, ``nvic_active``, …"""
    bits = cpu.read(name)
    cpu.write(name, bits | 1 << number if on else bits & ~(1 << number))


def pend(cpu: Registers, number: int, *, derived: bool = False) -> None:
    """Make an exception pending; one that must be taken at once and cannot be is escalated to HardFault.

    ``derived``: it comes of entering another one. Raises ``Lockup``."""
    if derived and number == HARD_FAULT and first_pending(cpu)[1] <= priority(cpu, HARD_FAULT):
        raise Lockup
    if number in _SYNCHRONOUS:
        running = execution_priority(cpu)
        if group(cpu, priority(cpu, number)) >= running or not cpu.read("nvic_enabled") >> number & 1:
            number = HARD_FAULT
            if running <= priority(cpu, HARD_FAULT):
                raise Lockup
            cpu.write("hfsr", cpu.read("hfsr") | HFSR_FORCED)
    change(cpu, "nvic_pending", number, True)


HFSR_FORCED, HFSR_VECTTBL = 1 << 30, 1 << 1


def returns_to_base(cpu: Registers) -> bool:
    """Whether at most one handler is active."""
    active = cpu.read("nvic_active")
    return not active & active - 1


def in_handler(cpu: Registers) -> bool:
    return cpu.read("xpsr") & _HANDLER != 0


def handled(cpu: Registers) -> int:
    """The number of the exception whose handler runs; 0: none."""
    return cpu.read("xpsr") & _HANDLER
