"""A counter that counts down in virtual time, as QEMU's devices of the Cortex-M System Design Kit and SysTick have it.

The count goes from the limit to 0, stays there for one period, and begins anew at the limit: so periodic ones expire
each limit + 1 periods. It expires when it becomes 0, and only by counting. (QEMU's ``ptimer`` with the policies
WRAP_AFTER_ONE_PERIOD, TRIGGER_ONLY_ON_DECREMENT, NO_IMMEDIATE_RELOAD and NO_COUNTER_ROUND_DOWN, under ``-icount``.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rrgdb.board.devices.state import Field, StatefulDevice
from rrgdb.board.timers import Timer

STOPPED, PERIODIC, ONE_SHOT = range(3)
_WORD = 0xFFFFFFFF


class Countdown:
    """Lives in fields of its device, whose names begin with ``prefix``: see ``fields``."""

    _PARTS = ("mode", "limit", "held", "last", "next")

    def __init__(
        self,
        device: StatefulDevice,
        prefix: str,
        period: Callable[[], int],
        expired: Callable[[], None],
    ) -> None:
        """``period``: nanoseconds of one count, not 0. Its timer has the names of the device and of the fields."""
        self._device: Any = device
        self._names = {part: f"{prefix}{part}" for part in self._PARTS}
        self._period = period
        self._expired = expired
        self._timer: Timer = device.machine.timer(f"{device.name}.{prefix}", self._tick)

    @classmethod
    def fields(cls, prefix: str, bits: int = 32) -> tuple[Field, ...]:
        """Mode; limit; count when it was stopped or set; virtual time of the last event and of the next one."""
        mask = (1 << bits) - 1
        return (
            Field(f"{prefix}mode", 8, mask=3),
            Field(f"{prefix}limit", 32, mask=mask),
            Field(f"{prefix}held", 32, mask=mask),
            Field(f"{prefix}last", 64),
            Field(f"{prefix}next", 64),
        )

    def _get(self, part: str) -> int:
        return int(getattr(self._device, self._names[part]))

    def _set(self, part: str, value: int) -> None:
        setattr(self._device, self._names[part], value)

    @property
    def limit(self) -> int:
        return self._get("limit")

    @property
    def runs(self) -> bool:
        return self._get("mode") != STOPPED

    @property
    def _now(self) -> int:
        return int(self._device.machine.virtual_ns())

    def cancel(self) -> None:
        """Its device is reset: it is stopped, whatever it was."""
        self._timer.cancel()

    @property
    def count(self) -> int:
        held = self._get("held")
        if not self.runs or not held:
            return held
        now, last, due = self._now, self._get("last"), self._get("next")
        if now >= due:
            return 0
        count = (due - now) // self._period()
        if self._get("mode") == PERIODIC and held == self.limit and count == self.limit + (1 if now == last else 0):
            return 0
        return count + (1 if now != last else 0) & _WORD

    def set_count(self, count: int) -> None:
        self._set("held", count)
        if self.runs:
            self._begin()

    def set_limit(self, limit: int, *, reload: bool = False) -> None:
        """``reload``: the count is the limit at once."""
        self._set("limit", limit)
        if reload:
            self.set_count(limit)

    def run(self, *, one_shot: bool = False) -> None:
        was = self.runs
        self._set("mode", ONE_SHOT if one_shot else PERIODIC)
        if not was:
            self._begin()

    def stop(self) -> None:
        if self.runs:
            self._set("held", self.count)
            self._set("mode", STOPPED)
            self._timer.cancel()

    def change_period(self, change: Callable[[], None]) -> None:
        """``change`` makes ``period`` another one: the count goes on from where it is, by ``go_on``. Until then,
        ``count`` is the old time that is left, in new periods."""
        self._set("held", self.count)
        change()

    def go_on(self) -> None:
        """In the period as it is now."""
        if self.runs:
            self._begin()

    def _begin(self) -> None:
        self._set("next", self._now)
        self._reload(0)

    def _reload(self, more: int) -> None:
        counts = self._get("held") + more
        if not counts and self._get("mode") == PERIODIC and self.limit:
            counts = 1
        if not counts:
            self._timer.cancel()
            self._set("mode", STOPPED)
            return
        start = self._get("next")
        due = start + counts * self._period()
        self._set("last", start)
        self._set("next", due)
        self._timer.at(due)

    def _tick(self, due: int) -> None:
        expired = True
        if self._get("mode") == ONE_SHOT:
            self._set("held", 0)
            self._set("mode", STOPPED)
        else:
            wraps = self._get("held") != 0 and self.limit != 0
            expired = wraps or not self.limit
            self._set("held", self.limit)
            self._reload(1 if wraps else 0)
        if expired:
            self._expired()
