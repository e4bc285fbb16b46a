"""The guest's consoles and the user's side of them, while a verb runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rrgdb.backends.base import Backend
from rrgdb.cli.terminal import say
from rrgdb.opening.opened import Opened


@contextlib.contextmanager
def connected(opened: Opened, backend: Backend, *, live: bool) -> Iterator[None]:
    """Connect the guest's consoles to a backend: output always, input while live."""
    door, consoles = opened.door, opened.guest.consoles

    def feed(data: bytes) -> None:
        door.feed_all(consoles[0], data)

    try:
        backend.start(feed if live else lambda _data: None)
        described = backend.describe()
        if described not in ("stdio", "mon:stdio", "null"):
            say(f"serial port is {described}")
        for source in consoles:
            door.set_output(source, backend.write)
        yield
    finally:
        door.close()
        backend.close()
