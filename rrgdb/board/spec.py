"""What a board is, as data: its memory map and the devices on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rrgdb.board.device import DeviceFactory

MIB = 1 << 20
GIB = 1 << 30
PAGE = 4096


@dataclass(frozen=True, slots=True)
class Placement:
    """One device on the bus: ``size`` bytes at physical address ``base``, or ``size`` I/O ports from ``base``. Space
    ``rom`` is memory that the device stands before."""

    factory: DeviceFactory
    name: str
    base: int
    size: int
    space: Literal["mmio", "port", "rom"] = "mmio"
    slots: tuple[int, ...] = ()
    """of a device that is ``Slots``: the numbers of its slots, in the order in which they are filled"""
    line: int | None = None
    """the interrupt line that it drives; slots drive this one and those behind it, by their numbers"""

    gap: tuple[int, int] = (0, 0)
    """(first, behind last) offset inside it at which there is nothing"""

    @property
    def end(self) -> int:
        return self.base + self.size

    @property
    def pieces(self) -> tuple[tuple[int, int], ...]:
        """(offset, bytes) of what it takes."""
        hole, behind = self.gap
        return tuple((start, end - start) for start, end in ((0, hole), (behind, self.size)) if start < end)


@dataclass(frozen=True, slots=True)
class RamLayout:
    """RAM that a board can have. Made by ``BoardSpec.ram`` alone."""

    regions: tuple[tuple[int, int], ...]
    """(base, bytes) of each piece, ascending"""

    @property
    def bytes(self) -> int:
        """Without the board's holes."""
        return sum(size for _, size in self.regions)

    @property
    def stack_top(self) -> int:
        """Initial stack pointer: the end of RAM, less 16 bytes so that it is mapped."""
        return sum(self.regions[-1]) - 16


@dataclass(frozen=True, slots=True)
class Clock:
    """Virtual time: ``icount << shift`` nanoseconds, and what the CPU has slept; QEMU's ``-icount``.

    ``sleep``: to sleep takes as long on the host; else time jumps to where the next timer runs out."""

    shift: int = 0
    sleep: bool = True


@dataclass(frozen=True)
class BoardSpec:
    """A board; sizes in bytes. Its CPU models are ``Arch.models``; the first of ``arches`` is the default."""

    name: str
    arches: tuple[str, ...]
    description: str
    ram_base: int
    default_ram: int
    max_ram: int
    placements: tuple[Placement, ...]
    serial: str
    """name of the device that is the console: what the user types comes to it"""
    semihosting_input: bool = False
    """semihosting reads what comes by a source of its own, not what has come to the console"""
    holes: tuple[tuple[int, int], ...] = ()
    """(start, end) addresses inside RAM that hold no RAM"""
    banks: tuple[tuple[int, int], ...] = ()
    """(base, bytes) of further RAM, elsewhere; the size that a user gives does not count it. A board that has some has
    RAM of its default size alone"""
    psci: Literal["", "1.0", "1.1"] = ""
    """HVC and SMC are answered as calls of that version of PSCI; empty: of none"""
    multiboot: bool = False
    """images with a Multiboot header start as that specification says"""
    lines: int = 0
    """how many interrupt lines there are: their numbers are below that"""
    cpu_timers: Mapping[str, int] = field(default_factory=dict)
    """the interrupt lines that the CPU's own timers drive, by their names in ``CpuTimers``"""
    sleeps: bool = False
    """a CPU that waits for an interrupt sleeps until one comes, and virtual time passes; else it goes on at once"""
    restarts: bool = False
    """a reset restarts the machine; else it ends it"""
    tree: Callable[[Any], Any] | None = None
    """its device tree: a ``Node`` for ``TreeFacts``, both of ``firmware.devicetree``; None: it has none"""
    revision: int = 1
    """raised by whatever a guest can tell; the board as it was before is kept for recordings that were made with it"""

    @property
    def disks(self) -> int:
        """How many disks it has slots for."""
        return sum(len(place.slots) for place in self.placements)

    @property
    def roms(self) -> tuple[Placement, ...]:
        """The devices that stand before memory."""
        return tuple(place for place in self.placements if place.space == "rom")

    def memory_bytes(self, ram: RamLayout) -> int:
        """Of RAM and of what devices stand before."""
        return ram.bytes + sum(place.size for place in self.roms)

    def ram(self, size: int) -> RamLayout:
        """RAM of ``size`` bytes, which counts the holes, as QEMU's ``-m`` does. ``ValueError`` if the board cannot have
        that."""
        least = self.default_ram if self.banks else max((end - self.ram_base for _, end in self.holes), default=0) + MIB
        if size % PAGE or not least <= size <= self.max_ram:
            raise ValueError(
                f"board {self.name}: RAM of {size:#x} bytes, expected a multiple of {PAGE:#x} "
                f"from {least:#x} to {self.max_ram:#x}"
            )
        regions = []
        start = self.ram_base
        for hole, end in self.holes:
            regions.append((start, hole - start))
            start = end
        regions.append((start, self.ram_base + size - start))
        return RamLayout(tuple(sorted((*self.banks, *regions))))

    def device_at(self, address: int, length: int) -> Placement | None:
        """The first memory-mapped device that [address, address + length) touches."""
        for place in self.placements:
            if place.space == "mmio" and any(
                address < place.base + offset + size and place.base + offset < address + length
                for offset, size in place.pieces
            ):
                return place
        return None


def format_size(size: int) -> str:
    """``128 MiB``, ``4 GiB``."""
    return f"{size // GIB} GiB" if size % GIB == 0 else f"{size // MIB} MiB"


def machine_rows(boards: Iterable[BoardSpec]) -> list[tuple[str, str, str, str, str]]:
    """Rows of ``rrgdb machines``: name, arches, RAM (default and maximum), devices, description."""
    return [
        (
            board.name,
            " ".join(board.arches),
            f"{format_size(board.default_ram)} (max {format_size(board.max_ram)})",
            ", ".join(f"{p.name}@{p.base:#x}" for p in sorted(board.placements, key=lambda p: (p.space, p.base))),
            board.description,
        )
        for board in boards
    ]
