"""The user's terminal: lines, progress, and the way to end what takes long."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

import click

from rrgdb.text import shown


def say(text: str) -> None:
    """A line for the user, on stderr; nobody may be there any more to read it."""
    with suppress(OSError):
        click.echo(f"rrgdb: {shown(text.rstrip())}", err=True)


def tell(text: str) -> None:
    """A line of what was asked for, on stdout."""
    click.echo(shown(text))


@contextmanager
def counting(
    what: str, done: Callable[[], int], total: int | None = None, unit: str = "instructions"
) -> Iterator[None]:
    """A line on a terminal (stderr) that shows how far something is; ``done`` is called by another thread."""
    with ExitStack() as shown_there:
        if sys.stderr.isatty():
            from rrgdb.cli import progress  # noqa: PLC0415 - nothing of it is needed without a terminal

            shown_there.enter_context(progress.line(what, done, total, unit))
        yield


def hangups() -> tuple[signal.Signals, ...]:
    """SIGHUP, unless it is ignored (nohup): then it stays so."""
    return () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)


@contextmanager
def interrupting(interrupt: Callable[[], None]) -> Iterator[None]:
    """Inside, SIGINT, SIGTERM and SIGHUP call ``interrupt`` instead of ending the process."""
    with _handling((signal.SIGINT, signal.SIGTERM, *hangups()), interrupt):
        yield


@contextmanager
def finishing() -> Iterator[AbstractContextManager[None]]:
    """Gives a context: once that is left, neither SIGTERM nor SIGHUP (which comes twice when a terminal goes) ends the
    process, until this one is left as well: what is written in between is written whole."""
    with ExitStack() as handlers:

        @contextmanager
        def working() -> Iterator[None]:
            try:
                yield
            finally:
                handlers.enter_context(_handling((signal.SIGTERM, *hangups()), lambda: None))

        yield working()


@contextmanager
def _handling(signals: Sequence[signal.Signals], call: Callable[[], None]) -> Iterator[None]:
    previous = {number: signal.signal(number, lambda *_: call()) for number in signals}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
