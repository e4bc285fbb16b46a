"""Host I/O: vFile:… (GDB manual, "Host I/O Packets" and, for flags, errors and structs, "File-I/O Remote Protocol
Extension"). Reading only. For programs, which no debuggee of rrgdb is yet.

An operation that fails is answered with ``F-1,errno``, never with ``E``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from rrgdb.rsp.commands.base import Command
from rrgdb.rsp.debuggee import DebuggeeError, Files, FileStatus, OpenFile
from rrgdb.rsp.faces import FILES
from rrgdb.rsp.packets import PACKET_SIZE
from rrgdb.rsp.session import PROCESS, Session
from rrgdb.rsp.wire import EBADF, EINVAL, ENAMETOOLONG, ENOENT, EROFS, PacketError, data, number

PATH_LIMIT = 4096
# every byte may need an escape; before them stands F1ffff;
_READ_LIMIT = (PACKET_SIZE - 7) // 2
_OFFSET_LIMIT = 1 << 63
_WRONLY, _RDWR, _APPEND, _CREAT, _TRUNC, _EXCL = 0x1, 0x2, 0x8, 0x200, 0x400, 0x800
_WRITING = _WRONLY | _RDWR | _CREAT | _TRUNC
_FLAGS = _WRITING | _APPEND | _EXCL
_STAT = struct.Struct(">7I3Q3I")
_U32, _U64 = (1 << 32) - 1, (1 << 64) - 1


def _fields(arguments: bytes, count: int) -> list[bytes]:
    fields = arguments.split(b",", count)
    if len(fields) != count:
        raise PacketError(f"{count} fields expected")
    return fields


def _path(field: bytes) -> bytes:
    path = data(field, "file name")
    if not path:
        raise DebuggeeError("no file name", ENOENT)
    if b"\0" in path:
        raise PacketError("bad file name: there is a NUL in it")
    if len(path) > PATH_LIMIT:
        raise DebuggeeError(f"file name of {len(path)} bytes; at most {PATH_LIMIT}", ENAMETOOLONG)
    return path


def _descriptor(session: Session, field: bytes) -> tuple[int, OpenFile]:
    descriptor = number(field, "file descriptor")
    if descriptor not in session.files:
        raise DebuggeeError(f"no file is open as {descriptor}", EBADF)
    return descriptor, session.files[descriptor]


def _read_only() -> DebuggeeError:
    return DebuggeeError("files can only be read", EROFS)


def _number_reply(value: int) -> bytes:
    return b"F%x" % value


def _data_reply(content: bytes) -> bytes:
    return b"F%x;%b" % (len(content), content)


def _select(_: Session, __: Files, arguments: bytes) -> bytes:
    """The files are the program's, whether it (1) or the stub (0) is said to look at them."""
    if number(arguments, "process id") not in (0, PROCESS):
        raise DebuggeeError(f"no such process: there is one, {PROCESS}", EINVAL)
    return _number_reply(0)


def _open(session: Session, files: Files, arguments: bytes) -> bytes:
    name, flags_field, mode = _fields(arguments, 3)
    path, flags = _path(name), number(flags_field, "open flags")
    number(mode, "mode")
    if flags & ~_FLAGS:
        raise PacketError(f"open flags {flags:#x} mean nothing")
    if flags & _WRITING:
        raise _read_only()
    descriptor = session.free_descriptor()
    session.files[descriptor] = files.open(path)
    return _number_reply(descriptor)


def _close(session: Session, _: Files, arguments: bytes) -> bytes:
    descriptor, file = _descriptor(session, arguments)
    del session.files[descriptor]
    file.close()
    return _number_reply(0)


def _pread(session: Session, _: Files, arguments: bytes) -> bytes:
    which, count, start = _fields(arguments, 3)
    file = _descriptor(session, which)[1]
    length, offset = number(count, "count"), number(start, "offset")
    if offset >= _OFFSET_LIMIT:
        raise PacketError(f"offset {offset:#x} is no position in a file")
    return _data_reply(file.read(offset, min(length, _READ_LIMIT)))


def _pwrite(session: Session, _: Files, arguments: bytes) -> bytes:
    _descriptor(session, arguments.partition(b",")[0])
    raise _read_only()


def _stat(status: FileStatus) -> bytes:
    """``struct stat`` of the protocol, 64 bytes, big-endian."""
    numbers = (status.dev, status.ino, status.mode, status.nlink, status.uid, status.gid, status.rdev)
    sizes = (status.size, status.blksize, status.blocks)
    times = (status.atime, status.mtime, status.ctime)
    return _STAT.pack(*(n & _U32 for n in numbers), *(n & _U64 for n in sizes), *(n & _U32 for n in times))


def _fstat(session: Session, _: Files, arguments: bytes) -> bytes:
    return _data_reply(_stat(_descriptor(session, arguments)[1].status()))


def _readlink(_: Session, files: Files, arguments: bytes) -> bytes:
    target = files.readlink(_path(arguments))
    if len(target) > PATH_LIMIT:
        raise DebuggeeError(f"link of {len(target)} bytes; at most {PATH_LIMIT}", ENAMETOOLONG)
    return _data_reply(target)


def _unlink(_: Session, __: Files, arguments: bytes) -> bytes:
    _path(arguments)
    raise _read_only()


def _operation(name: str, operation: Callable[[Session, Files, bytes], bytes]) -> Command[Files]:
    def handle(session: Session, files: Files, arguments: bytes) -> bytes:
        try:
            return operation(session, files, arguments)
        except DebuggeeError as error:
            return b"F-1,%x" % error.errno

    return Command(f"vFile:{name}".encode(), FILES, handle, b":")


COMMANDS = (
    _operation("setfs", _select),
    _operation("open", _open),
    _operation("close", _close),
    _operation("pread", _pread),
    _operation("pwrite", _pwrite),
    _operation("fstat", _fstat),
    _operation("readlink", _readlink),
    _operation("unlink", _unlink),
)
