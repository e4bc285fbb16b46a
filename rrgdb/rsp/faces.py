"""What packets and monitor commands need of a debuggee, as values of their tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from rrgdb.rsp.debuggee import Debuggee, Executable, MemoryMap, Snapshots, Time

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Face(Generic[F]):
    """``of`` finds it in a debuggee; None: the debuggee does not have it."""

    name: str
    of: Callable[[Debuggee], F | None]


BASE: Face[Debuggee] = Face("", lambda debuggee: debuggee)
TIME: Face[Time] = Face("time", lambda debuggee: debuggee.faces.time)
SNAPSHOTS: Face[Snapshots] = Face("snapshots", lambda debuggee: debuggee.faces.snapshots)
MEMORY_MAP: Face[MemoryMap] = Face("memory map", lambda debuggee: debuggee.faces.memory_map)
EXECUTABLE: Face[Executable] = Face("executable", lambda debuggee: debuggee.faces.executable)
