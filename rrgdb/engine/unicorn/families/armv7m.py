"""Armv7-M on Unicorn.

The model is named, and not UC_MODE_MCLASS, which would make any model a Cortex-M33. Unicorn has no NVIC: it tells of
SVC and of branches to EXC_RETURN as interrupts, and enters nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from unicorn import arm_const
from unicorn import unicorn_const as const

from rrgdb.arch import armv7m_exceptions as exceptions
from rrgdb.engine.memory import PAGE
from rrgdb.engine.unicorn.families.arm_common import KINDS
from rrgdb.engine.unicorn.families.base import Family, Sync, numbers
from rrgdb.engine.unicorn.faults import FaultReader
from rrgdb.engine.unicorn.probes import armv7m as probes
from rrgdb.engine.unicorn.probes.layout import Context
from rrgdb.engine.unicorn.registers import Numbers, RegisterFile

_HANDLER = 0x1FF
_IPSR, _CONTROL, _FLAGS = (getattr(arm_const, f"UC_ARM_REG_{name}") for name in ("IPSR", "CONTROL", "APSR_NZCVQ"))
_REBUILD = arm_const.UC_ARM_REG_APSR_NZCV
"""a write of it works out anew what translated code takes to be so: the mode, and the privilege"""
_ANY_HANDLER = 1


def _rebuild(cpu: Numbers) -> None:
    cpu.put(_REBUILD, cpu.get(_REBUILD))


@dataclass(frozen=True)
class _Status:
    """xPSR: with the exception number the stack pointer in use may change, and the privilege."""

    number: int

    def read(self, cpu: Numbers) -> int:
        return cpu.get(self.number)

    def write(self, cpu: Numbers, value: int) -> None:
        cpu.put(self.number, value)
        _rebuild(cpu)


@dataclass(frozen=True)
class _Privileged:
    """A register that the interface reaches with privilege only, as MRS and MSR do: handlers have it."""

    number: int

    def read(self, cpu: Numbers) -> int:
        if not _unprivileged(cpu):
            return cpu.get(self.number)
        cpu.put(_IPSR, _ANY_HANDLER)
        value = cpu.get(self.number)
        cpu.put(_IPSR, 0)
        return value

    def write(self, cpu: Numbers, value: int) -> None:
        if not _unprivileged(cpu):
            cpu.put(self.number, value)
            return
        cpu.put(_IPSR, _ANY_HANDLER)
        cpu.put(self.number, value)
        cpu.put(_IPSR, 0)


def _unprivileged(cpu: Numbers) -> bool:
    return bool(cpu.get(_CONTROL) & exceptions.CONTROL_NPRIV) and not cpu.get(_IPSR)


@dataclass(frozen=True)
class _Control:
    """CONTROL: the interface writes SPSEL in threads only, and anything only with privilege."""

    number: int

    def read(self, cpu: Numbers) -> int:
        return cpu.get(self.number)

    def write(self, cpu: Numbers, value: int) -> None:
        number = cpu.get(_IPSR)
        cpu.put(_IPSR, _ANY_HANDLER)
        cpu.put(self.number, value & ~exceptions.CONTROL_NPRIV)
        cpu.put(_IPSR, 0)
        cpu.put(self.number, value)
        cpu.put(_IPSR, number)
        _rebuild(cpu)


class _Faults(FaultReader):
    STORE = 1 << 11

    def is_single_step(self, number: int) -> bool:
        """A branch to EXC_RETURN: the return belongs to it."""
        return number == exceptions.EXCEPTION_EXIT


def _check(registers: RegisterFile, context: Context) -> None:
    """What Unicorn works out of the state for translated code is in there as well: it is worked out anew."""
    registers.raw_write("xpsr", registers.raw_read("xpsr"))


_REGISTERS = numbers(arm_const, "UC_ARM_REG_", (*(f"r{n}" for n in range(13)), "sp", "lr", "pc"))
_SPECIAL = numbers(arm_const, "UC_ARM_REG_", ("msp", "psp", "primask", "basepri", "faultmask"))

ARMV7M = Family(
    name="armv7m",
    arch=const.UC_ARCH_ARM,
    mode=const.UC_MODE_THUMB,
    models={"cortex-m3": arm_const.UC_CPU_ARM_CORTEX_M3},
    registers={
        **_REGISTERS,
        "xpsr": _Status(arm_const.UC_ARM_REG_XPSR),
        "control": _Control(_CONTROL),
        **{name: _Privileged(number) for name, number in _SPECIAL.items()},
    },
    kinds=KINDS,
    second_filters=(
        (0xFFFFFFFF, 0x8001F3AF),  # YIELD, WFE, WFI, wide
        (0xFFFFFFFF, 0x8002F3AF),
        (0xFFFFFFFF, 0x8003F3AF),
        (0xFFFFFFCF, 0xBF00),  # the same, narrow
        (0xFFFFFFFF, 0xBEAB),  # BKPT 0xAB: semihosting
    ),
    faults=_Faults,
    native="armv7m",
    places=lambda uc, _bare: probes.find_addresses(uc),
    sync=Sync.NEVER,
    page_size=PAGE,
    layout=probes.layout,
    masks=probes.find_masks,
    check=_check,
)
