"""The file under an image: positioned reads and gathered writes that either do all or raise."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from .errors import Qcow2Error

Buffer = bytes | bytearray | memoryview

IOV_MAX = 1024


class HostFile:
    """One open file. Raises OSError as the system does."""

    def __init__(self, path: str, flags: int, *, own: bool = False, mode: int = 0o666) -> None:
        """``own``: a regular file, reached by no symbolic link; for writing, it has no other name (hard link).
        ``mode``: of a new file."""
        # A FIFO or a terminal would block or never end.
        if not flags & os.O_CREAT:
            _require_file((os.lstat if own else os.stat)(path), path, flags, own=own)
        if own:
            flags |= os.O_NOFOLLOW
        self.path = path
        self.fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, mode)
        try:
            _require_file(os.fstat(self.fd), path, flags, own=own)
        except BaseException:
            os.close(self.fd)
            raise

    @property
    def identity(self) -> tuple[int, int]:
        """(device, inode): the same file under whatever name."""
        status = os.fstat(self.fd)
        return status.st_dev, status.st_ino

    def size(self) -> int:
        """Length in bytes now."""
        return os.lseek(self.fd, 0, os.SEEK_END)

    def allocated(self) -> int:
        """Bytes that the file takes on its disk."""
        return os.fstat(self.fd).st_blocks * 512

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes; fewer only at the end of the file."""
        data = os.pread(self.fd, length, offset)
        if len(data) == length or not data:
            return data
        parts = [data]
        while data and (length := length - len(data)) > 0:
            offset += len(data)
            data = os.pread(self.fd, length, offset)
            parts.append(data)
        return b"".join(parts)

    def read_exact(self, offset: int, length: int, what: str) -> bytes:
        """``length`` bytes, or Qcow2Error if the file ends before; the claimed length costs no memory then."""
        if offset + length > self.size():
            raise Qcow2Error(f"{self.path}: offset {offset}: expected {what} ({length} bytes), the file ends before")
        data = self.read(offset, length)
        if len(data) != length:
            raise Qcow2Error(f"{self.path}: offset {offset}: expected {what} ({length} bytes), the file ends before")
        return data

    def is_hole(self, offset: int, length: int) -> bool:
        """Whether the file holds nothing but a hole there: it reads as zeros."""
        try:
            return os.lseek(self.fd, offset, os.SEEK_DATA) >= offset + length
        except OSError as error:
            return error.errno == errno.ENXIO

    def next_data(self, offset: int, end: int) -> tuple[int, int]:
        """(start, stop) of the first bytes that are no hole, both at most ``end``."""
        try:
            start = os.lseek(self.fd, offset, os.SEEK_DATA)
            stop = os.lseek(self.fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:
                return offset, end  # such a file system knows of no holes
            return end, end
        return min(start, end), min(stop, end)

    def truncate(self, length: int) -> None:
        """Cut the file, or let it grow by a hole."""
        os.ftruncate(self.fd, length)

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill ``view`` from ``offset``; returns the bytes read (fewer only at the end of the file)."""
        done = 0
        while done < len(view):
            count = os.preadv(self.fd, [view[done:]], offset + done)
            if count == 0:
                break
            done += count
        return done

    def read_parts(self, offset: int, parts: Sequence[bytearray | memoryview]) -> bool:
        """Fill ``parts`` one after the other from ``offset`` on; False if some were not, at the end of the file or for
        any other reason."""
        for i in range(0, len(parts), IOV_MAX):
            some = parts[i : i + IOV_MAX]
            total = sum(map(len, some))
            if os.preadv(self.fd, some, offset) != total:
                return False
            offset += total
        return True

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write the byte ``buffers`` one after the other from ``offset`` on."""
        for i in range(0, len(buffers), IOV_MAX):
            part = buffers[i : i + IOV_MAX]
            total = sum(map(len, part))
            done = os.pwritev(self.fd, part, offset)
            if done < total:
                # Short (a signal, a nearly full disk): go on with the rest, which raises if nothing more fits.
                rest = memoryview(b"".join(part))
                while done < total:
                    done += os.pwrite(self.fd, rest[done:], offset + done)
            offset += total

    def sync(self) -> None:
        os.fdatasync(self.fd)

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def sync_directory(path: str) -> None:
    """Wait until the name of a new file is on the disk; what is synced of the file itself is not lost then."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # such a file system does not do that
            raise
    finally:
        os.close(fd)


def _require_file(status: os.stat_result, path: str, flags: int, *, own: bool) -> None:
    mode = status.st_mode
    if own and stat.S_ISLNK(mode):
        raise Qcow2Error(f"{path}: offset 0: expected a regular file, found a symbolic link")
    if not (stat.S_ISREG(mode) or (stat.S_ISBLK(mode) and not own)):
        raise Qcow2Error(f"{path}: offset 0: expected a regular file{'' if own else ' or a block device'}")
    if own and flags & os.O_ACCMODE != os.O_RDONLY and status.st_nlink > 1:
        raise Qcow2Error(
            f"{path}: offset 0: expected one name of a file to be written, it has {status.st_nlink} (hard links)"
        )
