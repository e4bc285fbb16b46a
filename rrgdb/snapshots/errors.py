"""What goes wrong with snapshots."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rrgdb.errors import Error
from rrgdb.qcow2 import Qcow2Error, Qcow2UsageError


class StoreError(Error):
    """The store cannot be read or written: one line with the file."""


class NoRoomError(StoreError):
    """A snapshot might not fit into the budget: nothing was taken."""


@contextmanager
def told(path: Path | str) -> Iterator[None]:
    """What cannot be done to an image, as StoreError with the file."""
    try:
        yield
    except (Qcow2Error, Qcow2UsageError, OSError) as e:
        text = _reason(e, path) if isinstance(e, OSError) else str(e)
        raise StoreError(text if text.startswith(f"{path}: ") else f"{path}: {text}") from e


def _reason(error: OSError, path: Path | str) -> str:
    """What the system says, and of which file if that is another one: what lies under an image."""
    text = error.strerror or str(error)
    other = error.filename
    return text if other is None or os.fspath(other) == os.fspath(path) else f"it needs {other}: {text}"
