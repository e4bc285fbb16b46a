"""x86 on Unicorn, 32 and 64 bits."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from unicorn import unicorn_const as const
from unicorn import x86_const

from rrgdb.arch import x86 as arch
from rrgdb.arch import x86_traps as traps
from rrgdb.arch.base import CpuException, ExceptionKind
from rrgdb.engine.paging import x86 as paging
from rrgdb.engine.unicorn import _hot
from rrgdb.engine.unicorn.families.base import Family, Sync, numbers
from rrgdb.engine.unicorn.faults import FaultReader
from rrgdb.engine.unicorn.probes import x86 as probes
from rrgdb.engine.unicorn.probes.layout import Context, Layout
from rrgdb.engine.unicorn.probes.structure import one
from rrgdb.engine.unicorn.registers import Part, Quirk

_DEBUG, _DOUBLE_FAULT, _PROTECTION, _PAGE_FAULT, _ALIGNMENT = 1, 8, 13, 14, 17
_WITH_ERROR_CODE = frozenset((_DOUBLE_FAULT, 10, 11, 12, _PROTECTION, _PAGE_FAULT, _ALIGNMENT))
_WRITE, _FETCH = 1 << 1, 1 << 4  # of a page fault's error code
_PREFIXES = b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3"
_SYSCALL, _SYSENTER = b"\x0f\x05", b"\x0f\x34"
_INT3, _INT_N, _INTO, _ICEBP = b"\xcc", b"\xcd", b"\xce", b"\xf1"
_EFER_SCE = 1
_PARTS = {"selector": (0, 2), "base": (8, 8), "limit": (16, 4), "flags": (20, 4)}
"""(place, bytes) in unicorn.h's uc_x86_mmr"""
_X87 = {
    "fctrl": "fpcw",
    "fstat": "fpsw",
    "ftag": "fptag",
    "fiseg": "fcs",
    "fioff": "fip",
    "foseg": "fds",
    "fooff": "fdp",
    "fop": "fop",
}
"""GDB's names and Unicorn's"""


def _opcode(code: bytes, long_mode: bool) -> bytes:
    code = code.lstrip(_PREFIXES)
    return code[1:] if long_mode and code[:1] and code[0] & 0xF0 == 0x40 else code


class _Faults(FaultReader):
    def _opcode_at(self, pc: int, size: int) -> bytes:
        return _opcode(self.read_memory(pc, max(size, 1)), self.arch.bits == 64)[:1]

    def describe(self, number: int, pc: int) -> tuple[ExceptionKind, int, int | None]:
        kind = self.kinds.get(number, ExceptionKind.NATIVE)
        state = self.context.save()
        error, previous = self.layout.error_code, self.layout.previous_exception
        detail = None
        if error is not None and number in _WITH_ERROR_CODE:
            detail = int.from_bytes(state[error : error + 4], "little")
        if previous is not None:
            # Whoever delivers the exception is outside the engine: without this the next one is a double fault.
            self.context.restore(state[:previous] + b"\xff\xff\xff\xff" + state[previous + 4 :])
        if number != _PAGE_FAULT:
            return kind, 0, detail
        address = self.registers.raw_read("cr2")
        if (detail or 0) & _FETCH or address == pc != self.core.last_pc:
            kind = ExceptionKind.FETCH_FAULT
        else:
            kind = ExceptionKind.WRITE_FAULT if (detail or 0) & _WRITE else ExceptionKind.READ_FAULT
        return kind, address, detail

    def is_single_step(self, number: int) -> bool:
        return number == _DEBUG

    def asks_for_it(self, number: int) -> bool:
        opcode = self._opcode_at(self.core.last_pc, self.core.last_size)
        return opcode in (_INT3, _INT_N, _INTO, _ICEBP)

    def undone(self) -> None:
        self.core.restore_flags()

    def corrected(self, kind: ExceptionKind, number: int, pc: int, size: int) -> tuple[ExceptionKind, int]:
        if kind is ExceptionKind.UNDEFINED and self._opcode_at(pc, size) == _ICEBP:
            return ExceptionKind.NATIVE, _DEBUG
        return kind, number

    def own_breakpoint(self, pc: int) -> CpuException:
        here = sum(1 << n for n in range(4) if self.registers.raw_read(f"dr{n}") == pc)
        self.registers.raw_write("dr6", self.registers.raw_read("dr6") & ~15 | here)
        return CpuException(ExceptionKind.NATIVE, _DEBUG, pc, pc)

    def is_system_call(self, code: bytes) -> bool:
        return _opcode(code, self.arch.bits == 64)[:2] in (_SYSCALL, _SYSENTER)

    def system_call(self, pc: int, code: bytes) -> CpuException:
        """Entry points are not entered: that needs rings, which boards lack."""
        after = (pc + len(code)) & self.mask
        if _opcode(code, self.arch.bits == 64)[:2] == _SYSENTER:
            if not self.registers.raw_read("sysenter_cs") & 0xFFFC:
                return CpuException(ExceptionKind.NATIVE, _PROTECTION, pc, after, detail=0)
        elif not self.registers.raw_read("efer") & _EFER_SCE:
            return CpuException(ExceptionKind.UNDEFINED, -1, pc, after)
        return CpuException(ExceptionKind.SYSCALL, -1, pc, after)


