"""The distributor of a GICv2 (ARM IHI 0048B, section 4.3), byte by byte as QEMU's ``arm_gic`` serves it."""

from __future__ import annotations

from rrgdb.board.devices.intc.gic_registers import (
    BITMAP_SPACE,
    BITMAPS,
    ENABLE_GROUPS,
    GICD_CLEAR_SGI,
    GICD_CONFIG,
    GICD_CTLR,
    GICD_ID,
    GICD_ID_VALUES,
    GICD_IIDR,
    GICD_IIDR_VALUE,
    GICD_PRIORITY,
    GICD_SET_SGI,
    GICD_SGIR,
    GICD_TARGETS,
    GICD_TYPER,
    INTERRUPTS,
    SGIS,
    TYPER,
)
from rrgdb.board.devices.intc.gic_state import BITMAP_BYTES, GicState, put
from rrgdb.board.devices.state import part

_SGI_BITMAP = SGIS // 8
_CONFIG_BYTES = INTERRUPTS // 4
THIS_CPU = 1
"""target list and source of the only CPU"""


class Distributor:
    """The registers; what they hold is the state's."""

    def __init__(self, state: GicState) -> None:
        self._state = state

    def read(self, offset: int, size: int) -> int:
        return sum(self._read_byte(offset + n) << 8 * n for n in range(size))

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == GICD_SGIR:
            # The one register that takes whole words alone.
            if size == 4:
                self._send(value)
        else:
            for n in range(size):
                self._write_byte(offset + n, value >> 8 * n & 0xFF)
        self._state.signal()

    def _read_byte(self, offset: int) -> int:
        state = self._state
        bitmap = _bitmap_at(offset)
        if bitmap is not None:
            kind, index = bitmap
            return self._read_bitmap(kind, index)
        if offset == GICD_CTLR:
            return state.ctlr
        if GICD_TYPER <= offset < GICD_TYPER + 4:
            return part(TYPER, offset - GICD_TYPER, 1)
        if GICD_IIDR <= offset < GICD_IIDR + 4:
            return part(GICD_IIDR_VALUE, offset - GICD_IIDR, 1)
        if GICD_PRIORITY <= offset < GICD_PRIORITY + INTERRUPTS:
            return state.priorities[offset - GICD_PRIORITY]
        if GICD_CONFIG <= offset < GICD_CONFIG + _CONFIG_BYTES:
            return self._read_config(offset - GICD_CONFIG)
        if GICD_CLEAR_SGI <= offset < GICD_SET_SGI + SGIS:
            return state.sgi_sources[(offset - GICD_CLEAR_SGI) % SGIS]
        if offset >= GICD_ID and not offset & 3:
            return GICD_ID_VALUES[(offset - GICD_ID) >> 2]
        # GICD_ITARGETSR too: with one CPU it reads 0.
        return 0

    def _read_bitmap(self, kind: str, index: int) -> int:
        state = self._state
        match kind:
            case "group":
                return state.group[index]
            case "set-enable" | "clear-enable":
                return state.enabled[index]
            case "set-pending" | "clear-pending":
                return state.pending[index] | state.level[index] & ~state.edge[index]
        return state.active[index]

    def _read_config(self, index: int) -> int:
        """Two bits for each of four interrupts, of which the upper one says edge."""
        edges = self._state.edge[index >> 1] >> 4 * (index & 1)
        return sum(2 << 2 * n for n in range(4) if edges >> n & 1)

    def _write_byte(self, offset: int, value: int) -> None:
        state = self._state
        bitmap = _bitmap_at(offset)
        if bitmap is not None:
            kind, index = bitmap
            self._write_bitmap(kind, index, value)
        elif offset == GICD_CTLR:
            state.ctlr = value & ENABLE_GROUPS
        elif GICD_PRIORITY <= offset < GICD_PRIORITY + INTERRUPTS:
            state.priorities[offset - GICD_PRIORITY] = value
        elif GICD_CONFIG <= offset < GICD_CONFIG + _CONFIG_BYTES:
            self._write_config(offset - GICD_CONFIG, value)
        elif GICD_CLEAR_SGI <= offset < GICD_CLEAR_SGI + SGIS:
            number = offset - GICD_CLEAR_SGI
            state.sgi_sources[number] &= ~value
            if not state.sgi_sources[number]:
                put(state.pending, number, False)
        elif GICD_SET_SGI <= offset < GICD_SET_SGI + SGIS:
            number = offset - GICD_SET_SGI
            state.sgi_sources[number] |= value
            # Whoever has sent it: QEMU does not look at the value.
            put(state.pending, number, True)

    def _write_bitmap(self, kind: str, index: int, value: int) -> None:
        state = self._state
        sgis = index < _SGI_BITMAP
        match kind:
            case "group":
                state.group[index] = value
            case "set-enable" if not sgis:
                state.enabled[index] |= value
            case "clear-enable" if not sgis:
                state.enabled[index] &= ~value
            case "set-pending" if not sgis:
                state.pending[index] |= value
            case "clear-pending" if not sgis:
                state.pending[index] &= ~value
            case "set-active":
                state.active[index] |= value
            case "clear-active":
                state.active[index] &= ~value

    def _write_config(self, index: int, value: int) -> None:
        if 4 * index < SGIS:
            return
        shift = 4 * (index & 1)
        edges = sum(1 << n for n in range(4) if value & 2 << 2 * n)
        edge = self._state.edge
        edge[index >> 1] = edge[index >> 1] & ~(0xF << shift) | edges << shift

    def _send(self, value: int) -> None:
        """GICD_SGIR: to the CPUs of the target list, to all others, or to this one."""
        number = value & 0xF
        match value >> 24 & 3:
            case 0:
                targets = value >> 16 & 0xFF
            case 1:
                targets = ~THIS_CPU
            case 2:
                targets = THIS_CPU
            case _:
                # Reserved; QEMU's is all.
                targets = 0xFF
        if targets & THIS_CPU:
            self._state.sgi_sources[number] |= THIS_CPU
            put(self._state.pending, number, True)


def _bitmap_at(offset: int) -> tuple[str, int] | None:
    """(which of ``BITMAPS``, index of the byte)."""
    if not BITMAPS[0][0] <= offset < BITMAPS[-1][0] + BITMAP_SPACE:
        return None
    kind, index = divmod(offset - BITMAPS[0][0], BITMAP_SPACE)
    return (BITMAPS[kind][1], index) if index < BITMAP_BYTES else None


assert BITMAPS[-1][0] + BITMAP_SPACE == GICD_PRIORITY < GICD_TARGETS
