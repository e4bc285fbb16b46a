"""What stopped the CPU: Unicorn's interrupt numbers and error codes as ``CpuException``.

An exception belongs to the instruction counted last, which then did not retire, or to the next one, which could not
even be fetched; only the program counter tells. x86 has a third case: a single step comes behind its instruction.

Families of which Unicorn tells in another way have a reader of their own, derived from ``FaultReader``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import unicorn
from unicorn import unicorn_const as const

from rrgdb.arch.base import DIVISION_BY_ZERO, Arch, CpuException, ExceptionKind
from rrgdb.engine.base import EngineError
from rrgdb.engine.memory import PAGE
from rrgdb.engine.unicorn import _hot
from rrgdb.engine.unicorn.probes.layout import Context, Layout
from rrgdb.engine.unicorn.registers import RegisterFile

_NO_PC = (1 << 64) - 1
_ERRORS: dict[int, ExceptionKind] = {
    const.UC_ERR_FETCH_UNMAPPED: ExceptionKind.FETCH_FAULT,
    const.UC_ERR_FETCH_PROT: ExceptionKind.FETCH_FAULT,
    const.UC_ERR_FETCH_UNALIGNED: ExceptionKind.FETCH_FAULT,
    const.UC_ERR_READ_UNMAPPED: ExceptionKind.READ_FAULT,
    const.UC_ERR_READ_PROT: ExceptionKind.READ_FAULT,
    const.UC_ERR_READ_UNALIGNED: ExceptionKind.READ_FAULT,
    const.UC_ERR_WRITE_UNMAPPED: ExceptionKind.WRITE_FAULT,
    const.UC_ERR_WRITE_PROT: ExceptionKind.WRITE_FAULT,
    const.UC_ERR_WRITE_UNALIGNED: ExceptionKind.WRITE_FAULT,
    const.UC_ERR_INSN_INVALID: ExceptionKind.UNDEFINED,
    const.UC_ERR_EXCEPTION: ExceptionKind.UNDEFINED,
}
FAULTS = (ExceptionKind.FETCH_FAULT, ExceptionKind.READ_FAULT, ExceptionKind.WRITE_FAULT)
_DENIED = {1: ExceptionKind.READ_FAULT, 2: ExceptionKind.WRITE_FAULT, 4: ExceptionKind.FETCH_FAULT}


class FaultReader:
    """Reads the exception out of an engine whose run has just ended with one."""

    STORE: ClassVar[int] = 0
    """bit of the syndrome that a store sets where Unicorn's number says load"""

    def __init__(
        self,
        arch: Arch,
        kinds: Mapping[int, ExceptionKind],
        stale_pc: int,
        layout: Layout,
        core: _hot.Core,
        registers: RegisterFile,
        context: Context,
        read_memory: Callable[[int, int], bytes],
    ) -> None:
        """``kinds``, ``stale_pc``: as in ``families.base.Family``."""
        self.arch = arch
        self.kinds = kinds
        self.layout = layout
        self.core = core
        self.registers = registers
        self.context = context
        self.read_memory = read_memory
        self.mask = (1 << arch.bits) - 1
        self._stale_pc = stale_pc

    def read(self) -> tuple[CpuException, bool]:
        """(the exception, whether the instruction counted last has retired all the same). Uncounts it if not.

        Raises EngineError where Unicorn gave up for a reason that is no guest's doing.
        """
        core = self.core
        number = core.exception
        pc = core.address()
        if number >= 0:
            pc = (pc - self._stale_pc) & self.mask
            kind, address, detail = self.describe(number, pc)
        elif core.denied:
            kind, address, detail = _DENIED[core.denied], core.denied_at, None
            if kind is ExceptionKind.FETCH_FAULT and (address ^ pc) & -PAGE == 0:
                address = pc
        elif core.error in _ERRORS:
            kind, detail = _ERRORS[core.error], None
            address = core.fault_address if kind in FAULTS else 0
        else:
            raise EngineError(f"Unicorn gave up at icount {core.icount}: {unicorn.UcError(core.error)}")
        if self._is_last(number, pc):
            pc, size = core.last_pc, core.last_size
            core.retract()
            self.undone()
            kind, number = self.corrected(kind, number, pc, size)
            retired = False
        elif self.is_single_step(number):
            # It would not come again: it belongs to the instruction, and its entry counts instead of that.
            core.icount -= 1
            retired, size = False, 0
        else:
            core.retired()
            retired, size = True, 0
        if not 0 < size <= self.arch.max_instruction_length:
            size = self.arch.instruction_alignment
        return CpuException(kind, number, pc, (pc + size) & self.mask, address, detail), retired

    def refused(self, pc: int, size: int, reason: int) -> CpuException:
        """The exception of an instruction that a hook has kept from running."""
        core, next_pc = self.core, (pc + size) & self.mask
        if reason == _hot.DENIED:
            return CpuException(_DENIED[core.denied], -1, pc, next_pc, core.denied_at, core.denied_status or None)
        if reason == _hot.DIVISION:
            return CpuException(ExceptionKind.NATIVE, DIVISION_BY_ZERO, pc, next_pc)
        return CpuException(ExceptionKind.UNDEFINED, -1, pc, next_pc)

    def _is_last(self, number: int, pc: int) -> bool:
        """Whether the instruction counted last raised it."""
        last = self.core.last_pc
        if last == _NO_PC:
            return False
        if self.core.denied and _DENIED[self.core.denied] is ExceptionKind.FETCH_FAULT:
            return False
        if pc == last:
            if self.is_single_step(number):
                return False  # a single step ends behind an instruction, which may have jumped to itself
            return self.core.error not in (const.UC_ERR_FETCH_UNMAPPED, const.UC_ERR_FETCH_PROT)
        if number < 0 or pc != (last + self.core.last_size) & self.mask:
            return False
        return self.asks_for_it(number)

    def word(self, at: int | None, size: int) -> int | None:
        """A number in the context, at a place of the layout."""
        return None if at is None else int.from_bytes(self.context.save()[at : at + size], "little")

    # -- what differs between families ---------------------------------------------------------------

    def describe(self, number: int, pc: int) -> tuple[ExceptionKind, int, int | None]:
        """(kind, address, detail) of an interrupt that Unicorn told by number, with pc at ``pc``."""
        kind = self.kinds.get(number, ExceptionKind.NATIVE)
        detail = self.word(self.layout.syndrome, 4)
        if kind is ExceptionKind.READ_FAULT and (detail or 0) & self.STORE:
            kind = ExceptionKind.WRITE_FAULT
        address = self.word(self.layout.fault_address, self.arch.bits // 8) if kind in FAULTS else 0
        return kind, address or 0, detail

    def is_single_step(self, number: int) -> bool:
        """Whether the interrupt comes behind an instruction that has retired, and belongs to it."""
        return False

    def asks_for_it(self, number: int) -> bool:
        """Whether the instruction counted last raises the interrupt by design, with pc behind itself."""
        return self.kinds.get(number) is ExceptionKind.SYSCALL

    def undone(self) -> None:
        """The instruction counted last has not retired: put back what Unicorn did to the state before it."""

    def corrected(self, kind: ExceptionKind, number: int, pc: int, size: int) -> tuple[ExceptionKind, int]:
        """Kind and number of what the instruction of ``size`` bytes at ``pc`` raised, by its code."""
        return kind, number

    def own_breakpoint(self, pc: int) -> CpuException:
        """What a breakpoint in the guest's own debug registers raises before the instruction at ``pc``."""
        raise NotImplementedError

    def is_system_call(self, code: bytes) -> bool:
        """Whether Unicorn passes over this system call in silence."""
        return False

    def system_call(self, pc: int, code: bytes) -> CpuException:
        """What such a system call raises at ``pc``."""
        raise NotImplementedError
