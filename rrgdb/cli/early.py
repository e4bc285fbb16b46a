"""While modules are imported."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 128 + signal.SIGINT
_alone: list[bool] = []


def alone() -> None:
    """This process does one command and ends: nothing that there is once its modules are imported will be garbage."""
    _alone.append(True)


@contextmanager
def importing() -> Iterator[None]:
    """Inside, Ctrl-C ends the process at once: as an exception it could come up inside of an import, and be taken for
    that one's failure. And nobody looks for garbage: not among what is being imported, nor, if the process is for this
    command ``alone``, later in what was."""
    handler = signal.getsignal(signal.SIGINT)
    ours = handler is signal.default_int_handler  # and not ignored
    if ours:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if _alone:
            gc.freeze()
        if collects:
            gc.enable()
        if ours:
            signal.signal(signal.SIGINT, handler)
