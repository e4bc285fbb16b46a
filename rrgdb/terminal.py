"""The user's terminal: lines, progress, and the way to end what takes long."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

from rrgdb.text import shown

_REFRESH = 0.2
"""seconds"""


def say(text: str) -> None:
    """A line for the user, on stderr."""
    click.echo(f"rrgdb: {shown(text.rstrip())}", err=True)


def tell(text: str) -> None:
    """A line of what was asked for, on stdout."""
    click.echo(shown(text))


@contextmanager
def counting(
    what: str, done: Callable[[], int], total: int | None = None, unit: str = "instructions"
) -> Iterator[None]:
    """A line on a terminal (stderr) that shows how far something is; ``done`` is called by another thread."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    of = "" if total is None else " of {task.total:,}"
    columns: list[ProgressColumn] = [TextColumn(f"{what}: {{task.completed:,}}{of} {unit}"), TimeElapsedColumn()]
    if total is not None:
        columns.insert(1, BarColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        over = threading.Event()

        def refresh() -> None:
            while not over.wait(_REFRESH):
                progress.update(task, completed=done())

        thread = threading.Thread(target=refresh, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@contextmanager
def interrupting(interrupt: Callable[[], None]) -> Iterator[None]:
    """Inside, SIGINT and SIGTERM call ``interrupt`` instead of ending the process."""
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, lambda *_: interrupt()) for number in signals}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
