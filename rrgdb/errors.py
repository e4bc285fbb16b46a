"""The root of all errors that rrgdb raises on purpose. Their text is one line for the user.

What is not of this root is the system's (``OSError``, ``MemoryError``) or a fault of rrgdb.
"""

from __future__ import annotations

import os


class Error(Exception):
    """Something that was asked for failed: one line with the file or the place, and what was expected."""


class UsageError(Error):
    """What was asked for does not fit: one line with the option or the argument, and what was expected."""


def one_line(error: BaseException) -> str:
    """What to tell the user of any exception."""
    if isinstance(error, Error):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = "not enough memory"
    elif isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        text = where + (error.strerror or str(error))
    else:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        text = f"internal error ({what}): please report it, with what `rrgdb --debug` shows for the same"
    return " ".join(text.splitlines())
