"""Registers of a Unicorn CPU by GDB's names and by the names in ``Arch.system_registers``."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import unicorn

from rrgdb.arch.base import Arch, Register
from rrgdb.engine.base import EngineError
from rrgdb.engine.unicorn import _hot
from rrgdb.engine.unicorn.probes.places import places

_STRICT = "UC_IGNORE_REG_BREAK"
"""in the environment: Unicorn returns an error for a register that the CPU model lacks, and does not print a warning"""


@contextmanager
def _strict() -> Iterator[None]:
    before = os.environ.get(_STRICT)
    os.environ[_STRICT] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_STRICT]
        else:
            os.environ[_STRICT] = before


@dataclass(frozen=True, slots=True)
class Part:
    """A register that Unicorn's interface passes inside a structure: its number, the bytes that the structure begins
    with and that choose the register, and where in the structure its value is. A write keeps the rest of it."""

    number: int
    offset: int
    size: int
    selector: bytes = b""


class Numbers(Protocol):
    """Registers of up to 64 bits by Unicorn's numbers."""

    def get(self, number: int) -> int: ...
    def put(self, number: int, value: int) -> None: ...


class Access(Protocol):
    """A register that takes more than one step to reach."""

    def read(self, cpu: Numbers) -> int: ...
    def write(self, cpu: Numbers, value: int) -> None: ...


RegisterId = int | Part | Access
"""Unicorn's number of a register, or more where a number does not do"""


@dataclass(frozen=True, slots=True)
class Quirk:
    """What must be heeded of a register beyond reading its bytes."""

    privilege: tuple[str, int] | None = None
    """(register, least value) at which Unicorn's interface reaches it; below, the interface reads garbage and drops
    writes without an error: the context is saved, that register raised, and for a read the context restored"""
    enabled_by: tuple[str, int] | None = None
    """(register, mask): while that has no bit of the mask set, the interface answers garbage: it then reads as 0 and
    ignores writes"""
    moved: tuple[tuple[int, int], ...] = ()
    """(bit, where Unicorn has it): Unicorn's own bits of those places do not exist"""
    ones: int = 0
    """bits that read as 1 and that Unicorn lacks; state digests leave them out"""
    late: bool = False
    """Unicorn brings it up to date only at a stop"""


_PLAIN = Quirk()
_WORD = struct.Struct("<i5I")
"""before a selector; see ``_registers.h``"""


def _move(value: int, pairs: Sequence[tuple[int, int]]) -> int:
    """``value`` with bits (from, to) elsewhere: neither place keeps what it had."""
    moved = [(value >> start & 1) << end for start, end in pairs]
    for start, end in pairs:
        value &= ~(1 << start | 1 << end)
    return value | sum(moved)


def _shown(quirk: Quirk, value: int) -> int:
    """The architectural value of what the engine holds."""
    return _move(value, [(engine, bit) for bit, engine in quirk.moved]) | quirk.ones


def _check(name: str, error: int) -> None:
    if error:
        raise EngineError(f"register {name}: {unicorn.UcError(error)}")


class _Slot:
    """How one register is passed to uc_reg_read and uc_reg_write; ``number`` -1: not at all; ``word``: for the native
    half, of one of up to eight bytes; empty: it has more."""

    __slots__ = ("access", "number", "offset", "plain", "quirk", "selector", "size", "word")

    def __init__(self, register: Register, id_: RegisterId | None, quirk: Quirk) -> None:
        self.quirk = quirk
        self.size = (register.width or register.bits) + 7 >> 3
        self.selector = b""
        self.offset = 0
        self.number = -1
        self.word = b""
        self.plain = id_ is None or isinstance(id_, int)
        self.access: Access | None = None
        if isinstance(id_, Part):
            self.number, self.offset, self.size, self.selector = id_.number, id_.offset, id_.size, id_.selector
        elif isinstance(id_, int):
            self.number = id_
        else:
            self.access = id_
        if self.number >= 0 and self.size <= 8:
            self.word = self.word_at(0)

    def word_at(self, privilege: int) -> bytes:
        """``word``, to be read with that privilege at least."""
        place = (self.number, self.offset, self.size, not self.plain, privilege, len(self.selector))
        return _WORD.pack(*place) + self.selector


