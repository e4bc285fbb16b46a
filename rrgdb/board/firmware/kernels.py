"""Formats of kernels and of what boots with them, as QEMU's loaders know them.

Linux's ``Documentation/arch/arm64/booting.rst`` and ``arch/riscv/boot-image-header.rst`` (headers of an Image), its
``arch/arm/boot/compressed/head.S`` (zImage); U-Boot's ``include/image.h`` (uImage); RFC 1952 (gzip). What a file says
of itself is checked by who uses it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from rrgdb.board.firmware.image import ImageError, is_elf, load_elf

MAX_UNZIPPED = 256 << 20
"""bytes that a compressed kernel may come to, as in QEMU"""
MAX_UIMAGE_UNZIPPED = 64 << 20
"""the same of what is inside a uImage"""
GZIP = b"\x1f\x8b"
_ARM64 = struct.Struct("<8xQQ32x4s")
_ARM64_MAGIC = b"ARM\x64"
_RISCV_MAGIC_AT, _RISCV_MAGIC = 0x38, b"RSC\x05"
_ZIMAGE_MAGIC_AT, _ZIMAGE_MAGIC = 0x24, b"\x18\x28\x6f\x01"
_UIMAGE = struct.Struct(">IIIIIIIBBBB32s")
_UIMAGE_MAGIC = 0x27051956
KERNEL, RAMDISK, KERNEL_NOLOAD = 2, 3, 14
"""types of a uImage"""
_PLAIN, _GZIPPED = 0, 1
LINUX, VXWORKS = 5, 14
ARM, ARM64, RISCV = 2, 22, 26
_UIMAGE_ARCHES = {ARM: "arm", ARM64: "aarch64", RISCV: "riscv64"}


@dataclass(frozen=True, slots=True)
class File:
    """Contents of a file; ``name`` is for messages."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Uimage:
    """What the header of a uImage says, and the contents, not compressed."""

    load: int
    entry: int
    type: int
    system: int
    arch: int
    data: bytes

    @property
    def boots_as_linux(self) -> bool:
        return self.system == LINUX or (self.system == VXWORKS and self.arch in (ARM64, RISCV))


@dataclass(frozen=True, slots=True)
class Arm64Image:
    """``offset`` from a multiple of 2 MiB; ``size`` is what it takes in memory. None: the header does not say."""

    offset: int | None
    size: int | None


def unzip(data: bytes, name: str, most: int = MAX_UNZIPPED) -> bytes:
    """What a gzip file holds; others as they are. Raises ``ImageError`` for more than ``most`` bytes."""
    if data[:2] != GZIP:
        return data
    inflater = zlib.decompressobj(wbits=31)
    try:
        plain = inflater.decompress(data, most)
        # The end may stand in what is left; further bytes do not fit.
        plain += inflater.decompress(inflater.unconsumed_tail, 1)
    except zlib.error as error:
        raise ImageError(name, 0, "damaged gzip data", "what gzip -t takes") from error
    if len(plain) > most:
        raise ImageError(name, 0, f"gzip data of more than {most} bytes", "a smaller kernel")
    if not inflater.eof:
        raise ImageError(name, len(data), "gzip data is cut off", "all of it")
    return plain


def arm64_image(data: bytes) -> Arm64Image:
    """By the header of an Image; of other bytes nothing is known."""
    if len(data) <= _ARM64.size:
        return Arm64Image(None, None)
    offset, size, magic = _ARM64.unpack_from(data)
    if magic != _ARM64_MAGIC or not size:
        return Arm64Image(None, None)
    return Arm64Image(offset, size)


def uimage(file: File, *types: int) -> Uimage | None:
    """None if the file is no uImage. ``ImageError`` if it is none of these types, damaged or too large."""
    data, name = file.data, file.name
    if len(data) < _UIMAGE.size:
        return None
    magic, _, _, size, load, entry, _, system, arch, kind, compression, _ = _UIMAGE.unpack_from(data)
    if magic != _UIMAGE_MAGIC:
        return None
    if kind not in types:
        raise ImageError(name, 30, f"uImage of type {kind}", f"type {' or '.join(map(str, types))}")
    if size > len(data) - _UIMAGE.size:
        raise ImageError(name, 12, f"uImage of {size} bytes is cut off", f"{len(data) - _UIMAGE.size} bytes, as it has")
    content = data[_UIMAGE.size : _UIMAGE.size + size]
    # A RAM disk is the kernel's to unpack.
    if kind != RAMDISK and compression != _PLAIN:
        if compression != _GZIPPED:
            raise ImageError(name, 31, f"uImage with compression {compression}", "0 (none) or 1 (gzip)")
        if content[:2] != GZIP:
            raise ImageError(name, _UIMAGE.size, "no gzip data", "gzip data, by its header")
        content = unzip(content, name, MAX_UIMAGE_UNZIPPED)
    return Uimage(load, entry, kind, system, arch, content)


def ramdisk(file: File) -> bytes:
    """What is put into memory of an initrd."""
    wrapped = uimage(file, RAMDISK)
    return file.data if wrapped is None else wrapped.data


def arch_of(file: File) -> str | None:
    """The name of the arch (``rrgdb.arch.ARCHES``) whose ``virt`` board takes this kernel or firmware; None if the file
    does not say. RISC-V files that are no ELF files do not tell their width: riscv64. Raises ``ImageError``."""
    data = file.data
    if is_elf(data):
        return load_elf(data, file.name).arch.name
    if len(data) >= _UIMAGE.size and int.from_bytes(data[:4], "big") == _UIMAGE_MAGIC:
        return _UIMAGE_ARCHES.get(data[29])
    if data[:2] == GZIP:
        try:
            data = zlib.decompressobj(wbits=31).decompress(data, _ARM64.size + 1)
        except zlib.error:
            return None
    for at, magic, arch in (
        (_ARM64.size - len(_ARM64_MAGIC), _ARM64_MAGIC, "aarch64"),
        (_RISCV_MAGIC_AT, _RISCV_MAGIC, "riscv64"),
        (_ZIMAGE_MAGIC_AT, _ZIMAGE_MAGIC, "arm"),
    ):
        if data[at : at + len(magic)] == magic:
            return arch
    return None
