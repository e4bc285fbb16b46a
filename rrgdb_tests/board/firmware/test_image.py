"""Images: what is accepted, how it is placed, and one clear line for everything else."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrgdb.arch import ARCHES
from rrgdb.board.boards import BOARDS, default_board
from rrgdb.board.firmware.image import Image, ImageError, Placed, load_image, load_raw, place_image
from rrgdb.board.spec import MIB
from rrgdb_tests.board.elf_builder import (
    EM_386,
    EM_AARCH64,
    EM_ARM,
    EM_MIPS,
    EM_RISCV,
    EM_X86_64,
    ET_CORE,
    ET_DYN,
    ET_REL,
    PT_INTERP,
    PT_NOTE,
    Elf,
    Seg,
)

BASE = 0x80000000
CODE = bytes(range(64))
KINDS = {
    "riscv64": (EM_RISCV, 64, BASE),
    "riscv32": (EM_RISCV, 32, BASE),
    "arm": (EM_ARM, 32, 0x40100000),
    "aarch64": (EM_AARCH64, 64, 0x40100000),
    "i386": (EM_386, 32, 0x100000),
    "x86_64": (EM_X86_64, 64, 0x100000),
}


def elf(**changes: Any) -> bytes:
    segments = changes.pop("segments", None) or [Seg(BASE, CODE, memsz=128)]
    return Elf(segments=segments, entry=changes.pop("entry", BASE), **changes).build()


def place(image: Image, **options: Any) -> Placed:
    board = default_board(image.arch.name)
    return place_image(image, board, board.ram(options.pop("ram", board.default_ram)), **options)


@pytest.mark.parametrize("name", KINDS)
def test_every_arch(name: str) -> None:
    machine, bits, base = KINDS[name]
    data = Elf([Seg(base, CODE, memsz=4096), Seg(base + 8192, b"data")], base + 8, machine, bits).build()
    image = place(load_image(data, "a.elf"))
    assert image.arch is ARCHES[name]
    assert image.entry == base + 8
    assert [(s.paddr, s.data, s.memsz) for s in image.segments] == [(base, CODE, 4096), (base + 8192, b"data", 4)]
    top = default_board(name).ram_base + 128 * MIB - 16
    assert image.stack == (top - 0x10000, top)
    assert image.heap == (base + 8208, top - 0x10000)
    assert image.registers == {}


def test_loads_at_physical_addresses_and_translates_the_entry() -> None:
    data = elf(segments=[Seg(0x1000, CODE, paddr=BASE), Seg(0x2000, CODE, paddr=BASE + 64)], entry=0x2010)
    image = place(load_image(data, "a.elf"))
    assert [s.paddr for s in image.segments] == [BASE, BASE + 64]
    assert image.entry == BASE + 64 + 0x10


def test_other_program_headers_and_empty_segments_do_not_load() -> None:
    data = elf(segments=[Seg(0, b"note", type=PT_NOTE), Seg(0, b""), Seg(BASE, CODE)])
    assert [s.paddr for s in place(load_image(data, "a.elf")).segments] == [BASE]


def test_segments_may_touch() -> None:
    data = elf(segments=[Seg(BASE + 64, CODE), Seg(BASE, CODE)])
    assert len(place(load_image(data, "a.elf")).segments) == 2


def test_zeros_at_a_load_address_give_way_to_another_segment() -> None:
    """``.data`` and ``.bss`` run elsewhere than they are stored (``AT>``); ``.rodata`` is stored behind ``.data``."""
    run = BASE + MIB
    data = elf(segments=[Seg(BASE, CODE), Seg(run, b"data", paddr=BASE + 64, memsz=4096), Seg(BASE + 68, b"rodata")])
    image = place(load_image(data, "a.elf"))
    assert [(s.paddr, s.data, s.memsz) for s in image.segments] == [
        (BASE, CODE, 64),
        (BASE + 64, b"data", 4),
        (BASE + 68, b"rodata", 6),
    ]
    # In whichever order, and where nothing but zeros is left of the segment, or of both.
    data = elf(segments=[Seg(BASE + 32, b"", memsz=64), Seg(run, b"", paddr=BASE + 40, memsz=64), Seg(BASE, CODE)])
    assert [(s.paddr, s.memsz) for s in place(load_image(data, "a.elf")).segments] == [(BASE, 64)]
    # Bytes of the file still must not overlap.
    data = elf(segments=[Seg(BASE, CODE), Seg(run, b"data", paddr=BASE + 60, memsz=4096)])
    with pytest.raises(ImageError, match="overlap"):
        load_image(data, "a.elf")


def test_the_entry_is_translated_by_code_whose_bytes_hold_it() -> None:
    """QEMU: by the last executable segment with another load address."""
    overlays = [Seg(0x1000, CODE, paddr=BASE), Seg(0x1000, CODE, paddr=BASE + 64)]
    assert load_image(elf(segments=overlays, entry=0x1004), "a.elf").entry == BASE + 64 + 4
    data = bytearray(elf(segments=overlays, entry=0x1004))
    data[64 + 56 + 4] = 6  # the second one is not executable
    assert load_image(bytes(data), "a.elf").entry == BASE + 4
    beyond = [Seg(BASE, CODE), Seg(BASE - 64, b"1234", paddr=BASE + 64, memsz=128)]
    assert load_image(elf(segments=beyond, entry=BASE + 4), "a.elf").entry == BASE + 4


def headed(bits: int, machine: int, base: int, notes: bytes = b"") -> bytes:
    """As a linker makes it that was told the address of the code alone: the file's first page, with the headers, goes
    one page lower."""
    plain = Elf([Seg(base, b"", offset=0), Seg(0, b"", type=PT_NOTE)], base + 16, machine, bits)
    head = len(plain.build())
    first, second = plain.segments
    first.vaddr, first.filesz, first.memsz = base - 4096, 4096 + len(CODE), 4096 + 128
    second.offset, second.filesz = head, len(notes)
    return (plain.build() + notes).ljust(4096, b"\0") + CODE


@pytest.mark.parametrize("name", ["riscv64", "riscv32", "i386", "x86_64"])
@pytest.mark.parametrize("notes", [b"", b"GNU\0build id"])
def test_headers_below_ram_are_left_out(name: str, notes: bytes) -> None:
    machine, bits, base = KINDS[name]
    image = place(load_image(headed(bits, machine, base, notes), "a.elf"))
    assert [(s.paddr, s.vaddr, s.data, s.memsz, s.offset) for s in image.segments] == [(base, base, CODE, 128, 4096)]
    assert image.left_out == (f"a.elf: its headers at {base - 4096:#x}-{base - 1:#x} lie outside RAM and are left out")
    assert image.entry == base + 16


def test_a_segment_of_headers_alone_is_left_out() -> None:
    data = Elf([Seg(0x10000, b"", offset=0, filesz=120, memsz=120), Seg(BASE, CODE)], BASE).build()
    image = place(load_image(data, "a.elf"))
    assert [s.paddr for s in image.segments] == [BASE]
    assert "headers at 0x10000-0x10077 lie outside RAM" in image.left_out
    with pytest.raises(ImageError, match="nothing but headers, at 0x10000-0x10077"):
        place(load_image(Elf([Seg(0x10000, b"", offset=0, filesz=120, memsz=120)], 0x10000).build(), "a.elf"))


def test_multiboot_with_headers_below_ram() -> None:
    data = headed(32, EM_386, 0x100000)
    data = data[:4096] + header(3) + data[4096 + 12 :]
    image = place(load_image(data, "kernel"))
    assert image.segments[0].paddr == 0x100000
    assert image.registers["eax"] == 0x2BADB002


@pytest.mark.parametrize("at", [160, 4095])
def test_what_is_no_header_is_not_left_out(at: int) -> None:
    data = bytearray(headed(64, EM_RISCV, BASE))
    data[at + 40] = 1
    with pytest.raises(ImageError, match="lies outside RAM") if at + 40 < 4096 else contextlib.nullcontext():
        place(load_image(bytes(data), "a.elf"))


@pytest.mark.parametrize(
    "outside", [Seg(BASE - 2 * MIB, b"", memsz=4096), Seg(BASE - 4096, b"", memsz=8192), Seg(BASE - 64, bytes(64))]
)
def test_zeros_below_ram_are_no_headers(outside: Seg) -> None:
    with pytest.raises(ImageError, match=r"lies outside RAM|overlap"):
        place(load_image(elf(segments=[outside, Seg(BASE + 4096, CODE)], entry=BASE + 4096), "a.elf"))


def test_in_ram_headers_are_loaded() -> None:
    image = place(load_image(headed(64, EM_RISCV, BASE + MIB), "a.elf"))
    assert image.left_out == ""
    assert image.segments[0].data[:4] == b"\x7fELF"


REJECTED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "starts with nothing; expected an ELF file"),
    "text": (b"#!/bin/sh\n", "starts with 23212f62; expected an ELF file"),
    "cut ident": (elf()[:7], "offset 0x7: ELF header is cut off"),
    "cut header": (elf()[:40], "offset 0x0: ELF header is cut off or malformed"),
    "class": (elf()[:4] + b"\x03" + elf()[5:], "offset 0x4: ELF class 3"),
    "encoding": (elf()[:5] + b"\x00" + elf()[6:], "offset 0x5: ELF data encoding 0"),
    "big-endian": (elf(machine=EM_MIPS, encoding=2), "big-endian"),
    "machine": (elf(machine=EM_MIPS, bits=32), "unsupported ELF machine EM_MIPS"),
    "unknown machine": (elf(machine=0xF00D), "unsupported ELF machine 61453"),
    "x32": (elf(machine=EM_X86_64, bits=32), "EM_X86_64, 32-bit"),
    "object": (elf(type=ET_REL), "offset 0x10: relocatable object file (ET_REL)"),
    "core": (elf(type=ET_CORE), "core dump"),
    "pie": (elf(type=ET_DYN), "Linux programs are not supported yet"),
    "no type": (elf(type=0xFE00), "offset 0x10: ELF type"),
    "dynamic": (
        elf(segments=[Seg(0, b"/lib/ld.so\0", type=PT_INTERP), Seg(BASE, CODE)]),
        "(PT_INTERP); Linux programs are not supported yet",
    ),
    "no headers": (elf(phnum=0), "offset 0x38: 0 segments"),
    "many headers": (elf(phnum=0xFFFF), "offset 0x38: 65535 segments"),
    "headers beyond": (elf(phoff=10_000), "offset 0x2710: 1 program headers are cut off"),
    "headers far beyond": (elf(phoff=2**64 - 1), "program headers are cut off"),
    "cut headers": (elf()[:100], "offset 0x40: 1 program headers are cut off"),
    "small entries": (elf(phentsize=8), "offset 0x36: e_phentsize 8; expected at least 56"),
    "nothing to load": (elf(segments=[Seg(0, b"x", type=PT_NOTE)]), "no segment to load"),
    "cut segment": (elf()[:-1] + b"", "segment 0x80000000 is cut off; expected 64 bytes"),
    "filesz": (elf(segments=[Seg(BASE, CODE, memsz=8)]), "p_filesz 0x40; expected at most p_memsz 0x8"),
    "huge file part": (elf(segments=[Seg(BASE, CODE, filesz=2**62, memsz=2**62)]), "segments of more bytes than"),
    "huge memsz": (elf(segments=[Seg(BASE, CODE, memsz=2**40)]), "p_memsz 0x10000000000; expected at most"),
    "wraps": (elf(segments=[Seg(2**64 - 64, CODE, memsz=65)]), "ends beyond the address space"),
    "overlap": (
        elf(segments=[Seg(BASE, CODE), Seg(BASE + 32, CODE)]),
        "segments 0x80000000-0x8000003f and 0x80000020-0x8000005f overlap",
    ),
    "shared": (elf(segments=[Seg(BASE + i * 64, b"", offset=0, filesz=64) for i in range(30)]), "more bytes than"),
    "entry": (elf(entry=BASE + 128), "entry 0x80000080 is in no segment; expected 0x80000000-0x8000007f"),
    "odd entry": (elf(entry=BASE + 1), "entry 0x80000001 is misaligned; expected a multiple of 2"),
    "below RAM": (elf(segments=[Seg(0x70000000, CODE)], entry=0x70000000), "lies outside RAM; expected 0x80000000-"),
    "beyond RAM": (
        elf(segments=[Seg(BASE, CODE, memsz=129 * MIB)]),
        "lies outside RAM; expected 0x80000000-0x87ffffff",
    ),
    "device": (
        elf(segments=[Seg(0x0FFFFFF0, CODE)], entry=0x0FFFFFF0),
        "lies across device serial0 at 0x10000000; expected RAM (0x80000000-0x87ffffff)",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
def test_rejected(case: str) -> None:
    data, message = REJECTED[case]
    with pytest.raises(ImageError) as caught:
        place(load_image(data, "bad.elf"))
    text = str(caught.value)
    assert message in text
    assert text.startswith("bad.elf: offset 0x")
    assert "; expected " in text
    assert "\n" not in text


def test_wrong_machine_for_the_board() -> None:
    image = load_image(elf(), "a.elf")
    with pytest.raises(ImageError, match="image for riscv64; expected aarch64 for board aarch64-virt"):
        place_image(image, BOARDS["aarch64-virt"], BOARDS["aarch64-virt"].ram(128 * MIB))


@pytest.mark.parametrize("start", [0x9FFF0, 0xA0000, 0xFFFF0])
def test_pc_hole_is_not_ram(start: int) -> None:
    image = load_image(Elf([Seg(start, CODE)], start, EM_386, 32).build(), "a.elf")
    with pytest.raises(ImageError, match="outside RAM; expected 0x0-0x9ffff or 0x100000-"):
        place(image)


def test_raw() -> None:
    image = place(load_raw(CODE, "a.bin", ARCHES["aarch64"], 0x40000000))
    assert (image.entry, image.segments[0].data) == (0x40000000, CODE)
    assert load_raw(CODE, "a.bin", ARCHES["aarch64"], 0x40000000, 0x40000008).entry == 0x40000008
    with pytest.raises(ImageError, match="in no segment"):
        load_raw(CODE, "a.bin", ARCHES["aarch64"], 0x40000000, 0)
    with pytest.raises(ImageError, match="raw image of 0 bytes"):
        load_raw(b"", "a.bin", ARCHES["aarch64"], 0x40000000)
    for load in (-1, 1 << 32):
        with pytest.raises(ImageError, match="expected an address of 32 bits"):
            load_raw(CODE, "a.bin", ARCHES["i386"], load)


MAGIC = 0x1BADB002


def header(flags: int = 0, *addresses: int, checksum: int | None = None) -> bytes:
    total = -(MAGIC + flags) & 0xFFFFFFFF if checksum is None else checksum
    return struct.pack(f"<III{len(addresses)}I", MAGIC, flags, total, *addresses)


def boot(code: bytes, base: int = 0x100000, **changes: Any) -> bytes:
    return Elf([Seg(base, code, **changes)], base, EM_386, 32).build()


def test_multiboot_elf() -> None:
    image = place(load_image(boot(b"\x90" * 4 + header(3) + CODE), "kernel"), args="a=1 b")
    info = image.segments[-1]
    assert image.registers == {"eax": 0x2BADB002, "ebx": info.paddr}
    assert info.paddr == 0x9F000
    flags, lower, upper = struct.unpack_from("<III", info.data, 0)
    assert flags & 0x45 == 0x45
    assert (lower, upper) == (640, 127 * 1024)
    (line,) = struct.unpack_from("<I", info.data, 16)
    assert info.data[line - info.paddr :].split(b"\0")[0] == b"a=1 b"
    length, address = struct.unpack_from("<II", info.data, 44)
    entries = list(struct.iter_unpack("<IQQI", info.data[address - info.paddr :][:length]))
    assert entries == [(20, 0, 0xA0000, 1), (20, 0x100000, 127 * MIB, 1)]


@pytest.mark.parametrize("checksum", [0, 1])
def test_no_multiboot_header_no_registers(checksum: int) -> None:
    image = place(load_image(boot(header(0, checksum=checksum) + CODE), "kernel"))
    assert image.registers == {}
    assert len(image.segments) == 1


def test_multiboot_info_moves_out_of_the_way() -> None:
    low = Elf([Seg(0x9F800, b"low!"), Seg(0x100000, header(0) + CODE, memsz=4097)], 0x100000, EM_386, 32).build()
    assert place(load_image(low, "kernel")).registers["ebx"] == 0x102000
    full = Elf([Seg(0x9F800, b"low!"), Seg(0x100000, header(0) + CODE, memsz=127 * MIB)], 0x100000, EM_386, 32).build()
    with pytest.raises(ImageError, match="no room for the Multiboot information block"):
        place(load_image(full, "kernel"))
    with pytest.raises(ImageError, match="command line of 3001 bytes; expected at most 2048"):
        place(load_image(low, "kernel"), args="x" * 3000)


def test_multiboot_addresses_of_an_image_that_is_no_elf() -> None:
    flat = b"junk" + header(0x10000, 0x200000 + 8, 0x200000 + 8, 0, 0x210000, 0x20000C) + CODE
    image = place(load_image(flat, "flat"))
    assert (image.segments[0].paddr, image.segments[0].data, image.entry) == (0x200008, flat[4:], 0x20000C)
    assert image.segments[0].end == 0x210000
    assert image.registers["eax"] == 0x2BADB002


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (boot(header(0x80)), "requires features 0x80"),
        (header(0x10000, 0x100000), "Multiboot header is cut off"),
        (header(0x10000, 0x100000, 0x200000, 0, 0, 0), "header_addr 0x100000 and load_addr 0x200000"),
        (header(0x10000, 0x100004, 0x100000, 0, 0, 0), "header_addr"),
        (header(0x10000, 0x100000, 0x100000, 0x200000, 0, 0x100000), "load_end_addr 0x200000"),
        (header(0x10000, 0x100000, 0x100000, 0x1, 0, 0x100000), "load_end_addr 0x1;"),
        (header(0x10000, 0x100000, 0x100000, 0, 0, 0), "entry 0x0 is in no segment"),
        (header(0x10000, 0x100000, 0x100000, 0, 0xFFFFFFFF, 0x100000), "outside RAM"),
        (header(0), "starts with 02b0ad1b; expected an ELF file"),
    ],
)
def test_multiboot_rejected(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match="kernel: offset 0x") as caught:
        place(load_image(data, "kernel"))
    assert message in str(caught.value)


def attempt(data: bytes) -> None:
    try:
        image = place(load_image(data, "fuzz"))
    except ImageError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert message.startswith("fuzz: offset 0x")
        assert "\n" not in message
        return
    for segment in image.segments:
        assert len(segment.data) <= segment.memsz
        assert any(base <= segment.paddr and segment.end <= base + size for base, size in image.ram.regions)
    assert any(s.paddr <= image.entry < s.end for s in image.segments)


SEEDS = [
    *(
        Elf([Seg(base, CODE, memsz=4096), Seg(base + 8192, b"data")], base + 8, machine, bits).build()
        for machine, bits, base in KINDS.values()
    ),
    boot(header(3) + CODE),
    header(0x10000, 0x100000, 0x100000, 0, 0x100400, 0x100000) + CODE,
]
WORDS = st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63, 2**64 - 1])
DAMAGE = st.lists(st.tuples(st.integers(0, 300), st.sampled_from([1, 2, 4, 8]), WORDS), min_size=1, max_size=6)


def damaged(seed: bytes, damage: list[tuple[int, int, int]], length: int | None) -> bytes:
    data = bytearray(seed)
    for at, size, word in damage:
        offset = at % len(data)
        data[offset : offset + size] = word.to_bytes(8, "little")[: min(size, len(data) - offset)]
    return bytes(data[:length])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SEEDS), DAMAGE, st.one_of(st.none(), st.integers(0, 300)))
def test_fuzz_damage(seed: bytes, damage: list[tuple[int, int, int]], length: int | None) -> None:
    attempt(damaged(seed, damage, length))


@given(st.binary(max_size=300), st.booleans())
def test_fuzz_bytes(data: bytes, with_magic: bool) -> None:
    attempt(b"\x7fELF" + data if with_magic else data)


@pytest.mark.slow
@settings(max_examples=30_000, deadline=None)
@given(st.sampled_from(SEEDS), DAMAGE, st.one_of(st.none(), st.integers(0, 300)))
def test_fuzz_damage_exhaustive(seed: bytes, damage: list[tuple[int, int, int]], length: int | None) -> None:
    attempt(damaged(seed, damage, length))


@pytest.mark.slow
def test_every_byte_of_the_headers() -> None:
    for seed in SEEDS:
        for offset in range(min(len(seed), 180)):
            for value in (0, 1, 2, 0x40, 0x7F, 0x80, 0xFF):
                attempt(seed[:offset] + bytes([value]) + seed[offset + 1 :])
        for length in range(len(seed)):
            attempt(seed[:length])


def test_the_entry_of_an_arm_image_chooses_the_instruction_set() -> None:
    base = 0x40100000

    def loaded(entry: int) -> Image:
        return place(load_image(Elf([Seg(base, CODE)], entry, EM_ARM, 32).build(), "a.elf"))

    assert loaded(base + 4).entry == base + 4
    assert loaded(base + 3).entry == base + 3
    with pytest.raises(ImageError, match="misaligned; expected a multiple of 4, or odd for Thumb"):
        loaded(base + 2)
