"""What a GICv2 knows of its interrupts, and which one it signals: the part that distributor and CPU interface share.

Sets of interrupts are bitmaps, bit n of the whole the interrupt with INTID n; with one CPU nothing is banked.
"""

from __future__ import annotations

from rrgdb.board.device import Machine
from rrgdb.board.devices.intc.gic_registers import (
    APRS,
    CTLR_FIQ_EN,
    CTLR_MASK,
    ENABLE_GROUPS,
    GIC_PPI,
    IDLE,
    INTERNAL,
    INTERRUPTS,
    LINES,
    MIN_ABPR,
    SGIS,
    SPIS,
    SPURIOUS,
)
from rrgdb.board.devices.state import Buffer, Field, StatefulDevice

BITMAP_BYTES = INTERRUPTS // 8
SIZES = {
    **dict.fromkeys(("group", "enabled", "pending", "active", "level", "edge"), BITMAP_BYTES),
    "priorities": INTERRUPTS,
    "sgi_sources": SGIS,
}
"""bytes of each buffer: they are always full"""
_SGI_BYTES = SGIS // 8


class GicState(StatefulDevice):
    """Interrupts, the registers of both parts, and the signals to the CPU, which follow from them."""

    FIELDS = (
        Field("ctlr", 8, mask=ENABLE_GROUPS),
        Field("cpu_ctlr", 16, mask=CTLR_MASK),
        Field("priority_mask", 8),
        Field("bpr", 8, mask=7),
        Field("abpr", 8, reset=MIN_ABPR, mask=7),
        Field("irq", 8, mask=1),
        Field("fiq", 8, mask=1),
        *(Field(f"{name}{n}", 32) for name in ("apr", "nsapr") for n in range(APRS)),
    )
    BUFFERS = tuple(Buffer(name, size) for name, size in SIZES.items())

    ctlr: int
    """GICD_CTLR"""
    cpu_ctlr: int
    """GICC_CTLR"""
    priority_mask: int
    bpr: int
    abpr: int
    irq: int
    """what the CPU was told last"""
    fiq: int
    group: bytearray
    enabled: bytearray
    pending: bytearray
    """remembered: by an edge or by software"""
    active: bytearray
    level: bytearray
    """the input lines"""
    edge: bytearray
    """those that an edge makes pending, and not a level"""
    priorities: bytearray
    """one byte each; the lower, the more urgent"""
    sgi_sources: bytearray
    """bit n: CPU n has sent this SGI"""

    def __init__(self, name: str, machine: Machine) -> None:
        super().__init__(name, machine)
        machine.attach_irqs(self.set_line)

    def reset(self) -> None:
        super().reset()
        for name, size in SIZES.items():
            setattr(self, name, bytearray(size))
        # SGIs are always enabled, and edges.
        self.enabled[:_SGI_BYTES] = self.edge[:_SGI_BYTES] = b"\xff" * _SGI_BYTES

    def check(self, values: dict[str, int], buffers: dict[str, bytes]) -> None:
        for name, size in SIZES.items():
            if len(buffers[name]) != size:
                raise ValueError(f"{self.name}: {name} has {len(buffers[name])} bytes, expected {size}")
        if values["abpr"] < MIN_ABPR:
            raise ValueError(f"{self.name}: abpr is {values['abpr']}, expected at least {MIN_ABPR}")
        always = b"\xff" * _SGI_BYTES
        if buffers["enabled"][:_SGI_BYTES] != always or buffers["edge"][:_SGI_BYTES] != always:
            raise ValueError(f"{self.name}: expected all software-generated interrupts enabled, and edges")
        if any(buffers["level"][:_SGI_BYTES]):
            raise ValueError(f"{self.name}: a software-generated interrupt has a line")
        for number, sources in enumerate(buffers["sgi_sources"]):
            if sources and not has(buffers["pending"], number):
                raise ValueError(f"{self.name}: interrupt {number} was sent by {sources:#x} and is not pending")

    # -- lines -----------------------------------------------------------------------------------

    def set_line(self, line: int, level: bool) -> None:
        """An input has changed: SPI ``line``, or PPI ``line - GIC_PPI``. ValueError if there is no such line."""
        if 0 <= line < SPIS:
            number = INTERNAL + line
        elif GIC_PPI <= line < LINES:
            number = SGIS + line - GIC_PPI
        else:
            raise ValueError(f"{self.name}: no interrupt line {line}")
        if level == has(self.level, number):
            return
        put(self.level, number, level)
        if level and has(self.edge, number):
            put(self.pending, number, True)
        self.signal()

    # -- which interrupt comes next --------------------------------------------------------------

    @property
    def all_pending(self) -> int:
        """Bit n: interrupt n is pending, by its latch or by its level."""
        return _number(self.pending) | _number(self.level) & ~_number(self.edge)

    def best(self) -> tuple[int, int]:
        """(INTID, priority) of the most urgent interrupt that is enabled, pending and not active, the lowest INTID of
        several; (SPURIOUS, IDLE) if there is none."""
        waiting = _number(self.enabled) & self.all_pending & ~_number(self.active)
        found, urgency = SPURIOUS, IDLE
        while waiting:
            lowest = waiting & -waiting
            number = lowest.bit_length() - 1
            if self.priorities[number] < urgency:
                found, urgency = number, self.priorities[number]
            waiting ^= lowest
        return found, urgency

    def highest_pending(self) -> tuple[int, int]:
        """(INTID, priority) of what the CPU interface sees: ``best``, if it passes the priority mask and any group is
        enabled in both parts."""
        if not (self.ctlr & ENABLE_GROUPS and self.cpu_ctlr & ENABLE_GROUPS):
            return SPURIOUS, IDLE
        number, priority = self.best()
        return (number, priority) if priority < self.priority_mask else (SPURIOUS, IDLE)

    def running_priority(self) -> int:
        """Of the most urgent interrupt that is active; IDLE if none is."""
        for n in range(APRS):
            levels: int = getattr(self, f"apr{n}") | getattr(self, f"nsapr{n}")
            if levels:
                return (32 * n + (levels & -levels).bit_length() - 1) << 1
        return IDLE

    def signal(self) -> None:
        """Tell the CPU what follows from the present state; after each change."""
        irq = fiq = False
        number, priority = self.highest_pending()
        if priority < self.running_priority():
            group = int(has(self.group, number))
            if self.ctlr & self.cpu_ctlr & 1 << group:
                fiq = group == 0 and bool(self.cpu_ctlr & CTLR_FIQ_EN)
                irq = not fiq
        # To tell the CPU ends a run.
        if irq != self.irq:
            self.irq = int(irq)
            self.machine.interrupt("irq", irq)
        if fiq != self.fiq:
            self.fiq = int(fiq)
            self.machine.interrupt("fiq", fiq)


def has(bitmap: bytes | bytearray, number: int) -> bool:
    return bool(bitmap[number >> 3] >> (number & 7) & 1)


def put(bitmap: bytearray, number: int, value: bool) -> None:
    if value:
        bitmap[number >> 3] |= 1 << (number & 7)
    else:
        bitmap[number >> 3] &= ~(1 << (number & 7))


def _number(bitmap: bytearray) -> int:
    return int.from_bytes(bitmap, "little")
