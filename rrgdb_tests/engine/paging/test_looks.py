"""Looking at memory through the guest's page tables: where it is, as the manuals say, and nothing changes."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from rrgdb.arch.cpu import MemoryFault
from rrgdb.engine.base import NO_STOPS, ExitKind, Stops, Watch
from rrgdb_tests.engine.unicorn.rig import CODE, DATA, DATA_SIZE, Bench, riscv_supervisor


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
    virtual = 0x40000000
    b = riscv_supervisor("nop\n" * 8)
    engine = b.engine
    b.run(3)
    before = b.state()
    assert engine.read_memory(virtual + 0x1000, 16) == engine.ram.read(DATA, 16)
    with pytest.raises(MemoryFault):
        engine.read_memory(virtual + 0x2000, 4)
    engine.arm(Stops(watches=(Watch(virtual + 0x1000, 4, "w"), Watch(virtual + 0x2000, 4, "a"))))
    engine.arm(NO_STOPS)
    assert b.state() == before


def _user_of_aarch64() -> Bench:
    """In EL0 at CODE, in a block that EL0 may execute; DATA's page is EL1's, the next one of nobody, none has been
    accessed."""
    b = Bench.with_code("aarch64", "nop\n" * 8)
    upper, lower, last = DATA, DATA + 0x1000, DATA + 0x2000
    b.engine.write_memory(upper, bytes(0x3000))
    for at, entry in (
        (upper, lower | 3),
        (lower, last | 3),
        *((last + (page >> 9), page | 0x7C3) for page in range(CODE, CODE + DATA_SIZE, 0x1000)),
        (last + (DATA >> 9), DATA | 0x303),
    ):
        b.engine.write_memory(at, struct.pack("<Q", entry))
    for name, value in (("tcr_el1", 25 | 25 << 16), ("ttbr0_el1", upper), ("sctlr_el1", 1), ("cpsr", 0x3C0)):
        b.engine.write(name, value)
    b.engine.write("ttbr1_el1", 0)
    return b


def _user_of_arm() -> Bench:
    """The same on ARM, in user mode."""
    b = Bench.with_code("arm", "nop\n" * 8)
    first, second = DATA, DATA + 0x1000
    b.engine.write_memory(DATA, bytes(0x2000))
    b.engine.write_memory(first, struct.pack("<I", second | 1))
    for page in range(CODE, CODE + DATA_SIZE, 0x1000):
        b.engine.write_memory(second + (page >> 10), struct.pack("<I", page | 0x32))
    b.engine.write_memory(second + (DATA >> 10), struct.pack("<I", DATA | 0x12))
    for name, value in (("ttbcr", 2), ("ttbr0", DATA), ("dacr", 1), ("sctlr", b.engine.read("sctlr") | 1)):
        b.engine.write(name, value)
    b.engine.write("cpsr", 0x1D0)
    return b


@pytest.mark.parametrize("made", [_user_of_aarch64, _user_of_arm])
def test_a_look_from_user_mode_sees_what_the_kernel_has(made: Callable[[], Bench]) -> None:
    b = made()
    b.run(2)
    before = b.state()
    assert b.engine.read_memory(DATA, 16) == b.engine.ram.read(DATA, 16)
    with pytest.raises(MemoryFault):
        b.engine.read_memory(DATA + 0x1000, 16)
    b.engine.arm(Stops(watches=(Watch(DATA, 4, "w"), Watch(DATA + 0x1000, 4, "a"))))
    b.engine.arm(NO_STOPS)
    assert b.state() == before
    assert b.run(4).kind is ExitKind.LIMIT
