"""Kernels, firmware and what goes with them: where QEMU puts them, and one clear line for whatever cannot be."""

from __future__ import annotations

import shutil
import struct

import pytest

from rrgdb.arch import ARCHES
from rrgdb.board.boards import BOARDS
from rrgdb.board.firmware.boot import (
    Boot,
    File,
    ImageError,
    Loader,
    Placed,
    arch_of,
    boot,
    default_firmware,
    seed_sizes,
)
from rrgdb.board.firmware.devicetree import decode
from rrgdb.board.firmware.image import load_raw, place_image
from rrgdb.board.machine import Board
from rrgdb.board.spec import MIB
from rrgdb.engine.memory import Ram
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb.guest import End
from rrgdb_tests.board.elf_builder import EM_AARCH64, EM_ARM, EM_MIPS, EM_RISCV, Seg
from rrgdb_tests.board.fakes import FakeHost
from rrgdb_tests.board.firmware.placement import (
    CASES,
    PROGRAMS,
    agree,
    arm64_image,
    contents,
    elf,
    recorded,
    tree,
    u_image,
    zipped,
)
from rrgdb_tests.engine.unicorn.rig import assemble


@pytest.mark.parametrize("name", CASES)
def test_all_lies_where_qemu_puts_it(name: str) -> None:
    agree(CASES[name].ours(), recorded()[name])


@pytest.mark.qemu
@pytest.mark.parametrize("name", CASES)
def test_it_is_as_the_qemu_that_is_here(name: str) -> None:
    if shutil.which(PROGRAMS[CASES[name].board][0]) is None:
        pytest.skip("QEMU is not installed")
    agree(CASES[name].ours(), CASES[name].qemus())


def started(what: Boot, board: str = "riscv64-virt") -> Board:
    """A machine with 16 MiB that stands before its first instruction."""
    spec = BOARDS[board]
    placed = boot(what, spec, spec.ram(16 * MIB), ARCHES[spec.arches[0]].models[0])
    return Board(spec, UnicornEngine(placed.arch, Ram(spec.memory_bytes(placed.ram))), placed, FakeHost())


SPOILS = {
    "riscv64-virt": (
        EM_RISCV, 64, "a0",
        "li t1, 0x5a\n sb t1, 0(a0)\n sb t1, 100(a0)\n li t0, 0x100000\n li t1, 0x7777\n sw t1, 0(t0)\n nop",
    ),
    "aarch64-virt": (
        EM_AARCH64, 64, "x1",
        "mov w2, #0x5a\n strb w2, [x1]\n strb w2, [x1, #100]\n mov w0, #9\n movk w0, #0x8400, lsl #16\n hvc #0\n nop",
    ),
    "arm-virt": (
        EM_ARM, 32, "r1",
        ".arch_extension virt\n mov r2, #0x5a\n strb r2, [r1]\n strb r2, [r1, #100]\n"
        "mov r0, #9\n orr r0, r0, #0x84000000\n hvc #0\n nop",
    ),
}  # fmt: skip
"""programs that write to their data, whose address is in that register, and behind it, and then reset the machine"""


@pytest.mark.parametrize("name", SPOILS)
def test_a_reset_restores_what_was_loaded(name: str) -> None:
    """Files, and the zeros behind those of them that hold anything; the rest of RAM stays."""
    machine, bits, register, source = SPOILS[name]
    base = BOARDS[name].ram_base + 0x200000
    data, code = base + 0x100, assemble(name.removesuffix("-virt"), source).ljust(0x100, b"\0") + b"data"
    guest = started(Boot(kernel=File("k", elf(machine, bits, Seg(base, code, memsz=8192)))), name)
    ram, first = guest.engine.ram, guest.engine.pc
    ram.write(base + 8192, b"rest")
    guest.engine.write("pc", base)
    guest.engine.write(register, data)
    seen: set[tuple[bytes, bytes]] = set()
    while guest.engine.pc != first or not seen:
        guest.run_until(guest.engine.icount + 1)
        assert guest.engine.icount < 50
        seen.add((ram.read(data, 1), ram.read(data + 100, 1)))
    assert seen == {(b"d", b"\0"), (b"\x5a", b"\0"), (b"\x5a", b"\x5a")}
    assert (guest.engine.pc, guest.end) == (first, None)
    assert (ram.read(data, 4), ram.read(data + 100, 1), ram.read(base + 8192, 4)) == (b"data", b"\0", b"rest")


