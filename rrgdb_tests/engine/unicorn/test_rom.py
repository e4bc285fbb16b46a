"""Memory that a device stands before: whether Unicorn has it mapped or not, the guest finds the same."""

from __future__ import annotations

from random import Random

import pytest

from rrgdb.arch.base import ExceptionKind
from rrgdb.engine.base import ExitKind
from rrgdb.engine.memory import Ram
from rrgdb.engine.unicorn.rom import MANY_READS, MappedRom
from rrgdb_tests.engine.unicorn.rig import CODE, DATA, DATA_SIZE, FAMILIES, Bench, assemble

ROM, ROM_BYTES = 0x600000, 0x4000
STATUS = 0x80
COUNT_AND_GO = {
    "riscv64": "addi a0, a0, 1\nlw a1, 16(t1)\nli t0, {to}\njr t0",
    "riscv32": "addi a0, a0, 1\nlw a1, 16(t1)\nli t0, {to}\njr t0",
    "aarch64": "add x0, x0, #1\nldr w2, [x3, #16]\nmov x1, #{to}\nbr x1",
    "arm": "add r0, r0, #1\nldr r2, [r3, #16]\nmov r1, #{to}\nbx r1",
    "thumb": "add r0, r0, #1\nldr r2, [r3, #16]\nmovw r1, #1\nmovt r1, #{to} >> 16\nbx r1",
    "i386": "inc eax\nmov ecx, [edx + 16]\nmov ebx, {to}\njmp ebx",
    "x86_64": "inc eax\nmov ecx, [rdx + 16]\nmov ebx, {to}\njmp rbx",
}
"""counts, reads from the address in a register, and goes to another place"""
POINTER = {
    "riscv64": "t1",
    "riscv32": "t1",
    "aarch64": "x3",
    "arm": "r3",
    "thumb": "r3",
    "i386": "edx",
    "x86_64": "rdx",
}


class _Device:
    """Reads as the memory while that is to be shown, and as a status otherwise."""

    def __init__(self, bench: Bench) -> None:
        self.shown = True
        self.reads = 0
        self.stores: list[tuple[int, int, int]] = []
        self.rom: MappedRom = bench.engine.map_rom(ROM, ROM_BYTES, self._read, lambda *store: self.stores.append(store))

    def _read(self, offset: int, size: int) -> int:
        self.reads += 1
        return int.from_bytes(self.rom.read(offset, size), "little") if self.shown else STATUS

    def show(self, shown: bool) -> None:
        self.shown = shown
        self.rom.show(shown)


def bench_and_rom(family: str, *, fast: bool) -> tuple[Bench, _Device]:
    """Code in RAM and in ROM that go to each other for ever."""
    bench = Bench.with_code(family, COUNT_AND_GO[family].format(to=ROM), fast=fast, ram=Ram(2 * DATA_SIZE + ROM_BYTES))
    device = _Device(bench)
    device.rom.write(0, assemble(family, COUNT_AND_GO[family].format(to=CODE)))
    bench.engine.write(POINTER[family], ROM)
    return bench, device


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_hidden_and_is_shown_again_runs_as_what_was_always_there(family: str, fast: bool) -> None:
    """Hidden and shown at any instruction, also at one that stands in it."""
    (straight, _), (other, device) = (bench_and_rom(family, fast=fast) for _ in range(2))
    random, at, seen = Random(family), 0, set()
    for _ in range(150):
        at += random.randrange(1, 40)
        assert (straight.run(at), other.run(at)) == (straight.run(at),) * 2
        assert straight.state() == other.state()
        for shown in (False, True)[: random.randrange(3)]:
            device.show(shown)
        device.show(True)
        seen.add((device.rom.mapped, ROM <= other.pc < ROM + ROM_BYTES))
    assert seen == {(mapped, inside) for mapped in (True, False) for inside in (True, False)}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_hidden_cannot_be_executed(family: str) -> None:
    bench, device = bench_and_rom(family, fast=True)
    device.show(False)
    exception = bench.to_exception()
    assert (exception.kind, exception.pc, bench.engine.icount) == (
        ExceptionKind.FETCH_FAULT,
        ROM,
        4 + (family == "thumb"),
    )


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_read_often_is_mapped_again(family: str, fast: bool) -> None:
    """Until then the device is asked; what is hidden stays so."""
    bench, device = bench_and_rom(family, fast=fast)
    bench.engine.write_memory(CODE, assemble(family, COUNT_AND_GO[family].format(to=CODE)))
    device.show(False)
    at = bench.engine.icount
    for shown, reads in ((False, 2 * MANY_READS), (True, MANY_READS)):
        device.show(shown)
        device.reads = 0
        while device.reads < reads:
            assert not device.rom.mapped
            at += 100
            assert bench.run(at).kind is ExitKind.LIMIT
    before = device.reads
    bench.run(at + 1000)
    assert (device.rom.mapped, device.reads) == (True, before)


