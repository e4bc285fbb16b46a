"""Looking at memory through the guest's page tables: where it is, as the manuals say, and nothing changes."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest

from rrgdb.arch.cpu import MemoryFault
from rrgdb.engine.base import NO_STOPS, Stops, Watch
from rrgdb.engine.paging import riscv, x86
from rrgdb_tests.engine.unicorn.rig import CODE, DATA, DATA_SIZE, Bench, assemble

PAGING, PSE, PAE, LA57 = 1 << 31, 1 << 4, 1 << 5, 1 << 12
S, M, MPRV = 1, 3, 1 << 17


def memory(entries: Mapping[int, int]) -> object:
    def read(address: int, size: int) -> int:
        if address not in entries:
            raise MemoryFault(address)
        return entries[address]

    return read


# name: (bits, CR0, CR3, CR4, entries by physical address, address, where it is)
X86 = {
    "off": (32, 0, 0x1000, 0, {}, 0x12345, 0x12345),
    "two levels": (32, PAGING, 0x1018, 0, {0x1008: 0x2067, 0x2004: 0x5067}, 0x801234, 0x5234),
    "no table": (32, PAGING, 0x1000, 0, {0x1008: 0x2066}, 0x801234, None),
    "no page": (32, PAGING, 0x1000, 0, {0x1008: 0x2067, 0x2004: 0x5066}, 0x801234, None),
    "4 MiB": (32, PAGING, 0x1000, PSE, {0x1008: 0xC00083}, 0x801234, 0xC01234),
    "4 MiB, high": (32, PAGING, 0x1000, PSE, {0x1008: 0xC02083}, 0x801234, 0x1_00C01234),
    "4 MiB, off": (32, PAGING, 0x1000, 0, {0x1008: 0x2083, 0x2004: 0x5001}, 0x801234, 0x5234),
    "PAE": (32, PAGING, 0x1020, PAE, {0x1028: 0x2001, 0x2010: 0x3001, 0x3008: 0x1_00005001}, 0x40401234, 0x1_00005234),
    "PAE, 2 MiB": (32, PAGING, 0x1020, PAE, {0x1028: 0x2001, 0x2010: 0x600083}, 0x40401234, 0x601234),
    "long": (64, PAGING, 0x1000, PAE, {0x1FF8: 0x2003, 0x2FF0: 0x3003, 0x3008: 0x4003, 0x4010: 1 << 63 | 0x5003},
             0xFFFFFFFF80202345, 0x5345),
    "long, 2 MiB": (64, PAGING, 0x1000, PAE, {0x1000: 0x2003, 0x2000: 0x3003, 0x3008: 0x800083}, 0x201234, 0x801234),
    "long, 1 GiB": (64, PAGING, 0x1000, PAE, {0x1000: 0x2003, 0x2008: 0x80000083}, 0x40123456, 0x80123456),
    "long, not canonical": (64, PAGING, 0x1000, PAE, {0x1000: 0x2003}, 0x8000_0000_0000, None),
    "five levels": (64, PAGING, 0x1000, PAE | LA57,
                    {0x1008: 0x2003, 0x2000: 0x3003, 0x3000: 0x4003, 0x4000: 0x5003, 0x5000: 0x6003},
                    1 << 48 | 0x123, 0x6123),
}  # fmt: skip

# name: (bits, privilege, mstatus, satp, entries, address, where it is)
SV32, SV39, SV48 = 1 << 31, 8 << 60, 9 << 60
RISCV = {
    "bare": (64, S, 0, 1, {}, 0x12345, 0x12345),
    "machine mode": (64, M, 0, SV39 | 1, {}, 0x12345, 0x12345),
    "MPRV": (64, M, MPRV | 1 << 11, SV39 | 1, {0x1008: 0x801, 0x2000: 0xC01, 0x3008: 0x1407}, 0x40001234, 0x5234),
    "MPRV to machine mode": (64, M, MPRV | 3 << 11, SV39 | 1, {}, 0x12345, 0x12345),
    "Sv39": (64, S, 0, SV39 | 0xFFFF << 44 | 1, {0x1FF8: 0x801, 0x2FF8: 0xC01, 0x3FF8: 1 << 63 | 0x1407},
             0xFFFFFFFFFFFFF234, 0x5234),
    "Sv39, 2 MiB": (64, S, 0, SV39 | 1, {0x1000: 0x801, 0x2008: 0x100007}, 0x201234, 0x401234),
    "Sv39, 2 MiB misaligned": (64, S, 0, SV39 | 1, {0x1000: 0x801, 0x2008: 0x100407}, 0x201234, None),
    "Sv39, write without read": (64, S, 0, SV39 | 1, {0x1000: 0x100005}, 0x1234, None),
    "Sv39, not valid": (64, S, 0, SV39 | 1, {0x1000: 0x800}, 0x1234, None),
    "Sv39, not canonical": (64, S, 0, SV39 | 1, {0x1000: 0x801}, 1 << 38, None),
    "Sv39, three pointers": (64, S, 0, SV39 | 1, {0x1000: 0x801, 0x2000: 0xC01, 0x3000: 0x1401}, 0x234, None),
    "Sv48": (64, S, 0, SV48 | 1, {0x1008: 0x801, 0x2000: 0xC01, 0x3000: 0x1001, 0x4000: 0x1403},
             1 << 39 | 0x34, 0x5034),
    "Sv32": (32, S, 0, SV32 | 1, {0x1004: 0x801, 0x2008: 0x80001403}, 0x402234, 0x2_00005234),
    "Sv32, 4 MiB": (32, S, 0, SV32 | 1, {0x1004: 0x100003}, 0x402234, 0x402234),
}  # fmt: skip


@pytest.mark.parametrize("what", X86)
def test_x86(what: str) -> None:
    bits, cr0, cr3, cr4, entries, address, found = X86[what]
    registers = {"cr0": cr0, "cr3": cr3, "cr4": cr4}
    assert x86(bits, registers.__getitem__, memory(entries), address) == found  # type: ignore[arg-type]


@pytest.mark.parametrize("what", RISCV)
def test_riscv(what: str) -> None:
    bits, priv, mstatus, satp, entries, address, found = RISCV[what]
    registers = {"priv": priv, "mstatus": mstatus, "satp": satp}
    assert riscv(bits, registers.__getitem__, memory(entries), address) == found  # type: ignore[arg-type]


def test_a_look_sets_no_accessed_bit_and_no_fault_address_on_x86() -> None:
    directory, table = DATA, DATA + 4096
    source = f"mov eax, {directory}\nmov cr3, eax\nmov eax, cr0\nor eax, 0x80000000\nmov cr0, eax\n" + "nop\n" * 8
    b = Bench.with_code("i386", source)
    engine = b.engine
    engine.write_memory(directory, bytes(8192))
    engine.write_memory(directory, (table | 3).to_bytes(4, "little"))
    for page in (*range(CODE, CODE + DATA_SIZE, 4096), *range(DATA, DATA + DATA_SIZE, 4096)):
        engine.write_memory(table + (page >> 12) * 4, (page | 3).to_bytes(4, "little"))
    b.run(8)
    before = b.state(), engine._registers.raw_read("cr2")
    assert len(engine.read_memory(DATA + 8192, 8192)) == 8192
    with pytest.raises(MemoryFault):
        engine.read_memory(0x800000, 4)
    engine.arm(Stops(watches=(Watch(0x800000, 4, "w"), Watch(DATA + 8192, 4, "w"))))
    engine.arm(NO_STOPS)
    assert (b.state(), engine._registers.raw_read("cr2")) == before


def test_a_look_sets_no_accessed_bit_on_riscv() -> None:
    virtual, root, middle, leaf = 0x40000000, DATA + 0x1000, DATA + 0x2000, DATA + 0x3000
    b = Bench.with_code("riscv64", "nop\n" * 8)
    engine = b.engine
    engine.write_memory(root, bytes(0x2800))
    for at, target, flags in (
        (root + 8, middle, 0x01),
        (middle, leaf, 0x01),
        (leaf, CODE, 0xCF),
        (leaf + 8, DATA, 0x07),
    ):
        engine.write_memory(at, struct.pack("<Q", target >> 12 << 10 | flags))
    engine.write_memory(CODE + 0x800, assemble("riscv64", "mret"))
    for name, value in (("satp", SV39 | root >> 12), ("mstatus", 1 << 11), ("mepc", virtual), ("pc", CODE + 0x800)):
        engine.write(name, value)
    b.run(3)
    before = b.state()
    assert engine.read_memory(virtual + 0x1000, 16) == engine.ram.read(DATA, 16)
    with pytest.raises(MemoryFault):
        engine.read_memory(virtual + 0x2000, 4)
    engine.arm(Stops(watches=(Watch(virtual + 0x1000, 4, "w"), Watch(virtual + 0x2000, 4, "a"))))
    engine.arm(NO_STOPS)
    assert b.state() == before
