"""Executors: whoever does tasks on a recording elsewhere, several at a time. What a task is of, nobody here knows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from rrgdb.errors import Error

R = TypeVar("R")


class WorkerError(Error):
    """A worker died or cannot be started: one line."""


@dataclass(frozen=True, slots=True)
class Task(Generic[R]):
    """What is asked of one who has opened the same recording: ``function`` of its timeline, the span of history from
    ``begin`` to ``end``, and ``stops``. It travels pickled, and so does the result: the function is one that its module
    has under its name, ``stops`` and results are data."""

    function: Callable[[Any, int, int, Any], R]
    begin: int
    end: int
    stops: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """A task that could not be done, and why."""

    error: Error


class Executor(Protocol):
    """One thread uses it. ``len``: how many workers there are, or would be once started."""

    def __len__(self) -> int: ...
    def start(self) -> None:
        """Begin to start them. Raises WorkerError."""

    def ready(self, seconds: float = 0) -> bool:
        """Whether one of them is, after at most so long. Raises WorkerError."""

    def results(
        self, tasks: Iterator[Task[R]], ended: Callable[[], bool]
    ) -> Generator[tuple[Task[R], R | Failed], None, None]:
        """Each task with its result, in the order of the tasks; no more of those are drawn than can be done at once.
        When ``ended`` says so, or this iterator is closed, what is under way is stopped.

        Raises WorkerError: what was not told has not been done."""

    def close(self) -> None:
        """End them all; idempotent. None is started any more."""
