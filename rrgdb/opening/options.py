"""What the user asks for when a guest is opened, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rrgdb.errors import UsageError

INTERVAL = 0.1
"""seconds of guest time between automatic snapshots"""
BUDGET = 4 << 30
"""bytes that the snapshot store may take"""


class OptionError(UsageError):
    """An option does not fit: one line naming it and what was expected."""


@dataclass(frozen=True, slots=True)
class GuestOptions:
    """What the user asked for. Sizes in bytes; ``load``/``entry`` are physical addresses of a raw image."""

    board: str | None = None
    cpu: str | None = None
    memory: int | None = None
    load: int | None = None
    entry: int | None = None
    args: str = ""


class NewDisk(NamedTuple):
    """A disk for a new guest: the user's image. ``name`` None: ``diskN``; ``format`` None: raw."""

    path: Path
    name: str | None = None
    format: str | None = None
    readonly: bool = False
