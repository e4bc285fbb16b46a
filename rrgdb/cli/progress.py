"""A line on a terminal that shows how far something is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

_REFRESH = 0.2
"""seconds"""


@contextmanager
def line(what: str, done: Callable[[], int], total: int | None, unit: str) -> Iterator[None]:
    """See ``terminal.counting``."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    of = "" if total is None else " of {task.total:,}"
    columns: list[ProgressColumn] = [TextColumn(f"{what}: {{task.completed:,}}{of} {unit}"), TimeElapsedColumn()]
    if total is not None:
        columns.insert(1, BarColumn())
    progress = Progress(*columns, console=console, transient=True, auto_refresh=False)
    task = progress.add_task(what, total=total)
    over = threading.Event()

    def refresh() -> None:
        # The terminal may be gone by now.
        with suppress(OSError):
            while not over.wait(_REFRESH):
                progress.update(task, completed=done(), refresh=True)

    thread = threading.Thread(target=refresh, daemon=True)
    progress.start()
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(OSError):
            progress.stop()
