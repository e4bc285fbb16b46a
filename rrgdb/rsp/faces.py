"""What packets and monitor commands need of a debuggee, as values of their tables.

AUXV, LIBRARIES, SYSCALLS and FILES are for programs, which no debuggee of rrgdb is yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from rrgdb.rsp.debuggee import (
    Auxv,
    Debuggee,
    Executable,
    Files,
    Hardware,
    Libraries,
    MemoryMap,
    Physical,
    Snapshots,
    Syscalls,
    Time,
    Watching,
)

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
PHYSICAL: Face[Physical] = Face("physical", lambda debuggee: debuggee.faces.physical)
WATCHING: Face[Watching] = Face("watching", lambda debuggee: debuggee.faces.watching)
HARDWARE: Face[Hardware] = Face("hardware", lambda debuggee: debuggee.faces.hardware)
EXECUTABLE: Face[Executable] = Face("executable", lambda debuggee: debuggee.faces.executable)
AUXV: Face[Auxv] = Face("auxv", lambda debuggee: debuggee.faces.auxv)
LIBRARIES: Face[Libraries] = Face("libraries", lambda debuggee: debuggee.faces.libraries)
SYSCALLS: Face[Syscalls] = Face("syscalls", lambda debuggee: debuggee.faces.syscalls)
FILES: Face[Files] = Face("files", lambda debuggee: debuggee.faces.files)
