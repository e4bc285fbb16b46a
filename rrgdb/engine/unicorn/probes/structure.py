"""Unicorn's own structures in this process, for what its interface does not offer.

Nothing is taken from a table of offsets: places are found by experiments on scratch engines, once a process.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

import unicorn
from unicorn import unicorn_const as const
from unicorn import x86_const
from unicorn.unicorn_py3 import unicorn as binding

from rrgdb.engine.base import EngineError

_ENGINE_BYTES = 24 << 10
"""as much of Unicorn's engine structure as is searched"""
_CPU_BYTES = 128 << 10
_CODE = 0x10000
_TRANSLATED_BYTES = 1 << 20
_START = itemgetter(0)
_NOT_ZERO = re.compile(rb"[^\0]")


def scratch(arch: int, mode: int) -> Any:
    """A fresh engine of Unicorn for an experiment, with little room for translated code: Unicorn reserves a GiB for
    each, and ends the process where it gets none."""
    uc: Any = unicorn.Uc(arch, mode)
    uc.ctl_set_tcg_buffer_size(_TRANSLATED_BYTES)
    return uc


def structure(uc: Any, mapped: list[tuple[int, int]]) -> bytes:
    """The engine structure as it is now. ``mapped`` is what ``memory`` said since the engine was made."""
    return ctypes.string_at(uc._uch.value, readable(uc._uch.value, _ENGINE_BYTES, mapped))


def _content(address: int, size: int) -> bytes:
    """Memory of this process; less, or nothing, where it is none any more: since ``memory`` was asked, a collection of
    garbage or another thread may have closed an engine."""
    try:
        with open("/proc/self/mem", "rb", buffering=0) as own:
            return os.pread(own.fileno(), size, address)
    except OSError:
        return b""


def changed(before: bytes, after: bytes) -> list[int]:
    """Places of the bytes that differ, ascending; what one of the two has behind the other's end is not looked at."""
    size = min(len(before), len(after))
    first, second = int.from_bytes(before[:size], "little"), int.from_bytes(after[:size], "little")
    return [other.start() for other in _NOT_ZERO.finditer((first ^ second).to_bytes(size, "little"))]


def taking(states: Sequence[bytes], values: Sequence[int]) -> list[int]:
    """Places at which a byte is ``values[n]`` in ``states[n]``, for each n. The first two values differ."""
    columns = ((at, [state[at : at + 1] for state in states]) for at in changed(*states[:2]))
    wanted = [bytes([value]) for value in values]
    return [at for at, column in columns if column == wanted]


def mappings(mode: str = "") -> list[tuple[int, int]]:
    """(start, end) of what this process has mapped, in a way that begins with ``mode``, ascending."""
    with open("/proc/self/maps", "rb") as maps:  # the path of a library may be anything
        spans = re.findall(rb"^([0-9a-f]+)-([0-9a-f]+) " + mode.encode(), maps.read(), re.MULTILINE)
    return [(int(low, 16), int(high, 16)) for low, high in spans]


def memory() -> list[tuple[int, int]]:
    """(start, end) of what can be read and written in this process, ascending."""
    return mappings("rw")


def readable(address: int, most: int, mapped: list[tuple[int, int]]) -> int:
    """How many bytes, at most ``most``, can be read from ``address`` on; 0 if it is no address of this process.
    ``mapped`` is what ``memory`` said."""
    end = address
    for low, high in mapped[max(bisect_right(mapped, address, key=_START) - 1, 0) :]:
        if not low <= end < high or end - address >= most:
            break
        end = high
    return min(end - address, most)


def one(found: list[int], what: str) -> int:
    """The only place found. EngineError, saying ``what`` ("family: thing") is hidden, if there is none or more."""
    if len(found) != 1:
        family, thing = what.split(": ", 1)
        raise EngineError(
            f"{family}: Unicorn {unicorn.__version__} hides {thing}; rrgdb needs the version that it is tied to"
        )
    return found[0]


