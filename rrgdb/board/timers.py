"""Timers of a board: work that is to be done at a virtual time, as a part of its state.

A timer is known by its name, so that a saved state can say which ones are set. What runs out is called back behind the
instruction that brings virtual time there, as a part of that instruction: before the inputs of the position behind it,
and whatever a run was to stop for.
"""

from __future__ import annotations

from collections.abc import Callable

NEVER = 1 << 64
"""virtual nanoseconds; later than any time that a timer can have"""
MAX_NAME = 64
_TIME_BYTES = 8

Callback = Callable[[int], None]
"""(the virtual nanoseconds that the timer was set to)"""


class Timer:
    """Calls back once each time that it is set. ``when``: virtual nanoseconds, None if it is not set."""

    __slots__ = ("_changed", "callback", "name", "when")

    def __init__(self, name: str, callback: Callback, changed: Callable[[], None]) -> None:
        self.name = name
        self.callback = callback
        self.when: int | None = None
        self._changed = changed

    def at(self, ns: int) -> None:
        """Set it, in place of what it was set to. A time that has come already runs out behind the present instruction,
        or, set from between two instructions, behind the next one; one from 2^64 on never comes."""
        self.when = max(ns, 0) if ns < NEVER else None
        self._changed()

    def cancel(self) -> None:
        """It is not set any more. Idempotent."""
        self.when = None
        self._changed()


class Timers:
    """All timers of one board. ``sooner(ns)`` is called when the first time that one of them is set to comes nearer."""

    def __init__(self, sooner: Callable[[int], None]) -> None:
        self.next = NEVER
        """virtual nanoseconds to which the first one is set"""
        self._sooner = sooner
        self._timers: dict[str, Timer] = {}

    def add(self, name: str, callback: Callback) -> Timer:
        """A new timer, not set. ValueError if there is one of that name."""
        if name in self._timers or not 0 < len(name.encode()) <= MAX_NAME:
            raise ValueError(f"timer {name!r}: expected a name of its own, of 1 to {MAX_NAME} bytes")
        timer = self._timers[name] = Timer(name, callback, self._find_next)
        return timer

    def run_out(self, now: int, done: Callable[[], bool]) -> bool:
        """Call back what is set to ``now`` or before: by time, and at the same one in the order in which they were
        made. What is set meanwhile waits. Nothing is called any more once ``done()``. Whether there was anything."""
        due = [(timer.when, timer) for timer in self._timers.values() if timer.when is not None and timer.when <= now]
        for when, timer in sorted(due, key=lambda each: each[0]):
            # One before it may have set or cancelled it.
            if timer.when == when and not done():
                timer.cancel()
                timer.callback(when)
        return bool(due)

    def save(self) -> bytes:
        """The timers that are set, in the order in which they were made: u8 length and name, u64 time."""
        parts = []
        for timer in self._timers.values():
            if timer.when is not None:
                name = timer.name.encode()
                parts.append(bytes((len(name),)) + name + timer.when.to_bytes(_TIME_BYTES, "little"))
        return b"".join(parts)

    def load(self, state: bytes) -> None:
        """ValueError, with nothing changed, on bytes that ``save`` of this board cannot have returned."""
        found: dict[str, int] = {}
        at = 0
        while at < len(state):
            end = at + 1 + state[at]
            if len(state) < end + _TIME_BYTES:
                raise ValueError(f"timers: state ends at {len(state)}, within a timer")
            name = state[at + 1 : end].decode(errors="replace")
            if name not in self._timers or name in found:
                raise ValueError(f"timers: {name[:MAX_NAME]!a}, expected each of the board's once at most")
            at = end + _TIME_BYTES
            found[name] = int.from_bytes(state[end:at], "little")
        if list(found) != [name for name in self._timers if name in found]:
            raise ValueError("timers: expected them in the order of the board's")
        for name, timer in self._timers.items():
            timer.when = found.get(name)
        self.next = min(found.values(), default=NEVER)

    def _find_next(self) -> None:
        before = self.next
        self.next = min((t.when for t in self._timers.values() if t.when is not None), default=NEVER)
        if self.next < before:
            self._sooner(self.next)


__all__ = ["NEVER", "Timer", "Timers"]
