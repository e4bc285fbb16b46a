"""Where a timeline stands: at the live present, in history, or in a diversion from it.

    ====================  =======================  ====================  ========
    where                 what happens             where then            the door
    ====================  =======================  ====================  ========
    AtPresent             Leave                    InHistory, live       REPLAY
    InHistory, live       Return                   AtPresent             RECORD
    InHistory             Divert                   Diverted              DIVERT
    Diverted              Run                      Diverted, ran         DIVERT
    Diverted              Drop                     InHistory, as before  REPLAY
    ====================  =======================  ====================  ========

It begins at the present of a guest that is live, and stays in history at rest, but for diversions, where none is. A
diversion at the present leaves the present first, and returns to it at last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rrgdb.engine.base import Engine
from rrgdb.errors import Error
from rrgdb.recording.door import Door, Mode
from rrgdb.recording.log import EventLog
from rrgdb.timeline.checkpoints import Mark


class TimelineError(Error):
    """The move cannot be made: one line."""


@dataclass(frozen=True, slots=True)
class AtPresent:
    """The guest is live and at the end of history: what it does is recorded."""


@dataclass(frozen=True, slots=True)
class InHistory:
    """``present``: the end of a live guest's history, to which it can return; None: the recording is at rest."""

    present: Mark | None = None


@dataclass(frozen=True, slots=True)
class Diverted:
    """In a throw-away branch. ``history``, ``origin``, ``registers``: where it begins, and those of GDB there; ``ran``:
    something was executed in it."""

    history: InHistory
    origin: Mark
    registers: bytes
    ran: bool = False


Where = AtPresent | InHistory | Diverted
MODES: dict[type[Where], Mode] = {AtPresent: Mode.RECORD, InHistory: Mode.REPLAY, Diverted: Mode.DIVERT}


@dataclass(frozen=True, slots=True)
class Leave:
    """The present, which is kept in ``present``, is left for history."""

    present: Mark


@dataclass(frozen=True, slots=True)
class Return:
    """The present is put back, or history has been replayed up to it."""


@dataclass(frozen=True, slots=True)
class Divert:
    """A debugger writes in the past. ``origin``, ``registers``: as in ``Diverted``."""

    origin: Mark
    registers: bytes


@dataclass(frozen=True, slots=True)
class Run:
    """A diversion is about to execute something."""


@dataclass(frozen=True, slots=True)
class Drop:
    """A diversion is thrown away; its origin is put back."""


Event = Leave | Return | Divert | Run | Drop


def after(where: Where, event: Event) -> Where:
    """Where the timeline stands after an event. ValueError if that cannot happen there."""
    match where, event:
        case AtPresent(), Leave(present=present):
            return InHistory(present)
        case InHistory(present=Mark()), Return():
            return AtPresent()
        case InHistory() as history, Divert(origin=origin, registers=registers):
            return Diverted(history, origin, registers)
        case Diverted() as diverted, Run():
            return replace(diverted, ran=True)
        case Diverted(history=history), Drop():
            return history
    raise ValueError(f"{type(event).__name__} where the timeline is {type(where).__name__}")


class Whereabouts:
    """Where one timeline stands. Nothing else sets the mode of its door.

    ``at_present``, ``in_history``, ``diversion``: which one ``now`` is. ``present``: the live one that was left; None
    at the present itself, and for a recording at rest. ``live``: the guest can be run on past the end of history."""

    def __init__(self, engine: Engine, door: Door, log: EventLog, *, live: bool) -> None:
        self._engine = engine
        self._door = door
        self._log = log
        self.live = live
        self._stand(AtPresent() if live else InHistory())

    def _stand(self, where: Where) -> None:
        # Every move asks for these, many times.
        self.now = where
        self.at_present = isinstance(where, AtPresent)
        self.in_history = isinstance(where, InHistory)
        self.diversion = where if isinstance(where, Diverted) else None
        history = where.history if isinstance(where, Diverted) else where
        self.present = history.present if isinstance(history, InHistory) else None
        self._door.mode = MODES[type(where)]

    def happens(self, event: Event) -> None:
        """ValueError if that cannot happen here."""
        self._stand(after(self.now, event))

    @property
    def end(self) -> int:
        """Last position of history: the live present, or of the log."""
        if self.at_present:
            return self._engine.icount
        present = self.present
        if present is not None:
            return present.icount
        return self._log.last
