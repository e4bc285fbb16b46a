"""What a backend is: where the bytes that a guest's device sends go to, and where those that it receives come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

OnInput = Callable[[bytes], None]


class Backend(Protocol):
    """Nothing of it is touched in replay. What it delivers enters a guest through the host alone."""

    @property
    def dropped(self) -> int:
        """Bytes of output that nobody took."""

    def describe(self) -> str:
        """Where it is, once started: for the user."""

    def start(self, on_input: OnInput) -> None:
        """Open it and start its threads. ``on_input`` gets the bytes on one of them and may wait for room. An error of
        one line if it cannot be opened."""

    def write(self, data: bytes) -> None:
        """Queue output; never waits."""

    def close(self) -> None:
        """Write what is queued, end the threads, close; idempotent."""
