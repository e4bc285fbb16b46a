"""Slots for virtio devices (virtio 1.2, section 4.2, "Virtio Over MMIO"; as QEMU's ``virtio-mmio``).

A slot without a device has device id 0, and no state.
"""

from __future__ import annotations

from typing import ClassVar

from rrgdb.board.device import Device, Machine
from rrgdb.board.devices.virtio.mmio import MAGIC, SLOT_BYTES, VENDOR


class VirtioMmio:
    """Slots for virtio devices, at this distance from each other in bytes.

    A slot that is empty shows version 2 if all devices in the others are of that version: QEMU's switch for it is one
    for all slots."""

    STRIDE: ClassVar[int] = 0x1000

    def __init__(self, name: str, machine: Machine) -> None:
        self.name = name
        self.slots: dict[int, Device] = {}

    def plug(self, slot: int, device: Device) -> None:
        self.slots[slot] = device

    def reset(self) -> None:
        """Slots have no state."""

    def read(self, offset: int, size: int) -> int:
        slot, register = divmod(offset, self.STRIDE)
        device = self.slots.get(slot)
        if device is not None:
            return device.read(register, size) if register < SLOT_BYTES else 0
        value = {0x000: MAGIC, 0x004: self._empty_version, 0x00C: VENDOR}.get(register, 0)
        return value & ((1 << 8 * size) - 1)

    @property
    def _empty_version(self) -> int:
        devices = self.slots.values()
        return 2 if devices and not any(getattr(device, "legacy", False) for device in devices) else 1

    def write(self, offset: int, size: int, value: int) -> None:
        slot, register = divmod(offset, self.STRIDE)
        device = self.slots.get(slot)
        if device is not None and register < SLOT_BYTES:
            device.write(register, size, value)

    def save(self) -> bytes:
        return b""

    def load(self, state: bytes) -> None:
        if state:
            raise ValueError(f"{self.name}: state of {len(state)} bytes, expected none")


class DenseVirtioMmio(VirtioMmio):
    """Slots for virtio devices, as close as they can be."""

    STRIDE = SLOT_BYTES