@pytest.mark.parametrize("board", PROGRAMS)
def test_fw_cfg_tells_what_qemus_does(board: str) -> None:
    """Its files, but for the tables of ACPI and SMBIOS that it makes for Arm."""
    qemus = {0: b"QEMU", 1: b"\3\0\0\0", 2: bytes(16), 4: b"\1\0", 5: b"\1\0", 0xE: bytes(2), 0x22: b"\xff" * 4}
    told = started(Boot(bios=File("bios", b"123")), board).configuration
    assert {key: value for key, value in told.items() if value and key != 0x19} == qemus
    names = [told[0x19][4 + 64 * n :][8:64].rstrip(b"\0") for n in range(told[0x19][3])]
    assert names == [b"bios-geometry", b"bootorder", b"etc/boot-fail-wait"]
    assert started_image(board).configuration == told


def started_image(board: str) -> Placed:
    spec = BOARDS[board]
    image = load_raw(bytes(16), "raw", ARCHES[spec.arches[0]], spec.ram_base)
    return place_image(image, spec, spec.ram(16 * MIB))


def test_firmware_gets_the_kernel_by_fw_cfg() -> None:
    for board, kernel in (("aarch64-virt", zipped(b"kernel")), ("arm-virt", b"kernel")):
        what = Boot(kernel=File("k", kernel), bios=File("b", b"bios"), initrd=File("i", b"initrd"), append="a=b")
        told = started(what, board).configuration
        assert [told[key] for key in (0x08, 0x11, 0x0B, 0x12, 0x14, 0x15)] == [
            b"\6\0\0\0", b"kernel", b"\6\0\0\0", b"initrd", b"\4\0\0\0", b"a=b\0",
        ]  # fmt: skip


@pytest.mark.parametrize("board", PROGRAMS)
def test_seeds_are_properties_of_chosen(board: str) -> None:
    sizes = seed_sizes(BOARDS[board])
    assert sizes == {"rng-seed": 32} | ({} if "riscv" in board else {"kaslr-seed": 8})
    seeds = {name: contents(size, size) for name, size in sizes.items()}
    for dtb in (None, File("dtb", tree(2))):
        placed = started(Boot(bios=File("bios", b"123"), seeds=seeds, dtb=dtb), board)._placed
        (blob,) = (s.data for s in placed.segments if s.data[:4] == b"\xd0\x0d\xfe\xed")
        chosen = decode(blob.ljust(1 << 20, b"\0")).child("chosen")
        assert chosen is not None
        found = {name: value for name, value in chosen.properties.items() if name.endswith("-seed")}
        assert found == ({} if dtb is not None and "riscv" not in board else seeds)


def test_what_a_board_runs_by_itself() -> None:
    riscv = default_firmware(BOARDS["riscv64-virt"])
    assert riscv is not None
    assert (riscv.package, riscv.paths[-1].endswith("generic/fw_dynamic.bin")) == ("opensbi", True)
    assert default_firmware(BOARDS["aarch64-virt"]) is None
    assert default_firmware(BOARDS["i386-pc"]) is None


FORMATS = {
    "riscv64": (elf(EM_RISCV, 64, Seg(0, b"1234")), bytes(0x38) + b"RSC\x05", u_image(b"", 0, 0, arch=26)),
    "riscv32": (elf(EM_RISCV, 32, Seg(0, b"1234")),),
    "aarch64": (arm64_image(64, 0, 0), zipped(arm64_image(999, 0, 0)), u_image(b"", 0, 0, arch=22)),
    "arm": (bytes(0x24) + b"\x18\x28\x6f\x01", u_image(b"", 0, 0, arch=2)),
    None: (b"", b"x" * 99, zipped(b"short"), u_image(b"", 0, 0, arch=5), b"\x1f\x8bxxx", b"\x27\x05\x19\x56"),
}


