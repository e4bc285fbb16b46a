"""What lies in memory when a machine starts: contents of files at addresses, checked together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from rrgdb.arch import ARCHES
from rrgdb.board.firmware.image import (
    ImageError,
    Placed,
    Segment,
    as_of,
    check_memory,
    load_elf,
    stack_and_heap,
    without_headers,
)
from rrgdb.board.firmware.kernels import File
from rrgdb.board.spec import BoardSpec, RamLayout


@dataclass(frozen=True, slots=True)
class ElfPart:
    """Of an ELF file that was put into memory: physical addresses. ``low`` to ``high``: all that its segments take."""

    entry: int
    low: int
    high: int


class Parts:
    """Files may lie in RAM, and in the memory behind ROM and flash. ``ImageError`` for all others, and for two that
    overlap."""

    def __init__(self, board: BoardSpec, ram: RamLayout) -> None:
        self._board = board
        self._ram = ram
        self._regions = (*ram.regions, *((place.base, place.size) for place in board.roms))
        self._parts: list[tuple[str, Segment]] = []
        self._numbers: list[Segment] = []
        self._left_out = ""

    def put(self, name: str, address: int, data: bytes, size: int = 0) -> int:
        """Data at an address, zeros behind it up to ``size`` bytes; the address behind it. ``name`` is for messages."""
        if data:
            self._add(name, Segment(address, address, data, max(size, len(data))))
        return address + len(data)

    def put_number(self, name: str, address: int, data: bytes) -> None:
        """Data that files may cover."""
        segment = Segment(address, address, data, len(data))
        check_memory(segment, name, self._board, self._regions)
        self._numbers.append(segment)

    def put_elf(self, file: File) -> ElfPart:
        """The segments of an ELF file for the board's CPU; headers outside RAM are left out."""
        image = as_of(load_elf(file.data, file.name), self._board)
        if image.arch.name not in self._board.arches:
            expected = f"{' or '.join(self._board.arches)} for board {self._board.name}"
            raise ImageError(file.name, 0x12, f"image for {image.arch.name}", expected)
        found = ElfPart(image.entry, min(s.paddr for s in image.segments), max(s.end for s in image.segments))
        image = without_headers(image, self._regions)
        self._left_out = self._left_out or image.left_out
        for segment in image.segments:
            self._add(file.name, segment)
        return found

    def _add(self, name: str, segment: Segment) -> None:
        check_memory(segment, name, self._board, self._regions)
        self._parts.append((name, segment))

    def placed(self, entry: int, registers: Mapping[str, int], args: str, configuration: Mapping[int, bytes]) -> Placed:
        """The machine with all that was put, starting at ``entry``, which is not looked at."""
        self._parts.sort(key=lambda part: part[1].paddr)
        for (below, first), (above, second) in pairwise(self._parts):
            if second.paddr < first.end:
                what = (
                    f"{above} at {second.paddr:#x}-{second.end - 1:#x} overlaps "
                    f"{below} at {first.paddr:#x}-{first.end - 1:#x}"
                )
                raise ImageError(above, second.offset, what, "each in memory of its own")
        segments = (*self._numbers, *(segment for _, segment in self._parts))
        stack, heap = stack_and_heap(self._ram, [s for s in segments if s.end < self._ram.stack_top])
        arch = ARCHES[self._board.arches[0]]
        return Placed(
            arch, entry, segments, registers, self._ram, stack, heap, args, self._left_out, configuration=configuration
        )
