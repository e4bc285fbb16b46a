"""Headers of ELF files beside pyelftools."""

from __future__ import annotations

import io
import random
from contextlib import suppress

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.enums import ENUM_E_MACHINE, ENUM_E_TYPE

from rrgdb.arch import ARCHES
from rrgdb.board.firmware import elf
from rrgdb.board.firmware.multiboot import ImageError
from rrgdb_tests.guests import ARCHES as FAMILIES
from rrgdb_tests.guests import build


@pytest.mark.parametrize("family", FAMILIES)
def test_headers_are_what_pyelftools_reads(family: str) -> None:
    data = build(family, "mixer").read_bytes()
    theirs = ELFFile(io.BytesIO(data))
    header = elf.read_header(data, "x")
    assert (header.bits, header.byteorder == "little") == (theirs.elfclass, theirs.little_endian)
    names = ("entry", "phoff", "ehsize", "phentsize", "phnum")
    assert [getattr(header, name) for name in names] == [theirs.header[f"e_{name}"] for name in names]
    assert elf.machine_name(header.machine) == theirs.header["e_machine"]
    assert elf.type_name(header.type) == theirs.header["e_type"]
    kinds = {"PT_LOAD": elf.PT_LOAD, "PT_NOTE": elf.PT_NOTE, "PT_INTERP": elf.PT_INTERP}
    for ours, segment in zip(elf.read_program_headers(data, "x", header), theirs.iter_segments(), strict=True):
        assert [getattr(ours, name) for name in ours._fields[1:]] == [segment[f"p_{name}"] for name in ours._fields[1:]]
        assert kinds.get(segment["p_type"], ours.type) == ours.type
        assert (segment["p_type"] in kinds) == (ours.type in kinds.values())


def test_big_endian_files_are_read_so() -> None:
    data = bytearray(build("riscv64", "mixer").read_bytes()[:64])
    little = elf.read_header(bytes(data), "x")
    data[5] = 2
    big = elf.read_header(bytes(data), "x")
    assert big.byteorder == "big"
    assert big.machine == int.from_bytes(little.machine.to_bytes(2, "little"), "big")
    assert big.entry == int.from_bytes(little.entry.to_bytes(8, "little"), "big")


def test_names_are_those_of_pyelftools() -> None:
    for name, number in ENUM_E_MACHINE.items():
        if name != "_default_":
            assert ENUM_E_MACHINE[elf.machine_name(number)] == number
    assert {arch.elf_machine for arch in ARCHES.values()} == set(elf._MACHINES.values())
    assert elf.machine_name(0xFFFF) == "65535"
    assert elf.type_name(ENUM_E_TYPE["ET_EXEC"]) == "ET_EXEC"


@pytest.mark.parametrize("family", ["riscv64", "i386"])
def test_whatever_is_cut_off_is_told(family: str) -> None:
    data = build(family, "mixer").read_bytes()
    header = elf.read_header(data, "x")
    ends = header.phoff + header.phnum * header.phentsize
    for size in range(ends):
        with pytest.raises(ImageError, match="x: offset"):
            elf.read_program_headers(data[:size], "x", elf.read_header(data[:size], "x"))


def test_any_header_is_read_or_told() -> None:
    rng = random.Random(1)
    data = build("riscv32", "mixer").read_bytes()[:256]
    for _ in range(2000):
        broken = bytearray(data)
        for _ in range(rng.randrange(1, 6)):
            broken[rng.randrange(4, 120)] = rng.choice((0, 1, 2, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        with suppress(ImageError):
            header = elf.read_header(bytes(broken), "x")
            assert len(elf.read_program_headers(bytes(broken), "x", header)) == header.phnum
