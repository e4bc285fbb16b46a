"""Where a CPU's structure lies in this process, and what of it a register is.

General registers that hold marks lead to it: their values stand in the structure one behind the other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rrgdb.engine.unicorn.probes.layout import Context
from rrgdb.engine.unicorn.probes.structure import changed, find_cpu, holding, one, place


@dataclass(frozen=True)
class Cpus:
    """CPUs of one family: ``make`` makes an engine of Unicorn; ``registers`` are its numbers of general registers, of
    ``size`` bytes each."""

    family: str
    """in words, for errors"""
    make: Callable[[], Any]
    registers: tuple[int, ...]
    size: int

    def _marks(self, turn: int) -> tuple[int, ...]:
        return tuple((0x5A17C0DE ^ turn * 0x11111111) + 0x01010101 * n for n in range(len(self.registers)))

    def _packed(self, turn: int) -> bytes:
        return struct.pack(f"<{len(self.registers)}{'Q' if self.size == 8 else 'I'}", *self._marks(turn))

    def _write(self, uc: Any, values: Sequence[int]) -> None:
        for register, value in zip(self.registers, values, strict=True):
            uc.reg_write(register, value)

    def _marked(self, turn: int) -> tuple[Any, bytes]:
        """A new engine, and what its registers hold."""
        uc = self.make()
        self._write(uc, self._marks(turn))
        return uc, self._packed(turn)

    @cached_property
    def _ways(self) -> tuple[tuple[int, int], ...]:
        return find_cpu(self._marked, self.family)

    def address(self, uc: Any) -> int:
        """That of the first general register, of an engine that is not running. EngineError where it is not found."""
        kept = tuple(uc.reg_read(register) for register in self.registers)  # the first access makes the CPU
        ways = self._ways
        # What was in memory before holds one of them at most.
        for turn in (1, 2, 3):
            self._write(uc, self._marks(turn))
            ways = holding(uc, ways, self._packed(turn))
        self._write(uc, kept)
        return one(sorted({place(uc, way) for way in ways}), f"{self.family}: its CPU")

    def offset(self, write: Callable[[Any, int], None], first: int, second: int, what: str) -> int:
        """Distance from the first general register to the one byte that differs when ``write(uc, value)`` has written
        either value. EngineError, saying ``what`` is hidden, if it is not one byte."""
        uc, marks = self._marked(0)
        context = Context(uc)
        start = context.save().find(marks)
        write(uc, first)
        before = context.save()
        write(uc, second)
        after = context.save()
        found = changed(before, after) if start >= 0 else []
        return one(found, f"{self.family}: {what}") - start