def _candidates(uc: Any, marks: bytes) -> set[tuple[int, int]]:
    """(place of a pointer in the engine structure, distance from where it points to the marks)"""
    mapped = memory()
    engine = structure(uc, mapped)
    words = enumerate(struct.unpack_from(f"<{len(engine) // 8}Q", engine))
    pointers = [(8 * n, word, readable(word, _CPU_BYTES, mapped)) for n, word in words if word >> 16]
    places = _occurrences([(word, word + size) for _, word, size in pointers if size], marks)
    found = set[tuple[int, int]]()
    for at, pointer, size in pointers:
        near = places[bisect_left(places, pointer) : bisect_right(places, pointer + size - len(marks))]
        found.update((at, place - pointer) for place in near)
    return found


def _occurrences(spans: list[tuple[int, int]], marks: bytes) -> list[int]:
    """Addresses, ascending, at which ``marks`` stand within spans (start, end) of this process. Pointers lie close
    together: what their spans share is searched once."""
    found: list[int] = []
    for start, end in _merged(spans):
        content = _content(start, end - start)
        at = content.find(marks)
        while at >= 0:
            found.append(start + at)
            at = content.find(marks, at + 1)
    return found


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same addresses as ascending spans that do not touch."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged


def holding(uc: Any, ways: Iterable[tuple[int, int]], marks: bytes) -> tuple[tuple[int, int], ...]:
    """Those of ``ways`` (as of ``find_cpu``) that lead to ``marks`` in that engine."""
    mapped, size = memory(), len(marks)
    places = {way: place(uc, way) for way in ways}
    return tuple(
        way for way, at in places.items() if readable(at, size, mapped) == size and _content(at, size) == marks
    )


def place(uc: Any, way: tuple[int, int]) -> int:
    """Where a way leads."""
    pointer, distance = way
    return int(ctypes.c_uint64.from_address(uc._uch.value + pointer).value) + distance


def find_cpu(marked: Callable[[int], tuple[Any, bytes]], family: str) -> tuple[tuple[int, int], ...]:
    """How the registers of a CPU are reached from its engine structure: (place of a pointer in it, distance from where
    that points). ``marked(n)``: the n-th engine and what its registers hold, each time something else: memory of this
    process near the engine may hold what was looked for before, and would go on holding it. EngineError if there is no
    way."""
    # Other pointers may lie near the CPU by chance: what several engines have in common is no chance.
    common = tuple(sorted(_candidates(*marked(0))))
    for n in range(1, 4):
        uc, marks = marked(n)
        common = holding(uc, common, marks)
    if not common:
        one([], f"{family}: its CPU")
    return common


@cache
def no_sync() -> int:
    """Offset in the engine structure of the flag (1 byte) by which Unicorn leaves the CPU's state as it is where it
    would bring it up to date for a hook or an exit. Each run begins with it clear; writing the program counter alone
    sets it, writing it in a batch does not. EngineError where this build of Unicorn has no such flag."""
    uc = scratch(const.UC_ARCH_X86, const.UC_MODE_32)
    uc.mem_map(_CODE, 0x1000)
    uc.mem_write(_CODE, b"\x90\x90")
    pc = x86_const.UC_X86_REG_EIP

    def run() -> None:
        uc.emu_start(_CODE, _CODE + 2)

    acts = (lambda: uc.reg_write_batch([(pc, _CODE)]), lambda: uc.reg_write(pc, _CODE), run)
    run()
    mapped, seen = memory(), list[bytes]()
    for act in acts * 2:
        act()
        seen.append(structure(uc, mapped))
    return one(taking(seen, (0, 1, 0) * 2), "Hooks: how to leave the state alone")


def mapping_at(uc: Any, arch: int, family: str) -> int:
    """Address of the word in an engine structure that points to Unicorn's search for what is mapped at a physical
    address. 0 where this build of Unicorn does not show that function."""
    core = "x86_64" if arch == const.UC_ARCH_X86 else family
    try:
        function = getattr(binding.uclib, f"find_memory_mapping_{core}")
    except AttributeError:
        return 0
    wanted = (ctypes.cast(function, ctypes.c_void_p).value or 0).to_bytes(8, "little")
    try:
        inside = no_sync()
    except EngineError:
        return 0
    # Behind the structure may lie what was one before; the flag is in it.
    engine = structure(uc, memory())[:inside]
    found = [at for at in range(0, len(engine) - 7, 8) if engine[at : at + 8] == wanted]
    return uc._uch.value + found[0] if len(found) == 1 else 0
