"""Documents: qXfer:…:read of the target description, memory map, thread list and executable's path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from rrgdb.rsp.commands.base import Command
from rrgdb.rsp.commands.threads import describe
from rrgdb.rsp.debuggee import DebuggeeError
from rrgdb.rsp.packets import PACKET_SIZE
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import ENOENT, address_and_length

# every byte may need an escape
_CHUNK_LIMIT = PACKET_SIZE // 2 - 1
_MEMORY_MAP_DTD = (
    '<!DOCTYPE memory-map PUBLIC "+//IDN gnu.org//DTD GDB Memory Map V1.0//EN"'
    ' "http://sourceware.org/gdb/gdb-memory-map.dtd">'
)
_Document: TypeAlias = Callable[[Session], str]


def _features(session: Session) -> str:
    return session.debuggee.target_xml()


def _memory_map(session: Session) -> str:
    regions = "".join(
        f'<memory type="{region.kind}" start="{region.start:#x}" length="{region.length:#x}"/>\n'
        for region in session.debuggee.memory_map()
    )
    return f'<?xml version="1.0"?>\n{_MEMORY_MAP_DTD}\n<memory-map>\n{regions}</memory-map>\n' if regions else ""


def _threads(session: Session) -> str:
    thread = session.thread_id().decode()
    entry = "" if session.gone else f'<thread id="{thread}" core="0">{describe(session)}</thread>\n'
    return f'<?xml version="1.0"?>\n<threads>\n{entry}</threads>\n'


def _executable(session: Session) -> str:
    return session.debuggee.executable()


_DOCUMENTS: dict[bytes, tuple[tuple[bytes, ...] | None, _Document]] = {
    # object -> annexes (None: any), document; an empty document does not exist
    b"features": ((b"target.xml",), _features),
    b"memory-map": ((b"",), _memory_map),
    b"threads": ((b"",), _threads),
    b"exec-file": (None, _executable),
}


def _xfer(session: Session, arguments: bytes) -> bytes:
    name, _, rest = arguments.partition(b":")
    operation, _, rest = rest.partition(b":")
    if name not in _DOCUMENTS or operation != b"read":
        return b""
    annex, _, window = rest.partition(b":")
    offset, length = address_and_length(window, "qXfer")
    annexes, document = _DOCUMENTS[name]
    # The path of the image may be no UTF-8.
    text = document(session).encode("utf-8", "surrogateescape") if annexes is None or annex in annexes else b""
    if not text:
        raise DebuggeeError(f"no such document: {name.decode()} {annex.decode('ascii', 'replace')}", ENOENT)
    part = text[offset : offset + min(length, _CHUNK_LIMIT)]
    return (b"m" if offset + len(part) < len(text) else b"l") + part


def _advertised(session: Session) -> Sequence[str]:
    return [f"qXfer:{name.decode()}:read+" for name, (_, document) in _DOCUMENTS.items() if document(session)]


COMMANDS = (Command(b"qXfer", _xfer, b":", _advertised, brief=True),)
