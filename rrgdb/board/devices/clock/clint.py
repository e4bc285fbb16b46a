"""Core-local interruptor of one hart (SiFive FU540-C000 manual, "CLINT"; QEMU's ``riscv_aclint``): its timer and its
software interrupt.

``mtime`` is virtual time at 10 MHz, as on QEMU's virt machine, and 0 at a reset.
"""

from __future__ import annotations

from rrgdb.arch.riscv_interrupts import TIME_AHEAD
from rrgdb.board.device import Machine
from rrgdb.board.devices.state import Field, StatefulDevice, merge, part

TICK_NS = 100
MSIP, MTIMECMP, MTIME = 0x0000, 0x4000, 0xBFF8
MASK64 = (1 << 64) - 1
LATEST = 1 << 63
"""virtual nanoseconds; a timer that would run out then, or later, never does"""


class SilentClint(StatefulDevice):
    """The registers alone, without interrupts: msip at 0, mtimecmp at 0x4000, mtime at 0xBFF8. Any aligned part of one
    can be accessed."""

    REGISTERS = (range(4), range(0x4000, 0x4008), range(0xBFF8, 0xC000))
    FIELDS = (Field("msip", 8, mask=1), Field("mtimecmp", 64), Field("mtime_delta", 64))

    msip: int
    mtimecmp: int
    mtime_delta: int

    @property
    def mtime(self) -> int:
        return (self.machine.virtual_ns() // TICK_NS + self.mtime_delta) & MASK64

    def read(self, offset: int, size: int) -> int:
        if offset == MSIP:
            return self.msip
        match offset & ~7:
            case 0x4000:
                return part(self.mtimecmp, offset & 7, size)
            case 0xBFF8:
                return part(self.mtime, offset & 7, size)
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == MSIP:
            self.msip = value & 1
            return
        match offset & ~7:
            case 0x4000:
                self.mtimecmp = merge(self.mtimecmp, offset & 7, size, value)
            case 0xBFF8:
                now = self.mtime
                self.mtime_delta = (self.mtime_delta + merge(now, offset & 7, size, value) - now) & MASK64


class Clint(SilentClint):
    """With msip, mtip and the ``time`` CSR of the hart. mtip changes as on QEMU: with a write to mtimecmp or mtime, or
    after as many whole ticks as were left then, which is up to a tick after mtime has reached mtimecmp. It is high at
    power-on, since both are 0."""

    def __init__(self, name: str, machine: Machine) -> None:
        self._timer = machine.timer(name, lambda _due: machine.interrupt("mtip", True))
        super().__init__(name, machine)

    def reset(self) -> None:
        super().reset()
        self.mtime_delta = -(self.machine.virtual_ns() // TICK_NS) & MASK64
        self.machine.interrupt("msip", False)
        self._compare()

    def write(self, offset: int, size: int, value: int) -> None:
        super().write(offset, size, value)
        if offset == MSIP:
            self.machine.interrupt("msip", bool(self.msip))
        elif offset & ~7 in (MTIMECMP, MTIME):
            self._compare()

    def _compare(self) -> None:
        self.machine.cpu.write(TIME_AHEAD, self.mtime_delta)
        left = self.mtimecmp - self.mtime
        self.machine.interrupt("mtip", left <= 0)
        due = self.machine.virtual_ns() + left * TICK_NS
        if left > 0 and due < LATEST:
            self._timer.at(due)
        else:
            self._timer.cancel()
