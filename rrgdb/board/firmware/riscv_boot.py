"""RISC-V's ``virt`` boards from power-on: firmware in RAM, a kernel behind it, and the reset vector in ROM that tells
the firmware of both.

QEMU 7.2's ``hw/riscv/boot.c`` and ``hw/riscv/virt.c``; OpenSBI's ``docs/firmware/fw_dynamic.md``.
"""

from __future__ import annotations

import struct

from rrgdb.board.firmware.boot_tree import BootTree
from rrgdb.board.firmware.boots import Boot
from rrgdb.board.firmware.image import ImageError, is_elf
from rrgdb.board.firmware.kernels import KERNEL, File, ramdisk, uimage
from rrgdb.board.firmware.parts import Parts
from rrgdb.board.spec import MIB, BoardSpec, RamLayout

INITRD_OFFSET = 128 * MIB
TREE_END = 3072 * MIB
TREE_ALIGNMENT = 2 * MIB
KERNEL_ALIGNMENT = {32: 4 * MIB, 64: 2 * MIB}
_DYNAMIC_MAGIC, _DYNAMIC_VERSION, _SUPERVISOR = 0x4942534F, 2, 1
_LOADS = {32: (0x0202A583, 0x0182A283), 64: (0x0202B583, 0x0182B283)}
"""a1 from 32 bytes, and t0 from 24 bytes behind the first instruction"""


def start(what: Boot, board: BoardSpec, ram: RamLayout, bits: int, tree: BootTree, parts: Parts) -> int:
    """Put everything into memory; the address at which the CPU starts. Raises ``ImageError``."""
    (base, size) = ram.regions[0]
    rom = next(place.base for place in board.roms if place.name == "mrom")
    behind = base if what.bios is None else _firmware(what.bios, base, parts)
    next_stage = 0
    if what.append:
        tree.choose({"bootargs": what.append})
    if what.seeds:
        tree.choose(what.seeds)
    if what.kernel is not None:
        next_stage = _kernel(what.kernel, _up(behind, KERNEL_ALIGNMENT[bits]), parts)
        if what.initrd is not None:
            at = next_stage + min(size // 2, INITRD_OFFSET)
            end = parts.put(what.initrd.name, at, ramdisk(what.initrd))
            tree.choose({"linux,initrd-start": at & 0xFFFFFFFF})
            tree.choose({"linux,initrd-end": end & 0xFFFFFFFF})
    at = (min(base + size, TREE_END) - tree.room) // TREE_ALIGNMENT * TREE_ALIGNMENT
    parts.put(tree.name, at, tree.blob(packed=True), tree.room)
    parts.put("reset vector", rom, _reset_vector(base, next_stage, at, bits))
    return rom


def _up(address: int, alignment: int) -> int:
    return -(-address // alignment) * alignment


def _firmware(file: File, base: int, parts: Parts) -> int:
    """The address behind it."""
    if is_elf(file.data):
        return parts.put_elf(file).high
    if not file.data:
        raise ImageError(file.name, 0, "empty file", "firmware")
    return parts.put(file.name, base, file.data)


def _kernel(file: File, at: int, parts: Parts) -> int:
    """The address at which firmware starts it: of an ELF file, the lowest."""
    if is_elf(file.data):
        return parts.put_elf(file).low
    wrapped = uimage(file, KERNEL)
    if wrapped is not None:
        parts.put(file.name, wrapped.load, wrapped.data)
        return wrapped.entry
    if not file.data:
        raise ImageError(file.name, 0, "empty file", "a kernel")
    parts.put(file.name, at, file.data)
    return at


def _reset_vector(start: int, next_stage: int, tree: int, bits: int) -> bytes:
    """a0 is the hart, a1 the device tree, a2 what is told to OpenSBI's dynamic firmware; then on to ``start``."""
    code = struct.pack(
        "<6IQQ",
        0x00000297,  # auipc t0, 0
        0x02828613,  # addi a2, t0, 40
        0xF1402573,  # csrr a0, mhartid
        *_LOADS[bits],
        0x00028067,  # jr t0
        start,
        tree,
    )
    told = (_DYNAMIC_MAGIC, _DYNAMIC_VERSION, next_stage & (1 << bits) - 1, _SUPERVISOR, 0, 0)
    return code + struct.pack("<6Q" if bits == 64 else "<6I", *told)
