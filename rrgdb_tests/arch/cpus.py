"""Two Cpus for tests: a dictionary, and a Unicorn engine reached the generic way that ``Register`` describes."""

from __future__ import annotations

import ctypes
import re
import struct
from dataclasses import dataclass, field

import unicorn
from unicorn import arm64_const, arm_const, riscv_const, x86_const
from unicorn.unicorn_py3 import unicorn as binding

from rrgdb.arch.base import Arch, MemoryFault, Register

_CONSTANTS = {"RISCV": riscv_const, "ARM": arm_const, "ARM64": arm64_const, "X86": x86_const}
_MMR_FIELDS = {"selector": ("<H", 0), "base": ("<Q", 8), "limit": ("<I", 16), "flags": ("<I", 20)}
_PATTERN = re.compile(r"(?P<id>\w+?)(?:\((?P<arguments>[^)]*)\)|\.(?P<field>\w+))?")


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


def constant(name: str) -> int:
    """Unicorn's number for ``RISCV_REG_X1``."""
    return getattr(_CONSTANTS[name.partition("_")[0]], f"UC_{name}")


class UnicornCpu:
    """A Unicorn engine through ``uc_reg_read`` and ``uc_reg_write`` alone; RAM is mapped at ``base``."""

    def __init__(self, arch: Arch, base: int = 0x10000, size: int = 0x20000) -> None:
        self.arch = arch
        self.icount = 0
        self.kept: dict[str, int] = {}
        mode = getattr(unicorn, arch.engine_mode)
        self.uc = unicorn.Uc(getattr(unicorn, arch.engine_arch), mode)
        model = next(iter(arch.engine_models.values()))
        self.uc.ctl_set_cpu_model(getattr(_CONSTANTS[arch.engine_arch.removeprefix("UC_ARCH_")], model))
        self.uc.mem_map(base, size)
        self.table = {register.name: register for register in arch.registers}

    def _buffer(self, arguments: str | None) -> ctypes.Array[ctypes.c_char]:
        numbers = [int(number, 0) for number in arguments.split(",")] if arguments else []
        if len(numbers) == 5:
            op0, op1, crn, crm, op2 = numbers
            return ctypes.create_string_buffer(struct.pack("<5I", crn, crm, op0, op1, op2), 64)
        return ctypes.create_string_buffer(struct.pack(f"<{len(numbers)}I", *numbers), 64)

    def _access(self, engine: str, width: int, value: int | None) -> int:
        match = _PATTERN.fullmatch(engine)
        assert match, engine
        number, buffer = constant(match["id"]), self._buffer(match["arguments"])
        code, at = "", 0
        if match["field"]:
            code, at = _MMR_FIELDS[match["field"]]
        elif match["arguments"]:
            code, at = "<Q", {"ARM64": 24, "ARM": 32, "X86": 8}[match["id"].partition("_")[0]]
        if value is None or match["field"]:
            status = binding.uclib.uc_reg_read(self.uc._uch, ctypes.c_int(number), buffer)
            assert status == 0, (engine, status)
        if value is not None:
            if code:
                struct.pack_into(code, buffer, at, value & (1 << 8 * struct.calcsize(code)) - 1)
            else:
                buffer.raw = value.to_bytes(64, "little")
            status = binding.uclib.uc_reg_write(self.uc._uch, ctypes.c_int(number), buffer)
            assert status == 0, (engine, status)
            return value
        if code:
            return int(struct.unpack_from(code, buffer, at)[0])
        return int.from_bytes(buffer.raw[: (width + 7) // 8], "little") & (1 << width) - 1

    def _find(self, name: str) -> Register:
        if name in self.table:
            return self.table[name]
        return Register(name, 64, self.arch.system_registers[name])

    def _reachable(self, register: Register) -> bool:
        return not register.enabled_by or bool(self.read(register.enabled_by[0]) & register.enabled_by[1])

    def read(self, name: str) -> int:
        if name in self.arch.kept_registers:
            return self.kept.get(name, 0)
        if name in HIDDEN:
            return HIDDEN[name]
        register = self._find(name)
        if register.engine is None or not self._reachable(register):
            return register.constant
        width = register.engine_bits or register.bits
        if not register.privilege or self.read("priv") >= register.privilege:
            return self._access(register.engine, width, None)
        context = self.uc.context_save()
        self.write("priv", 3)
        value = self._access(register.engine, width, None)
        self.uc.context_restore(context)
        return value

    def write(self, name: str, value: int) -> None:
        if name in self.arch.kept_registers:
            self.kept[name] = value
            return
        register = self._find(name)
        if register.engine is not None and self._reachable(register):
            width = register.engine_bits or register.bits
            self._access(register.engine, width, value & (1 << width) - 1)

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
        self.uc.emu_start(self.read(self.arch.pc), (1 << self.arch.bits) - 1, count=instructions)
