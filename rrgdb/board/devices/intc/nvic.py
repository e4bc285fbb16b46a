"""Nested vectored interrupt controller and system control of the M profile (DDI 0403, sections B3.2 to B3.5; where it
is open, QEMU's ``armv7m_nvic`` of a Cortex-M3). SysTick is in the same page.

What it holds is the CPU's, in kept registers (``arch.armv7m_nvic``): an exception is entered without a device. An
access without privilege is refused before it comes here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from rrgdb.arch import armv7m_nvic as nvic
from rrgdb.board.device import Machine
from rrgdb.board.devices.clock.systick import SysTick
from rrgdb.board.devices.state import StatefulDevice

SYSTICK = range(0x010, 0x0F0)
SET_ENABLE, CLEAR_ENABLE = range(0x100, 0x140), range(0x180, 0x1C0)
SET_PENDING, CLEAR_PENDING = range(0x200, 0x240), range(0x280, 0x2C0)
ACTIVE = range(0x300, 0x340)
PRIORITY = range(0x400, 0x5F0)
SYSTEM_PRIORITY = range(0xD18, 0xD24)
FAULT_STATUS = range(0xD28, 0xD2C)
IDENTIFICATION = range(0xFE0, 0x1000)
_BITS = (
    (SET_ENABLE, "nvic_enabled", True),
    (CLEAR_ENABLE, "nvic_enabled", False),
    (SET_PENDING, "nvic_pending", True),
    (CLEAR_PENDING, "nvic_pending", False),
)
_RESERVED_PRIORITIES = (7, 8, 9, 10, 13)

ICTR, CPUID, ICSR, VTOR, AIRCR, SCR, CCR, SHCSR = 0x004, 0xD00, 0xD04, 0xD08, 0xD0C, 0xD10, 0xD14, 0xD24
HFSR, DFSR, MMFAR, BFAR = 0xD2C, 0xD30, 0xD34, 0xD38
MPU_TYPE, MPU_CTRL, MPU_RNR, STIR = 0xD90, 0xD94, 0xD98, 0xF00
MPU_RBAR, MPU_RASR = range(0xD9C, 0xDBC, 8), range(0xDA0, 0xDBC, 8)
_CONSTANTS = {
    ICTR: nvic.IRQS // 32 - 1,
    CPUID: 0x410FC231,
    # Features: ID_PFR0 to ID_ISAR4.
    0xD40: 0x00000030,
    0xD44: 0x00000200,
    0xD48: 0x00100000,
    0xD50: 0x00000030,
    0xD60: 0x01141110,
    0xD64: 0x02111000,
    0xD68: 0x21112231,
    0xD6C: 0x01111110,
    0xD70: 0x01310102,
    MPU_TYPE: 8 << 8,
}
_ID = (0x00, 0xB0, 0x1B, 0x00, 0x0D, 0xE0, 0x05, 0xB1)
_STORED = {VTOR: "vtor", SCR: "scr", CCR: "ccr", MMFAR: "mmfar", BFAR: "bfar", MPU_CTRL: "mpu_ctrl"}
_MASKS = {VTOR: 0xFFFFFF80, SCR: 0xFFFFFFF3, CCR: 0x31B, MMFAR: 0xFFFFFFFF, BFAR: 0xFFFFFFFF, MPU_CTRL: 7}
_ONES_CLEAR = {HFSR: "hfsr", DFSR: "dfsr"}
_SHCSR = (
    *((bit, "nvic_active", n) for bit, n in ((0, 4), (1, 5), (3, 6), (7, 11), (8, 12), (10, 14), (11, 15))),
    *((bit, "nvic_pending", n) for bit, n in ((12, 6), (13, 4), (14, 5), (15, 11))),
    *((bit, "nvic_enabled", n) for bit, n in ((16, 4), (17, 5), (18, 6))),
)
"""(bit of SHCSR, kept register, exception)"""
_VECTKEY, _SYSRESETREQ = 0x05FA, 1 << 2
_RASR = 0x173FFF3F


class Nvic(StatefulDevice):
    """The page at 0xe000e000. Line n of the board is external interrupt n, but ``NMI_LINE``."""

    CLOCK_NS: ClassVar[int] = 40
    NMI_LINE: ClassVar[int] = nvic.IRQS
    SHARED: ClassVar[Mapping[int, range]] = {}
    """external interrupt -> lines of the board, of which any raises it"""

    def __init__(self, name: str, machine: Machine) -> None:
        self._systick = SysTick(name, machine, self.CLOCK_NS, lambda: self._pend(nvic.SYSTICK))
        super().__init__(name, machine)
        machine.attach_irqs(self._line_changed)

    def reset(self) -> None:
        self._systick.reset()

    def save(self) -> bytes:
        return self._systick.save()

    def load(self, state: bytes) -> None:
        self._systick.load(state)

    def _line_changed(self, line: int, level: bool) -> None:
        if line == self.NMI_LINE:
            if level:
                self._pend(nvic.NMI)
            return
        for irq, lines in self.SHARED.items():
            if line in lines:
                line, level = irq, any(self.machine.is_raised(one) for one in lines)
        number, levels = nvic.FIRST_IRQ + line, self.machine.cpu.read("nvic_level")
        if levels >> number & 1 == level:
            return
        nvic.change(self.machine.cpu, "nvic_level", number, level)
        if level:
            self._pend(number)

    def _pend(self, number: int) -> None:
        nvic.change(self.machine.cpu, "nvic_pending", number, True)
        self._look()

    def _look(self) -> None:
        """Something may be taken before the next instruction."""
        self.machine.after_instruction(lambda: None)

    # -- reading -----------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        if offset in SYSTICK:
            return self._systick.read(offset - SYSTICK.start, size)
        cpu, width = self.machine.cpu, 8 * size
        for registers, name, _ in _BITS:
            if offset in registers:
                return self._irqs(name) >> 8 * (offset - registers.start) & (1 << width) - 1
        if offset in ACTIVE:
            return self._irqs("nvic_active") >> 8 * (offset - ACTIVE.start) & (1 << width) - 1
        first = self._first_priority(offset)
        if first is not None:
            return sum(self._priority(first + n) << 8 * n for n in range(size))
        if offset in FAULT_STATUS:
            return cpu.read("cfsr") >> 8 * (offset - FAULT_STATUS.start) & (1 << width) - 1
        if offset in IDENTIFICATION:
            return 0 if offset & 3 else _ID[offset - IDENTIFICATION.start >> 2]
        return self._read_word(offset) if size == 4 else 0

    def _irqs(self, name: str) -> int:
        return self.machine.cpu.read(name) >> nvic.FIRST_IRQ

    @staticmethod
    def _first_priority(offset: int) -> int | None:
        """The exception whose priority is the byte at ``offset``."""
        if offset in PRIORITY:
            return nvic.FIRST_IRQ + offset - PRIORITY.start
        return nvic.MEM_MANAGE + offset - SYSTEM_PRIORITY.start if offset in SYSTEM_PRIORITY else None

    def _priority(self, number: int) -> int:
        if number in _RESERVED_PRIORITIES or number >= nvic.EXCEPTIONS:
            return 0
        return nvic.priority(self.machine.cpu, number)

    def _read_word(self, offset: int) -> int:
        cpu = self.machine.cpu
        if offset in _CONSTANTS:
            return _CONSTANTS[offset]
        if offset in _STORED:
            return cpu.read(_STORED[offset])
        if offset in _ONES_CLEAR:
            return cpu.read(_ONES_CLEAR[offset])
        match offset:
            case 0xD04:  # ICSR
                return self._interrupt_control()
            case 0xD0C:  # AIRCR
                return 0xFA050000 | cpu.read("prigroup") << 8
            case 0xD24:  # SHCSR
                return sum((cpu.read(name) >> number & 1) << bit for bit, name, number in _SHCSR)
            case 0xD98:  # MPU_RNR
                return cpu.read("mpu_rnr")
        region = cpu.read("mpu_rnr")
        if offset in MPU_RBAR:
            return cpu.read(f"mpu_rbar{region}") | region
        return cpu.read(f"mpu_rasr{region}") if offset in MPU_RASR else 0

    def _interrupt_control(self) -> int:
        cpu = self.machine.cpu
        pending = cpu.read("nvic_pending")
        value = nvic.handled(cpu) | nvic.first_pending(cpu)[0] << 12
        value |= (1 << 11 if nvic.returns_to_base(cpu) else 0) | (1 << 22 if pending >> nvic.FIRST_IRQ else 0)
        for bit, number in ((26, nvic.SYSTICK), (28, nvic.PENDSV), (31, nvic.NMI)):
            value |= (pending >> number & 1) << bit
        return value

    # -- writing -----------------------------------------------------------------------------------

    def write(self, offset: int, size: int, value: int) -> None:
        if offset in SYSTICK:
            self._systick.write(offset - SYSTICK.start, size, value)
            return
        cpu = self.machine.cpu
        for registers, name, on in _BITS:
            if offset in registers:
                bits = value << nvic.FIRST_IRQ + 8 * (offset - registers.start) & (1 << nvic.EXCEPTIONS) - 1
                held = cpu.read(name)
                cpu.write(name, held | bits if on else held & ~bits)
                self._look()
                return
        first = self._first_priority(offset)
        if first is not None:
            for n in range(size):
                if first + n not in _RESERVED_PRIORITIES and first + n < nvic.EXCEPTIONS:
                    nvic.set_priority(cpu, first + n, value >> 8 * n)
            self._look()
        elif offset in FAULT_STATUS:
            cpu.write("cfsr", cpu.read("cfsr") & ~(value << 8 * (offset - FAULT_STATUS.start)))
        elif size == 4:
            self._write_word(offset, value)

    def _write_word(self, offset: int, value: int) -> None:
        cpu = self.machine.cpu
        if offset in _STORED:
            cpu.write(_STORED[offset], value & _MASKS[offset])
            if offset in (CCR, MPU_CTRL):
                # The next instruction may be one that is to fault.
                self._look()
        elif offset in _ONES_CLEAR:
            name = _ONES_CLEAR[offset]
            cpu.write(name, cpu.read(name) & ~value)
        elif offset == ICSR:
            self._write_interrupt_control(value)
        elif offset == AIRCR:
            self._write_reset_control(value)
        elif offset == SHCSR:
            for bit, name, number in _SHCSR:
                nvic.change(cpu, name, number, bool(value >> bit & 1))
            self._look()
        elif offset == STIR:
            number = nvic.FIRST_IRQ + (value & 0x1FF)
            if number < nvic.EXCEPTIONS:
                self._pend(number)
        else:
            self._write_protection(offset, value)

    def _write_interrupt_control(self, value: int) -> None:
        cpu = self.machine.cpu
        if value >> 31 & 1:
            nvic.change(cpu, "nvic_pending", nvic.NMI, True)
        for on, off, number in ((28, 27, nvic.PENDSV), (26, 25, nvic.SYSTICK)):
            if value >> on & 1:
                nvic.change(cpu, "nvic_pending", number, True)
            elif value >> off & 1:
                nvic.change(cpu, "nvic_pending", number, False)
        self._look()

    def _write_reset_control(self, value: int) -> None:
        if value >> 16 != _VECTKEY:
            return
        if value & _SYSRESETREQ:
            self.machine.restart()
        self.machine.cpu.write("prigroup", value >> 8 & 7)
        self._look()

    def _write_protection(self, offset: int, value: int) -> None:
        """The memory protection unit's regions."""
        cpu = self.machine.cpu
        if offset == MPU_RNR:
            if value < 8:
                cpu.write("mpu_rnr", value)
        elif offset in MPU_RBAR:
            region = cpu.read("mpu_rnr")
            if value & 0x10:
                region = value & 0xF
                if region >= 8:
                    return
                cpu.write("mpu_rnr", region)
            cpu.write(f"mpu_rbar{region}", value & ~0x1F)
            self._look()
        elif offset in MPU_RASR:
            cpu.write(f"mpu_rasr{cpu.read('mpu_rnr')}", value & _RASR)
            self._look()


class Mps2Nvic(Nvic):
    """Of the MPS2 with FPGA image AN385: 25 MHz, and one interrupt for the overruns of its UARTs."""

    SHARED: ClassVar[Mapping[int, range]] = {12: range(33, 36)}
