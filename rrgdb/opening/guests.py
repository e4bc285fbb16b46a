"""Guests as they are built: engine, memory, devices and door together, at position 0. The one module that knows which
engine runs which kind of guest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rrgdb.arch import ARCHES
from rrgdb.arch.base import Arch
from rrgdb.board.firmware.image import Placed
from rrgdb.board.machine import Board
from rrgdb.board.spec import BoardSpec, Clock
from rrgdb.engine.base import Engine, EngineError
from rrgdb.engine.memory import PAGE, Ram
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb.engine.unicorn.scripted import ScriptEngine, new_uc
from rrgdb.guest import Guest
from rrgdb.recording import behaviour
from rrgdb.recording.directory import Recording
from rrgdb.recording.door import Door
from rrgdb.script.guest import ScriptGuest
from rrgdb.snapshots.images import DiskImage
from rrgdb.snapshots.store import SnapshotStore
from rrgdb.timeline.disks import Disks


@dataclass(frozen=True, slots=True)
class Built:
    guest: Guest
    door: Door
    disks: Disks


@dataclass(frozen=True, slots=True)
class BoardPlan:
    """A board's guest. ``reboot``: a reset restarts it."""

    placed: Placed
    spec: BoardSpec
    cpu: str
    clock: Clock = field(default_factory=Clock)
    reboot: bool = True
    slots: tuple[str, ...] | None = None
    legacy: bool = False

    @property
    def arch(self) -> Arch:
        return self.placed.arch

    @property
    def ram_bytes(self) -> int:
        return self.spec.memory_bytes(self.placed.ram)

    def build(
        self, recording: Recording, ram: Ram, images: Sequence[DiskImage], store: SnapshotStore | None, *, live: bool
    ) -> Built:
        """``live``: many written blocks of disks interrupt the guest."""
        engine = UnicornEngine(self.arch, ram, self.cpu)
        door = _door(engine, recording)
        disks = Disks(images, store, engine.interrupt if live else None)
        board = Board(
            self.spec,
            engine,
            self.placed,
            door,
            disks.disks,
            self.clock,
            reboot=self.reboot,
            slots=self.slots,
            legacy=self.legacy,
        )
        return Built(board, door, disks)


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
        door = _door(engine, recording)
        return Built(ScriptGuest(engine, door), door, Disks(images, store, engine.interrupt if live else None))


Plan = BoardPlan | ScriptPlan


def _door(engine: Engine, recording: Recording) -> Door:
    reason = behaviour.difference(recording.manifest, engine.arch.name)
    return Door(recording.log, lambda: max(engine.icount - 1, 0), reason=reason)