@pytest.mark.parametrize("arch", FORMATS)
def test_whose_kernel_it_is(arch: str | None) -> None:
    assert [arch_of(File("k", data)) for data in FORMATS[arch]] == [arch] * len(FORMATS[arch])
    if arch is not None:
        with pytest.raises(ImageError, match=r"^k: offset 0x12: unsupported ELF machine"):
            arch_of(File("k", elf(EM_MIPS, 32, Seg(0, b"1234"))))


VECTORS = struct.pack("<2I", 0x20001000, 0x101).ljust(0x100, b"\0") + b"\x00\xbf" * 8


@pytest.mark.parametrize("kernel", [VECTORS, elf(EM_ARM, 32, Seg(0, VECTORS), entry=0x100)])
def test_m_profile_starts_by_its_vectors(kernel: bytes) -> None:
    guest = started(Boot(kernel=File("k", kernel)), "mps2-an385")
    assert (guest.engine.pc, guest.engine.read("sp"), guest.arch.name) == (0x100, 0x20001000, "armv7m")
    more = (Loader(0x104, start=True), Loader(0x21000000, File("f", b"data")))
    guest = started(Boot(kernel=File("k", kernel), loaders=more), "mps2-an385")
    assert (guest.engine.pc, guest.engine.read("sp")) == (0x104, 0x20001000)
    assert guest.engine.read_memory(0x21000000, 4) == b"data"


def test_an_odd_entry_is_thumb() -> None:
    code = assemble("arm", ".thumb\n movs r0, #7\n movs r1, #8\n nop")
    guest = started(Boot(kernel=File("k", elf(EM_ARM, 32, Seg(0x40200000, code), entry=0x40200001))), "arm-virt")
    assert (guest.engine.pc, guest.engine.read("cpsr")) == (0x40200000, 0x400001F3)
    guest.run_until(2)
    assert (guest.engine.read("r0"), guest.engine.read("r1")) == (7, 8)


def test_registers_are_those_of_power_on() -> None:
    """As QEMU shows them before the first instruction."""
    shown = {
        "aarch64-virt": {"cpsr": 0x400003C5, "sp": 0, "cpacr_el1": 0, "x0": 0, "pc": 0},
        "arm-virt": {"cpsr": 0x400001D3, "sp": 0, "cpacr": 0, "fpexc": 0, "r0": 0, "pc": 0},
        "riscv64-virt": {"mstatus": 0xA00000000, "sp": 0, "a0": 0, "pc": 0x1000},
        "riscv32-virt": {"mstatus": 0, "sp": 0, "a0": 0, "pc": 0x1000},
    }
    for board, registers in shown.items():
        engine = started(Boot(bios=File("bios", b"1234")), board).engine
        assert {name: engine.read(name) for name in registers} == registers


@pytest.mark.parametrize("address", [0, 1, 2, 0x40000001, 0x80000002, 0xFFFFFFFF, 1 << 33, (1 << 64) - 1])
@pytest.mark.parametrize("board", PROGRAMS)
def test_a_cpu_may_start_anywhere(board: str, address: int) -> None:
    """Where there is nothing, it dies of that, or goes on with its exceptions."""
    guest = started(Boot(bios=File("bios", bytes(64)), loaders=(Loader(address, start=True),)), board)
    guest.run_until(20)
    assert guest.engine.icount == 20 or guest.end is not None


@pytest.mark.parametrize(
    ("board", "undefined", "vector"), [("aarch64-virt", "udf #0", 0x200), ("arm-virt", "udf #0", 0x4)]
)
def test_firmware_at_0_has_vectors_there(board: str, undefined: str, vector: int) -> None:
    """Without anything at the vector there is none, and the guest dies of the exception."""
    family = board.removesuffix("-virt")
    code, nop = assemble(family, undefined), assemble(family, "nop")
    kernel = File("k", elf(EM_AARCH64 if family == "aarch64" else EM_ARM, 64 if family == "aarch64" else 32,
                           Seg(0x40400000, code)))  # fmt: skip
    guest = started(Boot(kernel=kernel), board)
    guest.run_until(5)
    assert (guest.engine.icount, guest.end) == (0, End("signal", 4))
    guest = started(Boot(kernel=kernel, loaders=(Loader(vector, File("v", nop * 8), raw=True),)), board)
    guest.run_until(2)
    assert (guest.engine.pc, guest.end) == (vector + 4, None)
