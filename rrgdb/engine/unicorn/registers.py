"""Registers of a Unicorn CPU by GDB's names and by the names in ``Arch.system_registers``."""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import unicorn
import unicorn.arm64_const
import unicorn.arm_const
import unicorn.riscv_const
import unicorn.x86_const

from rrgdb.arch.base import Arch, Register
from rrgdb.engine.base import EngineError
from rrgdb.engine.unicorn import _hot

_CONSTANTS = (unicorn.arm64_const, unicorn.arm_const, unicorn.riscv_const, unicorn.x86_const)
_ENGINE_ID = re.compile(r"(?P<name>\w+)(?:\((?P<args>[\d,xA-Fa-f]+)\)|\.(?P<field>\w+))?")
# unicorn.h's argument structures: (where the value lies, its size) in a buffer that starts with the selector.
_CP_REG, _CP_REG_VALUE = struct.Struct("<5I4x"), (24, 8)
_ARM_CP_REG, _ARM_CP_REG_VALUE = struct.Struct("<7I4x"), (32, 8)
_MSR, _MSR_VALUE = struct.Struct("<I4x"), (8, 8)
# What Unicorn brings up to date only at a stop: condition flags, ITSTATE.
_LATE = ("X86_REG_EFLAGS", "ARM_REG_CPSR")
_STRICT = "UC_IGNORE_REG_BREAK"
"""in the environment: Unicorn returns an error for a register that the CPU model lacks, and does not print a warning"""
_MMR_FIELDS = {"selector": (0, 2), "base": (8, 8), "limit": (16, 4), "flags": (20, 4)}


def constant(name: str) -> int:
    """Unicorn's number for ``name`` (without ``UC_``)."""
    for module in _CONSTANTS:
        value = getattr(module, f"UC_{name}", None)
        if value is not None:
            return int(value)
    raise EngineError(f"Unicorn {unicorn.__version__} has no UC_{name}")


def _move(value: int, pairs: Sequence[tuple[int, int]]) -> int:
    """``value`` with bits (from, to) elsewhere: neither place keeps what it had."""
    moved = [(value >> start & 1) << end for start, end in pairs]
    for start, end in pairs:
        value &= ~(1 << start | 1 << end)
    return value | sum(moved)


def _shown(r: Register, value: int) -> int:
    """The architectural value of what the engine holds."""
    return _move(value, [(engine, bit) for bit, engine in r.moved]) | r.ones


class _Slot:
    """How one engine id is passed to uc_reg_read and uc_reg_write: number, selector bytes, and where the value lies."""

    __slots__ = ("number", "offset", "plain", "selector", "size")

    def __init__(self, register: Register) -> None:
        self.size = (register.engine_bits or register.bits) + 7 >> 3
        self.selector = b""
        self.offset = 0
        self.number = -1
        self.plain = True
        if register.engine is None:
            return
        match = _ENGINE_ID.fullmatch(register.engine)
        if match is None:
            raise EngineError(f"register {register.name}: bad engine id {register.engine}")
        self.number = constant(match["name"])
        self.plain = not (match["args"] or match["field"])
        if match["field"]:
            self.offset, self.size = _MMR_FIELDS[match["field"]]
        elif match["args"]:
            args = [int(a, 0) for a in match["args"].split(",")]
            if len(args) == 5:
                op0, op1, crn, crm, op2 = args
                self.selector = _CP_REG.pack(crn, crm, op0, op1, op2)
                self.offset, self.size = _CP_REG_VALUE
            elif len(args) == 7:
                self.selector = _ARM_CP_REG.pack(*args)
                self.offset, self.size = _ARM_CP_REG_VALUE
            else:
                self.selector = _MSR.pack(*args)
                self.offset, self.size = _MSR_VALUE


