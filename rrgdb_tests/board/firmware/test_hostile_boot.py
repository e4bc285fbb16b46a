"""Files to boot from that are none, or cannot be: one clear line for each, and for anything a place in memory."""

from __future__ import annotations

import zlib
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrgdb.arch import ARCHES
from rrgdb.board.boards import BOARDS, earlier
from rrgdb.board.firmware.boot import Boot, File, ImageError, Loader, Placed, boot
from rrgdb.board.firmware.devicetree import MAX_BLOB, Node, encode
from rrgdb.board.firmware.kernels import unzip
from rrgdb.board.spec import MIB
from rrgdb_tests.board.elf_builder import EM_AARCH64, EM_RISCV, Seg
from rrgdb_tests.board.firmware.placement import CASES, arm64_image, elf, hexadecimal, tree, u_image, zipped

RV, A64 = 0x80000000, 0x40000000


def place(board: str, *, loaders: tuple[Loader, ...] = (), memory: int = 16, **files: bytes) -> Placed:
    spec = BOARDS[board]
    named: dict[str, Any] = {name: File(name, data) for name, data in files.items()}
    model = ARCHES[spec.arches[0]].models[0]
    return boot(Boot(**named, loaders=loaders), spec, spec.ram(memory * MIB), model)


BOMB = zlib.compress(bytes(1 << 20), 9, wbits=31)
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "empty kernel": ("riscv64-virt", {"kernel": b""}, "kernel: offset 0x0: empty file; expected a kernel"),
    "empty arm kernel": ("arm-virt", {"kernel": b""}, "kernel: offset 0x0: empty file; expected a kernel"),
    "empty firmware": ("riscv64-virt", {"bios": b""}, "bios: offset 0x0: empty file; expected firmware"),
    "empty flash": ("arm-virt", {"bios": b""}, "bios: offset 0x0: firmware of 0 bytes; expected 1 to 67108864"),
    "large firmware": ("arm-virt", {"bios": bytes((64 << 20) + 1)}, "bios: offset 0x0: firmware of 67108865 bytes"),
    "large kernel": ("riscv64-virt", {"kernel": bytes(17 << 20)}, "kernel: offset 0x0: segment 0x80000000-0x810fffff"),
    "other CPU": (
        "riscv64-virt", {"kernel": elf(EM_AARCH64, 64, Seg(RV, b"1234"))},
        "kernel: offset 0x12: image for aarch64; expected riscv64 for board riscv64-virt",
    ),
    "other width": (
        "riscv32-virt", {"bios": elf(EM_RISCV, 64, Seg(RV, b"1234"))},
        "bios: offset 0x12: image for riscv64; expected riscv32",
    ),
    "ELF elsewhere": (
        "riscv64-virt", {"kernel": elf(EM_RISCV, 64, Seg(0x60000000, b"1234"))},
        "kernel: offset 0x78: segment 0x60000000-0x60000003 lies outside RAM; expected",
    ),
    "ELF over a device": (
        "riscv64-virt", {"kernel": elf(EM_RISCV, 64, Seg(0x10000000, b"1234"))},
        "kernel: offset 0x78: segment 0x10000000-0x10000003 lies across device serial0",
    ),
    "Image too large": (
        "aarch64-virt", {"kernel": arm64_image(99, 0, 1 << 40)},
        "kernel: offset 0x0: kernel of 1099511627776 bytes; expected RAM of 16777216 is larger",
    ),
    "Image far away": (
        "aarch64-virt", {"kernel": arm64_image(99, (1 << 64) - 4096, 99)}, "kernel: offset 0x0: segment",
    ),
    "kernel over firmware": (
        "riscv64-virt", {"bios": bytes(100), "kernel": elf(EM_RISCV, 64, Seg(RV + 96, b"12345"))},
        "kernel: offset 0x78: kernel at 0x80000060-0x80000064 overlaps bios at 0x80000000-0x80000063; expected each",
    ),
    "initrd over tree": (
        "riscv64-virt", {"kernel": b"k", "initrd": bytes(7 << 20)},
        "device tree: offset 0x0: device tree at 0x80e00000-0x80efffff overlaps initrd at 0x80800000-0x80efffff",
    ),
    "initrd beyond RAM": ("arm-virt", {"kernel": b"k", "initrd": bytes(9 << 20)}, "initrd: offset 0x0: segment"),
    "no room for the tree": (
        "arm-virt", {"kernel": b"k", "initrd": bytes(8 << 20)}, "device tree: offset 0x0: segment 0x41000000",
    ),
    "kernel over stub": (
        "arm-virt", {"kernel": u_image(b"kernel", A64, A64)},
        "boot stub: offset 0x0: boot stub at 0x40000000-0x4000001b overlaps kernel at 0x40000000-0x40000005",
    ),
    "uImage of a script": ("arm-virt", {"kernel": u_image(b"", 0, 0, kind=6)}, "kernel: offset 0x1e: uImage of type 6"),
    "uImage by bzip2": ("arm-virt", {"kernel": u_image(b"", 0, 0, comp=2)}, "kernel: offset 0x1f: uImage with"),
    "uImage by none": ("arm-virt", {"kernel": u_image(b"x", 0, 0, comp=1)}, "kernel: offset 0x40: no gzip data"),
    "uImage cut off": ("arm-virt", {"kernel": u_image(b"x", 0, 0)[:-1]}, "kernel: offset 0xc: uImage of 1 bytes"),
    "uImage without place": (
        "riscv64-virt", {"kernel": u_image(b"x", 0, 0, kind=14)}, "kernel: offset 0x1e: uImage of type 14; expected",
    ),
    "kernel as initrd": (
        "arm-virt", {"kernel": b"k", "initrd": u_image(b"x", 0, 0)}, "initrd: offset 0x1e: uImage of type 2; expected",
    ),
    "gzip damaged": ("aarch64-virt", {"kernel": b"\x1f\x8bxxx"}, "kernel: offset 0x0: damaged gzip data; expected"),
    "gzip cut off": ("aarch64-virt", {"kernel": zipped(bytes(99))[:-9]}, "gzip data is cut off; expected all of it"),
    "tree of nothing": ("arm-virt", {"dtb": b"", "kernel": b"k"}, "dtb: offset 0x0: starts with nothing; expected"),
    "tree without cells": (
        "arm-virt", {"dtb": encode(Node()), "kernel": b"k"},
        "dtb: offset 0x0: device tree: #address-cells missing in the root; expected a cell, 1 or 2",
    ),
    "tree of three cells": ("arm-virt", {"dtb": tree(3), "kernel": b"k"}, "#address-cells 00000003 in the root"),
    "tree too large": (
        "riscv64-virt", {"dtb": tree(2).ljust(MAX_BLOB // 2, b"\0")}, "dtb: offset 0x0: device tree of 1048576 bytes",
    ),
    "data elsewhere": (
        "riscv64-virt", {"loaders": (Loader(0x60000000, data=b"1"),)}, "-device loader: offset 0x0: segment 0x60000000",
    ),
    "file at the end": (
        "riscv64-virt", {"loaders": (Loader((1 << 64) - 1, File("f", b"12"), raw=True),)}, "f: offset 0x0: segment",
    ),
    "two files": (
        "riscv64-virt", {"loaders": (Loader(RV, File("f", b"12")), Loader(RV + 1, File("g", b"12")))},
        "g: offset 0x0: g at 0x80000001-0x80000002 overlaps f at 0x80000000-0x80000001",
    ),
    "Intel HEX of another sum": (
        "riscv64-virt", {"loaders": (Loader(0, File("f", b":0000000100\n")),)}, "f: offset 0x0: line 1: b':0000000100'",
    ),
    "Intel HEX of nothing": (
        "riscv64-virt", {"loaders": (Loader(0, File("f", hexadecimal((0, 9, b"")))),)}, "f: offset 0x0: line 1: b':",
    ),
    "Intel HEX cut off": (
        "riscv64-virt", {"loaders": (Loader(0, File("f", hexadecimal((0, 0, b"1"))[:15])),)}, "without an end",
    ),
    "firmware of a PC": ("i386-pc", {"bios": b"1"}, "bios: offset 0x0: -bios for board i386-pc; expected"),
    "no kernel of a PC": ("i386-pc", {}, "-device loader: offset 0x0: no kernel, or more, for board i386-pc"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_one_clear_line(name: str) -> None:
    board, files, said = REFUSED[name]
    with pytest.raises(ImageError) as caught:
        place(board, **files)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_gzip_is_bounded() -> None:
    assert unzip(BOMB, "k", 1 << 20) == bytes(1 << 20)
    with pytest.raises(ImageError, match=r"^k: offset 0x0: gzip data of more than 1048575 bytes; expected a smaller"):
        unzip(BOMB, "k", (1 << 20) - 1)
    assert unzip(zipped(b"kernel") + b"behind", "k") == b"kernel"


@pytest.mark.parametrize("spec", [b for b in earlier() if "virt" in b.name], ids=lambda b: f"{b.name} {b.revision}")
def test_earlier_boards_boot_nothing(spec: Any) -> None:
    model = ARCHES[spec.arches[0]].models[0]
    with pytest.raises(ImageError, match=rf"^k: offset 0x0: revision {spec.revision} of board {spec.name}; expected"):
        boot(Boot(kernel=File("k", b"kernel")), spec, spec.ram(16 * MIB), model)


@given(st.data(), st.sampled_from(sorted(CASES)))
@settings(max_examples=300, deadline=None)
def test_any_file_has_a_place_or_is_refused(data: st.DataObject, name: str) -> None:
    """Files of each format with damaged bytes, or cut off."""
    case = CASES[name]
    files = dict(case.files)
    which = data.draw(st.sampled_from(sorted(files)))
    damaged = bytearray(files[which])
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, min(len(damaged) - 1, 400)))
        damaged[at] = data.draw(st.sampled_from((0, 1, 2, 0x7F, 0x80, 0xFF)))
    files[which] = bytes(damaged[: data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))])
    changed = replace(case, files=files)
    try:
        placed = changed.ours()
    except ImageError:
        return
    spec = BOARDS[case.board]
    rooms = [*placed.ram.regions, *((rom.base, rom.size) for rom in spec.roms)]
    numbers = sum("data" in words for words, _ in case.loaders)
    for segment in placed.segments:
        assert len(segment.data) <= segment.memsz
        assert any(base <= segment.paddr and segment.end <= base + size for base, size in rooms)
    parts = sorted((s.paddr, s.end) for s in placed.segments[numbers:])
    assert all(below <= above for (_, below), (above, _) in pairwise(parts))
    assert 0 <= placed.entry < 1 << placed.arch.bits
