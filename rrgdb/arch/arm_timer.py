"""The generic timer of the Arm architecture as both widths see it (DDI 0487, section D12; DDI 0406, chapter B8).

Each timer has ``_ctl`` and ``_cval`` among ``Arch.system_registers``, with ``suffix`` behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rrgdb.arch.base import CpuTimers, TrapHost
from rrgdb.arch.cpu import Cpu

COUNTER_HZ = 62_500_000
"""what CNTFRQ says"""


def count(host: TrapHost) -> int:
    """The physical and the virtual count."""
    return host.virtual_ns() * COUNTER_HZ // 1_000_000_000


def read(cpu: Cpu, name: str, now: int, suffix: str = "") -> int:
    """``name`` is ``cntpct``, ``cntvct``, or ``cntp`` or ``cntv`` with ``_ctl``, ``_cval`` or ``_tval``."""
    timer, _, part = name.partition("_")
    if not part:
        return now
    compare = cpu.read(f"{timer}_cval{suffix}")
    if part == "cval":
        return compare
    if part == "tval":
        # TimerValue is a signed 32-bit number, read zero-extended (section D12.2.4).
        return (compare - now) & 0xFFFFFFFF
    control = cpu.read(f"{timer}_ctl{suffix}") & 3
    return control | (4 if control & 1 and now >= compare else 0)


def write(cpu: Cpu, name: str, value: int, now: int, suffix: str = "") -> None:
    """A write to one of a timer's registers; to any other it does nothing."""
    timer, _, part = name.partition("_")
    if part == "cval":
        cpu.write(f"{timer}_cval{suffix}", value)
    elif part == "tval":
        offset = (value & 0xFFFFFFFF) - (value << 1 & 1 << 32)
        cpu.write(f"{timer}_cval{suffix}", (now + offset) & 0xFFFFFFFFFFFFFFFF)
    elif part == "ctl":
        cpu.write(f"{timer}_ctl{suffix}", value & 3)


_ENABLE, _MASKED = 1, 2
_NS = 1_000_000_000


def _output(cpu: Cpu, timer: str, suffix: str, now: int) -> tuple[bool, int | None]:
    """Section D12.2.4: the condition is met from the compare value on; IMASK keeps it from the output."""
    if cpu.read(f"{timer}_ctl{suffix}") & (_ENABLE | _MASKED) != _ENABLE:
        return False, None
    compare = cpu.read(f"{timer}_cval{suffix}")
    if now >= compare:
        return True, None
    # The first nanosecond at which the count is there.
    return False, -(-compare * _NS // COUNTER_HZ)


def timers(suffix: str, written_by: Callable[[Cpu, bytes], bool]) -> CpuTimers:
    """The physical and the virtual one, ``cntp`` and ``cntv``."""

    def outputs(cpu: Cpu, host: TrapHost) -> Mapping[str, tuple[bool, int | None]]:
        now = count(host)
        return {timer: _output(cpu, timer, suffix, now) for timer in ("cntp", "cntv")}

    return CpuTimers(outputs, written_by)
