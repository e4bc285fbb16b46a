"""Guests that are what a script does: as they are built, and new recordings of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrgdb.arch import ARCHES
from rrgdb.arch.base import Arch
from rrgdb.engine.base import EngineError
from rrgdb.engine.memory import PAGE, Ram
from rrgdb.engine.unicorn.build import build_id
from rrgdb.engine.unicorn.scripted import ScriptEngine, new_uc
from rrgdb.opening.guests import Built, door_for
from rrgdb.opening.limits import BUDGET, INTERVAL
from rrgdb.opening.live import Say, give_up, go_live
from rrgdb.opening.opened import Opened
from rrgdb.recording.directory import Recording
from rrgdb.script.guest import ScriptGuest
from rrgdb.snapshots.images import DiskImage
from rrgdb.snapshots.naming import START
from rrgdb.snapshots.store import SnapshotStore
from rrgdb.timeline.disks import Disks
from rrgdb.timeline.options import MEMORY_BUDGET


@dataclass(frozen=True, slots=True)
class ScriptPlan:
    """A script's machine: ``uc`` is a plain ``unicorn.Uc``; ``ram_bytes``: what it can map altogether."""

    arch: Arch
    ram_bytes: int
    uc: Any

    @classmethod
    def recorded(cls, recording: Recording) -> ScriptPlan:
        """As a manifest has it. Raises ManifestError."""
        guest, misfit = recording.manifest.guest, recording.misfit
        if guest.images:
            raise misfit("guest.images", "none, of a script's machine", len(guest.images))
        if guest.disks:
            raise misfit("guest.disks", "none, of a script's machine", len(guest.disks))
        arch = ARCHES.get(guest.board)
        if arch is None:
            raise misfit("guest.board", f"a CPU family, one of {', '.join(ARCHES)}", guest.board)
        if not guest.ram_bytes or guest.ram_bytes % PAGE:
            raise misfit("guest.ram_bytes", f"a positive multiple of {PAGE}", guest.ram_bytes)
        if not re.fullmatch(r"[0-9]{1,9}", guest.cpu):
            raise misfit("guest.cpu", "Unicorn's number of a model", guest.cpu)
        try:
            uc = new_uc(arch, int(guest.cpu))
        except EngineError as e:
            raise misfit("guest.cpu", f"Unicorn's number of a model ({e})", guest.cpu) from None
        return cls(arch, guest.ram_bytes, uc)

    def build(
        self, recording: Recording, ram: Ram, images: Sequence[DiskImage], store: SnapshotStore | None, *, live: bool
    ) -> Built:
        """As a board's; there are no disks."""
        engine = ScriptEngine(self.arch, ram, self.uc)
        door = door_for(engine, recording)
        return Built(ScriptGuest(engine, door), door, Disks(images, store, engine.interrupt if live else None))


def record_script(
    path: Path,
    uc: Any,
    arch: Arch,
    memory: int,
    *,
    interval: float = INTERVAL,
    budget: int = BUDGET,
    say: Say = lambda _line: None,
) -> Opened:
    """Begin a recording of what a script does with ``uc``, a plain ``unicorn.Uc``, in directory ``path``, standing at
    icount 0. ``memory``: bytes that the script can map altogether, a multiple of 4096.

    Raises OSError, EngineError, RecordingError, StoreError: one line each.
    """
    with ExitStack() as stack:
        recording = Recording.create(
            path,
            kind="script",
            board=arch.name,
            cpu=str(uc.ctl_get_cpu_model()),
            ram_bytes=memory,
            images=[],
            engine=build_id(),
        )
        stack.callback(give_up, recording)
        plan = ScriptPlan(arch, memory, uc)
        opened = go_live(stack, recording, plan, [], interval, budget, MEMORY_BUDGET, 1, say, START)
        stack.pop_all()
        return opened
