"""Worker processes: replays on a recording that the main process waits for, several at a time.

A worker opens the recording for reading, does one task at a time and sends back its result. It ends when its
connection does, however the main process went. Both ends trust each other: messages are pickled.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from socket import socketpair
from typing import Any

from rrgdb.errors import Error

MAX_JOBS = 8
CHECKPOINTS = 32 << 20
"""bytes of checkpoints that a worker keeps; with guest RAM and about 100 MiB that is what it takes"""
LOOK = 0.02
"""seconds between two looks at whether the user has had enough"""
AHEAD = 4
"""tasks for each worker that may be under way or done before the first of them is"""
GRACE = 2.0
"""seconds that a worker has to end"""
_START = "import sys; sys.path[:] = sys.argv[2:]; from rrgdb.worker import main; main(int(sys.argv[1]))"


class WorkerError(Error):
    """A worker died or cannot be started: one line."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is asked: ``kind`` names one of its functions, ``arguments`` are for that."""

    kind: str
    begin: int
    end: int
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """A task that could not be done: the exception's class name and arguments."""

    error: str
    arguments: tuple[Any, ...]


def default_jobs() -> int:
    """As many as there are processors for this process, within reason."""
    return max(1, min(len(os.sched_getaffinity(0)), MAX_JOBS))


class _Worker:
    def __init__(self, recording: Path, disks: Mapping[str, str]) -> None:
        ours, theirs = socketpair()
        with theirs:
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _START, str(theirs.fileno()), *sys.path],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except (OSError, ValueError) as e:
                ours.close()
                raise WorkerError(f"cannot start a worker process: {e}") from e
        self.connection = Connection(ours.detach())
        self.ready = False
        self.busy: int | None = None
        self.send((str(recording), dict(disks)))

    def send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except OSError as e:
            raise WorkerError(f"worker process {self.process.pid} has ended") from e

    def receive(self) -> tuple[int, Any]:
        """(number of the task, its result); number -1: it is ready."""
        try:
            number, result = self.connection.recv()
        except (OSError, EOFError) as e:
            raise WorkerError(f"worker process {self.process.pid} has ended") from e
        if number < 0:
            self.ready = True
        elif number == self.busy:
            self.busy = None
        return number, result

    def close(self) -> None:
        self.connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE)
            return
        self.process.kill()
        self.process.wait()


class Workers:
    """Worker processes on one recording, started when they are needed first. One thread uses it. ``close`` it."""

    def __init__(self, recording: Path, jobs: int, disks: Mapping[str, str] | None = None) -> None:
        """``jobs``: how many; with fewer than 2 there are none. ``disks``: where the images of disks are."""
        self._recording = recording.resolve()
        self._disks = disks or {}
        self._jobs = jobs if jobs > 1 else 0
        self._workers: list[_Worker] | None = None
        self._number = 0

    def __len__(self) -> int:
        """How many there are, or would be once started."""
        return self._jobs

    def start(self) -> None:
        """Begin to start them. Raises WorkerError."""
        if self._workers is None:
            self._workers = []
            for _ in range(self._jobs):
                self._workers.append(_Worker(self._recording, self._disks))

    def ready(self, seconds: float = 0) -> bool:
        """Whether one of them is, after at most so long. Raises WorkerError."""
        deadline = time.monotonic() + seconds
        while self._workers:
            if any(w.ready for w in self._workers):
                return True
            left = max(0.0, deadline - time.monotonic())
            if not self._receive(self._workers, left) and not left:
                break
        return False

    @staticmethod
    def _receive(workers: list[_Worker], seconds: float) -> list[tuple[int, Any]]:
        by_connection = {w.connection: w for w in workers}
        found = wait(list(by_connection), seconds)
        return [by_connection[c].receive() for c in found if isinstance(c, Connection)]

    def results(self, tasks: Iterator[Task], ended: Callable[[], bool]) -> Generator[tuple[Task, Any], None, None]:
        """Each task with its result, or Failed, in the order of the tasks; no more of those are drawn than can be done
        at once. When ``ended`` says so, or this iterator is closed, what is under way is stopped.

        Raises WorkerError: what was not told has not been done."""
        self.start()
        workers = self._workers or []
        waiting: dict[int, Task] = {}
        done: dict[int, Any] = {}
        more = True
        try:
            while not ended():
                for worker in workers:
                    if more and worker.ready and worker.busy is None and len(waiting) < AHEAD * len(workers):
                        task = next(tasks, None)
                        more = task is not None
                        if task is not None:
                            self._number += 1
                            waiting[self._number] = task
                            worker.busy = self._number
                            worker.send((self._number, task))
                if not more and not waiting:
                    return
                for number, result in self._receive(workers, LOOK):
                    if number in waiting:
                        done[number] = result
                while waiting and (first := next(iter(waiting))) in done:
                    yield waiting.pop(first), done.pop(first)
        finally:
            for worker in workers:
                if worker.busy is not None:
                    with contextlib.suppress(WorkerError):
                        worker.send((worker.busy, None))

    def close(self) -> None:
        """End them all; idempotent. None is started any more."""
        workers, self._workers, self._jobs = self._workers or [], [], 0
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            worker.close()
