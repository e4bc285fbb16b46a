"""The host: the only door through which non-determinism enters a guest.

Devices and system calls know this interface alone. What implements it (live, replayed, diverted) is
``rrgdb.recording.doors``; nobody below the timeline can tell which one answers.

Two kinds of events enter, both logged with the icount at which they entered:

* **answers** (synchronous): the guest executes instruction number n and a device needs the wall clock or random
  bytes. The event carries n, the number of the executing instruction.
* **inputs** (asynchronous): serial bytes and the like. They are delivered between instructions; the event carries the
  position n at which they were delivered: before instruction number n executes. A position n of the
  timeline is the state after all inputs at n.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Host(Protocol):
    """What a device may ask of the world."""

    def wall_clock_ns(self, source: str) -> int:
        """Wall clock in nanoseconds since the Unix epoch (an answer)."""

    def entropy(self, source: str, length: int) -> bytes:
        """Random bytes (an answer); at most 4096 a call."""

    def attach_input(self, source: str, sink: Callable[[bytes], None]) -> None:
        """Register the one receiver of inputs called ``source``; ``sink`` is called between instructions."""

    def output(self, source: str, data: bytes) -> None:
        """Bytes that the guest sends out. Deterministic, so not logged; leaves the process only after the
        log chunk that covers it is closed, and only once however often it is replayed."""