STORES = {
    "riscv64": "1: li t1, {rom}\nli t0, 0x90\nsh t0, 0(t1)\nsw t0, 8(t1)\nsd t0, 16(t1)\nlw a0, 0(t1)\nj .",
    "aarch64": "mov x1, #{rom}\nmov w0, #0x90\nstrh w0, [x1]\nstr w0, [x1, #8]\nstr x0, [x1, #16]\nldr w2, [x1]\nb .",
    "arm": "mov r1, #{rom}\nmov r0, #0x90\nstrh r0, [r1]\nstr r0, [r1, #8]\nstrd r0, r1, [r1, #16]\nldr r2, [r1]\nb .",
}
TRANSLATING = {
    "riscv64": ".option norvc\nli t0, 8 << 60 | {data} >> 12\ncsrw satp, t0\nli t0, 1 << 11\ncsrw mstatus, t0\n"
    "auipc t0, 0\naddi t0, t0, 16\ncsrw mepc, t0\nmret\n",
    "aarch64": "mov x0, #{data}\nmsr ttbr0_el1, x0\nmov x0, #1 << 23\norr x0, x0, #32\nmsr tcr_el1, x0\nmov x0, #0xff\n"
    "msr mair_el1, x0\nisb\nmrs x0, sctlr_el1\norr x0, x0, #1\nmsr sctlr_el1, x0\nisb\n",
    "arm": "mov r0, #{data}\nmcr p15, 0, r0, c2, c0, 0\nmov r0, #1\nmcr p15, 0, r0, c3, c0, 0\n"
    "mrc p15, 0, r0, c1, c0, 0\norr r0, #1\nmcr p15, 0, r0, c1, c0, 0\n",
}
"""translation on, every address to itself, by the tables at DATA"""
TABLES = {
    "riscv64": (0xCF).to_bytes(8, "little"),
    "aarch64": (0x401).to_bytes(8, "little"),
    "arm": b"".join((n << 20 | 0xC02).to_bytes(4, "little") for n in range(16)),
}


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("translating", [True, False])
@pytest.mark.parametrize("family", STORES)
def test_stores_go_to_the_device_alone(family: str, translating: bool, fast: bool) -> None:
    """Whether the CPU translates addresses or not: what is shown changes by nobody but the device."""
    source = (TRANSLATING[family] if translating else "") + STORES[family]
    code = source.format(data=DATA, rom=ROM)
    bench = Bench.with_code(family, code, fast=fast, ram=Ram(2 * DATA_SIZE + ROM_BYTES))
    device = _Device(bench)
    bench.engine.write_memory(DATA, TABLES[family].ljust(64, b"\0"))
    assert bench.run(60).kind is ExitKind.LIMIT
    assert bench.engine.translates is translating
    assert [(offset, value & 0xFFFF) for offset, _, value in device.stores[:3]] == [(0, 0x90), (8, 0x90), (16, 0x90)]
    assert device.rom.mapped
    assert not any(device.rom.read(0, ROM_BYTES))
