"""Documents: qXfer:…:read of the target description, memory map, thread list and executable's path."""

from __future__ import annotations

from collections.abc import Callable

from rrgdb.rsp.commands.base import Command, always
from rrgdb.rsp.debuggee import Debuggee, DebuggeeError, Executable, MemoryMap
from rrgdb.rsp.faces import BASE, EXECUTABLE, MEMORY_MAP, F, Face
from rrgdb.rsp.packets import PACKET_SIZE
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import ENOENT, address_and_length

# every byte may need an escape
_CHUNK_LIMIT = PACKET_SIZE // 2 - 1
_MEMORY_MAP_DTD = (
    '<!DOCTYPE memory-map PUBLIC "+//IDN gnu.org//DTD GDB Memory Map V1.0//EN"'
    ' "http://sourceware.org/gdb/gdb-memory-map.dtd">'
)


def _features(_: Session, debuggee: Debuggee) -> str:
    return debuggee.target_xml()


def _memory_map(_: Session, memory: MemoryMap) -> str:
    regions = "".join(
        f'<memory type="{region.kind}" start="{region.start:#x}" length="{region.length:#x}"/>\n'
        for region in memory.memory_map()
    )
    return f'<?xml version="1.0"?>\n{_MEMORY_MAP_DTD}\n<memory-map>\n{regions}</memory-map>\n'


def _threads(session: Session, debuggee: Debuggee) -> str:
    entries = "".join(
        f'<thread id="{session.thread_id(thread).decode()}" core="{core}">{debuggee.describe(thread)}</thread>\n'
        for core, thread in enumerate(() if session.gone else debuggee.threads())
    )
    return f'<?xml version="1.0"?>\n<threads>\n{entries}</threads>\n'


def _executable(_: Session, image: Executable) -> str:
    return image.executable()


def _document(
    name: str, face: Face[F], document: Callable[[Session, F], str], annexes: tuple[bytes, ...] | None = (b"",)
) -> Command[F]:
    """qXfer:``name``:read. ``annexes``: which ones there are; None: any."""

    def read(session: Session, found: F, arguments: bytes) -> bytes:
        annex, _, window = arguments.partition(b":")
        offset, length = address_and_length(window, "qXfer")
        if annexes is not None and annex not in annexes:
            raise DebuggeeError(f"no such document: {name} {annex.decode('ascii', 'replace')}", ENOENT)
        # The path of the image may be no UTF-8.
        text = document(session, found).encode("utf-8", "surrogateescape")
        part = text[offset : offset + min(length, _CHUNK_LIMIT)]
        return (b"m" if offset + len(part) < len(text) else b"l") + part

    packet = f"qXfer:{name}:read"
    return Command(packet.encode(), face, read, b":", always(f"{packet}+"), brief=True)


COMMANDS = (
    _document("features", BASE, _features, (b"target.xml",)),
    _document("memory-map", MEMORY_MAP, _memory_map),
    _document("threads", BASE, _threads),
    _document("exec-file", EXECUTABLE, _executable, None),
)
