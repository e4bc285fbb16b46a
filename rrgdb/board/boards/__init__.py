"""The boards, one data module each.

Devices that QEMU's machines lack stand where QEMU's maps (its ``hw/riscv/virt.c``, ``hw/arm/virt.c`` and the PC's
ports) have nothing:

============== ================= ================= =================
board          entropy           counter           exit
============== ================= ================= =================
riscv*-virt    0x10200000        0x10201000        syscon 0x100000
arm, aarch64   0x0b000000        0x0b001000        0x0b002000
*-pc           port 0x0e80       port 0x0e90       port 0xf4
mps2-an385     none              none              none
============== ================= ================= =================

Slots are filled from the last one down, as QEMU fills them.
"""

from __future__ import annotations

from rrgdb.board.boards import arm_virt, riscv_virt
from rrgdb.board.boards.arm_virt import AARCH64_VIRT, ARM_VIRT
from rrgdb.board.boards.mps2 import MPS2_AN385
from rrgdb.board.boards.pc import I386_PC, X86_64_PC
from rrgdb.board.boards.riscv_virt import RISCV32_VIRT, RISCV64_VIRT
from rrgdb.board.spec import BoardSpec

BOARDS: dict[str, BoardSpec] = {
    b.name: b for b in (AARCH64_VIRT, ARM_VIRT, I386_PC, MPS2_AN385, RISCV32_VIRT, RISCV64_VIRT, X86_64_PC)
}
"""in their latest revisions"""
EARLIER: tuple[BoardSpec, ...] = (
    *arm_virt.EARLIER,
    *riscv_virt.EARLIER,
)
"""revisions of the past, for recordings that were made with them"""


def board_of(name: str, revision: int) -> BoardSpec | None:
    """The board of that name in that revision; None if there is none."""
    known = (b for b in (*BOARDS.values(), *EARLIER) if (b.name, b.revision) == (name, revision))
    return next(known, None)


def default_board(arch: str) -> BoardSpec:
    """The board for images of ``arch`` (``Arch.name``). Raises ``ValueError`` if there is none."""
    for board in BOARDS.values():
        if arch in board.arches:
            return board
    known = ", ".join(sorted({name for board in BOARDS.values() for name in board.arches}))
    raise ValueError(f"no board for architecture {arch!r}, expected one of {known}")


__all__ = ["BOARDS", "EARLIER", "board_of", "default_board"]
