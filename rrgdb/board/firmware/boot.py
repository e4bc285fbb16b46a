"""How a machine starts: kernel, initrd, firmware and device tree put where QEMU 7.2 puts them.

The judges are its ``hw/arm/boot.c``, ``hw/riscv/boot.c`` and ``hw/core/loader.c``. What a file holds is hostile:
whatever it is, there is a ``Placed`` whose parts lie in memory and do not overlap, or an ``ImageError`` of one line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rrgdb.arch import ARCHES
from rrgdb.board.firmware import arm_boot, riscv_boot
from rrgdb.board.firmware.boot_tree import BootTree, boot_tree
from rrgdb.board.firmware.boots import Boot, Loader
from rrgdb.board.firmware.configuration import configuration
from rrgdb.board.firmware.devicetree import TreeFacts
from rrgdb.board.firmware.image import ImageError, Placed, is_elf, load_image, place_image
from rrgdb.board.firmware.intel_hex import intel_hex
from rrgdb.board.firmware.kernels import KERNEL, File, arch_of, uimage, unzip
from rrgdb.board.firmware.parts import Parts
from rrgdb.board.spec import BoardSpec, RamLayout


@dataclass(frozen=True, slots=True)
class Firmware:
    """What a board runs if nobody says otherwise: the first of the files ``paths`` that exists; the Debian package that
    has it."""

    package: str
    paths: tuple[str, ...]


_Start = Callable[[Boot, BoardSpec, RamLayout, int, BootTree, Parts], int]


@dataclass(frozen=True, slots=True)
class _Way:
    """How boards of an arch start. ``registers``: those that power-on leaves otherwise than images without firmware
    find them."""

    start: _Start
    registers: Mapping[str, int]
    seeds: Mapping[str, int]
    firmware: Firmware | None = None


_EL1, _SVC = 0x3C5, 0x1D3
"""with all that can interrupt masked"""
_Z = 1 << 30
"""which QEMU's CPUs begin with"""
_WAYS = {
    "riscv64": _Way(
        riscv_boot.start,
        {"mstatus": 0, "sp": 0},
        {"rng-seed": 32},
        Firmware(
            "opensbi",
            (
                "/usr/share/qemu/opensbi-riscv64-generic-fw_dynamic.bin",
                "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin",
            ),
        ),
    ),
    "riscv32": _Way(
        riscv_boot.start,
        {"mstatus": 0, "sp": 0},
        {"rng-seed": 32},
        Firmware("", ("/usr/share/qemu/opensbi-riscv32-generic-fw_dynamic.bin",)),
    ),
    "aarch64": _Way(arm_boot.start, {"sp": 0, "cpsr": _EL1 | _Z, "cpacr_el1": 0}, {"kaslr-seed": 8, "rng-seed": 32}),
    "arm": _Way(
        arm_boot.start, {"sp": 0, "cpsr": _SVC | _Z, "fpexc": 0, "cpacr": 0}, {"kaslr-seed": 8, "rng-seed": 32}
    ),
}


def default_firmware(board: BoardSpec) -> Firmware | None:
    """What ``-bios default`` is, and no ``-bios`` at all; None for a board that then has none."""
    way = _WAYS.get(board.arches[0])
    return None if way is None else way.firmware


def seed_sizes(board: BoardSpec) -> Mapping[str, int]:
    """The properties of /chosen that hold random bytes on QEMU, and how many."""
    way = _WAYS.get(board.arches[0])
    return {} if way is None else way.seeds


def boot(what: Boot, board: BoardSpec, ram: RamLayout, cpu: str, disks: int = 0) -> Placed:
    """The machine as it starts, for ``Board``; ``cpu`` is the name of the CPU model, ``disks`` the number of disks.
    Raises ``ImageError``."""
    arch = ARCHES[board.arches[0]]
    way = _WAYS.get(arch.name)
    if way is None:
        return _without_firmware(what, board, ram)
    if board.tree is None:
        raise ImageError(_first_name(what), 0, f"revision {board.revision} of board {board.name}", "a later one")
    parts = Parts(board, ram)
    tree = boot_tree(what.dtb, TreeFacts(board, ram, cpu, disks))
    entry = way.start(what, board, ram, arch.bits, tree, parts)
    for loader in what.loaders:
        entry = _load(loader, entry, parts)
    items = configuration(board)
    if what.bios is not None and what.kernel is not None and way.start is arm_boot.start:
        kernel = what.kernel.data if arch.bits == 32 else unzip(what.kernel.data, what.kernel.name)
        items = configuration(board, kernel, None if what.initrd is None else what.initrd.data, what.append)
    registers = dict(way.registers)
    if arch.second_set is not None and entry & 1:
        name, mask = arch.second_set.selected_by
        registers[name] |= mask
    return parts.placed(entry & (1 << arch.bits) - 1, registers, what.append, items)


def _load(loader: Loader, entry: int, parts: Parts) -> int:
    """Put what ``-device loader`` names into memory; where the CPU starts then, ``entry`` unless it says so."""
    file, at = loader.file, loader.address
    if file is None:
        if loader.data:
            parts.put_number("-device loader", at, loader.data)
    elif loader.raw:
        parts.put(file.name, at, file.data)
    elif is_elf(file.data):
        at = parts.put_elf(file).entry
    else:
        wrapped, text = uimage(file, KERNEL), intel_hex(file)
        if wrapped is not None:
            parts.put(file.name, wrapped.load, wrapped.data)
            at = wrapped.entry
        elif text is not None:
            for address, data in text.pieces:
                parts.put(file.name, address, data)
            at = text.start
        else:
            parts.put(file.name, at, file.data)
    return at if loader.start else entry


def _first_name(what: Boot) -> str:
    files = (what.kernel, what.bios, what.dtb, what.initrd)
    return next((file.name for file in files if file is not None), "-device loader")


def _without_firmware(what: Boot, board: BoardSpec, ram: RamLayout) -> Placed:
    """A board that has an image in memory when it starts: M-profile by its vector table, a PC as a Multiboot loader
    would."""
    for option, file in (("-initrd", what.initrd), ("-bios", what.bios), ("-dtb", what.dtb)):
        if file is not None:
            raise ImageError(file.name, 0, f"{option} for board {board.name}", "-kernel alone")
    if board.arches[0] == "armv7m":
        return _by_vectors(what, board, ram)
    if what.kernel is None or what.loaders:
        raise ImageError(_first_name(what), 0, f"no kernel, or more, for board {board.name}", "-kernel alone")
    return place_image(load_image(what.kernel.data, what.kernel.name), board, ram, what.append)


def _by_vectors(what: Boot, board: BoardSpec, ram: RamLayout) -> Placed:
    """QEMU's ``armv7m_load_kernel``: a kernel that is no ELF file lies at address 0."""
    parts, entry = Parts(board, ram), 0
    if what.kernel is not None and is_elf(what.kernel.data):
        parts.put_elf(what.kernel)
    elif what.kernel is not None:
        parts.put(what.kernel.name, 0, what.kernel.data)
    for loader in what.loaders:
        entry = _load(loader, entry, parts)
    starts = any(loader.start for loader in what.loaders)
    return parts.placed(entry & 0xFFFFFFFF, {"pc": entry & 0xFFFFFFFE} if starts else {}, what.append, {})


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
