"""Guests as they are built: engine, memory, devices and door together, at position 0. The one module that knows which
engine runs which kind of guest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rrgdb.arch.base import Arch
from rrgdb.board.firmware.image import Placed
from rrgdb.board.machine import Board
from rrgdb.board.spec import BoardSpec, Clock
from rrgdb.engine.base import Engine
from rrgdb.engine.memory import Ram
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb.guest import Guest
from rrgdb.recording import behaviour
from rrgdb.recording.directory import Recording
from rrgdb.recording.door import Door
from rrgdb.snapshots.images import DiskImage
from rrgdb.snapshots.store import SnapshotStore
from rrgdb.timeline.disks import Disks


@dataclass(frozen=True, slots=True)
class Built:
    guest: Guest
    door: Door
    disks: Disks


class Plan(Protocol):
    """A guest that can be built."""

    @property
    def ram_bytes(self) -> int: ...

    def build(
        self, recording: Recording, ram: Ram, images: Sequence[DiskImage], store: SnapshotStore | None, *, live: bool
    ) -> Built:
        """``live``: many written blocks of disks interrupt the guest."""


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
        """See ``Plan``."""
        engine = UnicornEngine(self.arch, ram, self.cpu)
        door = door_for(engine, recording)
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


def door_for(engine: Engine, recording: Recording) -> Door:
    reason = behaviour.difference(recording.manifest, engine.arch.name)
    return Door(recording.log, lambda: max(engine.icount - 1, 0), reason=reason)