def _found(core: _hot.Core, context: Context, layout: Layout) -> None:
    if not layout.hidden:
        one([], "x86: its segments")
    offsets = (layout.flags, layout.previous_exception, layout.code_segment, layout.modes)
    core.set_context(context.address, *(-1 if at is None else at for at in offsets))


def _msr(number: int) -> Part:
    """unicorn.h's uc_x86_msr."""
    return Part(x86_const.UC_X86_REG_MSR, 8, 8, struct.pack("<I4x", number))


def _part(table: str, name: str) -> Part:
    return Part(getattr(x86_const, f"UC_X86_REG_{table.upper()}"), *_PARTS[name])


def _family(bits: int, models: Mapping[str, int]) -> Family:
    wide = bits == 64
    general, pc = (traps.NAMES64, "rip") if wide else (traps.NAMES32, "eip")
    numbered = (*general, pc, "eflags", *arch.SEGMENTS, *(f"st{n}" for n in range(8)), "mxcsr", *arch.CONTROLS)
    vectors = tuple(f"xmm{n}" for n in range(16 if wide else 8))
    # In 32-bit engines the bases of segments are there as MSRs only.
    plain_bases, msrs = (tuple(arch.BASE_MSRS), {}) if wide else ((), arch.BASE_MSRS)
    registers = numbers(x86_const, "UC_X86_REG_", (*numbered, *vectors, *plain_bases, *(("cr8",) if wide else ()))) | {
        name: getattr(x86_const, f"UC_X86_REG_{theirs.upper()}") for name, theirs in _X87.items()
    }
    names = {"rcx": "rcx" if wide else "ecx", "rsp": "rsp" if wide else "esp", "flags": "eflags", "debug": "dr0"}
    places = {place: registers[name] for place, name in names.items()}
    return Family(
        name="x86_64" if wide else "i386",
        arch=const.UC_ARCH_X86,
        mode=const.UC_MODE_64 if wide else const.UC_MODE_32,
        models=models,
        registers={
            **registers,
            **{f"{table}_{name}": _part(table, name) for table, names in arch.TABLES.items() for name in names},
            **{name: _msr(number) for name, number in (arch.MSRS | msrs).items()},
        },
        kinds={3: ExceptionKind.BREAKPOINT},
        quirks={"eflags": Quirk(late=True)},
        faults=_Faults,
        native="x86",
        places=lambda _uc, _bare: places,
        sync=Sync.ALWAYS,
        translation={"cr0": 1 << 31, "cr3": 0, "cr4": 0, "efer": 0},
        paging=paging.translation,
        code_base=("cs", "cs_base"),
        ports=(x86_const.UC_X86_INS_IN, x86_const.UC_X86_INS_OUT),
        layout=lambda: probes.layout(const.UC_MODE_64 if wide else const.UC_MODE_32),
        found=_found,
    )


I386 = _family(
    32,
    {
        "qemu32": x86_const.UC_CPU_X86_QEMU32,
        "pentium3": x86_const.UC_CPU_X86_PENTIUM3,
        "n270": x86_const.UC_CPU_X86_N270,
    },
)
X86_64 = _family(
    64,
    {
        "qemu64": x86_const.UC_CPU_X86_QEMU64,
        "core2duo": x86_const.UC_CPU_X86_CORE2DUO,
        "nehalem": x86_const.UC_CPU_X86_NEHALEM,
    },
)
