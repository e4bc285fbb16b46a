"""Figures: how something is timed, and what is kept of it."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

_T = TypeVar("_T")
RRGDB, QEMU = "rrgdb", "QEMU"


def timed(call: Callable[..., _T], *arguments: object) -> tuple[float, _T]:
    """Seconds that a call took, and what it returned. Every figure that is a time comes from here."""
    start = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - start, result


def seconds(
    call: Callable[..., object], *arguments: object, repeat: int = 1, before: Callable[[], object] | None = None
) -> list[float]:
    """Seconds that a call took, ``repeat`` times; ``before`` runs ahead of each and is not counted."""
    taken = []
    for _ in range(repeat):
        if before is not None:
            before()
        taken.append(timed(call, *arguments)[0])
    return taken


@dataclass(frozen=True, slots=True)
class Figure:
    """One cell of the table. ``values`` are all that was measured, in ``unit``; none: see ``note``."""

    group: str
    guest: str
    what: str
    who: str
    unit: str
    values: tuple[float, ...]
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self) -> str:
        if not self.values:
            return self.note or "-"
        words = f"{digits(self.median)} {self.unit}"
        if len(self.values) > 1:
            words += f" ({digits(min(self.values))} – {digits(max(self.values))})"
        return f"{words} {self.note}".rstrip()

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Figure:
        """The inverse of ``as_json``."""
        kept: dict[str, Any] = {f.name: record[f.name] for f in fields(cls)}
        return cls(**kept | {"values": tuple(record["values"])})

    def as_json(self) -> dict[str, Any]:
        record = asdict(self)
        if self.values:
            record |= {"median": self.median, "min": min(self.values), "max": max(self.values)}
        return record


def digits(value: float) -> str:
    """Three digits or so."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


@dataclass(slots=True)
class Figures:
    """All figures of a run, told on stderr as they come."""

    all: list[Figure] = field(default_factory=list)

    def add(
        self, group: str, guest: str, what: str, unit: str, values: Sequence[float], *, who: str = RRGDB, note: str = ""
    ) -> None:
        figure = Figure(group, guest, what, who, unit, tuple(values), note)
        self.all.append(figure)
        print(f"{group:9} {guest:8} {what:52} {who:5} {figure.text()}", file=sys.stderr, flush=True)

    def ms(
        self, group: str, guest: str, what: str, taken: Sequence[float], *, who: str = RRGDB, note: str = ""
    ) -> None:
        """Times in seconds, shown in milliseconds."""
        self.add(group, guest, what, "ms", [1e3 * s for s in taken], who=who, note=note)

    def mips(self, group: str, guest: str, what: str, taken: Sequence[float], instructions: int) -> None:
        """Times in seconds, shown as millions of instructions a second."""
        self.add(group, guest, what, "MIPS", [instructions / s / 1e6 for s in taken])
