"""A device with timers and an interrupt line, and boards that have it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from rrgdb.board.boards import BOARDS, default_board
from rrgdb.board.device import Machine
from rrgdb.board.devices.state import Field, StatefulDevice
from rrgdb.board.spec import BoardSpec, Placement

LINE = 5
PLACES = {"riscv": 0x10202000, "aarch64": 0x0B003000, "arm": 0x0B003000, "pc": 0xEB0}
RING = 16
MASK = (1 << 32) - 1


class Toy(StatefulDevice):
    """0x0: period in virtual nanoseconds, 0 stops; 0x4: address of an array of 16 words; 0x8: lower the line.

    Each tick writes its number and time into the array, changes the interrupt line, asks the host now and then, and is
    followed by another timer, at the same time or a little later, that changes one more word."""

    FIELDS = (Field("period", 32), Field("address", 32), Field("count", 32), Field("last", 64))

    period: int
    address: int
    count: int
    last: int

    def __init__(self, name: str, machine: Machine) -> None:
        self.fired: list[tuple[str, int, int]] = []
        """(timer, time that it was set to, virtual time): not a part of its state"""
        self._tick_timer = machine.timer(name, self._tick)
        self._echo_timer = machine.timer(f"{name}.echo", self._echo)
        super().__init__(name, machine)

    def reset(self) -> None:
        super().reset()
        self._tick_timer.cancel()
        self._echo_timer.cancel()

    def _tick(self, due: int) -> None:
        self.fired.append(("tick", due, self.machine.virtual_ns()))
        self.count = self.count + 1 & MASK
        self.last = due
        if self.count % 5 == 0:
            self.last ^= int.from_bytes(self.machine.host.entropy(self.name, 4), "little")
        if self.count % 8 == 0:
            self.machine.host.output(self.name, bytes([self.count & 0xFF]))
        self._put(0, self.count)
        self._put(1, due)
        line = self.machine.line_of(self.name)
        self.machine.irq(line, not self.machine.is_raised(line))
        if self.period:
            self._tick_timer.at(due + self.period)
            if self._echo_timer.when is None:
                self._echo_timer.at(due + (self.period if self.count % 3 else 1))

    def _echo(self, due: int) -> None:
        self.fired.append(("echo", due, self.machine.virtual_ns()))
        self._put(2 + self.count % (RING - 2), self.last * 2654435761 + due)

    def _put(self, index: int, value: int) -> None:
        self.machine.write_physical(self.address + 4 * index, (value & MASK).to_bytes(4, "little"))

    def read(self, offset: int, size: int) -> int:
        return self.count if offset == 0 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        match offset:
            case 0x0:
                self.period = value
                if value:
                    self._tick_timer.at(self.machine.virtual_ns() + value)
                else:
                    self._tick_timer.cancel()
            case 0x4:
                self.address = value
            case 0x8:
                self.machine.irq(self.machine.line_of(self.name), False)


def toy_board(arch: str, spec: BoardSpec | None = None) -> BoardSpec:
    """``spec``, or the default board of ``arch`` (``Arch.name``), with such a device, under the same name."""
    spec = spec or default_board(arch)
    base = next(place for key, place in PLACES.items() if key in spec.name)
    space = "port" if base < 0x10000 else "mmio"
    place = Placement(Toy, "toy", base, 16 if space == "port" else 0x1000, space, line=LINE)
    return replace(spec, placements=(*spec.placements, place), lines=max(spec.lines, LINE + 1))


@contextmanager
def toys() -> Iterator[None]:
    """All boards that have a place for it have such a device inside."""
    with patch.dict(
        BOARDS,
        {spec.name: toy_board(spec.arches[0]) for spec in BOARDS.values() if any(key in spec.name for key in PLACES)},
    ):
        yield
