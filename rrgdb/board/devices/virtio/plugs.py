"""What is plugged into the virtio slots of a board."""

from __future__ import annotations

from collections.abc import Callable

from rrgdb.board.device import Device, Machine
from rrgdb.board.devices.virtio.blk import VirtioBlk
from rrgdb.board.devices.virtio.console import VirtioConsole
from rrgdb.board.devices.virtio.disk import Disk
from rrgdb.board.devices.virtio.earlier import EarlierVirtioBlk
from rrgdb.board.devices.virtio.mmio import VirtioDevice
from rrgdb.board.devices.virtio.rng import VirtioRng

DISK = "disk"
OTHERS: dict[str, Callable[..., VirtioDevice]] = {"rng": VirtioRng, "console": VirtioConsole}
"""(name, machine, line, legacy=…), by the words that stand for them"""


def disk_device(machine: Machine, disk: Disk, line: int | None, *, legacy: bool) -> VirtioBlk | EarlierVirtioBlk:
    """The device of a disk in a slot; ``line``: its interrupt line, None on boards that raise no interrupts."""
    return EarlierVirtioBlk(machine, disk) if line is None else VirtioBlk(machine, disk, line, legacy=legacy)


def other_device(word: str, number: int, machine: Machine, line: int | None, *, legacy: bool) -> Device:
    """A device that has nothing behind it: ``rng0``. ValueError on boards that raise no interrupts."""
    if line is None:
        raise ValueError(f"a board without interrupts has no virtio device {word}")
    return OTHERS[word](f"{word}{number}", machine, line, legacy=legacy)
