"""Arm's Generic Interrupt Controller version 2 (ARM IHI 0048B) with one CPU, as QEMU's ``arm_gic`` is: two groups, 8
bits of priority, no security and no virtualization extensions. Where the manual leaves things open (a wrong GICC_EOIR,
GICD_SPENDSGIR of zero), it does as QEMU.

The distributor is at offset 0, the CPU interface at ``CPU_INTERFACE``.
"""

from __future__ import annotations

from collections.abc import Sequence

from rrgdb.board.device import Machine
from rrgdb.board.devices.intc.gic_cpu_interface import CpuInterface
from rrgdb.board.devices.intc.gic_distributor import Distributor
from rrgdb.board.devices.intc.gic_registers import CPU_INTERFACE, DISTRIBUTOR_BYTES
from rrgdb.board.devices.intc.gic_state import GicState


class Gic(GicState):
    """Drives the inputs ``irq`` and ``fiq`` of the CPU."""

    def __init__(self, name: str, machine: Machine) -> None:
        super().__init__(name, machine)
        self._distributor = Distributor(self)
        self._cpu_interface = CpuInterface(self)

    def read(self, offset: int, size: int) -> int:
        if offset < DISTRIBUTOR_BYTES:
            return self._distributor.read(offset, size)
        return self._cpu_interface.read(offset - CPU_INTERFACE) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        if offset < DISTRIBUTOR_BYTES:
            self._distributor.write(offset, size, value)
        else:
            self._cpu_interface.write(offset - CPU_INTERFACE, value)

    def describe(self) -> Sequence[str]:
        enabled, active = (int.from_bytes(bitmap, "little") for bitmap in (self.enabled, self.active))
        sets = {"enabled": enabled, "pending": self.all_pending, "active": active}
        members = ", ".join(f"{name} {_members(bitmap)}" for name, bitmap in sets.items())
        return (
            members,
            f"distributor {self.ctlr:#x}, CPU interface {self.cpu_ctlr:#x}, priority mask {self.priority_mask:#x}, "
            f"signals {', '.join(name for name in ('irq', 'fiq') if getattr(self, name)) or 'none'}",
        )


def _members(bitmap: int) -> str:
    return " ".join(str(n) for n in range(bitmap.bit_length()) if bitmap >> n & 1) or "none"
