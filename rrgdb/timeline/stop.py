"""Stops: where and why a move along the timeline ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from rrgdb.engine.base import Conditions, Stops, Watch, WatchHit


class StopKind(Enum):
    STEP = auto()
    """the asked-for position was reached"""
    BREAKPOINT = auto()
    WATCHPOINT = auto()
    SIGNAL = auto()
    """the guest raised an exception that it does not handle"""
    EXIT = auto()
    """the guest ended by itself"""
    HISTORY_BEGIN = auto()
    HISTORY_END = auto()
    INTERRUPT = auto()


@dataclass(frozen=True, slots=True)
class Stop:
    """``icount``: the position. ``address``: pc of a breakpoint or the watched address; ``watch``: the kind of the
    watchpoint (``w``, ``r``, ``a``), ``old`` and ``new`` its bytes before and after the access in time order; ``hits``:
    all that the same instruction hit, that one first."""

    kind: StopKind
    icount: int
    address: int | None = None
    watch: str = ""
    old: bytes = b""
    new: bytes = b""
    value: int = 0
    """GDB's signal number, or the exit status"""
    hits: tuple[WatchHit, ...] = ()

    @classmethod
    def at_watch(cls, icount: int, hits: tuple[WatchHit, ...]) -> Stop:
        first = hits[0]
        return cls(StopKind.WATCHPOINT, icount, first.address, first.kind, first.old, first.new, hits=hits)


@dataclass(frozen=True, slots=True)
class Condition:
    """Whether a breakpoint at the present position is to stop; asked with the guest standing there. ``code``: the
    same, for the engine and for other processes. ``failure``: why that cannot be told, if it cannot: the breakpoint is
    to stop then."""

    holds: Callable[[], bool]
    code: Conditions = ()
    failure: Callable[[], str | None] = lambda: None

    def __call__(self) -> bool:
        return self.holds()


@dataclass(frozen=True, slots=True)
class Points:
    """What stops a run: breakpoint addresses (with the conditions of all points there; None: always), watches, and
    one position in time. A watch stops behind the access, on the way back before it."""

    breakpoints: dict[int, Condition | None]
    watches: tuple[Watch, ...] = ()
    icount: int | None = None

    def stops(self, *, within: tuple[int, int] | None = None, collect: bool = False) -> Stops:
        """For an engine, which knows of conditions only their code."""
        breakpoints = tuple((address, None if c is None else c.code) for address, c in self.breakpoints.items())
        return Stops(breakpoints, self.watches, within, collect)

    def __bool__(self) -> bool:
        return bool(self.breakpoints or self.watches or self.icount is not None)
