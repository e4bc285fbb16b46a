"""While modules are imported."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 128 + signal.SIGINT


@contextmanager
def importing() -> Iterator[None]:
    """Inside, Ctrl-C ends the process at once: as an exception it could come up inside of an import, and be taken for
    that one's failure. And nobody looks for garbage: not among what is being imported, nor, later, in what was."""
    handler = signal.getsignal(signal.SIGINT)
    ours = handler is signal.default_int_handler  # and not ignored
    if ours:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    known = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
        gc.enable()
        if ours:
            signal.signal(signal.SIGINT, handler)