class _Plan(NamedTuple):
    """Registers that are read together. The native reader takes ``native``; it leaves what is no plain register to be
    read by itself."""

    registers: tuple[tuple[Register, _Slot], ...]
    native: bytes
    privilege: tuple[str, int] | None
    """the least at which all of them are reached"""


class _Privileged(NamedTuple):
    """A register that the native half reads at the ``least`` privilege that shows it, and writes where the CPU has
    that. ``mask``: its bits; ``moved``: those that are elsewhere in one of the two, wherever they are."""

    least: int
    word: bytes
    mask: int
    moved: int
    quirk: Quirk


class RegisterFile:
    """Reads and writes registers of one uc_engine.

    ``ids`` names all of the family that are no constants, ``quirks`` those that need care. ``read_batch(plan)`` is the
    native reader; ``read_word(word)`` and ``write_word(word, value)``, which returns Unicorn's error, are for one of
    up to eight bytes. ``save``/``restore`` keep and bring back the CPU context. ``hidden`` are further registers that
    only the context shows: name to (place, bytes). ``privilege_at``: address at which Unicorn itself keeps the
    privilege, if that is known.
    """

    def __init__(
        self,
        library: Any,
        handle: Any,
        arch: Arch,
        ids: Mapping[str, RegisterId],
        quirks: Mapping[str, Quirk],
        read_batch: Callable[[bytes], bytes],
        read_word: Callable[[bytes], int],
        write_word: Callable[[bytes, int], int],
        save: Callable[[], bytes],
        restore: Callable[[bytes], None],
        hidden: Mapping[str, tuple[int, int]],
        privilege_at: int | None,
    ) -> None:
        self._library = library
        self._handle = handle
        self._read_batch = read_batch
        self._read_word = read_word
        self._write_word = write_word
        self._save = save
        self._restore = restore
        self._hidden = hidden
        self._privilege_word = None if privilege_at is None else ctypes.c_uint32.from_address(privilege_at)
        self._registers = {r.name: r for r in arch.registers}
        for name in arch.system_registers:
            self._registers.setdefault(name, Register(name, 64))
        self._slots = {
            name: _Slot(r, ids[name] if r.constant is None else None, quirks.get(name, _PLAIN))
            for name, r in self._registers.items()
        }
        self._privilege = next((q.privilege[0] for q in quirks.values() if q.privilege), "")
        self._pc = arch.pc
        self._byteorder = arch.byteorder
        self._second_set = arch.second_set
        self._buffer = (ctypes.c_uint8 * 64)()
        self._word = ctypes.c_uint64()
        self._word_at = ctypes.byref(self._word)
        self._absent = self._find_absent()
        self._simple = {
            name: (slot.word, (1 << (r.width or r.bits)) - 1)
            for (name, r), slot in zip(self._registers.items(), self._slots.values(), strict=True)
            if r.constant is None and self._is_simple(name, slot)
        }
        self._privileged_words = {} if privilege_at is None else dict(self._find_privileged())
        self._all = self._plan(arch.registers)
        self._digest = self._plan([self._registers[n] for n in arch.digest_registers if n not in arch.register_index])

    def _is_simple(self, name: str, slot: _Slot) -> bool:
        """Unicorn's interface has it as it is, in up to eight bytes, alone or behind a selector."""
        plain = slot.word and name not in self._absent and replace(slot.quirk, late=False) == _PLAIN
        return bool(plain) and name not in self._hidden and not (name == self._pc and self._second_set)

    def _find_privileged(self) -> Iterator[tuple[str, _Privileged]]:
        for (name, r), slot in zip(self._registers.items(), self._slots.values(), strict=True):
            quirk = slot.quirk
            if name in self._absent or name in self._hidden or not slot.word:
                continue
            if quirk.privilege and not quirk.enabled_by:
                least = quirk.privilege[1]
                moved = sum(1 << at for pair in quirk.moved for at in pair)
                yield name, _Privileged(least, slot.word_at(least), (1 << (r.width or r.bits)) - 1, moved, quirk)

    def in_hooks(self) -> list[tuple[int, int]]:
        """(Unicorn's number or one of ``_hot.REGISTER_``…, bits) of each of ``Arch.registers``: how a hook reads it;
        REGISTER_ASK where it cannot."""
        return [self._in_hook(r, slot) for r, slot in self._all.registers]

    def in_code(self, arch: int, mode: int) -> list[tuple[int, int, int]]:
        """The same with the place in the CPU's structure, for generated code; -1: it is not simply there."""
        registers = self.in_hooks()
        simple = tuple((number, bits >> 3) for number, bits in registers if number >= 0 and bits in (32, 64))
        with _strict():
            found = dict(zip(simple, places(arch, mode, simple), strict=True)) if simple else {}
        return [(number, bits, found.get((number, bits >> 3), -1)) for number, bits in registers]

    def _in_hook(self, r: Register, slot: _Slot) -> tuple[int, int]:
        bits = r.width or r.bits
        if r.name == self._pc:
            return _hot.REGISTER_PC, bits
        if r.constant == 0:
            return _hot.REGISTER_ZERO, bits
        if r.group or slot.quirk != _PLAIN or not slot.plain or slot.number < 0:
            return _hot.REGISTER_ASK, bits
        return slot.number, bits

    def word(self, name: str) -> bytes:
        """One of up to eight bytes, for the native half: as Unicorn holds it, and where it shows it."""
        simple = self._simple.get(name)
        return self._privileged_words[name].word if simple is None else simple[0]

    def selector(self, name: str) -> tuple[int, bytes, int, int]:
        """(Unicorn's number, the bytes that its interface is given, where in them the value then is, the least
        privilege that it is shown at)"""
        slot = self._slots[name]
        least = 0 if slot.quirk.privilege is None else slot.quirk.privilege[1]
        return slot.number, slot.selector, slot.offset, least

    def _plan(self, registers: Sequence[Register]) -> _Plan:
        slots = [self._slots[r.name] for r in registers]
        native = b"".join(struct.pack("<ii", slot.number if slot.plain else -1, slot.size) for slot in slots)
        levels = [slot.quirk.privilege for slot in slots if slot.quirk.privilege is not None]
        return _Plan(tuple(zip(registers, slots, strict=True)), native, max(levels, default=None))

    def _find_absent(self) -> frozenset[str]:
        """Coprocessor registers that this CPU model does not have."""
        with _strict():
            return frozenset(name for name, slot in self._slots.items() if slot.selector and self._refused(slot))

    def _refused(self, slot: _Slot) -> bool:
        ctypes.memset(self._buffer, 0, 64)
        ctypes.memmove(self._buffer, slot.selector, len(slot.selector))
        return bool(self._library.uc_reg_read(self._handle, slot.number, self._buffer))

    def raw_read(self, name: str) -> int:
        """What the engine holds, whatever the CPU's mode says about access; 0 of a register that its model lacks."""
        if name in self._absent:
            return 0
        slot = self._slots[name]
        if slot.word:
            return self._read_word(slot.word)
        if slot.access is not None:
            return slot.access.read(self)
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
        if slot.word:
            _check(name, self._write_word(slot.word, value))
            return
        if slot.access is not None:
            slot.access.write(self, value)
            return
        ctypes.memset(self._buffer, 0, 64)
        ctypes.memmove(self._buffer, slot.selector, len(slot.selector))
        if not slot.plain:
            self._call(self._library.uc_reg_read, slot, name)
        ctypes.memmove(
            ctypes.addressof(self._buffer) + slot.offset,
            (value & (1 << 8 * slot.size) - 1).to_bytes(slot.size, "little"),
            slot.size,
        )
        self._call(self._library.uc_reg_write, slot, name)

    def _call(self, function: Any, slot: _Slot, name: str) -> None:
        _check(name, function(self._handle, slot.number, self._buffer))

    def get(self, number: int) -> int:
        """See ``Numbers``."""
        self._word.value = 0
        self._library.uc_reg_read(self._handle, number, self._word_at)
        return self._word.value

    def put(self, number: int, value: int) -> None:
        self._word.value = value
        self._library.uc_reg_write(self._handle, number, self._word_at)

    @contextmanager
    def _privileged(self, needed: tuple[str, int] | None, *, keep: bool) -> Iterator[None]:
        """Raise the privilege around an access. On RISC-V that drops the LR reservation, so a read raises it behind
        Unicorn's back, or puts the whole context back; ``keep`` is for writes."""
        word = self._privilege_word
        if needed is None or (self.raw_read(needed[0]) if word is None else word.value) >= needed[1]:
            yield
            return
        name, least = needed
        if word is not None and not keep:
            privilege, word.value = word.value, least
            try:
                yield
            finally:
                word.value = privilege
            return
        before = self._save()
        privilege = self.raw_read(name)
        try:
            self.raw_write(name, least)
            yield
        finally:
            if keep:
                self.raw_write(name, privilege)
            else:
                self._restore(before)

    def _enabled(self, quirk: Quirk) -> bool:
        return quirk.enabled_by is None or self.read(quirk.enabled_by[0]) & quirk.enabled_by[1] != 0

    def read(self, name: str) -> int:
        simple = self._simple.get(name)
        if simple is not None:
            return self._read_word(simple[0]) & simple[1]
        privileged = self._privileged_words.get(name)
        if privileged is not None:
            value = self._read_word(privileged.word) & privileged.mask
            return _shown(privileged.quirk, value) if value & privileged.moved else value | privileged.quirk.ones
        if name in self._hidden:
            at, size = self._hidden[name]
            return int.from_bytes(self._save()[at : at + size], "little")
        r, quirk = self._registers[name], self._slots[name].quirk
        if r.constant is not None:
            return r.constant
        if not self._enabled(quirk):
            return 0
        with self._privileged(quirk.privilege, keep=False):
            return _shown(quirk, self.raw_read(name) & (1 << (r.width or r.bits)) - 1)

    def write(self, name: str, value: int) -> None:
        simple = self._simple.get(name)
        if simple is not None:
            _check(name, self._write_word(simple[0], value & simple[1]))
            return
        privileged, level = self._privileged_words.get(name), self._privilege_word
        if privileged is not None and level is not None and level.value >= privileged.least:
            if value & privileged.moved:
                value = _move(value, privileged.quirk.moved)
            _check(name, self._write_word(privileged.word, value & privileged.mask))
            return
        if name in self._hidden:
            at, size = self._hidden[name]
            state = self._save()
            self._restore(state[:at] + value.to_bytes(size, "little") + state[at + size :])
            return
        r, quirk = self._registers[name], self._slots[name].quirk
        if r.constant is not None or not self._enabled(quirk):
            return
        with self._privileged(quirk.privilege, keep=True):
            self.raw_write(name, _move(value, quirk.moved) & (1 << (r.width or r.bits)) - 1)

    def _read_many(self, plan: _Plan, *, ones: bool = True) -> list[bytes]:
        """The value of each, little-endian, in ``bits / 8`` bytes."""
        name = self._privilege
        privilege = self.raw_read(name) if name else 0
        with self._privileged(plan.privilege, keep=False):
            raw = self._read_batch(plan.native)
        enabled: dict[tuple[str, int] | None, bool] = {None: True}
        out = []
        at = 0
        for r, slot in plan.registers:
            quirk = slot.quirk
            value = raw[at : at + slot.size]
            at += slot.size
            if quirk.enabled_by not in enabled:
                enabled[quirk.enabled_by] = self._enabled(quirk)
            if r.constant is not None or not enabled[quirk.enabled_by]:
                value = (r.constant or 0).to_bytes(r.bits + 7 >> 3, "little")
            elif not slot.plain:
                value = self.raw_read(r.name).to_bytes(slot.size, "little")
            elif r.name == name:
                value = privilege.to_bytes(slot.size, "little")
            elif quirk.moved or quirk.ones:
                shown = _shown(quirk, int.from_bytes(value, "little"))
                value = (shown if ones else shown & ~quirk.ones).to_bytes(slot.size, "little")
            elif r.width % 8:
                value = (int.from_bytes(value, "little") & (1 << r.width) - 1).to_bytes(slot.size, "little")
            out.append(value.ljust(r.bits + 7 >> 3, b"\0"))
        return out

    def read_all(self) -> bytes:
        """Every register of ``Arch.registers``, in ``Arch.byteorder``, ``bits / 8`` bytes each: the ``g`` packet."""
        values = self._read_many(self._all)
        return b"".join(values if self._byteorder == "little" else (value[::-1] for value in values))

    def digest(self) -> bytes:
        """Canonical bytes of the whole architectural state."""
        return b"".join((*self._read_many(self._all, ones=False), *self._read_many(self._digest, ones=False)))
