"""The CPU interface of a GICv2 (ARM IHI 0048B, section 4.4) as QEMU's ``arm_gic`` serves it."""

from __future__ import annotations

from rrgdb.board.devices.intc import gic_registers as gic
from rrgdb.board.devices.intc.gic_state import GicState, has, put

_INTID = 0x3FF
_ACTIVE_PRIORITIES = {
    base + 4 * n: f"{name}{n}"
    for base, name in ((gic.GICC_APR, "apr"), (gic.GICC_NSAPR, "nsapr"))
    for n in range(gic.APRS)
}


class CpuInterface:
    """The registers; what they hold is the state's. An access is to the register at its offset, whatever its size."""

    def __init__(self, state: GicState) -> None:
        self._state = state

    def read(self, offset: int) -> int:
        state = self._state
        if offset in _ACTIVE_PRIORITIES:
            levels: int = getattr(state, _ACTIVE_PRIORITIES[offset])
            return levels
        match offset:
            case gic.GICC_CTLR:
                return state.cpu_ctlr
            case gic.GICC_PMR:
                return state.priority_mask
            case gic.GICC_BPR:
                return state.bpr
            case gic.GICC_IAR:
                return self._acknowledge()
            case gic.GICC_RPR:
                return min(state.running_priority(), 0xFF)
            case gic.GICC_HPPIR:
                return self._pending()[0]
            case gic.GICC_ABPR:
                return state.abpr
            case gic.GICC_IIDR:
                return gic.GICC_IIDR_VALUE
        return 0

    def write(self, offset: int, value: int) -> None:
        state = self._state
        if offset in _ACTIVE_PRIORITIES:
            setattr(state, _ACTIVE_PRIORITIES[offset], value)
        match offset:
            case gic.GICC_CTLR:
                state.cpu_ctlr = value & gic.CTLR_MASK
            case gic.GICC_PMR:
                state.priority_mask = value & 0xFF
            case gic.GICC_BPR:
                state.bpr = value & 7
            case gic.GICC_ABPR:
                state.abpr = max(value & 7, gic.MIN_ABPR)
            case gic.GICC_EOIR:
                self._complete(value & _INTID)
            case gic.GICC_DIR:
                self._deactivate(value & _INTID)
        state.signal()

    def _pending(self) -> tuple[int, int]:
        """(INTID, priority) as GICC_HPPIR has it. The access counts as a secure one, which sees group 1 by AckCtl."""
        number, priority = self._state.highest_pending()
        if number < gic.INTERRUPTS and has(self._state.group, number) and not self._state.cpu_ctlr & gic.CTLR_ACK_CTL:
            return gic.OTHER_GROUP, gic.IDLE
        return number, priority

    def _acknowledge(self) -> int:
        """GICC_IAR. That the interrupt's own group is enabled is not asked for, only that one is."""
        state = self._state
        number, priority = self._pending()
        if number >= gic.INTERRUPTS:
            return number
        if priority >= state.running_priority():
            return gic.SPURIOUS
        self._activate(number, priority)
        source = 0
        if number < gic.SGIS:
            sources = state.sgi_sources[number]
            source = (sources & -sources).bit_length() - 1 if sources else 0
            state.sgi_sources[number] = sources & sources - 1 if sources else 0
        if number >= gic.SGIS or not state.sgi_sources[number]:
            put(state.pending, number, False)
        state.signal()
        return number | source << 10

    def _activate(self, number: int, priority: int) -> None:
        state = self._state
        group = has(state.group, number)
        point = state.abpr - 1 if group and not state.cpu_ctlr & gic.CTLR_CBPR else state.bpr
        level = (priority & -1 << point + 1) >> 1
        name = f"{'nsapr' if group else 'apr'}{level >> 5}"
        setattr(state, name, getattr(state, name) | 1 << (level & 31))
        put(state.active, number, True)

    def _complete(self, number: int) -> None:
        """GICC_EOIR: the most urgent active priority of the interrupt's group drops, whichever interrupt had it."""
        state = self._state
        if number >= gic.INTERRUPTS or state.running_priority() == gic.IDLE:
            return
        prefix = "nsapr" if has(state.group, number) else "apr"
        for n in range(gic.APRS):
            levels: int = getattr(state, f"{prefix}{n}")
            if levels:
                setattr(state, f"{prefix}{n}", levels & levels - 1)
                break
        if not state.cpu_ctlr & gic.CTLR_EOI_MODE:
            put(state.active, number, False)

    def _deactivate(self, number: int) -> None:
        """GICC_DIR, which means something with EOImode alone."""
        if number < gic.INTERRUPTS and self._state.cpu_ctlr & gic.CTLR_EOI_MODE:
            put(self._state.active, number, False)
