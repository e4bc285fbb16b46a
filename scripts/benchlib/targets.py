"""What rrgdb aims at, held against the figures of one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchlib import kernels
from benchlib.figures import QEMU, RRGDB, Figure, digits

Pick = Callable[[Figure], float]


def _least(figure: Figure) -> float:
    return min(figure.values)


def _median(figure: Figure) -> float:
    return statistics.median(figure.values)


def _worst(figure: Figure) -> float:
    return max(figure.values)


@dataclass(frozen=True, slots=True)
class Target:
    """``what``: prefix of the figures' names in ``group``; of several the worst counts. ``over``: the result is their
    ratio to this figure (group, name, whose). ``most`` or ``least``: what it is to be."""

    name: str
    group: str
    what: str
    unit: str
    most: float | None = None
    least: float | None = None
    pick: Pick = _median
    over: tuple[str, str, str] | None = None
    guests: str = ""
    """of guests whose name ends so"""

    def measured(self, figures: Sequence[Figure], guest: str) -> float | None:
        """None: the figures of this guest do not tell."""
        if not guest.endswith(self.guests):
            return None
        own = [f for f in figures if f.guest == guest and f.values]
        found = [self.pick(f) for f in own if (f.group, f.who) == (self.group, RRGDB) and f.what.startswith(self.what)]
        if not found:
            return None
        value = min(found) if self.least is not None else max(found)
        if self.over is None:
            return value
        below = [_median(f) for f in own if (f.group, f.what, f.who) == self.over]
        return value / below[0] if below else None

    def met(self, value: float) -> bool:
        return value >= self.least if self.least is not None else self.most is None or value <= self.most

    @property
    def goal(self) -> str:
        return (
            f">= {digits(self.least)}"
            if self.least is not None
            else f"<= {digits(self.most or 0)} {self.unit}".rstrip()
        )


TAKE, RESTORE = "take: the guest waits", "restore of the neighbour"
RECORDING = "recording, with snapshots"
TO_QCOW2, FROM_QCOW2, DURABLE = "convert raw to qcow2", "convert qcow2 to raw", ", until it is on disk"
TARGETS = (
    Target(
        "recording / plain Unicorn with count=",
        "speed",
        RECORDING,
        "",
        least=2,
        over=("speed", "hot loop: plain Unicorn with count=", RRGDB),
    ),
    Target(
        "recording / the same guest with recording off",
        "speed",
        RECORDING,
        "",
        least=0.9,
        over=("speed", "recording off", RRGDB),
    ),
    Target(
        "recording / QEMU's recording, branchy guests",
        "speed",
        RECORDING,
        "",
        least=0.5,
        over=("speed", RECORDING, QEMU),
        guests="br",
    ),
    Target("event log per 1,000 instructions", "speed", "event log per 1,000", "bytes", most=2),
    Target("following reverse-stepi in the server, median", "travel", "following reverse-stepi", "ms", most=1),
    Target(
        "following reverse-stepi in the server, worst", "travel", "following reverse-stepi", "ms", most=20, pick=_worst
    ),
    Target("first reverse-stepi in the server, worst", "travel", "first reverse-stepi", "ms", most=150, pick=_worst),
    Target("snapshot of 1,000 pages", "snapshots", "snapshot: 1,000 pages", "ms", most=10),
    Target("restore of the neighbour, 1,000 pages", "snapshots", "restore of the neighbour: 1,000 pages", "ms", most=5),
    *(
        Target(
            f"{name}, 1,000 pages, {size} MiB RAM, 1,000 snapshots",
            "store",
            f"{what}: 1,000 snapshots, 1,000 pages, {size} MiB RAM",
            "ms",
            most=most,
        )
        for name, what, bound in (("taking a snapshot", TAKE, 10), ("restore of the neighbour", RESTORE, 5))
        for size, most in ((64, bound), (512, bound), (4096, 40))
    ),
    *(
        Target(
            f"{name}, 1,000 pages, {size} MiB RAM: with 1,000 snapshots / with 10",
            "store",
            f"{what}: 1,000 snapshots, 1,000 pages, {size} MiB RAM",
            "",
            most=1.2,
            over=("store", f"{what}: 10 snapshots, 1,000 pages, {size} MiB RAM", RRGDB),
        )
        for name, what in (("taking a snapshot", TAKE), ("restore of the neighbour", RESTORE))
        for size in (64, 512, 4096)
    ),
    *(
        Target(f"qcow2: {name}", "qcow2", what, "", least=0.5, over=("qcow2", over, QEMU))
        for name, what, over in (
            ("write / qemu-img convert", "write: ", TO_QCOW2),
            ("write, on disk / qemu-img convert -t writeback", "write until it is on disk: ", TO_QCOW2 + DURABLE),
            ("read / qemu-img convert", "read: ", FROM_QCOW2),
            ("convert to qcow2 / qemu-img convert -t writeback", TO_QCOW2 + DURABLE, TO_QCOW2 + DURABLE),
            ("convert to raw / qemu-img convert -t writeback", FROM_QCOW2 + DURABLE, FROM_QCOW2 + DURABLE),
        )
    ),
    Target(f"Linux: {kernels.BY_BLOCKS}", kernels.GROUP, kernels.BY_BLOCKS, "%", least=98),
    *(
        Target(f"Linux: {what}", kernels.GROUP, what, unit, most=most, pick=pick)
        for what, unit, most, pick in (
            (kernels.RECORDED_BY_QEMU, "", 1.25, _median),
            (kernels.REPLAYED, "", 1, _median),
            (kernels.VERIFIED, "", 0.7, _median),
            (kernels.FIRST, "", 0.05, _worst),
            (kernels.FOLLOWING_STEPS, "ms", 1, _median),
            *((what, "", most, _median) for what, (most, _) in kernels.SEARCHES.items()),
            (kernels.ARMED, "", 1.05, _median),
            (kernels.MEMORY, "MiB", 300, _median),
            (kernels.STORE, "MiB", 400, _median),
        )
    ),
    Target("small packets", "stub", "round trips: m", "/s", least=5000),
    Target("Ctrl-C to its stop, worst", "stub", "Ctrl-C", "ms", most=50, pick=_worst),
    Target(
        "reverse-stepi seen by gdb / QEMU's stepi",
        "gdb",
        "rsi: reverse-stepi at 1e9",
        "",
        most=1,
        over=("gdb", "stepi: stepi at 1e9", QEMU),
    ),
    Target(
        "stepi seen by gdb / QEMU's stepi",
        "gdb",
        "stepi: stepi at 1e9",
        "",
        most=1,
        over=("gdb", "stepi: stepi at 1e9", QEMU),
    ),
    Target("100 reverse-stepi at 1e8 through gdb", "gdb", "rsi100: 100 reverse-stepi at 1e8", "ms", most=250),
    Target("reverse watch from 1e9 through gdb", "gdb", "watch: reverse watch from 1e9", "ms", most=500),
    Target("reverse-continue from 1e9, breakpoint 9e8 before", "gdb", "rc: from 1e9, break 9e8 before", "ms", most=500),
    Target("reverse-continue from 1e9, 1,000 hits behind", "gdb", "rc: from 1e9, break hit every 1e6", "ms", most=150),
    Target("conditional breakpoint, true 10 hits back", "gdb", "cond: reverse-continue, break tick if", "ms", most=600),
)


def markdown(figures: Sequence[Figure]) -> str:
    """A row for each target that the figures tell something of, a column for each guest."""
    guests = sorted(dict.fromkeys(f.guest for f in figures))
    lines = ["### targets", "", "| | goal | " + " | ".join(guests) + " |", "|---|---|" + "---|" * len(guests)]
    for target in TARGETS:
        cells = []
        for guest in guests:
            value = target.measured(figures, guest)
            missed = "" if value is None or target.met(value) else " **missed**"
            cells.append("" if value is None else f"{digits(value)} {target.unit}".rstrip() + missed)
        if any(cells):
            lines.append(f"| {target.name} | {target.goal} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])
