"""What a timeline asks of a guest; boards (and programs) provide it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rrgdb.engine.base import Engine, Exit


@dataclass(frozen=True, slots=True)
class End:
    """How a guest ended: ``kind`` is ``exit`` (``value`` its status), ``signal`` (an exception without a handler;
    GDB's signal number) or ``halt`` (asleep with nothing that could wake it)."""

    kind: str
    value: int


@dataclass(frozen=True, slots=True)
class Area:
    """Physical addresses, or I/O ports, ``first`` to ``last``, and who answers there."""

    first: int
    last: int
    kind: Literal["ram", "rom", "i/o", "port"]
    name: str


class Notices:
    """What a user should know of a guest, each once: where it left what is modelled, and the like. They are no part of
    its state.

    ``added`` is called with each new one that ``leaves``; the guest may be in an instruction then."""

    MOST = 100

    def __init__(self) -> None:
        self.added: Callable[[], None] = lambda: None
        self.left = False
        """whether there was one that leaves what is modelled"""
        self._known: set[tuple[str, int | str]] = set()
        self._new: list[str] = []

    def add(self, kind: str, which: int | str, text: str, *, leaves: bool = True) -> None:
        if (kind, which) in self._known or len(self._known) > self.MOST:
            return
        self._known.add((kind, which))
        self._new.append(text if len(self._known) <= self.MOST else "no more of what is not modelled is told")
        if leaves:
            self.left = True
            self.added()

    def take(self) -> list[str]:
        """Those that were not taken yet."""
        taken, self._new = self._new, []
        return taken


class Hardware(Protocol):
    """What there is around the CPU, for a user to look at. Nothing of it changes by that."""

    def areas(self) -> Sequence[Area]:
        """The memory map, ascending, ports behind."""

    def interrupts(self) -> Sequence[str]:
        """Interrupt lines and controllers, in lines of text."""


class Guest(Protocol):
    """Engine, memory and devices together, with the whole state in three parts: RAM, CPU (the engine's) and devices."""

    @property
    def engine(self) -> Engine: ...
    @property
    def cpus(self) -> Sequence[Engine]:
        """All CPUs, as a debugger looks at them one by one; a guest of one CPU is run by that."""

    @property
    def hardware(self) -> Hardware | None:
        """None: nothing is known of it."""

    idle: Callable[[], None]
    consoles: tuple[str, ...]
    """sources of the host by which it talks to its user: output comes by all of them, input goes to the first"""
    cause: str
    """in words, why it has ended by a signal or halted; of the end that was reached last"""
    notices: Notices
    debugged: bool
    """A breakpoint instruction that the guest has no handler for (ebreak, brk, bkpt, int3) does not end it:
    ``run_until`` comes back before it with BREAKPOINT_TRAP, as often as it is called. Without effect on scripts, which
    handle their exceptions themselves."""

    @property
    def end(self) -> End | None:
        """Set once the guest has ended; it does not run any more then."""

    def resurrect(self) -> None:
        """Forget the end: a diversion may go on behind it."""

    def run_until(self, icount: int) -> Exit: ...
    def save_devices(self) -> bytes: ...
    def load_devices(self, state: bytes) -> None: ...