class RegisterFile:
    """Reads and writes registers of one uc_engine.

    ``read_batch(plan)`` is the native reader; ``save``/``restore`` keep and bring back the CPU context, for registers
    that the engine shows at a higher RISC-V privilege only. ``hidden`` are further ones that only the context shows:
    name to (place, bytes).
    """

    def __init__(
        self,
        library: Any,
        handle: Any,
        arch: Arch,
        read_batch: Callable[[bytes], bytes],
        save: Callable[[], bytes],
        restore: Callable[[bytes], None],
        hidden: Mapping[str, tuple[int, int]],
    ) -> None:
        self._library = library
        self._handle = handle
        self._read_batch = read_batch
        self._save = save
        self._restore = restore
        self._hidden = hidden
        self._registers = {r.name: r for r in arch.registers}
        for name, engine_id in arch.system_registers.items():
            enabled_by = arch.system_enabled_by.get(name)
            self._registers.setdefault(name, Register(name, 64, engine_id, enabled_by=enabled_by))
        self._slots = {name: _Slot(r) for name, r in self._registers.items()}
        self._has_priv = "priv" in self._registers
        self._pc = arch.pc
        self._second_set = arch.second_set
        self._buffer = (ctypes.c_uint8 * 64)()
        self._absent = self._find_absent()
        self._all = self._plan(arch.registers)
        self._digest = self._plan([self._registers[n] for n in arch.digest_registers if n not in arch.register_index])

    def in_hooks(self) -> list[tuple[int, int]]:
        """(Unicorn's number or one of ``_hot.REGISTER_``…, bits) of each of ``Arch.registers``: how a hook reads it;
        REGISTER_ASK where it cannot."""
        return [self._in_hook(r) for r in self._all[0]]

    def _in_hook(self, r: Register) -> tuple[int, int]:
        bits = r.engine_bits or r.bits
        if r.name == self._pc:
            return _hot.REGISTER_PC, bits
        if r.engine is None and r.constant == 0:
            return _hot.REGISTER_ZERO, bits
        slot = self._slots[r.name]
        if (
            r.group
            or r.engine in _LATE
            or r.enabled_by
            or r.privilege
            or r.moved
            or r.ones
            or not slot.plain
            or slot.number < 0
        ):
            return _hot.REGISTER_ASK, bits
        return slot.number, bits

    def selector(self, name: str) -> tuple[int, bytes, int]:
        """(Unicorn's number, the bytes that its interface is given, where in them the value then is)"""
        slot = self._slots[name]
        return slot.number, slot.selector, slot.offset

    def _plan(self, registers: Sequence[Register]) -> tuple[list[Register], bytes]:
        """The native reader's plan; compound ids are read one by one afterwards."""
        pairs = []
        for r in registers:
            slot = self._slots[r.name]
            pairs.append(struct.pack("<ii", slot.number if slot.plain else -1, slot.size))
        return list(registers), b"".join(pairs)

    def _find_absent(self) -> frozenset[str]:
        """Coprocessor registers that this CPU model does not have."""
        before = os.environ.get(_STRICT)
        os.environ[_STRICT] = "1"
        try:
            return frozenset(name for name, slot in self._slots.items() if slot.selector and self._refused(slot))
        finally:
            if before is None:
                del os.environ[_STRICT]
            else:
                os.environ[_STRICT] = before

    def _refused(self, slot: _Slot) -> bool:
        ctypes.memset(self._buffer, 0, 64)
        ctypes.memmove(self._buffer, slot.selector, len(slot.selector))
        return bool(self._library.uc_reg_read(self._handle, slot.number, self._buffer))

    def raw_read(self, name: str) -> int:
        """What the engine holds, whatever the CPU's mode says about access; 0 of a register that its model lacks."""
        if name in self._absent:
            return 0
        slot = self._slots[name]
        ctypes.memset(self._buffer, 0, 64)
        ctypes.memmove(self._buffer, slot.selector, len(slot.selector))
        self._call(self._library.uc_reg_read, slot, name)
        return int.from_bytes(bytes(self._buffer[slot.offset : slot.offset + slot.size]), "little")

    def raw_write(self, name: str, value: int) -> None:
        if name in self._absent:
            return
        if name == self._pc and self._second_set:
            # Unicorn takes the instruction set from bit 0.
            register, mask = self._second_set.selected_by
            value = value & ~1 | (self.raw_read(register) & mask != 0)
        slot = self._slots[name]
        ctypes.memset(self._buffer, 0, 64)
        ctypes.memmove(self._buffer, slot.selector, len(slot.selector))
        if slot.offset or (not slot.plain and not slot.selector):
            self._call(self._library.uc_reg_read, slot, name)
        ctypes.memmove(
            ctypes.addressof(self._buffer) + slot.offset,
            (value & (1 << 8 * slot.size) - 1).to_bytes(slot.size, "little"),
            slot.size,
        )
        self._call(self._library.uc_reg_write, slot, name)

    def _call(self, function: Any, slot: _Slot, name: str) -> None:
        error = function(self._handle, slot.number, self._buffer)
        if error:
            raise EngineError(f"register {name}: {unicorn.UcError(error)}")

    @contextmanager
    def _privileged(self, needed: int, *, keep: bool) -> Iterator[None]:
        """Raise the RISC-V privilege around an access. Writing PRIV drops the LR reservation, so a read puts
        the whole context back; ``keep`` is for writes."""
        if not needed or self.raw_read("priv") >= needed:
            yield
            return
        before = self._save()
        priv = self.raw_read("priv")
        try:
            self.raw_write("priv", needed)
            yield
        finally:
            if keep:
                self.raw_write("priv", priv)
            else:
                self._restore(before)

    def _enabled(self, r: Register) -> bool:
        return r.enabled_by is None or self.read(r.enabled_by[0]) & r.enabled_by[1] != 0

    def read(self, name: str) -> int:
        if name in self._hidden:
            at, size = self._hidden[name]
            return int.from_bytes(self._save()[at : at + size], "little")
        r = self._registers[name]
        if r.engine is None or not self._enabled(r):
            return r.constant
        with self._privileged(r.privilege, keep=False):
            return _shown(r, self.raw_read(name) & (1 << (r.engine_bits or r.bits)) - 1)

    def write(self, name: str, value: int) -> None:
        if name in self._hidden:
            at, size = self._hidden[name]
            state = self._save()
            self._restore(state[:at] + value.to_bytes(size, "little") + state[at + size :])
            return
        r = self._registers[name]
        if r.engine is None or not self._enabled(r):
            return
        with self._privileged(r.privilege, keep=True):
            self.raw_write(name, _move(value, r.moved) & (1 << (r.engine_bits or r.bits)) - 1)

    def _read_many(self, registers: Sequence[Register], plan: bytes, *, ones: bool = True) -> bytes:
        priv = self.raw_read("priv") if self._has_priv else 0
        with self._privileged(max((r.privilege for r in registers), default=0), keep=False):
            raw = self._read_batch(plan)
        enabled: dict[tuple[str, int] | None, bool] = {None: True}
        out = []
        at = 0
        for r in registers:
            slot = self._slots[r.name]
            value = raw[at : at + slot.size]
            at += slot.size
            if r.enabled_by not in enabled:
                enabled[r.enabled_by] = self._enabled(r)
            if r.engine is None or not enabled[r.enabled_by]:
                value = r.constant.to_bytes(r.bits + 7 >> 3, "little")
            elif not slot.plain:
                value = self.raw_read(r.name).to_bytes(slot.size, "little")
            elif r.name == "priv":
                value = priv.to_bytes(slot.size, "little")
            elif r.moved or r.ones:
                shown = _shown(r, int.from_bytes(value, "little"))
                value = (shown if ones else shown & ~r.ones).to_bytes(slot.size, "little")
            elif r.engine_bits % 8:
                value = (int.from_bytes(value, "little") & (1 << r.engine_bits) - 1).to_bytes(slot.size, "little")
            out.append(value.ljust(r.bits + 7 >> 3, b"\0"))
        return b"".join(out)

    def read_all(self) -> bytes:
        """Every register of ``Arch.registers``, little-endian, ``bits / 8`` bytes each: the ``g`` packet."""
        return self._read_many(*self._all)

    def digest(self) -> bytes:
        """Canonical bytes of the whole architectural state."""
        return self._read_many(*self._all, ones=False) + self._read_many(*self._digest, ones=False)
