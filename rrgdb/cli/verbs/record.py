"""``rrgdb record``."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rrgdb.backends.base import Backend
from rrgdb.backends.keys import Monitored
from rrgdb.cli import terminal
from rrgdb.cli.qemu.chosen import chosen, serial_backends
from rrgdb.cli.terminal import say
from rrgdb.cli.verbs.consoles import connected
from rrgdb.cli.verbs.live import LEFT, begin, exit_status, how_guest_ended
from rrgdb.opening.opened import Opened
from rrgdb.timeline.stop import Points, Stop, StopKind


def record(
    image: Path | None,
    args: tuple[str, ...],
    max_icount: int | None,
    timeout: float | None,
    strict: bool,
    **given: Any,
) -> None:
    asked, (backend,) = chosen(image, args, given), serial_backends(given)
    with (
        terminal.finishing() as working,
        begin(asked, given) as opened,
        connected(opened, backend, live=True),
        working,
    ):
        timeline = opened.timeline
        say(f"recording to {opened.recording.path}")
        stop = _run_to_end(opened, backend, max_icount, timeout, strict)
        left = strict and opened.guest.notices.left
        status = exit_status(opened) or (LEFT if left else 0)
        count = len(timeline.marks.stored)
        how = "stopped by --strict" if left else _how_it_ended(opened, stop, timeout)
        how += "," if opened.guest.cause else ""
        say(f"{how} after {timeline.icount} instructions; {count} snapshot{'s' if count != 1 else ''}")
    sys.exit(status)


def _run_to_end(opened: Opened, backend: Backend, steps: int | None, timeout: float | None, strict: bool) -> Stop:
    timeline = opened.timeline
    over = threading.Event()
    posted = _Posted(timeline.interrupt)

    def end() -> None:
        over.set()
        timeline.interrupt()

    if strict:
        opened.guest.notices.added = end
    timer = threading.Timer(timeout, end) if timeout is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        with terminal.interrupting(end), _status(opened):
            if isinstance(backend, Monitored):
                _connect(backend, opened, posted)
            while True:
                stop = timeline.run(Points({}), steps=None if steps is None else steps - timeline.icount)
                if stop.kind is not StopKind.INTERRUPT or over.is_set():
                    return stop
                posted.serve()
    finally:
        if timer is not None:
            timer.cancel()


def _connect(backend: Monitored, opened: Opened, posted: _Posted) -> None:
    """Serve the keys of a backend."""
    # All that a debugger may ask for: most recordings are made without anybody to type it.
    from rrgdb.cli import monitored  # noqa: PLC0415
    from rrgdb.target import Target  # noqa: PLC0415

    monitored.connect(backend, Target(opened), posted.post)


class _Posted:
    """Functions for a thread that runs the guest until it is interrupted."""

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self._interrupt = interrupt
        self._waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def post(self, function: Callable[[], None]) -> None:
        self._waiting.put(function)
        self._interrupt()

    def serve(self) -> None:
        """Call what waits."""
        while not self._waiting.empty():
            self._waiting.get()()


@contextlib.contextmanager
def _status(opened: Opened) -> Iterator[None]:
    """A line on a terminal that shows how far the recording is."""
    if sys.stdout.isatty():
        # The guest's own output is on this terminal: a status line would tear it.
        yield
        return
    with terminal.counting("recording", lambda: opened.timeline.icount):
        yield


def _how_it_ended(opened: Opened, stop: Stop, timeout: float | None) -> str:
    ended = how_guest_ended(opened.guest)
    if ended:
        return ended
    if stop.kind is not StopKind.INTERRUPT:
        return "stopped by --max-icount"
    return "interrupted" if timeout is None else f"interrupted, or stopped by --timeout {timeout:g},"
