"""What the hooks must reach directly in a Unicorn that runs 32-bit ARM: addresses inside its own structures.

The hooks read there whether the CPU is in Thumb state and inside an IT block, and leave such a block at any of its
instructions (see ``_arm.h``). The register API is too slow for the first and cannot do the second. Where these things
lie is found by experiments on scratch engines, once a process; what is found is tried again on each engine.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

from unicorn import arm_const
from unicorn import unicorn_const as const

from rrgdb.engine.unicorn import _hot
from rrgdb.engine.unicorn.probes.cpu import Cpus
from rrgdb.engine.unicorn.probes.layout import Context
from rrgdb.engine.unicorn.probes.structure import memory, one, scratch, structure, taking

_MAX_NESTED = 64
"""jump buffers of nested runs stand in a row"""
_CODE = 0x10000
_PC_OFFSET = 60
_CPSIE_I, _CPSID_I = 0xF1080080, 0xF10C0080
# cmp r0, #1; it ne; bxne lr; nop; nop; then cmp r0, #1; bx lr; nop
_ENDS_INSIDE_IT, _ENDS_OUTSIDE = "0128 18bf 7047 00bf 00bf", "0128 7047 00bf"


@dataclass(frozen=True, slots=True)
class _Offsets:
    no_exit: int
    jump: int
    thumb: int
    condexec: int


@dataclass(frozen=True, slots=True)
class Addresses:
    """In this process: the program counter, the Thumb flag, ITSTATE, the flag that keeps exits out of a block that is
    translated, and the jump buffer of a run that is not nested."""

    pc: int
    thumb: int
    condexec: int
    no_exit: int
    jump: int


def _scratch() -> Any:
    uc = scratch(const.UC_ARCH_ARM, const.UC_MODE_ARM)
    uc.ctl_set_cpu_model(arm_const.UC_CPU_ARM_CORTEX_A15)
    uc.mem_map(_CODE, 0x1000)
    return uc


def _find_no_exit(jump: int) -> int:
    """It stands shortly before the jump buffers; elsewhere an address may look like it by chance."""
    uc = _scratch()
    inside, outside = bytes.fromhex(_ENDS_INSIDE_IT), bytes.fromhex(_ENDS_OUTSIDE)
    uc.mem_write(_CODE, inside + outside)
    uc.reg_write(arm_const.UC_ARM_REG_PC, _CODE | 1)
    mapped, seen = memory(), []
    for start in (_CODE + len(inside), _CODE, _CODE + len(inside)):
        uc.ctl_flush_tb()
        uc.ctl_request_cache(start)
        seen.append(structure(uc, mapped))
    before, within, after = seen
    places = [at for at in range(jump - 16, jump) if (before[at], within[at], after[at]) == (0, 1, 0)]
    return one(places, "ARM: whether a block may exit")


def _find_jump() -> int:
    """The buffers are followed by the level of nesting: 1 within a run, when only the first of them is in use."""
    uc = _scratch()
    uc.mem_write(_CODE, bytes.fromhex("00bf00bf"))
    uc.reg_write(arm_const.UC_ARM_REG_PC, _CODE | 1)
    mapped = memory()
    outside, seen = structure(uc, mapped), list[bytes]()
    uc.hook_add(const.UC_HOOK_CODE, lambda *_: seen.append(structure(uc, mapped)))
    uc.emu_start(_CODE | 1, _CODE + 4)
    inside = seen[0]
    room = _hot.JUMP_BYTES * _MAX_NESTED
    places = []
    for at in range(room + 8, min(len(outside), len(inside)) - 4, 4):
        if outside[at : at + 4] != bytes(4) or inside[at : at + 4] != b"\1\0\0\0":
            continue
        first = at - room
        if inside[first : first + 8].strip(b"\0") + inside[first + 8 : first + 64].strip(b"\0") == b"":
            continue
        if outside[first:at] == bytes(room) and inside[first + _hot.JUMP_BYTES : at] == bytes(room - _hot.JUMP_BYTES):
            places.append(first)
    return one(places, "ARM: its jump buffer")


CPUS = Cpus("ARM", _scratch, tuple(arm_const.UC_ARM_REG_R0 + n for n in range(13)), 4)


def _find_flags() -> tuple[int, int]:
    uc = _scratch()
    context = Context(uc)

    def state(cpsr: int) -> bytes:
        uc.reg_write(arm_const.UC_ARM_REG_CPSR, cpsr)
        return context.save()

    arm, thumb, it, other = (state(0x1D3 | bits) for bits in (0, 0x20, 0x0600FC00, 0x0200A400))
    flag = taking((arm, thumb, it), (0, 1, 0))
    bits = taking((arm, it, other), (0, 0xFF, 0xA5))
    return one(flag, "ARM: the Thumb state"), one(bits, "ARM: ITSTATE")


@cache
def _offsets() -> _Offsets:
    thumb, condexec = _find_flags()
    jump = _find_jump()
    return _Offsets(_find_no_exit(jump), jump, thumb, condexec)


def find_addresses(uc: Any) -> Addresses:
    """For an engine that is not running. Raises EngineError where this build of Unicorn does not keep to what the
    probes found."""
    offsets = _offsets()
    engine, env = uc._uch.value, CPUS.address(uc)
    return Addresses(
        pc=env + _PC_OFFSET,
        thumb=env + offsets.thumb,
        condexec=env + offsets.condexec,
        no_exit=engine + offsets.no_exit,
        jump=engine + offsets.jump,
    )


@cache
def _interrupt_mask() -> int:
    def run(uc: Any, instruction: int) -> None:
        # A write of CPSR from outside would change another place as well.
        uc.mem_write(_CODE, struct.pack("<I", instruction))
        uc.ctl_flush_tb()
        uc.emu_start(_CODE, _CODE + 4)

    return CPUS.offset(run, _CPSIE_I, _CPSID_I, "its masks")


def find_masks(uc: Any) -> tuple[tuple[int, int], ...]:
    """(address, bytes) of A, I and F of the CPSR, as ``find_addresses``."""
    return ((CPUS.address(uc) + _interrupt_mask(), 1),)
