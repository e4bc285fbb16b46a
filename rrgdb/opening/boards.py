"""Which board a guest is on: what the user names, the model of the CPU, or what an image is for."""

from __future__ import annotations

from rrgdb.arch import ARCHES
from rrgdb.board.boards import BOARDS, default_board
from rrgdb.board.spec import BoardSpec
from rrgdb.opening.options import OptionError

SHARED = ("virt",)
"""names of QEMU's that boards of several CPUs share: each board is ARCH-NAME"""


def board_for(name: str | None, cpu: str | None, arch: str | None) -> BoardSpec:
    """The board that the user means by ``name`` (None: no name), with a model and an image of an arch (None: neither
    says). Raises OptionError."""
    if name is not None and name not in SHARED:
        spec = BOARDS.get(name)
        if spec is None:
            raise OptionError(f"-M {name[:60]}: expected one of {', '.join((*SHARED, *BOARDS))}")
        return spec
    of_model = None if cpu is None else next((known.name for known in ARCHES.values() if cpu in known.models), None)
    if arch == "riscv64" and of_model == "riscv32":
        arch = of_model  # files that are no ELF files do not tell how wide the CPU is
    chosen = arch or of_model
    if chosen is None:
        boards = [board for board in BOARDS if name is None or board.endswith(f"-{name}")]
        raise OptionError(f"-M: the image does not say which CPU it is for: expected one of {', '.join(boards)}")
    if name is None:
        return default_board(chosen)
    found = next((b for b in BOARDS.values() if chosen in b.arches and b.name.endswith(f"-{name}")), None)
    if found is None:
        raise OptionError(f"-M {name}: there is none for {chosen}: expected {default_board(chosen).name}")
    return found
