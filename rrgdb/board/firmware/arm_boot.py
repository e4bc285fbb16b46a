"""Arm's ``virt`` boards from power-on: a kernel in RAM that a few instructions start, or firmware in flash.

QEMU 7.2's ``hw/arm/boot.c`` and ``hw/arm/virt.c``; the boot protocols of Linux (``Documentation/arch/arm/booting.rst``,
``Documentation/arch/arm64/booting.rst``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from rrgdb.board.firmware.boot_tree import BootTree
from rrgdb.board.firmware.boots import Boot
from rrgdb.board.firmware.devicetree import Node, cells
from rrgdb.board.firmware.image import ImageError, is_elf
from rrgdb.board.firmware.kernels import (
    KERNEL,
    KERNEL_NOLOAD,
    File,
    arm64_image,
    ramdisk,
    uimage,
    unzip,
)
from rrgdb.board.firmware.parts import Parts
from rrgdb.board.firmware.psci import psci_node
from rrgdb.board.spec import MIB, BoardSpec, RamLayout

STUB_BYTES = 4096
"""at the start of RAM that are kept free for what starts a kernel"""
NOLOAD_OFFSET = 0x02000000
IMAGE_OFFSET, IMAGE64_OFFSET = 0x00010000, 0x00080000
"""of a kernel that does not say where in RAM it goes"""
UIMAGE_HEADER = 64
INITRD_OFFSET = 128 * MIB
PAGE = 4096
TREE_ALIGNMENT = {32: 4096, 64: 2 * MIB}
FLASH = "flash0"


@dataclass(frozen=True, slots=True)
class _Kernel:
    """A kernel in memory, from ``low`` to ``high``, which may be more than its file. ``linux``: it is started by the
    protocol of Linux."""

    entry: int
    low: int
    high: int
    linux: bool


def start(what: Boot, board: BoardSpec, ram: RamLayout, bits: int, tree: BootTree, parts: Parts) -> int:
    """Put everything into memory; the address at which the CPU starts. Raises ``ImageError``."""
    base, size = ram.regions[0]
    flash = next(place for place in board.roms if place.name == FLASH)
    if what.bios is not None:
        if not 0 < len(what.bios.data) <= flash.size:
            expected = f"1 to {flash.size}, for the flash at {flash.base:#x}"
            raise ImageError(what.bios.name, 0, f"firmware of {len(what.bios.data)} bytes", expected)
        parts.put(what.bios.name, flash.base, what.bios.data)
    if what.kernel is None or what.bios is not None:
        _complete(what, tree, base, size, bits, None)
        parts.put(tree.name, base, tree.blob(packed=False), tree.room)
        return flash.base
    kernel = _kernel(what.kernel, base, size, bits, parts)
    initrd = None
    # A tree that nobody is told of lies where QEMU puts it all the same: at 0, or below the kernel if there is room.
    at, limit = flash.base, 0
    if is_elf(what.kernel.data) and (kernel.low > base or kernel.high < base):
        at, limit = base, kernel.low if kernel.low > base else 0
    if kernel.linux:
        end = initrd_at = _up(max(base + min(size // 2, INITRD_OFFSET), kernel.high), PAGE)
        if what.initrd is not None:
            data = ramdisk(what.initrd)
            end = parts.put(what.initrd.name, initrd_at, data)
            initrd = (initrd_at, end) if data else None
        at = _up(end, TREE_ALIGNMENT[bits])
        parts.put("boot stub", base, _stub(at, kernel.entry, bits))
    _complete(what, tree, base, size, bits, initrd)
    if not limit or tree.room <= limit - at:
        parts.put(tree.name, at, tree.blob(packed=False), tree.room)
    return base if kernel.linux else kernel.entry


def _up(address: int, alignment: int) -> int:
    return -(-address // alignment) * alignment


def _kernel(file: File, base: int, size: int, bits: int, parts: Parts) -> _Kernel:
    if is_elf(file.data):
        elf = parts.put_elf(file)
        return _Kernel(elf.entry, elf.low, elf.high, linux=False)
    wrapped = uimage(file, KERNEL, KERNEL_NOLOAD)
    if wrapped is not None:
        load, entry = wrapped.load, wrapped.entry
        if wrapped.type == KERNEL_NOLOAD:
            load = base + NOLOAD_OFFSET + UIMAGE_HEADER
            entry += load
        kernel = _Kernel(entry, load, load + len(wrapped.data), wrapped.boots_as_linux)
        parts.put(file.name, load, wrapped.data)
    else:
        data = unzip(file.data, file.name) if bits == 64 else file.data
        if not data:
            raise ImageError(file.name, 0, "empty file", "a kernel")
        offset, taken = IMAGE_OFFSET, None
        if bits == 64:
            offset = IMAGE64_OFFSET
            image = arm64_image(data)
            taken = image.size
            if image.offset is not None:
                # Images ask for a distance from a multiple of 2 MiB; below is the stub's place.
                offset = image.offset + (2 * MIB if image.offset < STUB_BYTES else 0)
        entry = base + offset
        kernel = _Kernel(entry, entry, entry + (taken or len(data)), linux=True)
        parts.put(file.name, entry, data)
    if kernel.high - kernel.low > size:
        raise ImageError(file.name, 0, f"kernel of {kernel.high - kernel.low} bytes", f"RAM of {size} is larger")
    return kernel


def _complete(what: Boot, tree: BootTree, base: int, size: int, bits: int, initrd: tuple[int, int] | None) -> None:
    """Memory, power and how the kernel is started; a user's tree may be of another machine."""
    addresses, sizes = tree.cells_of("#address-cells"), tree.cells_of("#size-cells")
    if size >> 32 and sizes == 1:
        raise tree.error("sizes of one cell", f"two, for {size} bytes of RAM")
    tree.remove("memory")
    registers = (*cells(base)[-addresses:], *cells(size)[-sizes:])
    tree.add_first(Node(f"memory@{base:x}", {"reg": registers, "device_type": "memory"}))
    if what.dtb is None and what.seeds:
        tree.root.ensure("chosen").properties |= sorted(what.seeds.items(), reverse=True)
    if what.append:
        tree.choose({"bootargs": what.append})
    if initrd is not None:
        tree.choose({"linux,initrd-start": initrd[0] & 0xFFFFFFFF})
        tree.choose({"linux,initrd-end": initrd[1] & 0xFFFFFFFF})
    tree.remove("psci")
    tree.add_first(psci_node(wide=bits == 64))


def _stub(tree: int, entry: int, bits: int) -> bytes:
    """The instructions that start a kernel: x0, or r2, is the device tree."""
    if bits == 64:
        return struct.pack(
            "<6IQQ",
            0x580000C0,  # ldr x0, tree
            0xAA1F03E1,  # mov x1, xzr
            0xAA1F03E2,  # mov x2, xzr
            0xAA1F03E3,  # mov x3, xzr
            0x58000084,  # ldr x4, entry
            0xD61F0080,  # br x4
            tree,
            entry,
        )
    return struct.pack(
        "<7I",
        0xE3A00000,  # mov r0, #0
        0xE59F1004,  # ldr r1, machine
        0xE59F2004,  # ldr r2, tree
        0xE59FF004,  # ldr pc, entry
        0xFFFFFFFF,  # no machine that Linux has a number for
        tree & 0xFFFFFFFF,
        entry & 0xFFFFFFFF,
    )
