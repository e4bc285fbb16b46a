"""What went wrong, as one line for the user and an exit status."""

from __future__ import annotations

import threading
import traceback

from rrgdb.cli.terminal import say
from rrgdb.errors import UsageError, one_line

FAILURE, USAGE = 1, 2


def tell(error: BaseException, *, debug: bool) -> int:
    """Say what went wrong in one line, with ``debug`` behind a traceback; returns the exit status."""
    if debug:
        traceback.print_exception(error)
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    say(one_line(error))
    return USAGE if isinstance(error, UsageError) else FAILURE


def tell_of_thread(hooked: threading.ExceptHookArgs, *, debug: bool) -> None:
    """``threading.excepthook``: the same of a thread that ended with an exception."""
    if not isinstance(hooked.exc_value, SystemExit | None):
        tell(hooked.exc_value, debug=debug)
