"""What there is on a board, for a user to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rrgdb.arch.base import LINES
from rrgdb.board.device import Described, Device
from rrgdb.board.lines import Lines
from rrgdb.board.spec import BoardSpec, Placement
from rrgdb.engine.base import Engine
from rrgdb.guest import Area


class BoardHardware:
    """Implements ``rrgdb.guest.Hardware``."""

    def __init__(self, spec: BoardSpec, engine: Engine, devices: Sequence[Device], lines: Lines) -> None:
        self._spec = spec
        self._engine = engine
        self._devices = devices
        self._lines = lines

    def areas(self) -> Sequence[Area]:
        roms = {(place.base, place.size) for place in self._spec.roms}
        ram = (
            Area(region.base, region.base + region.size - 1, "ram", "ram")
            for region in self._engine.ram.regions
            if (region.base, region.size) not in roms
        )
        found = [*ram, *(area for place in self._spec.placements for area in _areas(place))]
        return sorted(found, key=lambda area: (area.kind == "port", area.first))

    def interrupts(self) -> Sequence[str]:
        high = ", ".join(f"{line}{self._driver(line)}" for line in self._lines.high)
        text = [f"lines that are high: {high or 'none'}"]
        interrupts = self._engine.arch.interrupts
        if interrupts is not None:
            levels = self._engine.read(LINES)
            inputs = ", ".join(name for name, bit in interrupts.lines.items() if levels >> bit & 1)
            pending = interrupts.pending(self._engine)
            text.append(f"inputs of the CPU that are high: {inputs or 'none'}")
            text.append(f"taken before the next instruction: {'none' if pending is None else pending}")
        for device in self._devices:
            if isinstance(device, Described):
                text += [f"{device.name}: {line}" for line in device.describe()]
        return text

    def _driver(self, line: int) -> str:
        names = [*(p.name for p in self._spec.placements if _drives(p, line))]
        names += [f"timer {name}" for name, number in self._spec.cpu_timers.items() if number == line]
        return f" ({', '.join(names)})" if names else ""


def _drives(place: Placement, line: int) -> bool:
    return place.line is not None and place.line <= line <= place.line + max(place.slots, default=0)


def _areas(place: Placement) -> Iterator[Area]:
    if place.space == "rom":
        yield Area(place.base, place.end - 1, "rom", place.name)
        return
    for offset, size in place.pieces:
        first = place.base + offset
        yield Area(first, first + size - 1, "i/o" if place.space == "mmio" else "port", place.name)
