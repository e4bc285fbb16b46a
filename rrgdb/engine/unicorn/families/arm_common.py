"""What Unicorn does alike for 32-bit ARM, its M profile and AArch64."""

from __future__ import annotations

from rrgdb.arch.base import ExceptionKind
from rrgdb.engine.base import EngineError
from rrgdb.engine.unicorn.families.base import Act
from rrgdb.engine.unicorn.probes.layout import Context
from rrgdb.engine.unicorn.registers import RegisterFile

KINDS = {
    1: ExceptionKind.UNDEFINED,
    2: ExceptionKind.SYSCALL,
    3: ExceptionKind.FETCH_FAULT,
    4: ExceptionKind.READ_FAULT,
    7: ExceptionKind.BREAKPOINT,
}


def check_mode(control: str, modes: frozenset[int]) -> Act:
    """``Family.check``: ``control`` is the control register, ``modes`` are all values of PSTATE.M."""

    def check(registers: RegisterFile, context: Context) -> None:
        mode = registers.raw_read("cpsr") & 0x1F
        if mode not in modes:
            raise EngineError(f"a CPU state of mode {mode:#x}, which there is not")
        before = context.save()
        # What Unicorn works out of the state for translated code is in there as well: a write works it out anew.
        registers.raw_write(control, registers.raw_read(control))
        if context.save() != before:
            raise EngineError("a CPU state that does not agree with itself")

    return check
