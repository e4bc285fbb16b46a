"""x87's transcendental instructions and partial remainders on a ``Cpu``: computed by integers alone, to the nearest
80-bit number, since the engine has them from the host's mathematical library and in double precision.

Sources: "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 1, chapter 8; ``_x87.c``.
"""

from __future__ import annotations

from rrgdb.arch import _x87
from rrgdb.arch.base import IllegalInstruction
from rrgdb.arch.cpu import Cpu

OPCODES = frozenset((0xF0, 0xF1, 0xF2, 0xF3, 0xF5, 0xF8, 0xF9, 0xFB, 0xFE, 0xFF))
"""second bytes behind D9: F2XM1, FYL2X, FPTAN, FPATAN, FPREM1, FPREM, FYL2XP1, FSINCOS, FSIN, FCOS"""
_CR0_EM, _CR0_TS, _CR0_NE = 1 << 2, 1 << 3, 1 << 5
_SUMMARY = 1 << 7
_RESET_CONTROL, _ROOM_ABOVE = 0x37F, 4
_NOT_AVAILABLE, _FLOATING_POINT = 7, 16


def execute(cpu: Cpu, opcode: int) -> None:
    """Perform the instruction; pc stays. IllegalInstruction for #NM, and for an error of an earlier one (#MF)."""
    cr0, status, tags = cpu.read("cr0"), cpu.read("fstat"), cpu.read("ftag")
    if cr0 & (_CR0_EM | _CR0_TS):
        raise IllegalInstruction(_NOT_AVAILABLE)
    if status & _SUMMARY and cr0 & _CR0_NE:
        raise IllegalInstruction(_FLOATING_POINT)
    top = status >> 11 & 7
    empty = [tags >> 2 * n & 3 == 3 for n in range(8)]
    near = [top, (top + 1) % 8, (top - 1) % 8]
    mask = sum(empty[n] << place for place, n in enumerate(near))
    control = cpu.read("fctrl")
    if not control:  # never initialised, as in a `Uc` that a script has just made: there tags mean nothing either
        control, mask = _RESET_CONTROL, _ROOM_ABOVE
    operands = [cpu.read(name).to_bytes(10, "little") for name in ("st0", "st1")]
    status, move, *results = _x87.execute(opcode, control, status, mask, *operands)
    cpu.write("fstat", status)
    if move > 0:
        empty[top] = True
    for n, value in zip(near, results, strict=True):
        if value is not None:
            cpu.write(f"st{(n - top - move) % 8}", int.from_bytes(value, "little"))
            empty[n] = False
    cpu.write("ftag", sum(3 << 2 * n for n in range(8) if empty[n]))
