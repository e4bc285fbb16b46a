"""Files of a recording: replaced in one step, read without trusting them, locked.

What stands in a recording may have come from anywhere. So no file is opened through a symbolic link, none is written
that has another name elsewhere (a hard link), and pipes and devices are not opened for what they do."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from rrgdb.errors import Error

READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
NOT_OURS = {errno.ELOOP, errno.EMLINK, errno.EINVAL, errno.ENXIO, errno.EISDIR}
"""what opening a file for writing fails with if it is none that a recording makes"""


class LockedError(Error):
    """Somebody else has the lock: one line."""


def open_regular(path: Path | str, flags: int, *, directory: int | None = None) -> int:
    """Open (``flags`` as ``os.open``; mode 0600) a regular file that is no symbolic link; for writing, it has no other
    name as well. ``directory``: the descriptor of where ``path`` begins. OSError with what was found instead."""
    # O_NONBLOCK: opening a named pipe must not wait for its other end.
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a symbolic link, expected a regular file") from error
        raise
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file")
    if flags & os.O_ACCMODE != os.O_RDONLY and status.st_nlink > 1:
        os.close(fd)
        raise OSError(errno.EMLINK, f"a file with {status.st_nlink} names (hard links), expected one name to write it")
    return fd


@contextlib.contextmanager
def open_directory(path: Path | str, *, within: int | None = None) -> Iterator[int]:
    """A descriptor of a directory; one ``within`` another must be no symbolic link. OSError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if within is None else os.O_NOFOLLOW)
    fd = os.open(path, flags, dir_fd=within)
    try:
        yield fd
    finally:
        os.close(fd)


def overlay_name(disk: str) -> str:
    """Name of the file that holds what a guest wrote to a disk."""
    return f"disk-{disk}.qcow2"


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_atomically(path: Path, data: bytes) -> None:
    """Create or replace ``path`` (mode 0600), synced: after a crash it is the old file or the new one. OSError."""
    temporary = path.with_name(path.name + ".tmp")
    with contextlib.suppress(FileNotFoundError):
        # What a killed writer left; it may be a link by now, so it is not written.
        os.unlink(temporary)
    try:
        fd = open_regular(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
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


def read_regular(path: Path | str, limit: int, *, directory: int | None = None) -> bytes:
    """Contents of a regular file of at most ``limit`` bytes. ``directory`` as for ``open_regular``. OSError, also for a
    longer one and for any other file."""
    return _read_whole(open_regular(path, os.O_RDONLY, directory=directory), path, limit)


def read_image(path: Path, limit: int) -> bytes:
    """The same of a file of the user's, which may be a symbolic link."""
    # Opening some devices does something, and a socket cannot be opened.
    _require_regular(os.stat(path), path)
    # O_NONBLOCK: opening a named pipe must not wait for its other end, should there be one by now.
    return _read_whole(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), path, limit)


def _read_whole(fd: int, path: Path | str, limit: int) -> bytes:
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        _require_regular(status, path)
        if status.st_size > limit:
            what = f"expected at most {limit} bytes, got {status.st_size}"
            raise OSError(errno.EFBIG, what, os.fspath(path))
        data = file.read(status.st_size + 1)
    if len(data) > status.st_size:
        raise OSError(errno.EINVAL, "expected a file that does not grow while it is read", os.fspath(path))
    return data


def _require_regular(status: os.stat_result, path: Path | str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "expected a regular file", os.fspath(path))


def lock(path: Path) -> int:
    """Lock ``path`` for the one writer, creating it if need be; returns the descriptor for ``unlock``.

    LockedError names the writer's process id; OSError."""
    fd = open_regular(path, os.O_RDWR | os.O_CREAT)
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
