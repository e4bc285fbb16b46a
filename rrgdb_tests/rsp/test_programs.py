"""The faces of programs, packet by packet: auxiliary vector, libraries, system calls, files."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from itertools import repeat
from xml.etree import ElementTree

import pytest

from rrgdb.rsp import faces
from rrgdb.rsp.commands import COMMANDS
from rrgdb.rsp.commands.files import PATH_LIMIT
from rrgdb.rsp.commands.syscalls import NUMBERS_LIMIT
from rrgdb.rsp.commands.xfer import LIBRARIES_LIMIT
from rrgdb.rsp.debuggee import FileStatus, Namespace, StopReason, StopReply
from rrgdb.rsp.packets import PACKET_SIZE
from rrgdb.rsp.session import FILES_LIMIT
from rrgdb_tests.rsp.fake import FakeDebuggee
from rrgdb_tests.rsp.program import ANOTHER, ANOTHER_R_DEBUG, AUXV, LINK_MAPS, R_DEBUG, Program
from rrgdb_tests.rsp.stub import Stub

FOR_PROGRAMS = (faces.AUXV, faces.LIBRARIES, faces.SYSCALLS, faces.FILES)
ADVERTISED = {"qXfer:auxv:read+", "qXfer:libraries-svr4:read+", "augmented-libraries-svr4-read+", "QCatchSyscalls+"}
MOTD, EMPTY, LINK, NOWHERE = (path.hex().encode() for path in (b"/etc/motd", b"/empty", b"/proc/self/exe", b"/nowhere"))


@pytest.fixture
def program() -> Program:
    return Program()


@pytest.fixture
def fake(program: Program) -> FakeDebuggee:
    return program


def features(stub: Stub) -> set[str]:
    return set((stub.handle(b"qSupported") or b"").decode().split(";"))


def test_advertised_if_the_debuggee_has_it(stub: Stub) -> None:
    assert features(stub) - features(Stub(FakeDebuggee())) == ADVERTISED


@pytest.mark.parametrize(
    ("packet", "reply"),
    [
        (b"qXfer:auxv:read::0,1000", b"l" + AUXV),
        (b"qXfer:auxv:read::8,10", b"m" + AUXV[8:24]),
        (b"qXfer:auxv:read::30,10", b"l"),
        (b"qXfer:auxv:read:1:0,1000", b"E02"),
        (b"qXfer:auxv:read::0", b"E16"),
        (b"qXfer:auxv:write::0:00", b""),
        (b"qXfer:libraries-svr4:read:start=1400:0,1000", b"E0e"),
        (b"qXfer:libraries-svr4:read:start=x:0,1000", b"E16"),
        (b"qXfer:libraries-svr4:read:prev=-1:0,1000", b"E16"),
        (b"qXfer:libraries-svr4:read::0", b"E16"),
        (b"QCatchSyscalls:0", b"OK"),
        (b"QCatchSyscalls:1", b"OK"),
        (b"QCatchSyscalls:1;40;3f", b"OK"),
        (b"QCatchSyscalls", b"E16"),
        (b"QCatchSyscalls:", b"E16"),
        (b"QCatchSyscalls:2", b"E16"),
        (b"QCatchSyscalls:0;40", b"E16"),
        (b"QCatchSyscalls:1;", b"E16"),
        (b"QCatchSyscalls:1;40;", b"E16"),
        (b"QCatchSyscalls:1;-1", b"E16"),
        (b"vFile:setfs:0", b"F0"),
        (b"vFile:setfs:1", b"F0"),
        (b"vFile:setfs:2", b"F-1,16"),
        (b"vFile:setfs:-1", b"F-1,16"),
        (b"vFile:setfs", b"F-1,16"),
        (b"vFile:open:%b,0,0" % MOTD, b"F0"),
        (b"vFile:open:%b,808,1b6" % MOTD, b"F0"),
        (b"vFile:open:%b,0,0" % NOWHERE, b"F-1,2"),
        (b"vFile:open:,0,0", b"F-1,2"),
        (b"vFile:open:2f0061,0,0", b"F-1,16"),
        (b"vFile:open:2f6,0,0", b"F-1,16"),
        (b"vFile:open:%b,0,0" % (b"61" * PATH_LIMIT), b"F-1,2"),
        (b"vFile:open:%b,0,0" % (b"61" * (PATH_LIMIT + 1)), b"F-1,5b"),
        (b"vFile:open:%b,1,0" % MOTD, b"F-1,1e"),
        (b"vFile:open:%b,2,0" % MOTD, b"F-1,1e"),
        (b"vFile:open:%b,200,1a4" % NOWHERE, b"F-1,1e"),
        (b"vFile:open:%b,400,0" % MOTD, b"F-1,1e"),
        (b"vFile:open:%b,4,0" % MOTD, b"F-1,16"),
        (b"vFile:open:%b,0,x" % MOTD, b"F-1,16"),
        (b"vFile:open:%b,0" % MOTD, b"F-1,16"),
        (b"vFile:open:%b,0,0,0" % MOTD, b"F-1,16"),
        (b"vFile:close:0", b"F-1,9"),
        (b"vFile:close:", b"F-1,16"),
        (b"vFile:pread:0,10,0", b"F-1,9"),
        (b"vFile:pread:0", b"F-1,16"),
        (b"vFile:pwrite:0,0,abc", b"F-1,9"),
        (b"vFile:pwrite:", b"F-1,16"),
        (b"vFile:fstat:0", b"F-1,9"),
        (b"vFile:readlink:%b" % LINK, b"Fc;/bin/program"),
        (b"vFile:readlink:%b" % MOTD, b"F-1,16"),
        (b"vFile:readlink:%b" % NOWHERE, b"F-1,2"),
        (b"vFile:unlink:%b" % MOTD, b"F-1,1e"),
        (b"vFile:unlink:0", b"F-1,16"),
        (b"vFile:rename:%b" % MOTD, b""),
        (b"vFile:", b""),
        (b"vFile", b""),
    ],
)
def test_packet(stub: Stub, packet: bytes, reply: bytes) -> None:
    assert stub.handle(packet) == reply


def test_a_process_that_is_gone_has_neither_vector_nor_libraries_nor_system_calls(stub: Stub) -> None:
    for packet in (b"!", b"vKill;1"):
        stub.handle(packet)
    packets = (b"qXfer:auxv:read::0,100", b"qXfer:libraries-svr4:read::0,100", b"QCatchSyscalls:1")
    assert [stub.handle(packet) for packet in packets] == [b"E03"] * 3


# -- libraries -----------------------------------------------------------------------------------


def library_list(stub: Stub, annex: bytes = b"", length: int = 80) -> ElementTree.Element:
    """The document, read in pieces of ``length`` bytes."""
    text, offset = b"", 0
    while True:
        part = stub.handle(b"qXfer:libraries-svr4:read:%b:%x,%x" % (annex, offset, length)) or b""
        assert part[:1] in (b"m", b"l"), part
        text += part[1:]
        offset += len(part) - 1
        if part[:1] == b"l":
            return ElementTree.fromstring(text)


def addresses(found: ElementTree.Element) -> list[int]:
    return [int(library.attrib["lm"], 16) for library in found]


def test_library_list(stub: Stub) -> None:
    found = library_list(stub)
    assert found.tag == "library-list-svr4"
    assert found.attrib == {"version": "1.0", "main-lm": "0x1000"}
    assert [library.attrib for library in found] == [
        {
            "name": '/lib/a "quoted" & <odd>\ufffd\ufffd.so',
            "lm": "0x1200",
            "l_addr": "0xa0000000",
            "l_ld": "0xa0000200",
            "lmid": "0x800",
        },
        {
            "name": "/lib/ld-linux.so",
            "lm": "0x1300",
            "l_addr": "0xffff000000000000",
            "l_ld": "0xffff000000000300",
            "lmid": "0x800",
        },
    ]


@pytest.mark.parametrize(
    ("annex", "found", "main"),
    [
        (b"", [(0x1200, 0x800), (0x1300, 0x800), (0x2000, 0x900)], True),
        (b"lmid=0;start=0;prev=0", [(0x1200, 0x800), (0x1300, 0x800), (0x2000, 0x900)], True),
        (b"start=;prev", [(0x1200, 0x800), (0x1300, 0x800), (0x2000, 0x900)], True),
        # what else is said means nothing without a start
        (b"prev=1200;lmid=900", [(0x1200, 0x800), (0x1300, 0x800), (0x2000, 0x900)], True),
        (b"lmid=800;start=1200;prev=1100", [(0x1200, 0x800), (0x1300, 0x800)], False),
        (b"prev=1200;else=5;start=1300;", [(0x1300, None)], False),
        (b"lmid=900;start=2000;prev=0", [(0x2000, 0x900)], False),
        # the list is not as the debugger thinks
        (b"start=1300", [], False),
        (b"start=1300;prev=1100", [], False),
    ],
)
def test_library_list_from_an_entry_on(
    stub: Stub, program: Program, annex: bytes, found: list[tuple[int, int | None]], main: bool
) -> None:
    program.chains[ANOTHER_R_DEBUG] = ANOTHER
    listed = library_list(stub, annex)
    spaces = [int(library.attrib["lmid"], 16) if "lmid" in library.attrib else None for library in listed]
    assert list(zip(addresses(listed), spaces, strict=True)) == found
    assert ("main-lm" in listed.attrib) is main


def test_a_program_without_a_dynamic_linker_has_no_libraries(stub: Stub, program: Program) -> None:
    program.chains.clear()
    assert library_list(stub).attrib == {"version": "1.0"}


def test_library_list_ends_where_it_is_damaged(stub: Stub, program: Program) -> None:
    program.chains[R_DEBUG] = (*LINK_MAPS[:3], replace(LINK_MAPS[3], previous=0x1100))
    program.chains[ANOTHER_R_DEBUG] = ANOTHER
    assert addresses(library_list(stub)) == [0x1200, 0x2000]


@pytest.mark.parametrize(("name", "count"), [(b"/lib/x.so", LIBRARIES_LIMIT), (b"", 0)])
def test_endless_library_list(
    stub: Stub, program: Program, monkeypatch: pytest.MonkeyPatch, name: bytes, count: int
) -> None:
    circle = replace(LINK_MAPS[3], name=name, previous=LINK_MAPS[3].address)
    monkeypatch.setattr(program, "link_maps", lambda _: repeat(circle))
    assert addresses(library_list(stub, b"start=1300;prev=1300", PACKET_SIZE)) == [circle.address] * count


def test_endless_namespaces(stub: Stub, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "namespaces", lambda: repeat(Namespace(1, 0x1300)))
    assert addresses(library_list(stub)) == []


# -- system calls --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "stops"),
    [
        (
            b"QCatchSyscalls:1",
            [b"syscall_entry:40;", b"syscall_return:40;", b"syscall_entry:3f;", b"syscall_return:3f;"],
        ),
        (b"QCatchSyscalls:1;40", [b"syscall_entry:40;", b"syscall_return:40;"] * 2),
        (b"QCatchSyscalls:1;3f;fff", [b"syscall_entry:3f;", b"syscall_return:3f;"] * 2),
        (b"QCatchSyscalls:1;7", [b"replaylog:end;"] * 4),
        (b"QCatchSyscalls:0", [b"replaylog:end;"] * 4),
    ],
)
def test_caught_system_calls(stub: Stub, packet: bytes, stops: list[bytes]) -> None:
    for before in (b"QCatchSyscalls:1;1;2;3", packet):
        assert stub.handle(before) == b"OK"
    replies = [stub.handle(b"vCont;c") or b"" for _ in stops]
    assert [re.sub(rb"(?<=;)[0-9a-f]+:[0-9a-f]+;.*", b"", reply) for reply in replies] == [b"T05" + s for s in stops]


@pytest.mark.parametrize("number", [0, 1 << 31, (1 << 64) - 1])
def test_numbers_of_system_calls(stub: Stub, number: int) -> None:
    reply = stub.session.stop_reply(StopReply(StopReason.SYSCALL_RETURN, syscall=number))
    assert reply.startswith(b"T05syscall_return:%x;" % number)


def test_system_calls_are_bounded(stub: Stub, program: Program) -> None:
    numbers = [b"%x" % number for number in range(NUMBERS_LIMIT + 1)]
    assert stub.handle(b"QCatchSyscalls:1;" + b";".join(numbers[1:])) == b"OK"
    assert program.caught == frozenset(range(1, NUMBERS_LIMIT + 1))
    assert stub.handle(b"QCatchSyscalls:1;" + b";".join(numbers)) == b"E1c"
    assert program.caught == frozenset(range(1, NUMBERS_LIMIT + 1))


# -- files ---------------------------------------------------------------------------------------


def open_file(stub: Stub, path: bytes = MOTD) -> bytes:
    """The descriptor."""
    reply = stub.handle(b"vFile:open:%b,0,0" % path) or b""
    assert re.fullmatch(rb"F[0-9a-f]+", reply), reply
    return reply[1:]


@pytest.mark.parametrize(
    ("window", "reply"),
    [
        (b"4,22", b"F4;\x22\x23\x24\x25"),
        (b"0,0", b"F0;"),
        (b"10,3e7fe", b"F2;\xfe\xff"),
        (b"10,3e800", b"F0;"),
        (b"ffffffffffffffff,7fffffffffffffff", b"F0;"),
        (b"1,8000000000000000", b"F-1,16"),
        (b"1,ffffffffffffffff", b"F-1,16"),
        (b"-1,0", b"F-1,16"),
        (b"1,-1", b"F-1,16"),
        (b"1,0,0", b"F-1,16"),
        (b"1", b"F-1,16"),
    ],
)
def test_reading_a_file(stub: Stub, window: bytes, reply: bytes) -> None:
    assert stub.handle(b"vFile:pread:%b,%b" % (open_file(stub), window)) == reply


def test_a_read_is_cut_to_the_packet_size(stub: Stub, program: Program) -> None:
    program.content[b"/empty"] = b"#" * 2 * PACKET_SIZE
    reply = stub.handle(b"vFile:pread:%b,ffffffff,0" % open_file(stub, EMPTY)) or b""
    header, _, content = reply.partition(b";")
    assert int(header[1:], 16) == len(content)
    assert PACKET_SIZE - 10 <= len(header) + 1 + 2 * len(content) <= PACKET_SIZE


def test_files_are_not_written(stub: Stub, program: Program) -> None:
    before = dict(program.content)
    descriptor = open_file(stub)
    assert stub.handle(b"vFile:pwrite:%b,0,a,b,c#" % descriptor) == b"F-1,1e"
    assert program.content == before


def test_fstat(stub: Stub) -> None:
    reply = stub.handle(b"vFile:fstat:" + open_file(stub)) or b""
    assert reply.startswith(b"F40;")
    dev, ino, mode, nlink, uid, gid, rdev, size, blksize, blocks, atime, mtime, ctime = struct.unpack(
        ">IIIIIIIQQQIII", reply[4:]
    )
    assert (dev, ino, mode, nlink, uid, gid, rdev) == (0, 8, 0o100644, 1, 0, 0, 0)
    assert (size, blksize, blocks, atime, mtime, ctime) == (256_000, 4096, 1, 0, 1_700_000_000, 0)


def test_fstat_of_numbers_that_do_not_fit(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = open_file(stub)
    big = FileStatus(*([(1 << 70) + 3] * 13))
    monkeypatch.setattr(stub.session.files[0], "status", lambda: big)
    assert stub.handle(b"vFile:fstat:" + descriptor) == b"F40;" + struct.pack(">7I3Q3I", *([3] * 13))


def test_long_links_are_refused(stub: Stub, program: Program) -> None:
    program.links[b"/proc/self/exe"] = b"x" * PATH_LIMIT
    assert stub.handle(b"vFile:readlink:" + LINK) == b"F%x;" % PATH_LIMIT + b"x" * PATH_LIMIT
    program.links[b"/proc/self/exe"] += b"x"
    assert stub.handle(b"vFile:readlink:" + LINK) == b"F-1,5b"


def test_descriptors_are_used_again_and_bounded(stub: Stub, program: Program) -> None:
    assert [open_file(stub) for _ in range(FILES_LIMIT)] == [b"%x" % n for n in range(FILES_LIMIT)]
    assert stub.handle(b"vFile:open:%b,0,0" % MOTD) == b"F-1,18"
    assert program.open_files == FILES_LIMIT
    assert stub.handle(b"vFile:close:1f") == b"F0"
    assert stub.handle(b"vFile:close:1f") == b"F-1,9"
    assert program.open_files == FILES_LIMIT - 1
    assert open_file(stub) == b"1f"


def test_a_file_that_is_not_there_takes_no_descriptor(stub: Stub) -> None:
    for _ in range(FILES_LIMIT + 1):
        assert stub.handle(b"vFile:open:%b,0,0" % NOWHERE) == b"F-1,2"
    assert open_file(stub) == b"0"


@pytest.mark.parametrize(
    "goodbye", [[], [b"D"], [b"k"], [b"!", b"D"], [b"!", b"vKill;1"], [b"!", b"D", b"vFile:open:%b,0,0" % MOTD]]
)
def test_files_are_closed_when_the_debugger_goes(stub: Stub, program: Program, goodbye: list[bytes]) -> None:
    open_file(stub)
    open_file(stub, EMPTY)
    for packet in (b"QCatchSyscalls:1", *goodbye):
        stub.handle(packet)
    stub.session.drop()
    assert program.open_files == 0
    assert not stub.session.files


def test_detaching_closes_files_at_once(stub: Stub, program: Program) -> None:
    descriptor = open_file(stub)
    for packet in (b"!", b"D"):
        stub.handle(packet)
    assert program.open_files == 0
    assert stub.handle(b"vFile:fstat:" + descriptor) == b"F-1,9"


def test_what_program_packets_are_brief_for(stub: Stub) -> None:
    """A vector is bytes that are there; the others may look through guest memory or read files."""
    brief = {command.name for command in COMMANDS if command.face in FOR_PROGRAMS and command.brief}
    assert brief == {b"qXfer:auxv:read"}
