"""A worker process (see ``rrgdb.workers.pool``): does tasks on a recording, one at a time, until nobody asks."""

from __future__ import annotations

import os
import queue
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rrgdb import opening
from rrgdb.opening import Opened
from rrgdb.timeline.tasks import TOLD
from rrgdb.timeline.timeline import TimelineError
from rrgdb.workers.executor import Failed, Task
from rrgdb.workers.pool import CHECKPOINTS


class _Server:
    """Tasks run on the main thread; ``listen`` runs beside it and ends the process with the connection."""

    def __init__(self, connection: Connection, path: Path, disks: dict[str, Path]) -> None:
        self._connection = connection
        self._path = path
        self._disks = disks
        self._opened = self._open()
        self._tasks: queue.SimpleQueue[tuple[int, Task[Any]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running = 0
        self._stopped = 0

    def _open(self) -> Opened:
        return opening.replay(self._path, writable=False, checkpoint_memory=CHECKPOINTS, disks=self._disks)

    def listen(self) -> None:
        try:
            while True:
                number, task = self._connection.recv()
                if task is not None:
                    self._tasks.put((number, task))
                    continue
                with self._lock:
                    self._stopped = number
                    if self._running == number:
                        self._opened.timeline.interrupt()
        except (EOFError, OSError):
            os._exit(0)

    def run(self) -> None:
        self._connection.send((-1, None))
        while True:
            number, task = self._tasks.get()
            try:
                result: Any = self._do(number, task)
            except TOLD as e:
                result = Failed(e)
            with self._lock:
                self._running = 0
            self._connection.send((number, result))

    def _do(self, number: int, task: Task[Any]) -> Any:
        if task.end > self._opened.timeline.end:
            # A live recording has gone on since.
            self._opened.close()
            self._opened = self._open()
        timeline = self._opened.timeline
        if task.end > timeline.end:
            raise TimelineError(f"the log ends at icount {timeline.end}")
        with self._lock:
            timeline.clear_interrupt()
            self._running = number
            if self._stopped == number:
                timeline.interrupt()
        return task.function(timeline, task.begin, task.end, task.stops)


def main(fd: int) -> None:
    """Serve the connection whose file descriptor this is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(fd)
    recording, disks = connection.recv()
    server = _Server(connection, Path(recording), {name: Path(path) for name, path in disks.items()})
    threading.Thread(target=server.listen, daemon=True).start()
    server.run()
