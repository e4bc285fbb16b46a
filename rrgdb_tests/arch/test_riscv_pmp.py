"""PMP entries: what the guest may write into them, and which addresses they mean."""

from __future__ import annotations

import pytest

from rrgdb.arch import ARCHES, riscv_pmp
from rrgdb_tests.arch.cpus import UnicornCpu

XLEN = pytest.mark.parametrize("xlen", [32, 64])
R, W, X, TOR, NA4, NAPOT, L = 1, 2, 4, 8, 16, 24, 128


def cpu_with(xlen: int, entries: dict[int, tuple[int, int]]) -> UnicornCpu:
    """``entries``: number -> (configuration, pmpaddr)."""
    cpu = UnicornCpu(ARCHES[f"riscv{xlen}"])
    each = xlen // 8
    for entry, (_, address) in entries.items():
        riscv_pmp.write(cpu, f"pmpaddr{entry}", address, xlen)
    for register in range(0, 16, each):
        value = sum(entries.get(register + n, (0, 0))[0] << 8 * n for n in range(each))
        riscv_pmp.write(cpu, f"pmpcfg{register // 4}", value, xlen)
    return cpu


def ranges(cpu: UnicornCpu, xlen: int) -> list[tuple[int, int]]:
    return [(p.first, p.last) for p in riscv_pmp.protections(cpu, xlen)]


@XLEN
@pytest.mark.parametrize("address", [(1 << 29) - 1, (1 << 30) - 1, (1 << 31) - 1, (1 << 32) - 1])
def test_naturally_aligned_ranges_up_to_all_of_memory(xlen: int, address: int) -> None:
    """All ones below bit n: 2^(n + 3) bytes. With 32 ones that is more than RV32 can address."""
    cpu = cpu_with(xlen, {9: (NAPOT | R | W | X, address)})
    assert ranges(cpu, xlen) == [(0, 8 * (address + 1) - 1)]


@XLEN
def test_every_kind_of_range(xlen: int) -> None:
    cpu = cpu_with(
        xlen,
        {
            0: (TOR | R, 0x1000 >> 2),
            1: (TOR | R, 0x800 >> 2),  # ends before it begins: matches nothing, and is enforced
            2: (NA4 | W | R, 0x20000004 >> 2),
            3: (NAPOT | X, 0x30000000 >> 2),
            8: (NAPOT | L, 0x40000000 >> 2 | 0x1FF),
        },
    )
    found = riscv_pmp.protections(cpu, xlen)
    assert [(p.first, p.last) for p in found] == [
        (0, 0xFFF),
        (0x1000, 0x7FF),
        (0x20000004, 0x20000007),
        (0x30000000, 0x30000007),
        (0x40000000, 0x40000FFF),
    ]
    assert [(p.permissions, p.locked) for p in found] == [(1, False), (1, False), (3, False), (4, False), (0, True)]


@XLEN
def test_what_cannot_be_written(xlen: int) -> None:
    cpu = cpu_with(xlen, {0: (NAPOT | R, 0x111), 1: (TOR | L | R, 0x222), 2: (NAPOT, 0x333)})
    for entry in range(3):
        riscv_pmp.write(cpu, f"pmpaddr{entry}", (1 << xlen) - 1, xlen)
    riscv_pmp.write(cpu, "pmpcfg0", 0x62 << 16 | 0x1F << 8 | 0x7F, xlen)
    everything = (1 << riscv_pmp.ADDRESS_BITS[xlen]) - 1
    # Entry 1 is locked, and with it the address of entry 0, where it begins; W without R is neither.
    assert [cpu.read(f"pmpaddr{n}") for n in range(3)] == [0x111, 0x222, everything]
    assert cpu.read("pmpcfg0") & 0xFFFFFF == (TOR | L | R) << 8 | 0x1F


def test_names() -> None:
    assert [riscv_pmp.name_of(0x3A0 + n, 32) for n in range(5)] == ["pmpcfg0", "pmpcfg1", "pmpcfg2", "pmpcfg3", None]
    assert [riscv_pmp.name_of(0x3A0 + n, 64) for n in range(5)] == ["pmpcfg0", None, "pmpcfg2", None, None]
    assert riscv_pmp.name_of(0x3B0, 64) == "pmpaddr0"
    assert riscv_pmp.name_of(0x3BF, 32) == "pmpaddr15"
    assert riscv_pmp.name_of(0x3C0, 32) is None
