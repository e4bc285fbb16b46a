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

from rrgdb.board.spec import BoardSpec
from rrgdb.lazy import Imported

BOARDS: Imported[BoardSpec] = Imported(
    {
        "aarch64-virt": "rrgdb.board.boards.arm_virt:AARCH64_VIRT",
        "arm-virt": "rrgdb.board.boards.arm_virt:ARM_VIRT",
        "i386-pc": "rrgdb.board.boards.pc:I386_PC",
        "mps2-an385": "rrgdb.board.boards.mps2:MPS2_AN385",
        "riscv32-virt": "rrgdb.board.boards.riscv_virt:RISCV32_VIRT",
        "riscv64-virt": "rrgdb.board.boards.riscv_virt:RISCV64_VIRT",
        "x86_64-pc": "rrgdb.board.boards.pc:X86_64_PC",
    }
)
"""in their latest revisions"""
_EARLIER: Imported[tuple[BoardSpec, ...]] = Imported(
    {
        "arm": "rrgdb.board.boards.arm_virt:EARLIER",
        "riscv": "rrgdb.board.boards.riscv_virt:EARLIER",
    }
)
_DEFAULT = {
    "aarch64": "aarch64-virt",
    "arm": "arm-virt",
    "armv7m": "mps2-an385",
    "i386": "i386-pc",
    "riscv32": "riscv32-virt",
    "riscv64": "riscv64-virt",
    "x86_64": "x86_64-pc",
}
"""name of an arch -> the first board that has it"""


def board_of(name: str, revision: int) -> BoardSpec | None:
    """The board of that name in that revision; None if there is none."""
    latest = BOARDS.get(name)
    if latest is not None and latest.revision == revision:
        return latest
    return next((board for board in earlier() if (board.name, board.revision) == (name, revision)), None)


def earlier() -> tuple[BoardSpec, ...]:
    """Boards in revisions of the past, for recordings that were made with them."""
    return tuple(board for boards in _EARLIER.values() for board in boards)


def default_board(arch: str) -> BoardSpec:
    """The board for images of ``arch`` (``Arch.name``). Raises ``ValueError`` if there is none."""
    if arch in _DEFAULT:
        return BOARDS[_DEFAULT[arch]]
    for board in BOARDS.values():
        if arch in board.arches:
            return board
    known = ", ".join(sorted({name for board in BOARDS.values() for name in board.arches}))
    raise ValueError(f"no board for architecture {arch!r}, expected one of {known}")


__all__ = ["BOARDS", "board_of", "default_board", "earlier"]
