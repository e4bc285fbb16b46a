"""Two Cpus for tests: a dictionary, and a Unicorn engine reached the generic way that ``Register`` describes."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

import unicorn
from unicorn.unicorn_py3 import unicorn as binding

from rrgdb.arch.base import Arch, Register
from rrgdb.arch.cpu import MemoryFault
from rrgdb.engine.unicorn.families import FAMILIES
from rrgdb.engine.unicorn.registers import Part, Quirk

HIDDEN = {"cs_selector": 0, "cs_base": 0, "ss_base": 0, "modes": 1 << 4 | 1 << 15}
"""x86 with flat segments; code has the family's own size"""


@dataclass
class FakeCpu:
    """Registers and memory in dictionaries; what was never written reads as 0, or as ``HIDDEN`` says."""

    icount: int = 0
    registers: dict[str, int] = field(default_factory=dict)
    memory: dict[int, int] = field(default_factory=dict)
    memory_limit: int = 1 << 64
    writes: list[str] = field(default_factory=list)

    def read(self, name: str) -> int:
        return self.registers.get(name, HIDDEN.get(name, 0))

    def write(self, name: str, value: int) -> None:
        assert value >= 0
        self.writes.append(name)
        self.registers[name] = value

    def _check(self, address: int, length: int) -> None:
        if not 0 <= address <= self.memory_limit - length:
            raise MemoryFault(address)

    def read_memory(self, address: int, length: int) -> bytes:
        self._check(address, length)
        return bytes(self.memory.get(address + i, 0) for i in range(length))

    def write_memory(self, address: int, data: bytes) -> None:
        self._check(address, len(data))
        self.writes.append("memory")
        self.memory.update({address + i: byte for i, byte in enumerate(data)})


@dataclass
class FakeHost:
    nanoseconds: int = 0
    asked: list[int] = field(default_factory=list)

    def entropy(self, length: int) -> bytes:
        self.asked.append(length)
        return bytes(range(0x81, 0x81 + length))

    def virtual_ns(self) -> int:
        return self.nanoseconds


class UnicornCpu:
    """A Unicorn engine through ``uc_reg_read`` and ``uc_reg_write`` alone; RAM is mapped at ``base``."""

    def __init__(self, arch: Arch, base: int = 0x10000, size: int = 0x20000) -> None:
        self.arch = arch
        self.family = family = FAMILIES[arch.name]
        self.icount = 0
        self.kept: dict[str, int] = {}
        added = () if arch.interrupts is None else arch.interrupts.registers
        self.known = {*arch.kept_registers, *added}
        self.uc = unicorn.Uc(family.arch, family.mode)
        self.uc.ctl_set_cpu_model(family.models[arch.models[0]])
        self.uc.mem_map(base, size)
        self.table = {register.name: register for register in arch.registers}

    def get(self, number: int) -> int:
        return int(self.uc.reg_read(number))

    def put(self, number: int, value: int) -> None:
        self.uc.reg_write(number, value)

    def _access(self, name: str, width: int, value: int | None) -> int:
        known = self.family.registers[name]
        if not isinstance(known, int | Part):
            if value is not None:
                known.write(self, value)
            return known.read(self)
        part = known if isinstance(known, Part) else Part(known, 0, width + 7 >> 3)
        buffer = ctypes.create_string_buffer(part.selector, 64)
        if value is None or isinstance(known, Part):
            status = binding.uclib.uc_reg_read(self.uc._uch, ctypes.c_int(part.number), buffer)
            assert status == 0, (name, status)
        end = part.offset + part.size
        if value is None:
            mask = (1 << (8 * part.size if isinstance(known, Part) else width)) - 1
            return int.from_bytes(buffer.raw[part.offset : end], "little") & mask
        data = (value & (1 << 8 * part.size) - 1).to_bytes(part.size, "little")
        buffer.raw = buffer.raw[: part.offset] + data + buffer.raw[end:]
        status = binding.uclib.uc_reg_write(self.uc._uch, ctypes.c_int(part.number), buffer)
        assert status == 0, (name, status)
        return value

    def _find(self, name: str) -> tuple[Register, Quirk]:
        return self.table.get(name, Register(name, 64)), self.family.quirks.get(name, Quirk())

    def _reachable(self, quirk: Quirk) -> bool:
        return not quirk.enabled_by or bool(self.read(quirk.enabled_by[0]) & quirk.enabled_by[1])

    def read(self, name: str) -> int:
        if name in self.known:
            return self.kept.get(name, 0)
        if name in HIDDEN:
            return HIDDEN[name]
        register, quirk = self._find(name)
        if register.constant is not None:
            return register.constant
        if not self._reachable(quirk):
            return 0
        width = register.width or register.bits
        if quirk.privilege is None or self.read(quirk.privilege[0]) >= quirk.privilege[1]:
            return self._access(name, width, None)
        context = self.uc.context_save()
        self.write(*quirk.privilege)
        value = self._access(name, width, None)
        self.uc.context_restore(context)
        return value

    def write(self, name: str, value: int) -> None:
        if name in self.known or name in self.arch.hidden_registers:
            self.kept[name] = value
            return
        register, quirk = self._find(name)
        if register.constant is None and self._reachable(quirk):
            width = register.width or register.bits
            second = name == self.arch.pc and self.arch.in_second_set(self)
            self._access(name, width, value & (1 << width) - 1 | second)

    def read_memory(self, address: int, length: int) -> bytes:
        try:
            return bytes(self.uc.mem_read(address, length))
        except unicorn.UcError:
            raise MemoryFault(address) from None

    def write_memory(self, address: int, data: bytes) -> None:
        try:
            self.uc.mem_write(address, data)
        except unicorn.UcError:
            raise MemoryFault(address) from None

    def run(self, instructions: int) -> None:
        """From the current pc; translations are dropped first."""
        self.uc.ctl_flush_tb()
        self.uc.emu_start(
            self.read(self.arch.pc) | self.arch.in_second_set(self), (1 << self.arch.bits) - 1, count=instructions
        )
