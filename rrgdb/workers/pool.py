"""Worker processes: replays on a recording that the main process waits for, several at a time.

A worker opens the recording for reading, does one task at a time and sends back its result. It ends when its
connection does, however the main process went. Both ends trust each other: messages are pickled.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrgdb.workers.executor import Failed, R, Task, WorkerError

if TYPE_CHECKING:
    from rrgdb.workers.process import Worker

CHECKPOINTS = 32 << 20
"""bytes of checkpoints that a worker keeps; with guest RAM and about 100 MiB that is what it takes"""
LOOK = 0.02
"""seconds between two looks at whether the user has had enough"""
AHEAD = 4
"""tasks for each worker that may be under way or done before the first of them is"""
DEATHS = 3
"""how often, for each of them, a worker that has died is replaced"""
TRIES = 2
"""how many workers may die of one task before it is left to the main process"""


class Pool:
    """An ``Executor``: worker processes on one recording, started when they are needed first. ``close`` it.

    One that dies is replaced, and ``say`` is told a line about it; its task is done by another."""

    def __init__(self, recording: Path, jobs: int, disks: Mapping[str, str], say: Callable[[str], None]) -> None:
        """``jobs``: how many. ``disks``: where the images of disks are."""
        self._recording = recording.resolve()
        self._disks = disks
        self._jobs = jobs
        self._workers: list[Worker] | None = None
        self._number = 0
        self._deaths = 0
        self._were_ready = False
        self._say = say

    def __len__(self) -> int:
        """How many there are, or would be once started."""
        return self._jobs

    def start(self) -> None:
        """Begin to start them. Raises WorkerError."""
        if self._workers is None:
            self._workers = []
            for _ in range(self._jobs):
                self._workers.append(self._one())

    def _one(self) -> Worker:
        from rrgdb.workers.process import Worker  # noqa: PLC0415 - most sessions end without any

        return Worker(self._recording, self._disks)

    def ready(self, seconds: float = 0) -> bool:
        """Whether one of them is, after at most so long. Raises WorkerError."""
        deadline = time.monotonic() + seconds
        while self._workers:
            if any(w.ready for w in self._workers):
                return True
            left = max(0.0, deadline - time.monotonic())
            if not self._receive(left) and not left:
                break
        return False

    def _receive(self, seconds: float) -> list[tuple[int, Any]]:
        """What workers have sent, (number of the task, its result). One that has died is replaced."""
        from rrgdb.workers.process import wait  # noqa: PLC0415 - as above

        found = []
        for worker in wait(self._workers or [], seconds):
            try:
                found.append(worker.receive())
            except WorkerError as e:
                self._replace(worker, e)
        self._were_ready |= any(number < 0 for number, _ in found)
        return found

    def _replace(self, worker: Worker, why: WorkerError) -> None:
        """Raises WorkerError if that is of no use: none can be started, or one after the other dies."""
        assert self._workers is not None
        self._deaths += 1
        if not self._were_ready or self._deaths > DEATHS * self._jobs:
            raise why
        worker.close()
        code = worker.process.returncode
        how = f"signal {-code}" if code < 0 else f"status {code}"
        self._workers[self._workers.index(worker)] = self._one()
        self._say(f"{why} ({how}): another one takes its place")

    def _give(self, worker: Worker, number: int, task: Task[Any]) -> bool:
        """Whether a worker has got a task; if not, it was dead and is replaced."""
        try:
            worker.send((number, task))
        except WorkerError as e:
            self._replace(worker, e)
            return False
        worker.busy = number
        return True

    def results(
        self, tasks: Iterator[Task[R]], ended: Callable[[], bool]
    ) -> Generator[tuple[Task[R], R | Failed], None, None]:
        """See ``Executor``."""
        self.start()
        waiting: dict[int, Task[R]] = {}
        done: dict[int, Any] = {}
        lost: Counter[int] = Counter()
        more = True
        try:
            while not ended():
                workers = list(self._workers or [])
                at_work = {worker.busy for worker in workers}
                again = [number for number in waiting if number not in at_work and number not in done]
                for worker in workers:
                    if not worker.ready or worker.busy is not None:
                        continue
                    if again:
                        # Its worker has died.
                        number = again.pop(0)
                        lost[number] += 1
                        if lost[number] < TRIES:
                            self._give(worker, number, waiting[number])
                        else:
                            done[number] = Failed(WorkerError(f"{TRIES} worker processes have ended in it"))
                    elif more and len(waiting) < AHEAD * len(workers):
                        task = next(tasks, None)
                        more = task is not None
                        if task is not None:
                            self._number += 1
                            waiting[self._number] = task
                            self._give(worker, self._number, task)
                if not more and not waiting:
                    return
                for number, result in self._receive(LOOK):
                    if number in waiting:
                        done[number] = result
                while waiting and (first := next(iter(waiting))) in done:
                    yield waiting.pop(first), done.pop(first)
        finally:
            for worker in self._workers or []:
                if worker.busy is not None and not worker.dead:
                    with contextlib.suppress(WorkerError):
                        worker.send((worker.busy, None))

    def close(self) -> None:
        """End them all; idempotent. None is started any more."""
        workers, self._workers, self._jobs = self._workers or [], [], 0
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            worker.close()
