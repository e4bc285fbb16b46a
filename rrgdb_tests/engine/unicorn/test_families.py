"""The native table of CPU families; its plain entry, on a CPU that rrgdb knows nothing of: PowerPC, big-endian."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import pytest
import unicorn
from unicorn import ppc_const, x86_const
from unicorn import unicorn_const as const
from unicorn.unicorn_py3 import unicorn as binding

from rrgdb.engine.memory import PAGE, Ram
from rrgdb.engine.unicorn import _hot

_lib = binding.uclib
CODE, DATA, GUARD = 0x10000, 0x12000, 0x400000
LOOP = 6
"""instructions before the first round of the loop, and in each round"""
PROGRAM = (
    0x38600000,  #         li    r3, 0
    0x38800000,  #         li    r4, 0
    0x3CA00001,  #         lis   r5, 1
    0x60000000,  #         nop
    0x60000000,  #         nop
    0x60000000,  #         nop
    0x38630001,  # loop:   addi  r3, r3, 1
    0x90652000,  #         stw   r3, 0x2000(r5)
    0x80C52004,  #         lwz   r6, 0x2004(r5)
    0x38840003,  #         addi  r4, r4, 3
    0xB0852008,  #         sth   r4, 0x2008(r5)
    0x4BFFFFEC,  #         b     loop
)
STORE_WORD, LOAD, STORE_HALF = CODE + 28, CODE + 32, CODE + 40


class Guest:
    """PROGRAM at CODE, data from DATA on, under a Core of the plain family."""

    def __init__(self, *, fast: bool, filters: tuple[tuple[int, int], ...] = ()) -> None:
        self.uc: Any = unicorn.Uc(const.UC_ARCH_PPC, const.UC_MODE_PPC32 | const.UC_MODE_BIG_ENDIAN)
        self.uc.ctl_exits_enabled(True)
        if fast:
            self.uc.ctl_set_tlb_mode(const.UC_TLB_VIRTUAL)
        self.ram = Ram(4 * PAGE)
        handle = self.uc._uch
        pages = bytearray(self.ram.pages)
        self.core = _core(
            handle.value,
            family="plain",
            big_endian=True,
            filters=(filters, ()),
            code_pages=pages,
            ram=self.ram,
            fast=fast,
        )
        where = (ctypes.c_uint64(CODE), ctypes.c_size_t(4 * PAGE), const.UC_PROT_ALL, ctypes.c_void_p(self.ram.address))
        assert _lib.uc_mem_map_ptr(handle, *where) == 0
        self.core.add_region(CODE, 4 * PAGE, self.ram.address)
        self.core.set_guard(GUARD)
        self.put(CODE, struct.pack(f">{len(PROGRAM)}I", *PROGRAM))
        self.put(DATA, struct.pack(">II", 0, 0x01020304))
        self.pc = CODE

    def put(self, address: int, data: bytes) -> None:
        ctypes.memmove(self.ram.address + address - CODE, data, len(data))

    def run(self, limit: int) -> int:
        reason = self.core.run(self.pc, limit)
        self.pc = self.core.pc
        return reason

    @property
    def state(self) -> tuple[int, ...]:
        """icount, pc, what the loop counts with, and what it has stored."""
        registers = (
            self.uc.reg_read(r) for r in (ppc_const.UC_PPC_REG_3, ppc_const.UC_PPC_REG_4, ppc_const.UC_PPC_REG_6)
        )
        return (
            self.core.icount,
            self.pc,
            *registers,
            *struct.unpack(">IIH", ctypes.string_at(self.ram.address + 0x2000, 10)),
        )


def _core(handle: int, *, ram: Ram, **given: Any) -> _hot.Core:
    functions = {name: ctypes.cast(getattr(_lib, name), ctypes.c_void_p).value or 0 for name in _hot.FUNCTIONS}
    chosen: dict[str, Any] = {"wide": False, "big_endian": False, "places": {}, "filters": ((), ()), "bare": False}
    chosen |= {
        "fast": False,
        "inlines": False,
        "mapping": 0,
        "pc": ppc_const.UC_PPC_REG_PC,
        "stale_pc": 0,
        "no_sync": 0,
        "code_pages": bytearray(ram.pages),
    }
    return _hot.Core(uc=handle, functions=functions, ram=ram.address, **(chosen | given))


def expected(icount: int) -> tuple[int, ...]:
    """``Guest.state`` as the manual has it (Power ISA, book I)."""
    rounds, at = divmod(max(icount - LOOP, 0), LOOP)
    begun = rounds + (at > 0)
    stored = rounds + (at > 1)
    added, halves = 3 * (rounds + (at > 3)), 3 * (rounds + (at > 4))
    loaded = 0x01020304 if rounds or at > 2 else 0
    pc = CODE + 4 * (icount if icount < LOOP else LOOP + at)
    return icount, pc, begun, added & 0xFFFFFFFF, loaded, stored, 0x01020304, halves & 0xFFFF


@pytest.mark.parametrize("fast", [False, True])
def test_a_family_that_is_not_known_stops_before_every_instruction(fast: bool) -> None:
    guest = Guest(fast=fast)
    for icount in range(1, 40):
        assert guest.run(icount) == _hot.LIMIT
        assert guest.state == expected(icount)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("icount", [5_003, 30_000, 70_001])
def test_a_family_that_is_not_known_is_counted_over_long_runs(fast: bool, icount: int) -> None:
    guest = Guest(fast=fast)
    assert guest.run(icount) == _hot.LIMIT
    assert guest.state == expected(icount)
    assert (guest.core.phase == _hot.SLOW) is not fast


@pytest.mark.parametrize("fast", [False, True])
def test_a_breakpoint_and_its_condition_see_big_endian_memory(fast: bool) -> None:
    guest = Guest(fast=fast)
    condition = bytes((0x24, 0, 1, 0x20, 0, 0x19, 0x24, 0, 0, 0x07, 0xD0, 0x13, 0x27))  # *(uint32_t *)0x12000 == 2000
    guest.core.set_breakpoints([(LOAD, (condition,))])
    assert guest.run(100_000) == _hot.BREAKPOINT
    assert guest.state == expected(LOOP + 1999 * LOOP + 2)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(
    ("kind", "address", "length", "old", "new", "icount"),
    [
        (b"w", DATA, 2, b"\0\0", b"\0\1", LOOP + 0xFFFF * LOOP + 2),  # the upper half of a word that is stored often
        (b"w", DATA + 8, 1, b"\0", b"\1", LOOP + 85 * LOOP + 5),  # 256 is the 86th multiple of 3, rounded up
        (b"r", DATA + 4, 4, b"\1\2\3\4", b"\1\2\3\4", LOOP + 3),
        (b"a", DATA + 2, 1, b"\0", b"\0", LOOP + 2),
    ],
)
def test_watches_see_big_endian_stores(
    fast: bool, kind: bytes, address: int, length: int, old: bytes, new: bytes, icount: int
) -> None:
    guest = Guest(fast=fast)
    guest.core.set_watches([(address, length, kind)])
    assert guest.run(1_000_000) == _hot.WATCHPOINT
    assert guest.core.take_watch_hits() == [(0, old, new)]
    assert guest.state == expected(icount)


@pytest.mark.parametrize("fast", [False, True])
def test_stores_beside_watched_bytes_go_on_as_the_guest_means_them(fast: bool) -> None:
    guest = Guest(fast=fast)
    guest.core.set_watches([(DATA + 64, 4, b"a"), (DATA + 72, 4, b"w")])
    assert guest.run(6_000) == _hot.LIMIT
    assert guest.state == expected(6_000)


@pytest.mark.parametrize("fast", [False, True])
def test_a_filter_is_given_as_the_guest_reads_its_code(fast: bool) -> None:
    guest = Guest(fast=fast, filters=((0xFFFF0000, PROGRAM[10] & 0xFFFF0000),))
    code = PROGRAM[10].to_bytes(4, "big")
    assert guest.run(1_000) == _hot.CLASSIFY
    assert (guest.pc, guest.core.trapped_code()) == (STORE_HALF, code)
    guest.core.set_class(code, False, _hot.CLASS_TRAP)
    assert guest.run(1_000) == _hot.TRAP
    assert guest.state == expected(LOOP + 4)
    guest.core.set_class(code, False, _hot.CLASS_PLAIN)
    assert guest.run(1_000) == _hot.LIMIT
    assert guest.state == expected(1_000)


def test_a_core_is_of_a_family_that_there_is_and_told_all_of_its_places() -> None:
    assert set(_hot.FAMILIES) == {"x86", "arm", "armv7m", "aarch64", "riscv", "plain"}
    uc: Any = unicorn.Uc(const.UC_ARCH_X86, const.UC_MODE_64)
    ram = Ram(PAGE)
    places = {
        "rcx": x86_const.UC_X86_REG_RCX,
        "rsp": x86_const.UC_X86_REG_RSP,
        "flags": x86_const.UC_X86_REG_EFLAGS,
        "debug": x86_const.UC_X86_REG_DR0,
    }
    with pytest.raises(ValueError, match="vax"):
        _core(uc._uch.value, ram=ram, family="vax")
    with pytest.raises(KeyError, match="debug"):
        _core(uc._uch.value, ram=ram, family="x86", places={k: v for k, v in places.items() if k != "debug"})
    with pytest.raises(ValueError, match="plain"):
        _core(uc._uch.value, ram=ram, family="plain", places=places)
    _core(uc._uch.value, ram=ram, family="x86", places=places)
