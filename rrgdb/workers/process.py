"""One worker process, as the main process sees it."""

from __future__ import annotations

import contextlib
import multiprocessing.connection
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socketpair
from typing import Any

from rrgdb.workers.executor import WorkerError

GRACE = 2.0
"""seconds that a worker has to end"""
_START = "import sys; sys.path[:] = sys.argv[2:]; from rrgdb.cli.worker import main; main(int(sys.argv[1]))"


class Worker:
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
        self.dead = False
        self.busy: int | None = None
        self.send((str(recording), dict(disks)))

    def send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except OSError as e:
            raise self._ended() from e

    def receive(self) -> tuple[int, Any]:
        """(number of the task, its result); number -1: it is ready."""
        try:
            number, result = self.connection.recv()
        except (OSError, EOFError) as e:
            raise self._ended() from e
        if number < 0:
            self.ready = True
        elif number == self.busy:
            self.busy = None
        return number, result

    def _ended(self) -> WorkerError:
        self.dead = True
        return WorkerError(f"worker process {self.process.pid} has ended")

    def close(self) -> None:
        self.connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE)
            return
        self.process.kill()
        self.process.wait()


def wait(workers: Sequence[Worker], seconds: float) -> list[Worker]:
    """Those that have sent something, or have ended, after at most so long."""
    by_connection = {worker.connection: worker for worker in workers}
    ready = multiprocessing.connection.wait(list(by_connection), seconds)
    return [worker for connection, worker in by_connection.items() if connection in ready]
