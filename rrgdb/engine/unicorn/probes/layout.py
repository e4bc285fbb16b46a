"""Where this build of Unicorn keeps what its register API does not show.

Nothing is taken from a table of offsets: experiments find the places (see ``probes.experiments``).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import unicorn
from unicorn.unicorn_py3 import unicorn as binding

HEADER = 40
"""bytes before the CPU's own in a uc_context"""
_lib = binding.uclib


class Bound(NamedTuple):
    """A number of ``size`` bytes ``at`` a place in the context, which is one of ``values``: Unicorn looks things up by
    it, unchecked."""

    at: int
    size: int
    values: frozenset[int]

    def holds(self, state: bytes) -> bool:
        return int.from_bytes(state[self.at : self.at + self.size], "little") in self.values


@dataclass(frozen=True, slots=True)
class Layout:
    """Offsets into the bytes of a saved CPU context, None where the probe found nothing (or more than one place).

    ``more_bytes`` is how much of the CPU must be saved behind what Unicorn saves by itself, where that ends too early.
    """

    more_bytes: int = 0
    fault_address: int | None = None
    """RISC-V: xtval; Arm: FAR or DFAR"""
    syndrome: int | None = None
    """AArch64: ESR; ARM: the fault status (4 bytes)"""
    error_code: int | None = None
    """x86 (4 bytes)"""
    previous_exception: int | None = None
    """x86 (4 bytes): the exception that a double fault would be decided by; -1: none"""
    flags: int | None = None
    """x86 (8 bytes): the condition flags, where they are all computed"""
    code_segment: int | None = None
    """x86: selector (4 bytes), 4 bytes, base (8 bytes), limit and flags (4 bytes each)"""
    modes: int | None = None
    """x86 (4 bytes): Unicorn's flags of the mode; bit 4 and 15 say that code is 32-bit and 64-bit"""
    hidden: dict[str, tuple[int, int]] = field(default_factory=dict)
    """(place, bytes) of what no register of the interface shows, by the name that arch gives it"""
    banked: range = range(0)
    """ARM: stack pointers, links and saved status of the other modes"""
    hosts: tuple[int, ...] = ()
    """8-byte words that hold addresses of this process or its time: 0 in a fresh engine, and no part of the guest's
    state"""
    objects: tuple[int, ...] = ()
    """8-byte words that hold addresses of what the engine has made, or what it was made as: those of another engine
    would have it write anywhere"""
    lists: int | None = None
    """ARM: where lists of 4-byte words begin that reach to the end, each behind the number of its words: regions of the
    memory protection unit. Unicorn takes their lengths from the bytes that it restores"""
    region: int | None = None
    """ARM (4 bytes, and 4 for the other security state): which of these regions is chosen"""
    bounds: tuple[Bound, ...] = ()
    """what every state keeps to"""
    missing: tuple[str, ...] = ()
    """what the probe should have found and did not"""


class Context:
    """A uc_context with as many bytes as ``layout`` says, whatever the CPU's model; None: as Unicorn makes it.

    The layout's ``hosts`` and ``objects`` read as 0. A state that is restored leaves the objects as they are."""

    def __init__(self, uc: Any, layout: Layout | None = None) -> None:
        self.uc = uc  # kept alive: the handle is only good that long
        self._handle = handle = uc._uch
        layout = layout or Layout()
        self._bounds = layout.bounds
        self._hosts, self._objects = _runs(layout.hosts), _runs(layout.objects)
        native = ctypes.c_void_p()
        self._check(_lib.uc_context_alloc(handle, ctypes.byref(native)))
        self._check(_lib.uc_context_save(handle, native))
        header = ctypes.string_at(native, HEADER)
        _lib.uc_context_free(native)
        self.size = int.from_bytes(header[:8], "little") + layout.more_bytes
        self._buffer = ctypes.create_string_buffer(self.size.to_bytes(8, "little") + header[8:], HEADER + self.size)
        self._counts = () if layout.lists is None else _counts(self.save(), layout.lists)
        if layout.region is not None:
            regions = frozenset(range(max(1, *(count for _, count in self._counts))))
            self._bounds += tuple(Bound(at, 4, regions) for at in (layout.region, layout.region + 4))

    @property
    def address(self) -> int:
        """Of the uc_context, for native code that saves into it and restores from it at once."""
        return ctypes.addressof(self._buffer)

    @staticmethod
    def _check(error: int) -> None:
        if error:
            raise unicorn.UcError(error)

    def save(self) -> bytes:
        self._check(_lib.uc_context_save(self._handle, self._buffer))
        self._forget(self._hosts + self._objects)
        return self._buffer.raw[HEADER:]

    def _forget(self, runs: Iterable[tuple[int, int]]) -> None:
        for at, size in runs:
            ctypes.memset(self.address + HEADER + at, 0, size)

    def restore(self, state: bytes) -> None:
        """ValueError if the bytes cannot be the state of this CPU."""
        if len(state) != self.size:
            raise ValueError(f"CPU context of {len(state)} bytes, expected {self.size}")
        if any(int.from_bytes(state[at : at + 4], "little") != count for at, count in self._counts):
            raise ValueError("CPU context of another number of memory regions")
        for bound in self._bounds:
            if not bound.holds(state):
                raise ValueError(f"CPU context with a value at byte {bound.at} that no CPU has")
        self.put_back(state)

    def put_back(self, state: bytes) -> None:
        """As ``restore``, of a state that is known to be one."""
        start = self.address + HEADER
        kept: list[tuple[int, bytes]] = []
        if self._objects:
            self._check(_lib.uc_context_save(self._handle, self._buffer))
            kept = [(at, ctypes.string_at(start + at, size)) for at, size in self._objects]
        ctypes.memmove(start, state, self.size)
        self._forget(self._hosts)
        for at, words in kept:
            ctypes.memmove(start + at, words, len(words))
        self._check(_lib.uc_context_restore(self._handle, self._buffer))


def _runs(places: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """(start, bytes) of the runs of 8-byte words at these places."""
    runs: list[tuple[int, int]] = []
    for at in sorted(places):
        if runs and sum(runs[-1]) == at:
            runs[-1] = (runs[-1][0], runs[-1][1] + 8)
        else:
            runs.append((at, 8))
    return tuple(runs)


def _counts(state: bytes, at: int) -> tuple[tuple[int, int], ...]:
    """(place, value) of the number before each list of ``Layout.lists``."""
    found = []
    while at < len(state):
        count = int.from_bytes(state[at : at + 4], "little")
        found.append((at, count))
        at += 4 + 4 * count
    return tuple(found)
