"""The host: the only door through which non-determinism enters a guest.

Devices and system calls know this interface alone. What implements it (live, replayed, diverted) is
``rrgdb.recording.door``; nobody below the timeline can tell which one answers.

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

    def sleep(self, source: str, icount: int, ns: int | None) -> int:
        """The CPU, at position ``icount``, sleeps until an input comes, or for ``ns`` virtual nanoseconds if not None:
        how long it has. An answer to instruction ``icount`` where something woke it before."""

    def attach_input(self, source: str, sink: Callable[[bytes], None]) -> None:
        """Register the one receiver of inputs called ``source``; ``sink`` is called between instructions."""

    def output(self, source: str, data: bytes) -> None:
        """Bytes that the guest sends out. Deterministic, so not logged; leaves the process only after the
        log chunk that covers it is closed, and only once however often it is replayed."""


class Journal(Host, Protocol):
    """What a guest asks for that somebody outside drives: what is done to it is written down, and read back."""

    recording: bool
    """the guest is at its live present"""
    replaying: bool
    """the guest is in history. Neither: in a diversion"""

    def noted(self, source: str, icount: int, data: bytes) -> None:
        """Log an input that has reached the guest already."""

    def answered(self, source: str, icount: int, payload: bytes) -> None:
        """Log an answer that the guest has got already."""

    def next_answer(self, source: str) -> tuple[int, bytes] | None:
        """(number of the executing instruction, payload) of the next answer in history, if it is of ``source``."""

    def take_answer(self) -> None:
        """The guest has got that answer."""
