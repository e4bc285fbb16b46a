"""How a machine starts: kernel, initrd, firmware and device tree put where QEMU 7.2 puts them.

The judges are its ``hw/arm/boot.c``, ``hw/riscv/boot.c`` and ``hw/core/loader.c``. What a file holds is hostile:
whatever it is, there is a ``Placed`` whose parts lie in memory and do not overlap, or an ``ImageError`` of one line.

Nothing boots yet: this is what callers are written against, and ``Error`` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rrgdb.board.firmware.image import ImageError, Placed
from rrgdb.board.spec import BoardSpec, RamLayout
from rrgdb.errors import Error

NOT_YET = "-kernel, -bios and -device loader: nothing boots by them yet: expected an IMAGE"


@dataclass(frozen=True, slots=True)
class File:
    """Contents of a file; ``name`` is for messages."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Loader:
    """``-device loader``: a file at ``address`` (an ELF file or a uImage at its own addresses, unless ``raw``), or
    ``data`` of 1 to 8 bytes, as they stand in memory. ``start``: with ``cpu-num=0``: the CPU starts there. Neither
    file nor data: only that."""

    address: int = 0
    file: File | None = None
    raw: bool = False
    data: bytes = b""
    start: bool = False


@dataclass(frozen=True, slots=True)
class Boot:
    """What a machine is started with, as QEMU's options name it. ``bios`` None is ``-bios none`` on RISC-V: what QEMU
    takes by default is ``default_firmware``'s to tell, and the caller's to read."""

    kernel: File | None = None
    initrd: File | None = None
    append: str = ""
    dtb: File | None = None
    bios: File | None = None
    loaders: tuple[Loader, ...] = ()
    seeds: Mapping[str, bytes] = field(default_factory=dict)
    """properties of /chosen (``seed_sizes``), for ``-machine dtb-randomness=on``"""


@dataclass(frozen=True, slots=True)
class Firmware:
    """What a board runs if nobody says otherwise: the first of the files ``paths`` that exists; the Debian package that
    has it."""

    package: str
    paths: tuple[str, ...]


def default_firmware(board: BoardSpec) -> Firmware | None:
    """What ``-bios default`` is, and no ``-bios`` at all; None for a board that then has none."""
    raise Error(NOT_YET)


def seed_sizes(board: BoardSpec) -> Mapping[str, int]:
    """The properties of /chosen that hold random bytes on QEMU, and how many."""
    raise Error(NOT_YET)


def arch_of(file: File) -> str | None:
    """The name of the arch (``rrgdb.arch.ARCHES``) whose ``virt`` board takes this kernel or firmware; None if the file
    does not say. RISC-V files that are no ELF files do not tell their width: riscv64."""
    raise Error(NOT_YET)


def boot(what: Boot, board: BoardSpec, ram: RamLayout, cpu: str, disks: int = 0) -> Placed:
    """The machine as it starts, for ``Board``; ``cpu`` is the name of the CPU model, ``disks`` the number of disks.
    Raises ``ImageError``."""
    raise Error(NOT_YET)


__all__ = [
    "Boot",
    "File",
    "Firmware",
    "ImageError",
    "Loader",
    "Placed",
    "arch_of",
    "boot",
    "default_firmware",
    "seed_sizes",
]
