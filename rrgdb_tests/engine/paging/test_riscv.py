"""Where the manual says that memory is, by RISC-V's page tables."""

from __future__ import annotations

import pytest

from rrgdb.engine.paging.riscv import translation
from rrgdb_tests.engine.paging.memory import memory

S, M, MPRV = 1, 3, 1 << 17

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


@pytest.mark.parametrize("what", RISCV)
def test_where_memory_is(what: str) -> None:
    bits, priv, mstatus, satp, entries, address, found = RISCV[what]
    registers = {"priv": priv, "mstatus": mstatus, "satp": satp}
    tables = translation(bits, registers.__getitem__)
    assert (address if tables is None else tables.find(address, memory(entries))) == found
