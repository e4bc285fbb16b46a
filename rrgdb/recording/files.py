"""Files of a recording: replaced in one step, read without trusting them, locked."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path

from rrgdb.errors import Error

READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


class LockedError(Error):
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
    """Contents of a regular file of at most ``limit`` bytes. OSError, also for a longer one and for any other file."""
    # Opening some devices does something, and a socket cannot be opened.
    _checked_size(os.stat(path), path, limit)
    # O_NONBLOCK: opening a named pipe must not wait for its other end, should there be one by now.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        size = _checked_size(os.fstat(fd), path, limit)
        data = file.read(size + 1)
    if len(data) > size:
        raise OSError(errno.EINVAL, "expected a file that does not grow while it is read", os.fspath(path))
    return data


def _checked_size(status: os.stat_result, path: Path, limit: int) -> int:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "expected a regular file", os.fspath(path))
    if status.st_size > limit:
        raise OSError(errno.EFBIG, f"expected at most {limit} bytes, got {status.st_size}", os.fspath(path))
    return status.st_size


def lock(path: Path) -> int:
    """Lock ``path`` for the one writer, creating it if need be; returns the descriptor for ``unlock``.

    LockedError names the writer's process id; OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A killed writer's id may still be in there.
        os.ftruncate(fd, 0)
        write_all(fd, str(os.getpid()).encode())
    except BlockingIOError:
        owner = os.pread(fd, 20, 0)
        os.close(fd)
        raise LockedError(f"process {int(owner)} is writing it" if owner.isdigit() else "it has a writer") from None
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
