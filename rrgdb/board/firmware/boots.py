"""What a machine is started with: QEMU's options as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rrgdb.board.firmware.kernels import File


@dataclass(frozen=True, slots=True)
class Loader:
    """``-device loader``: a file at ``address`` (an ELF file, a uImage or Intel HEX at its own addresses, unless
    ``raw``), or
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
