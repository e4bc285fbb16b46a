"""Every packet that the stub serves. What is not in the table gets the empty reply."""

from __future__ import annotations

from typing import Any

from rrgdb.rsp.commands import (
    breakpoints,
    features,
    files,
    memory,
    monitor,
    process,
    qemu,
    registers,
    resume,
    search,
    syscalls,
    threads,
    xfer,
)
from rrgdb.rsp.commands.base import Command

_FAMILIES = (
    features, process, threads, resume, registers, memory, breakpoints, syscalls, xfer, files, search, monitor, qemu
)  # fmt: skip
_SERVED: tuple[Command[Any], ...] = tuple(command for family in _FAMILIES for command in family.COMMANDS)

COMMANDS: tuple[Command[Any], ...] = (features.supported(_SERVED), *_SERVED)
