"""Files of a recording: replaced in one step, read without trusting them, locked."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path

_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


class LockedError(Exception):
    """Somebody else has the lock: one line."""


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_atomically(path: Path, data: bytes) -> None:
    """Create or replace ``path`` (mode 0600), synced: after a crash it is the old file or the new one. OSError."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
        sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_regular(path: Path, limit: int) -> bytes:
    """Contents of a regular file; one byte more than ``limit`` if it is longer. OSError, also for any other file."""
    # O_NONBLOCK: opening a named pipe must not wait for its other end.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return file.read(limit + 1)


def lock(path: Path, *, exclusive: bool) -> int | None:
    """Lock ``path``, which is created if need be: alone, or shared with others; returns the descriptor to close.

    None if it can neither be opened nor created for lack of rights and the lock is shared: a recording on read-only
    media has no writer. LockedError names the writer's process id; OSError."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if exclusive or error.errno not in _READ_ONLY:
            raise
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        # A killed writer's id is still in there; with any lock in hand it is out of date.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
        if exclusive:
            write_all(fd, str(os.getpid()).encode())
    except BlockingIOError:
        owner = os.pread(fd, 20, 0)
        os.close(fd)
        who = f"process {int(owner)} is writing it" if owner.isdigit() else "another process has it open"
        raise LockedError(who) from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def unlock(fd: int | None) -> None:
    """Give a lock back; what a writer wrote into the file is removed first, so that it names nobody."""
    if fd is None:
        return
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
    os.close(fd)
