"""A thread that writes a bounded queue to a file descriptor, so that no guest waits for a peer."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque

PATIENT_QUEUE = 64 << 20
"""bytes that wait for standard output or a file; ``close`` writes them all"""
IMPATIENT_QUEUE = 1 << 20
"""bytes that wait for a peer; ``close`` gives it one second"""
LINGER_SECONDS = 1.0
BLOCK = 4096
"""bytes a read or write; a pipe that is ready takes as many without blocking (PIPE_BUF)"""
POLL_MS = 100


class Writer:
    """The writer thread and its queue; ``target`` sets the descriptor that it writes to."""

    def __init__(self, name: str, *, patient: bool) -> None:
        self.dropped = 0
        self._patient = patient
        self._limit = PATIENT_QUEUE if patient else IMPATIENT_QUEUE
        self._queue: deque[memoryview] = deque()
        self._size = 0
        self._fd: int | None = None
        self._busy = False
        self._failed = False
        self._deadline: float | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"{name} writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def target(self, fd: int | None) -> None:
        """Write to ``fd`` from now on; the previous one is out of use when this returns."""
        with self._changed:
            self._fd = None
            self._changed.wait_for(lambda: not self._busy)
            self._fd = fd
            self._failed = False
            self._changed.notify_all()

    def write(self, data: bytes) -> None:
        with self._changed:
            if not data or self._deadline is not None:
                return
            self._queue.append(memoryview(data))
            self._size += len(data)
            while (excess := self._size - self._limit) > 0:
                self.dropped += len(self._first(excess))
            self._changed.notify_all()

    def close(self) -> None:
        """Write what is queued (an impatient one: what the peer takes within a second) and end the thread."""
        with self._changed:
            if self._deadline is None:
                self._deadline = time.monotonic() + LINGER_SECONDS
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            fd, block = taken
            left, failed = _write_when_ready(fd, block)
            with self._changed:
                self._busy = False
                self._failed = failed
                if left and not failed:
                    self._queue.appendleft(left)
                    self._size += len(left)
                elif failed:
                    self.dropped += len(left)
                self._changed.notify_all()

    def _take(self) -> tuple[int, memoryview] | None:
        """The descriptor and the next block to write; None once all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._deadline is not None or self._can_write())
            late = self._deadline is not None and not self._patient and time.monotonic() > self._deadline
            if late or not self._can_write() or self._fd is None:
                return None
            self._busy = True
            return self._fd, self._first(BLOCK)

    def _first(self, most: int) -> memoryview:
        """Take the oldest bytes, at most so many, out of the queue; what they are part of is not copied."""
        piece = self._queue.popleft()
        if len(piece) > most:
            self._queue.appendleft(piece[most:])
            piece = piece[:most]
        self._size -= len(piece)
        return piece

    def _can_write(self) -> bool:
        return bool(self._queue) and self._fd is not None and not self._failed


def _write_when_ready(fd: int, block: memoryview) -> tuple[memoryview, bool]:
    """Write what ``fd`` takes now; returns the rest, and whether it will never take it."""
    try:
        if not _ready(fd):
            return block, False
        return block[os.write(fd, block) :], False
    except BlockingIOError:
        return block, False
    except OSError:
        return block, True


def _ready(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    return bool(poller.poll(POLL_MS))
