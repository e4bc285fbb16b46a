"""What stopped the CPU: Unicorn's interrupt numbers and error codes as ``CpuException``.

An exception belongs to the instruction counted last, which then did not retire, or to the next one, which could not
even be fetched; only the program counter tells. x86 has a third case: a single step comes behind its instruction.
"""

from __future__ import annotations

from collections.abc import Callable

import unicorn
from unicorn import unicorn_const as const

from rrgdb.arch.base import Arch, CpuException, ExceptionKind
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
# Unicorn's interrupt number -> what it means; the rest is NATIVE.
_INTERRUPTS: dict[str, dict[int, ExceptionKind]] = {
    "UC_ARCH_X86": {3: ExceptionKind.BREAKPOINT},
    "UC_ARCH_ARM": {
        1: ExceptionKind.UNDEFINED,
        2: ExceptionKind.SYSCALL,
        3: ExceptionKind.FETCH_FAULT,
        4: ExceptionKind.READ_FAULT,
        7: ExceptionKind.BREAKPOINT,
    },
    "UC_ARCH_ARM64": {
        1: ExceptionKind.UNDEFINED,
        2: ExceptionKind.SYSCALL,
        3: ExceptionKind.FETCH_FAULT,
        4: ExceptionKind.READ_FAULT,
        7: ExceptionKind.BREAKPOINT,
    },
    "UC_ARCH_RISCV": {
        0: ExceptionKind.FETCH_FAULT,
        1: ExceptionKind.FETCH_FAULT,
        2: ExceptionKind.UNDEFINED,
        3: ExceptionKind.BREAKPOINT,
        4: ExceptionKind.READ_FAULT,
        5: ExceptionKind.READ_FAULT,
        6: ExceptionKind.WRITE_FAULT,
        7: ExceptionKind.WRITE_FAULT,
        8: ExceptionKind.SYSCALL,
        9: ExceptionKind.SYSCALL,
        11: ExceptionKind.SYSCALL,
        12: ExceptionKind.FETCH_FAULT,
        13: ExceptionKind.READ_FAULT,
        15: ExceptionKind.WRITE_FAULT,
    },
}
_FAULTS = (ExceptionKind.FETCH_FAULT, ExceptionKind.READ_FAULT, ExceptionKind.WRITE_FAULT)
_DENIED = {1: ExceptionKind.READ_FAULT, 2: ExceptionKind.WRITE_FAULT, 4: ExceptionKind.FETCH_FAULT}
_C_EBREAK = b"\x02\x90"
_DEBUG, _DOUBLE_FAULT, _PROTECTION, _PAGE_FAULT, _ALIGNMENT = 1, 8, 13, 14, 17
_WITH_ERROR_CODE = frozenset((_DOUBLE_FAULT, 10, 11, 12, _PROTECTION, _PAGE_FAULT, _ALIGNMENT))
_WRITE, _FETCH = 1 << 1, 1 << 4  # of a page fault's error code
_WNR = {"UC_ARCH_ARM": 1 << 11, "UC_ARCH_ARM64": 1 << 6}  # of a data abort's status or syndrome
_PREFIXES = b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3"
_SYSCALL, _SYSENTER = b"\x0f\x05", b"\x0f\x34"
_ICEBP = b"\xf1"
_EFER_SCE = 1


def _opcode(code: bytes, long_mode: bool) -> bytes:
    code = code.lstrip(_PREFIXES)
    return code[1:] if long_mode and code[:1] and code[0] & 0xF0 == 0x40 else code


