"""Documents: qXfer:…:read of the target description, memory map, thread list, executable's path, auxiliary vector and
library list. The last two are for programs, which no debuggee of rrgdb is yet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice

from rrgdb.rsp.commands.base import Command, always
from rrgdb.rsp.debuggee import Auxv, Debuggee, DebuggeeError, Executable, Libraries, LinkMap, MemoryMap
from rrgdb.rsp.faces import AUXV, BASE, EXECUTABLE, LIBRARIES, MEMORY_MAP, F, Face
from rrgdb.rsp.packets import PACKET_SIZE
from rrgdb.rsp.session import Session
from rrgdb.rsp.wire import ENOENT, address_and_length, number
from rrgdb.text import attribute

LIBRARIES_LIMIT = 10_000
# every byte may need an escape
_CHUNK_LIMIT = PACKET_SIZE // 2 - 1
_MEMORY_MAP_DTD = (
    '<!DOCTYPE memory-map PUBLIC "+//IDN gnu.org//DTD GDB Memory Map V1.0//EN"'
    ' "http://sourceware.org/gdb/gdb-memory-map.dtd">'
)
_NOT_IN_XML = "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
"""a pattern; it takes 4 ms to compile"""


def _features(_: Session, debuggee: Debuggee, __: bytes) -> bytes:
    return debuggee.target_xml().encode()


def _memory_map(_: Session, memory: MemoryMap, __: bytes) -> bytes:
    regions = "".join(
        f'<memory type="{region.kind}" start="{region.start:#x}" length="{region.length:#x}"/>\n'
        for region in memory.memory_map()
    )
    return f'<?xml version="1.0"?>\n{_MEMORY_MAP_DTD}\n<memory-map>\n{regions}</memory-map>\n'.encode()


def _threads(session: Session, debuggee: Debuggee, _: bytes) -> bytes:
    entries = "".join(
        f'<thread id="{session.thread_id(thread).decode()}" core="{core}">{debuggee.describe(thread)}</thread>\n'
        for core, thread in enumerate(() if session.gone else debuggee.threads())
    )
    return f'<?xml version="1.0"?>\n<threads>\n{entries}</threads>\n'.encode()


def _executable(_: Session, image: Executable, __: bytes) -> bytes:
    # it may be no UTF-8
    return image.executable().encode("utf-8", "surrogateescape")


def _auxv(_: Session, program: Auxv, __: bytes) -> bytes:
    return program.auxv()


def _chain(libraries: Libraries, start: int, previous: int) -> Iterator[LinkMap]:
    """A list from ``start`` on to where an entry denies the one before it: the program was stopped while it changed the
    list, or has damaged it."""
    for link_map in libraries.link_maps(start):
        if link_map.previous != previous:
            return
        previous = link_map.address
        yield link_map


def _library(link_map: LinkMap, namespace: int) -> str:
    name = attribute(re.sub(_NOT_IN_XML, "\ufffd", link_map.name.decode("utf-8", "replace")))
    lmid = f' lmid="{namespace:#x}"' if namespace else ""
    return (
        f'<library name={name} lm="{link_map.address:#x}" l_addr="{link_map.offset:#x}"'
        f' l_ld="{link_map.dynamic:#x}"{lmid}/>\n'
    )


def _libraries(_: Session, libraries: Libraries, annex: bytes) -> bytes:
    """All, or those from ``start`` on, whose predecessor is ``prev`` and whose namespace is ``lmid``.

    The program is no library, but GDB wants the address of its link map. What has no name is no file."""
    arguments = dict(field.partition(b"=")[::2] for field in annex.split(b";"))
    lmid, start, previous = (number(arguments.get(k) or b"0", f"{k.decode()}=") for k in (b"lmid", b"start", b"prev"))
    if start:
        main, lists = 0, [(lmid, start, previous)]
    else:
        lists = [(space.address, space.first, 0) for space in islice(libraries.namespaces(), LIBRARIES_LIMIT)]
        main = lists[0][1] if lists else 0
    found = ((space, link_map) for space, first, before in lists for link_map in _chain(libraries, first, before))
    entries = "".join(
        _library(link_map, space)
        for space, link_map in islice(found, LIBRARIES_LIMIT)
        if link_map.name and link_map.address != main
    )
    head = f' main-lm="{main:#x}"' if main else ""
    return f'<library-list-svr4 version="1.0"{head}>\n{entries}</library-list-svr4>\n'.encode()


def _document(
    name: str,
    face: Face[F],
    document: Callable[[Session, F, bytes], bytes],
    annexes: tuple[bytes, ...] | None = (b"",),
    *entries: str,
    needs_process: bool = False,
    brief: bool = True,
) -> Command[F]:
    """qXfer:``name``:read. ``document`` gets the annex; ``annexes``: which ones there are, None: any. ``entries``: of
    the qSupported reply, besides its own."""

    def read(session: Session, found: F, arguments: bytes) -> bytes:
        annex, _, window = arguments.partition(b":")
        offset, length = address_and_length(window, "qXfer")
        if annexes is not None and annex not in annexes:
            raise DebuggeeError(f"no such document: {name} {annex.decode('ascii', 'replace')}", ENOENT)
        content = document(session, found, annex)
        part = content[offset : offset + min(length, _CHUNK_LIMIT)]
        return (b"m" if offset + len(part) < len(content) else b"l") + part

    packet = f"qXfer:{name}:read"
    advertised = always(f"{packet}+", *entries)
    return Command(packet.encode(), face, read, b":", advertised, needs_process=needs_process, brief=brief)


COMMANDS = (
    _document("features", BASE, _features, (b"target.xml",)),
    _document("memory-map", MEMORY_MAP, _memory_map),
    _document("threads", BASE, _threads),
    _document("exec-file", EXECUTABLE, _executable, None),
    _document("auxv", AUXV, _auxv, needs_process=True),
    _document(
        "libraries-svr4",
        LIBRARIES,
        _libraries,
        None,
        "augmented-libraries-svr4-read+",
        needs_process=True,
        brief=False,
    ),
)
