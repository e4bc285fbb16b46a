"""What the user asks for when a guest is opened, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rrgdb.errors import UsageError

MAX_SHIFT = 10
"""QEMU's"""
VIRTIO = ("disk", "rng", "console")
"""what can be plugged into a slot"""


class OptionError(UsageError):
    """An option does not fit: one line naming it and what was expected."""


@dataclass(frozen=True, slots=True)
class LoaderFile:
    """What is put into RAM beside the kernel, as QEMU's ``-device loader`` does: a file, or ``data`` at ``address``.
    ``raw``: an ELF file too is put there as it is. ``starts``: the CPU starts there (at the entry of an ELF file)."""

    address: int | None
    path: Path | None = None
    data: bytes = b""
    raw: bool = False
    starts: bool = False


@dataclass(frozen=True, slots=True)
class BootFiles:
    """What a guest boots from, by QEMU's options: ``firmware`` None: what the board has by itself, unless
    ``no_firmware`` (``-bios none``)."""

    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    dtb: Path | None = None
    firmware: Path | None = None
    no_firmware: bool = False
    loaders: tuple[LoaderFile, ...] = ()


@dataclass(frozen=True, slots=True)
class GuestOptions:
    """What the user asked for. Sizes in bytes; ``load``/``entry`` are physical addresses of a raw image.

    ``board`` may be a name of QEMU's that several boards share (``virt``). ``boot``: files to boot from, in place of
    an image. ``shift``: 2**shift nanoseconds of virtual time are one instruction; ``sleep``: a CPU that waits does so
    in the host's time. ``no_reboot``: a reset ends the guest. ``randomness``: the device tree has random seeds, drawn
    from the host. ``virtio``: what is plugged into the slots, in their order (``VIRTIO``), one ``disk`` for each disk;
    None: the disks. ``legacy``: the slots are those of version 1."""

    board: str | None = None
    cpu: str | None = None
    memory: int | None = None
    load: int | None = None
    entry: int | None = None
    args: str = ""
    boot: BootFiles | None = None
    shift: int = 0
    sleep: bool = True
    no_reboot: bool = False
    randomness: bool = False
    virtio: tuple[str, ...] | None = None
    legacy: bool = False


class NewDisk(NamedTuple):
    """A disk for a new guest: the user's image. ``name`` None: ``diskN``; ``format`` None: raw."""

    path: Path
    name: str | None = None
    format: str | None = None
    readonly: bool = False