class FaultReader:
    """Reads the exception out of an engine whose run has just ended with one."""

    def __init__(
        self,
        arch: Arch,
        layout: Layout,
        core: _hot.Core,
        registers: RegisterFile,
        context: Context,
        read_memory: Callable[[int, int], bytes],
    ) -> None:
        self._arch = arch
        self._layout = layout
        self._core = core
        self._registers = registers
        self._context = context
        self._read_memory = read_memory
        self._x86 = arch.engine_arch == "UC_ARCH_X86"
        self._riscv = arch.engine_arch == "UC_ARCH_RISCV"
        self._mask = (1 << arch.bits) - 1
        self._kinds = _INTERRUPTS[arch.engine_arch]

    def read(self) -> tuple[CpuException, bool]:
        """(the exception, whether the instruction counted last has retired all the same). Uncounts it if not.

        Raises EngineError where Unicorn gave up for a reason that is no guest's doing.
        """
        core = self._core
        number = core.exception
        pc = core.address()
        if number >= 0:
            if self._riscv:
                pc = (pc - 4) & self._mask  # the engine adds 4 whatever it was
            kind, address, detail = self._describe(number, pc)
        elif core.denied:
            kind, address, detail = _DENIED[core.denied], core.denied_at, None
            if kind is ExceptionKind.FETCH_FAULT and (address ^ pc) & -PAGE == 0:
                address = pc
        elif core.error in _ERRORS:
            kind, detail = _ERRORS[core.error], None
            address = core.fault_address if kind in _FAULTS else 0
        else:
            raise EngineError(f"Unicorn gave up at icount {core.icount}: {unicorn.UcError(core.error)}")
        if self._is_last(number, pc):
            pc, size = core.last_pc, core.last_size
            core.retract()
            if self._x86:
                core.restore_flags()
            if kind is ExceptionKind.READ_FAULT and self._riscv and self._is_amo(pc):
                # The engine tells of the load half; the architecture has one cause for both (volume II, 3.1.15).
                kind, number = ExceptionKind.WRITE_FAULT, number + 2 if number >= 0 else number
            if kind is ExceptionKind.UNDEFINED and self._x86 and self._opcode_at(pc, size) == _ICEBP:
                kind, number = ExceptionKind.NATIVE, _DEBUG
            if kind is ExceptionKind.UNDEFINED and self._riscv and self._read_memory(pc, 2) == _C_EBREAK:
                kind = ExceptionKind.BREAKPOINT
            retired = False
        elif self._x86 and number == _DEBUG:
            # It would not come again: it belongs to the instruction, and its entry counts instead of that.
            core.icount -= 1
            retired, size = False, 0
        else:
            core.retired()
            retired, size = True, 0
        if not 0 < size <= self._arch.max_instruction_length:
            size = self._arch.instruction_alignment
        return CpuException(kind, number, pc, (pc + size) & self._mask, address, detail), retired

    def refused(self, pc: int, size: int, reason: int) -> CpuException:
        """The exception of an instruction that a hook has kept from running."""
        denied = reason == _hot.DENIED
        kind = _DENIED[self._core.denied] if denied else ExceptionKind.UNDEFINED
        address = self._core.denied_at if denied else 0
        return CpuException(kind, -1, pc, (pc + size) & self._mask, address)

    def _is_last(self, number: int, pc: int) -> bool:
        """Whether the instruction counted last raised it."""
        last = self._core.last_pc
        if last == _NO_PC:
            return False
        if self._core.denied and _DENIED[self._core.denied] is ExceptionKind.FETCH_FAULT:
            return False
        if pc == last:
            if self._x86 and number == _DEBUG:
                return False  # a single step ends behind an instruction, which may have jumped to itself
            return self._core.error not in (const.UC_ERR_FETCH_UNMAPPED, const.UC_ERR_FETCH_PROT)
        if number < 0 or pc != (last + self._core.last_size) & self._mask:
            return False
        if self._x86:
            return self._opcode_at(last, self._core.last_size) in (b"\xcc", b"\xcd", b"\xce", b"\xf1")
        return self._kinds.get(number) is ExceptionKind.SYSCALL

    def _opcode_at(self, pc: int, size: int) -> bytes:
        return _opcode(self._read_memory(pc, max(size, 1)), self._arch.bits == 64)[:1]

    def _is_amo(self, pc: int) -> bool:
        word = int.from_bytes(self._read_memory(pc, 4), "little")
        return word & 0x7F == 0x2F and word >> 27 != 2  # LR is a load

    def _word(self, at: int | None, size: int) -> int | None:
        return None if at is None else int.from_bytes(self._context.save()[at : at + size], "little")

    def _describe(self, number: int, pc: int) -> tuple[ExceptionKind, int, int | None]:
        """(kind, address, detail) of an interrupt that the engine told by number."""
        kind = self._kinds.get(number, ExceptionKind.NATIVE)
        if self._x86:
            return self._describe_x86(number, pc, kind)
        detail = self._word(self._layout.syndrome, 4)
        if kind is ExceptionKind.READ_FAULT and (detail or 0) & _WNR.get(self._arch.engine_arch, 0):
            kind = ExceptionKind.WRITE_FAULT
        address = self._word(self._layout.fault_address, self._arch.bits // 8) if kind in _FAULTS else 0
        return kind, address or 0, detail

    def _describe_x86(self, number: int, pc: int, kind: ExceptionKind) -> tuple[ExceptionKind, int, int | None]:
        state = self._context.save()
        error, previous = self._layout.error_code, self._layout.previous_exception
        detail = None
        if error is not None and number in _WITH_ERROR_CODE:
            detail = int.from_bytes(state[error : error + 4], "little")
        if previous is not None:
            # Whoever delivers the exception is outside the engine: without this the next one is a double fault.
            self._context.restore(state[:previous] + b"\xff\xff\xff\xff" + state[previous + 4 :])
        if number != _PAGE_FAULT:
            return kind, 0, detail
        address = self._registers.raw_read("cr2")
        if (detail or 0) & _FETCH or address == pc != self._core.last_pc:
            kind = ExceptionKind.FETCH_FAULT
        else:
            kind = ExceptionKind.WRITE_FAULT if (detail or 0) & _WRITE else ExceptionKind.READ_FAULT
        return kind, address, detail

    def own_breakpoint(self, pc: int) -> CpuException:
        """x86: what a breakpoint in the guest's debug registers raises before the instruction at ``pc``."""
        here = sum(1 << n for n in range(4) if self._registers.raw_read(f"dr{n}") == pc)
        self._registers.raw_write("dr6", self._registers.raw_read("dr6") & ~15 | here)
        return CpuException(ExceptionKind.NATIVE, _DEBUG, pc, pc)

    def is_system_call(self, code: bytes) -> bool:
        """SYSCALL and SYSENTER: without a hook Unicorn passes over them in silence."""
        return self._x86 and _opcode(code, self._arch.bits == 64)[:2] in (_SYSCALL, _SYSENTER)

    def system_call(self, pc: int, code: bytes) -> CpuException:
        """What SYSCALL or SYSENTER raises here. Entry points are not entered: that needs rings, which boards lack."""
        after = (pc + len(code)) & self._mask
        if _opcode(code, self._arch.bits == 64)[:2] == _SYSENTER:
            if not self._registers.raw_read("sysenter_cs") & 0xFFFC:
                return CpuException(ExceptionKind.NATIVE, _PROTECTION, pc, after, detail=0)
        elif not self._registers.raw_read("efer") & _EFER_SCE:
            return CpuException(ExceptionKind.UNDEFINED, -1, pc, after)
        return CpuException(ExceptionKind.SYSCALL, -1, pc, after)
