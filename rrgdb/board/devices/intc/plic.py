"""Platform-level interrupt controller of one hart (RISC-V PLIC specification 1.0.0; SiFive FU540-C000 manual, "PLIC"),
as QEMU's ``sifive_plic`` on its ``virt`` machine.

What QEMU does where the specification leaves a choice, or otherwise than it says: a source is pending from when its
device drives the line high, again if it was high already, and stays so until it is claimed, even if the line falls.
Completion makes nothing pending. A priority is taken modulo 8. An interrupt that is enabled while it is pending is told
of with the next change of something else. A register is accessed as a whole word; other accesses read 0 or do nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from rrgdb.board.device import Machine
from rrgdb.board.devices.state import Buffer, StatefulDevice

SOURCES = 96
"""inputs, with source 0, which is none"""
PRIORITIES = SOURCES + 1
"""registers of priorities: there is one more than sources, which does nothing"""
LEVELS = 8
WORD_BYTES = SOURCES // 8
"""of a set of sources"""
CONTEXTS = ("meip", "seip")
"""input of the CPU that each context drives"""
PENDING = 0x1000
ENABLE, ENABLE_STRIDE = 0x2000, 0x80
CONTEXT, CONTEXT_STRIDE = 0x200000, 0x1000
THRESHOLD, CLAIM = 0, 4


class Plic(StatefulDevice):
    """Priorities at 4 * source, pending bits at 0x1000, enable bits at 0x2000, threshold and claim at 0x200000."""

    BUFFERS = (
        Buffer("priorities", PRIORITIES),
        Buffer("thresholds", len(CONTEXTS)),
        Buffer("pending", WORD_BYTES),
        Buffer("claimed", WORD_BYTES),
        Buffer("enabled", WORD_BYTES * len(CONTEXTS)),
    )
    """Sets of sources are bytes, source 0 in bit 0 of the first one; ``enabled`` is one set for each context."""

    priorities: bytearray
    thresholds: bytearray
    pending: bytearray
    claimed: bytearray
    enabled: bytearray

    def __init__(self, name: str, machine: Machine) -> None:
        super().__init__(name, machine)
        machine.attach_irqs(self._receive, repeated=True)

    def reset(self) -> None:
        for buffer in self.BUFFERS:
            setattr(self, buffer.name, bytearray(buffer.capacity))
        self._tell()

    def _receive(self, source: int, level: bool) -> None:
        if level:
            _put(self.pending, source, True)
            self._tell()

    def _best(self, context: int) -> int:
        """The source that is signalled to ``context``: the least of those of the highest priority. 0: none."""
        waiting = _number(self.pending) & ~_number(self.claimed) & _number(self._enabled(context))
        best, priority = 0, self.thresholds[context]
        while waiting:
            source = (waiting & -waiting).bit_length() - 1
            waiting &= waiting - 1
            if self.priorities[source] > priority:
                best, priority = source, self.priorities[source]
        return best

    def _enabled(self, context: int) -> bytearray:
        return self.enabled[context * WORD_BYTES : (context + 1) * WORD_BYTES]

    def _tell(self) -> None:
        for context, line in enumerate(CONTEXTS):
            self.machine.interrupt(line, self._best(context) != 0)

    def _claim(self, context: int) -> int:
        source = self._best(context)
        if source:
            _put(self.pending, source, False)
            _put(self.claimed, source, True)
        self._tell()
        return source

    def read(self, offset: int, size: int) -> int:
        if size != 4 or offset % 4:
            return 0
        if offset < PENDING:
            return self.priorities[offset // 4] if offset // 4 < PRIORITIES else 0
        if offset < ENABLE:
            return _word(self.pending, offset - PENDING)
        context, register = divmod(offset - ENABLE, ENABLE_STRIDE)
        if context < len(CONTEXTS):
            return _word(self._enabled(context), register)
        context, register = divmod(offset - CONTEXT, CONTEXT_STRIDE)
        if 0 <= context < len(CONTEXTS):
            if register == THRESHOLD:
                return self.thresholds[context]
            if register == CLAIM:
                return self._claim(context)
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if size != 4 or offset % 4:
            return
        if 0 < offset < 4 * PRIORITIES:
            self.priorities[offset // 4] = value % LEVELS
            self._tell()
            return
        context, register = divmod(offset - ENABLE, ENABLE_STRIDE)
        if 0 <= context < len(CONTEXTS):
            if register < WORD_BYTES:
                at = context * WORD_BYTES + register
                self.enabled[at : at + 4] = value.to_bytes(4, "little")
            return
        context, register = divmod(offset - CONTEXT, CONTEXT_STRIDE)
        if 0 <= context < len(CONTEXTS):
            if register == THRESHOLD:
                self.thresholds[context] = value % LEVELS
                self._tell()
            elif register == CLAIM and value < SOURCES:
                _put(self.claimed, value, False)
                self._tell()

    def describe(self) -> Sequence[str]:
        lines = [f"pending {_members(self.pending)}, claimed {_members(self.claimed)}"]
        for context, line in enumerate(CONTEXTS):
            enabled, best = _members(self._enabled(context)), self._best(context)
            lines.append(f"{line}: enabled {enabled}, threshold {self.thresholds[context]}, signals {best or 'none'}")
        return lines

    def check(self, values: dict[str, int], buffers: dict[str, bytes]) -> None:
        for buffer in self.BUFFERS:
            if len(buffers[buffer.name]) != buffer.capacity:
                raise ValueError(
                    f"{self.name}: {buffer.name} has {len(buffers[buffer.name])} bytes, expected {buffer.capacity}"
                )
        if max(buffers["priorities"] + buffers["thresholds"]) >= LEVELS or buffers["priorities"][0]:
            raise ValueError(f"{self.name}: a priority or threshold cannot be written so")


def _members(sources: bytearray) -> str:
    number = _number(sources)
    return " ".join(str(n) for n in range(number.bit_length()) if number >> n & 1) or "none"


def _number(sources: bytearray) -> int:
    return int.from_bytes(sources, "little")


def _word(sources: bytearray, at: int) -> int:
    """The word at byte ``at``; 0 behind the last one."""
    return int.from_bytes(sources[at : at + 4], "little")


def _put(sources: bytearray, source: int, level: bool) -> None:
    bit = 1 << source % 8
    sources[source // 8] = sources[source // 8] & ~bit | (bit if level else 0)
