"""What the engine must reach directly in a Unicorn that runs RISC-V: places inside its own structures.

The hooks read the privilege and ``mstatus`` there, and floating-point registers, for which the register API is too slow
or closed to the mode that the CPU is in (see ``_riscv.h``). Unicorn's own table of PMP entries, which decides where it
translates addresses itself, can be written in a saved context alone. All of it is found by experiments on scratch
engines, once a process.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from unicorn import riscv_const
from unicorn import unicorn_const as const

from rrgdb.arch.base import Protection
from rrgdb.engine.unicorn.probes.cpu import Cpus
from rrgdb.engine.unicorn.probes.experiments import Probe, common, found_at, missing, written
from rrgdb.engine.unicorn.probes.layout import Context, Layout
from rrgdb.engine.unicorn.probes.structure import changed, one, scratch

_CODE = 0x10000
_ENTRIES = 16
_PMPADDR, _PMPCFG = 0x3B0, 0x3A0
_FS = 1 << 13
_MAX_TAIL = 512
"""bytes behind a context that are searched for the floating-point flags"""


@dataclass(frozen=True, slots=True)
class Addresses:
    """In this process: the privilege (4 bytes), ``mstatus``, the first of 32 floating-point registers, 8 bytes each,
    and ``mcounteren``."""

    privilege: int
    status: int
    floats: int
    counters: int


@dataclass(frozen=True, slots=True)
class PmpTable:
    """Places in a saved context: the configuration of entry 0 (1 byte; ``stride`` from one entry to the next), its
    first and last address (a word each, the same stride), and the number of entries that are not OFF (4 bytes)."""

    configurations: int
    ranges: int
    count: int
    word: int

    @property
    def stride(self) -> int:
        return 2 * self.word

    def registers(self, state: bytes) -> dict[str, int]:
        """The entries as the guest wrote them while Unicorn kept them, by the names of the CSRs."""
        found = {}
        for entry in range(_ENTRIES):
            at = self.configurations + entry * self.stride
            found[f"pmpaddr{entry}"] = int.from_bytes(state[at - self.word : at], "little")
            name = f"pmpcfg{entry // self.word * (self.word // 4)}"
            found[name] = found.get(name, 0) | state[at] << entry % self.word * 8
        return found

    def write(self, state: bytes, protections: Sequence[Protection]) -> bytes:
        """A context with these entries, in this order, and no others."""
        out = bytearray(state)
        everything = (1 << 8 * self.word) - 1
        for entry in range(_ENTRIES):
            config, first, last = 0, 0, everything
            if entry < len(protections):
                p = protections[entry]
                # An empty one: Unicorn looks whether an address is at or above the first and at or below the last.
                first, last = (p.first, p.last) if p.first <= p.last else (1, 0)
                config = p.permissions | 3 << 3 | p.locked << 7
            out[self.configurations + entry * self.stride] = config
            at = self.ranges + entry * self.stride
            for value in (first, last):
                out[at : at + self.word] = (value & everything).to_bytes(self.word, "little")
                at += self.word
        out[self.count : self.count + 4] = struct.pack("<I", len(protections))
        return bytes(out)


def _scratch(wide: bool) -> Any:
    uc = scratch(const.UC_ARCH_RISCV, const.UC_MODE_RISCV64 if wide else const.UC_MODE_RISCV32)
    uc.ctl_set_cpu_model(riscv_const.UC_CPU_RISCV64_SIFIVE_U54 if wide else riscv_const.UC_CPU_RISCV32_SIFIVE_U34)
    return uc


@cache
def _cpus(wide: bool) -> Cpus:
    registers = tuple(riscv_const.UC_RISCV_REG_X0 + n for n in range(1, 32))
    return Cpus("RISC-V", lambda: _scratch(wide), registers, 8 if wide else 4)


@cache
def _offset(wide: bool, register: int, first: int, second: int) -> int:
    return _cpus(wide).offset(lambda uc, value: uc.reg_write(register, value), first, second, "its registers")


def _privilege(wide: bool) -> int:
    return _offset(wide, riscv_const.UC_RISCV_REG_PRIV, 1, 3)


def _status(wide: bool) -> int:
    return _offset(wide, riscv_const.UC_RISCV_REG_MSTATUS, _FS, _FS | 1 << 3)


def find_addresses(uc: Any, wide: bool) -> Addresses:
    """For an engine that is not running. EngineError where this build of Unicorn does not keep to what was found."""
    registers = _cpus(wide).address(uc)
    return Addresses(
        privilege=registers + _privilege(wide),
        status=registers + _status(wide),
        floats=registers + _offset(wide, riscv_const.UC_RISCV_REG_F0, 0, 1),
        counters=registers + _offset(wide, riscv_const.UC_RISCV_REG_MCOUNTEREN, 0, 2),
    )


def find_masks(uc: Any, wide: bool) -> tuple[tuple[int, int], ...]:
    """(address, bytes) of the privilege, ``mstatus``, ``mie`` and ``mideleg``, as ``find_addresses``."""
    registers = _cpus(wide).address(uc)
    enabled, delegated = (
        registers + _offset(wide, register, 0, 1 << 1)
        for register in (riscv_const.UC_RISCV_REG_MIE, riscv_const.UC_RISCV_REG_MIDELEG)
    )
    return (registers + _privilege(wide), 1), (registers + _status(wide), 2), (enabled, 2), (delegated, 2)


@cache
def find_pmp_table(wide: bool, more_bytes: int) -> PmpTable:
    """EngineError where it cannot be found."""
    word = 8 if wide else 4

    def written(csr: int, value: int, address: int = 0) -> tuple[bytes, bytes]:
        """Context before and behind ``csrw csr, a0``, with ``address`` in pmpaddr0."""
        uc = _scratch(wide)
        uc.mem_map(_CODE, 0x1000)
        context = Context(uc, Layout(more_bytes))
        uc.mem_write(_CODE, struct.pack("<II", _PMPADDR << 20 | 12 << 15 | 1 << 12 | 0x73, csr << 20 | 0x51073))
        uc.reg_write(riscv_const.UC_RISCV_REG_A2, address)
        uc.reg_write(riscv_const.UC_RISCV_REG_A0, value)
        uc.emu_start(_CODE, _CODE + 4)
        before = context.save()
        uc.emu_start(_CODE + 4, _CODE + 8)
        return before, context.save()

    before, after = written(_PMPCFG, 0x1B, 0x12345)  # NAPOT of 16 bytes from 0x48d10 on, readable and writable
    pair = struct.pack(f"<2{'Q' if wide else 'I'}", 0x12345 << 2 & ~15, (0x12345 << 2 & ~15) + 15)
    ranges = [at for at in range(0, len(after), word) if after.startswith(pair, at)]
    first = one(ranges, "RISC-V: its PMP table")
    configurations = [at for at in changed(before, after) if after[at] == 0x1B]
    counts = [at for at in changed(before, after) if at >= first + _ENTRIES * 2 * word]
    return PmpTable(one(configurations, "RISC-V: its PMP table"), first, one(counts, "RISC-V: its PMP table"), word)


def layout(wide: bool) -> Layout:
    probe = Probe(const.UC_ARCH_RISCV, const.UC_MODE_RISCV64 if wide else const.UC_MODE_RISCV32)
    uc, a0 = probe.uc, riscv_const.UC_RISCV_REG_A0
    # The FP flags may lie behind what Unicorn saves: take in as many bytes as it needs to see them.
    uc.reg_write(riscv_const.UC_RISCV_REG_MSTATUS, 1 << 13)
    needed, flags = 0, None
    for more in range(0, _MAX_TAIL, 8):
        context = Context(uc, Layout(more))
        uc.reg_write(riscv_const.UC_RISCV_REG_FFLAGS, 0)
        clear = context.save()
        uc.reg_write(riscv_const.UC_RISCV_REG_FFLAGS, 31)
        if context.save() != clear:
            # One word more: the flags are the first bytes of softfloat's status.
            needed = flags = more + 8
            break
    levels = frozenset((0, 1, 3))
    privilege = written(Context(uc), lambda level: uc.reg_write(riscv_const.UC_RISCV_REG_PRIV, level), levels, 4)
    # lr.w a1, (a0) on an odd address
    values = (0x12345677, 0x76543211)
    address = common(found_at(probe.run("af250510", {a0: v}, [a0]), v.to_bytes(4, "little")) for v in values)
    found = {"floating-point flags": flags, "fault address": address, "privilege": len(privilege) or None}
    return Layout(needed, fault_address=address, bounds=privilege, missing=missing(found))
