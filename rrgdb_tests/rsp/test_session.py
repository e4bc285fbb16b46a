"""Packet by packet: what a debugger asks and what it is told."""

from __future__ import annotations

import binascii
import re
from typing import Any

import pytest

from rrgdb.rsp import faces
from rrgdb.rsp.commands import COMMANDS
from rrgdb.rsp.commands.search import crc32
from rrgdb.rsp.debuggee import DebuggeeError, StopReason, StopReply, ZPoint, ZType
from rrgdb.rsp.dispatcher import index
from rrgdb.rsp.packets import PACKET_SIZE
from rrgdb_tests.rsp.fake import A0, BASE, CODE, COUNTER, NAMES, FakeDebuggee
from rrgdb_tests.rsp.stub import Stub

GDB = b"qSupported:multiprocess+;swbreak+;hwbreak+;error-message+;vContSupported+;xmlRegisters=i386"
REGISTERS = b"2:0000018000000000;20:0000008000000000;"


def expedited(icount: int) -> bytes:
    return b"2:0000018000000000;20:%b;" % (BASE + icount % 3 * 4).to_bytes(8, "little").hex().encode()


@pytest.mark.parametrize(
    ("packet", "reply"),
    [
        (b"?", b"T05" + REGISTERS + b"thread:1;"),
        (b"!", b"OK"),
        (b"vMustReplyEmpty", b""),
        (b"qAttached", b"1"),
        (b"qAttached:1", b"1"),
        (b"qOffsets", b""),
        (b"qSymbol::", b"OK"),
        (b"qC", b"QC1"),
        (b"qfThreadInfo", b"m1"),
        (b"qsThreadInfo", b"l"),
        (b"Hg0", b"OK"),
        (b"Hc-1", b"OK"),
        (b"Hgp1.1", b"OK"),
        (b"Hg2", b"E03"),
        (b"Hgp2.1", b"E03"),
        (b"Hq1", b"E16"),
        (b"T1", b"OK"),
        (b"Tp1.1", b"OK"),
        (b"T9", b"E03"),
        (b"Tx", b"E16"),
        (b"p20", b"0000008000000000"),
        (b"p21", b"0200000000000000"),
        (b"p22", b"E16"),
        (b"p", b"E16"),
        (b"p-1", b"E16"),
        (b"p0x1", b"E16"),
        (b"p1_0", b"E16"),
        (b"p11111111111111111", b"E16"),
        (b"Pa=0102030405060708", b"OK"),
        (b"Pa=01", b"E16"),
        (b"Pa", b"E16"),
        (b"P21=0102030405060708", b"OK"),
        (b"P22=0102030405060708", b"E16"),
        (b"Pa=010203040506070g", b"E16"),
        (b"G00", b"E16"),
        (b"m80000000,4", b"13051500"),
        (b"m8000fffe,40", b"0000"),
        (b"m0,4", b"E0e"),
        (b"m80000000,0", b"E16"),
        (b"mffffffffffffffff,2", b"E16"),
        (b"m80000000", b"E16"),
        (b"m 80000000,4", b"E16"),
        (b"x80000000,4", b"b" + CODE[:4]),
        (b"x80000000,0", b"b"),
        (b"x0,4", b"E0e"),
        (b"M80000100,2:abcd", b"OK"),
        (b"M80000100,2:ab", b"E16"),
        (b"M80000100,2:ab c", b"E16"),
        (b"M80000100,2", b"E16"),
        (b"M0,1:00", b"E0e"),
        (b"X80000100,3:#$}", b"OK"),
        (b"X80000100,0:", b"OK"),
        (b"X80000100,2:a", b"E16"),
        (b"Z0,80000004,4", b"OK"),
        (b"z0,80000004,4", b"OK"),
        (b"Z5,80000004,4", b"E16"),
        (b"Z0,80000004", b"E16"),
        (b"Z2,80001000,0", b"E16"),
        (b"Z0,80000004,4;X3,220127", b"OK"),
        (b"Z0,80000004,4;X3,220127X3,220027", b"OK"),
        (b"Z0,80000004,4;X3,220127;X3,220027;cmds:1,X3,220127", b"OK"),
        (b"Z0,80000004,4;cmds:0,X1,27", b"OK"),
        (b"Z0,80000004,4;X3,2201", b"E16"),
        (b"Z0,80000004,4;X1,ff", b"OK"),
        (b"Z0,80000004,4;X0,", b"OK"),
        (b"Z0,80000004,4;Y", b"E16"),
        (b"vCont?", b"vCont;c;C;s;S;t;r"),
        (b"vCont;t", b"OK"),
        (b"vCont;s", b"T05" + expedited(1) + b"thread:1;"),
        (b"vCont;s:1;c", b"T05" + expedited(1) + b"thread:1;"),
        (b"vCont;s:2;c:1", b"T05replaylog:end;" + expedited(30_000) + b"thread:1;"),
        (b"vCont;S05:p1.1", b"T05" + expedited(1) + b"thread:1;"),
        (b"vCont;C0f", b"T05replaylog:end;" + expedited(30_000) + b"thread:1;"),
        (b"vCont;r80000000,80000008:p1.1", b"T05" + expedited(2) + b"thread:1;"),
        (b"vCont;r80000000", b"E16"),
        (b"vCont;q", b"E16"),
        (b"vCont;s1", b"E16"),
        (b"vCont;s:2", b"E16"),
        (b"vCont", b"E16"),
        (b"s", b"T05" + expedited(1) + b"thread:1;"),
        (b"s80000000", b"E16"),
        (b"S05", b"T05" + expedited(1) + b"thread:1;"),
        (b"Sxx", b"E16"),
        (b"C05;80000000", b"E16"),
        (b"c", b"T05replaylog:end;" + expedited(30_000) + b"thread:1;"),
        (b"bs", b"T05replaylog:begin;" + expedited(0) + b"thread:1;"),
        (b"bc", b"T05replaylog:begin;" + expedited(0) + b"thread:1;"),
        (b"bs1", b"E16"),
        (b"bx", b""),
        (b"vAttach;1", b"T05" + REGISTERS + b"thread:1;"),
        (b"vAttach;2", b"E03"),
        (b"vRun;;", b"T05" + REGISTERS + b"thread:1;"),
        (b"R00", None),
        (b"k", None),
        (b"k 1:f=c,20", b"E16"),
        (b"vKill;1", b"OK"),
        (b"vKill;2", b"E03"),
        (b"D", b"OK"),
        (b"D;1", b"OK"),
        (b"D;2", b"E03"),
        (b"qXfer:exec-file:read:1:0,100", b""),
        (b"qXfer:features:read:other.xml:0,100", b"E02"),
        (b"qXfer:features:write:target.xml:0:aa", b""),
        (b"qXfer:auxv:read::0,100", b""),
        (b"qXfer", b""),
        (b"qXfer:features", b""),
        (b"qXfer:features:read", b"E16"),
        (b"qXfer:features:read:target.xml:0", b"E16"),
        (b"qXfer:features:read:target.xml:fffff,10", b"l"),
        (b"qRcmd,7", b"E16"),
        (b"qThreadExtraInfo,1", b"replay, icount 0".hex().encode()),
        # not supported, and said so
        (b"QNonStop:1", b""),
        (b"QThreadEvents:1", b""),
        (b"QPassSignals:e;10", b""),
        (b"QDisableRandomization:1", b""),
        (b"vFile:setfs:0", b""),
        (b"vCtrlC", b""),
        (b"qTStatus", b""),
        (b"qL1200000000000000000", b""),
        (b"qP0000001f0000000000000001", b""),
        (b"jThreadsInfo", b""),
        (b"", b""),
        (b"\xff", b""),
        (b"q", b""),
    ],
)
def test_packet(stub: Stub, packet: bytes, reply: bytes | None) -> None:
    assert stub.handle(packet) == reply


def test_what_is_advertised_is_served(stub: Stub) -> None:
    reply = stub.handle(GDB)
    assert reply is not None
    features = reply.decode().split(";")
    assert features[0] == f"PacketSize={PACKET_SIZE:x}"
    assert {
        "QStartNoAckMode+", "multiprocess+", "swbreak+", "hwbreak+", "vContSupported+", "ReverseStep+",
        "ReverseContinue+", "ConditionalBreakpoints+", "binary-upload+", "qXfer:features:read+",
        "qXfer:memory-map:read+", "qXfer:threads:read+",
    } == set(features[1:])  # fmt: skip
    for feature in features:
        if feature.startswith("qXfer"):
            annex = "target.xml" if "features" in feature else ""
            answer = stub.handle(f"{feature[:-1]}:{annex}:0,ff".encode())
            assert answer is not None
            assert answer[:1] in (b"l", b"m")


def test_what_was_not_offered_is_not_used(stub: Stub) -> None:
    reply = stub.handle(b"qSupported")
    assert reply is not None
    assert not set(reply.decode().split(";")) & {"multiprocess+", "swbreak+", "hwbreak+"}
    stub.handle(b"Z0,80000004,4")
    assert stub.handle(b"c") == b"T05" + expedited(1) + b"thread:1;"


def test_executable_is_advertised_if_there_is_one(stub: Stub, fake: FakeDebuggee) -> None:
    fake.image = "/guest.elf"
    assert b"qXfer:exec-file:read+" in (stub.handle(GDB) or b"")
    assert stub.handle(b"qXfer:exec-file:read:1:0,100") == b"l/guest.elf"
    assert stub.handle(b"qXfer:exec-file:read:1:4,3") == b"mst."


def test_a_packet_whose_face_is_missing_is_not_there(stub: Stub, fake: FakeDebuggee) -> None:
    served = {c.name: c.face for c in COMMANDS}
    assert {name for name, face in served.items() if face is faces.TIME} == {b"bc", b"bs", b"vRun", b"R"}
    fake.faceless = True
    packets = [
        b"bc", b"bs", b"vRun;", b"R00", b"qXfer:memory-map:read::0,100", b"qXfer:exec-file:read::0,100",
        b"qXfer:auxv:read::0,100", b"qXfer:libraries-svr4:read::0,100", b"QCatchSyscalls:1", b"vFile:setfs:0",
        b"vFile:open:61,0,0", b"vFile:close:0", b"vFile:pread:0,1,0", b"vFile:pwrite:0,0,a", b"vFile:fstat:0",
        b"vFile:readlink:61", b"vFile:unlink:61", b"qqemu.PhyMemMode", b"Qqemu.PhyMemMode:1",
    ]  # fmt: skip
    assert {c.name for c in COMMANDS if c.face is not faces.BASE} == {
        stub.dispatcher.look_up(p).command.name for p in packets
    }
    for packet in packets:
        assert stub.handle(packet) == b"", packet
    assert fake.calls == []
    reply = stub.handle(GDB)
    assert reply is not None
    assert not {"ReverseStep+", "ReverseContinue+", "qXfer:memory-map:read+"} & set(reply.decode().split(";"))
    assert (stub.handle(b"c") or b"").startswith(b"T05")


def test_no_packet_is_registered_twice() -> None:
    with pytest.raises(ValueError, match="twice"):
        index([*COMMANDS, COMMANDS[0]])


@pytest.mark.parametrize(
    ("stop", "reply"),
    [
        (StopReply(StopReason.SIGNAL, 11), b"T0b" + REGISTERS + b"thread:p1.1;"),
        (StopReply(StopReason.STEP), b"T05" + REGISTERS + b"thread:p1.1;"),
        (StopReply(StopReason.SWBREAK), b"T05swbreak:;" + REGISTERS + b"thread:p1.1;"),
        (StopReply(StopReason.HWBREAK), b"T05hwbreak:;" + REGISTERS + b"thread:p1.1;"),
        (StopReply(StopReason.WATCH, address=0x80001000), b"T05watch:80001000;" + REGISTERS + b"thread:p1.1;"),
        (StopReply(StopReason.RWATCH, address=0x10), b"T05rwatch:10;" + REGISTERS + b"thread:p1.1;"),
        (StopReply(StopReason.AWATCH, address=0x10), b"T05awatch:10;" + REGISTERS + b"thread:p1.1;"),
        (StopReply(StopReason.HISTORY_BEGIN), b"T05replaylog:begin;" + REGISTERS + b"thread:p1.1;"),
        (StopReply(StopReason.HISTORY_END), b"T05replaylog:end;" + REGISTERS + b"thread:p1.1;"),
        (StopReply(StopReason.INTERRUPT), b"T02" + REGISTERS + b"thread:p1.1;"),
        (StopReply(StopReason.EXITED, status=3), b"W03;process:1"),
        (StopReply(StopReason.TERMINATED, 9), b"X09;process:1"),
    ],
)
def test_stop_replies(stub: Stub, fake: FakeDebuggee, stop: StopReply, reply: bytes) -> None:
    stub.handle(GDB)
    fake.stop = stop
    assert stub.handle(b"?") == reply


def test_errors_in_words_if_the_debugger_understands_them(stub: Stub) -> None:
    assert stub.handle(b"m0,4") == b"E0e"
    stub.handle(GDB)
    assert stub.handle(b"m0,4") == b"E.no memory at 0x0"
    assert stub.dispatcher.error(DebuggeeError("a$b#c}d*e\nf\u00e9" + "x" * 1000)) == b"E.a?b?c?d?e?f?" + b"x" * 388


@pytest.mark.parametrize("offered", [True, False])
def test_several_watchpoints_are_told_to_who_can_take_them(stub: Stub, fake: FakeDebuggee, offered: bool) -> None:
    stub.handle(b"qSupported:multi-wp-addr+" if offered else b"qSupported:swbreak+")
    reply = stub.session.stop_reply(StopReply(StopReason.WATCH, address=0x10, also=((StopReason.RWATCH, 0x20),)))
    assert reply.startswith(b"T05watch:10;rwatch:20;" if offered else b"T05watch:10;" + REGISTERS[:3])
    stub.handle(b"c")
    assert fake.separately is not offered


def test_all_registers(stub: Stub, fake: FakeDebuggee) -> None:
    values = bytes(range(256)) + bytes(8 * len(NAMES) - 256)
    assert stub.handle(b"G" + values.hex().encode()) == b"OK"
    assert stub.handle(b"g") == values.hex().encode()
    assert stub.handle(b"p%x" % A0) == values[8 * A0 : 8 * A0 + 8].hex().encode()


def test_memory_is_written_and_read(stub: Stub) -> None:
    stub.handle(b"X80000100,3:\x00#*")
    stub.handle(b"M80000103,2:fffe")
    assert stub.handle(b"x80000100,5") == b"b\x00#*\xff\xfe"
    assert stub.handle(b"m80000100,5") == b"00232afffe"


def test_long_reads_are_cut_to_the_packet_size(stub: Stub, fake: FakeDebuggee) -> None:
    fake.read_memory = lambda _, __, length: bytes(length)  # type: ignore[method-assign]  # more memory than the fake has
    for packet in (b"m0,ffffffff", b"x0,ffffffff"):
        reply = stub.handle(packet)
        assert reply is not None
        assert PACKET_SIZE // 2 <= len(reply) <= PACKET_SIZE


def test_points_reach_the_debuggee(stub: Stub, fake: FakeDebuggee) -> None:
    stub.handle(b"Z0,80000004,4;X3,220127X3,220027")
    stub.handle(b"Z2,80001000,4")
    assert fake.points == {
        ZPoint(ZType.SOFTWARE, BASE + 4, 4, (b"\x22\x01\x27", b"\x22\x00\x27")),
        ZPoint(ZType.WRITE, COUNTER, 4),
    }
    stub.handle(b"z0,80000004,4")
    assert fake.points == {ZPoint(ZType.WRITE, COUNTER, 4)}


def test_points_are_bounded(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrgdb.rsp.session.POINTS_LIMIT", 2)
    assert [stub.handle(b"Z0,%x,4" % n) for n in (1, 2, 2, 3)] == [b"OK", b"OK", b"OK", b"E1c"]
    stub.handle(b"z0,1,4")
    assert stub.handle(b"Z0,3,4") == b"OK"


def test_conditions_are_bounded(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrgdb.rsp.session.CONDITIONS_LIMIT", 7)
    packets = [b"Z0,1,4;X3,220127", b"Z0,2,4;X3,220127", b"Z0,2,4;X3,220127", b"Z0,3,4;X3,220127", b"Z0,3,4"]
    assert [stub.handle(packet) for packet in packets] == [b"OK", b"OK", b"OK", b"E1c", b"OK"]


def test_conditional_breakpoint_and_watchpoint_in_both_directions(stub: Stub, fake: FakeDebuggee) -> None:
    stub.handle(GDB)
    # a0 == 5 at the store
    stub.handle(b"Z0,80000004,4;X7,26000a22051327")
    reply = stub.handle(b"vCont;c:p1.-1")
    assert reply == b"T05swbreak:;" + expedited(13) + b"thread:p1.1;"
    assert fake.icount == 13
    assert stub.handle(b"bc") == b"T05replaylog:begin;" + expedited(0) + b"thread:p1.1;"
    stub.handle(b"Z2,80001000,4")
    assert stub.handle(b"vCont;c") == b"T05watch:80001000;" + expedited(1) + b"thread:p1.1;"
    fake.icount = 10
    assert stub.handle(b"bc") == b"T05watch:80001000;" + expedited(8) + b"thread:p1.1;"


def test_threads_document(stub: Stub) -> None:
    stub.handle(GDB)
    reply = stub.handle(b"qXfer:threads:read::0,1000")
    assert reply is not None
    assert re.search(rb'<thread id="p1\.1" core="0">replay, icount 0</thread>', reply)


def test_documents_in_pieces(stub: Stub, fake: FakeDebuggee) -> None:
    text, offset = b"", 0
    while True:
        part = stub.handle(b"qXfer:features:read:target.xml:%x,64" % offset) or b""
        text += part[1:]
        offset += len(part) - 1
        if part[:1] == b"l":
            break
    assert text.decode() == fake.target_xml()


def test_memory_map(stub: Stub) -> None:
    reply = stub.handle(b"qXfer:memory-map:read::0,1000") or b""
    assert b'<memory type="ram" start="0x80000000" length="0x10000"/>' in reply


def gdb_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return crc


@pytest.mark.parametrize("length", [0, 1, 12, 4099])
def test_crc(stub: Stub, fake: FakeDebuggee, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrgdb.rsp.commands.search._CHUNK", 1000)
    data = fake.read_memory(1, BASE, length) if length else b""
    assert stub.handle(b"qCRC:80000000,%x" % length) == b"C%08x" % gdb_crc(data)


def test_crc_of_what_is_not_there(stub: Stub) -> None:
    assert stub.handle(b"qCRC:8000ff00,200") == b"E0e"
    assert stub.handle(b"qCRC:0,200000000") == b"E16"
    assert stub.handle(b"qCRC:0") == b"E16"


@pytest.mark.parametrize("chunk", [3, 16, 1 << 20])
@pytest.mark.parametrize(
    ("packet", "reply"),
    [
        (b"80000000;100;" + CODE[3:9], b"1,80000003"),
        (b"80000001;100;" + CODE[:4], b"0"),
        (b"80000000;8;" + CODE[5:9], b"0"),
        (b"80000000;9;" + CODE[5:9], b"1,80000005"),
        (b"80000000;2;" + CODE[:4], b"0"),
        (b"8000fff0;100;never", b"E0e"),
        (b"80000000;100;", b"E16"),
        (b"80000000;100", b"E16"),
        (b"ffffffffffffffff;2;a", b"E16"),
    ],
)
def test_search(stub: Stub, monkeypatch: pytest.MonkeyPatch, chunk: int, packet: bytes, reply: bytes) -> None:
    monkeypatch.setattr("rrgdb.rsp.commands.search._CHUNK", chunk)
    assert stub.handle(b"qSearch:memory:" + packet) == reply


def test_detach_lets_the_guest_run_on(stub: Stub, fake: FakeDebuggee) -> None:
    stub.handle(b"?")
    stub.handle(b"D;1")
    assert stub.session.should_close
    stub.session.drop()
    assert fake.calls == ["attached", "detached resume=True"]


def test_dropped_link_leaves_the_guest_stopped(stub: Stub, fake: FakeDebuggee) -> None:
    stub.handle(b"?")
    stub.session.drop()
    stub.session.drop()
    assert fake.calls == ["attached", "detached resume=False"]


def test_one_who_says_nothing_is_not_attached(stub: Stub, fake: FakeDebuggee) -> None:
    stub.session.drop()
    assert fake.calls == []


@pytest.mark.parametrize("again", [b"R00", b"vRun;", b"vAttach;1"])
def test_a_debugger_that_comes_back_after_it_has_detached_is_attached(
    stub: Stub, fake: FakeDebuggee, again: bytes
) -> None:
    for packet in (b"!", b"D", again, b"Z0,80000004,4"):
        stub.handle(packet)
    assert fake.calls == ["attached", "detached resume=True", "attached"]
    assert fake.points
    stub.session.drop()
    assert fake.calls[-1] == "detached resume=False"
    assert not fake.points


def test_kill_ends_the_server(stub: Stub, fake: FakeDebuggee) -> None:
    assert stub.handle(b"k") is None
    assert stub.session.should_close
    stub.session.drop()
    assert fake.calls == ["attached", "kill"]


def test_extended_remote_kills_and_runs_again(stub: Stub, fake: FakeDebuggee) -> None:
    stub.handle(GDB)
    stub.handle(b"!")
    fake.icount = 100
    assert stub.handle(b"vKill;1") == b"OK"
    assert not stub.session.should_close
    assert stub.handle(b"?") == b"W00"
    assert stub.handle(b"qfThreadInfo") == b"l"
    assert (stub.handle(b"g") or b"").startswith(b"E.the process is gone")
    assert stub.handle(b"vRun;") == b"T05" + REGISTERS + b"thread:p1.1;"
    assert fake.icount == 0
    assert "kill" not in fake.calls


def test_extended_remote_detaches_and_attaches_again(stub: Stub, fake: FakeDebuggee) -> None:
    stub.handle(b"!")
    stub.handle(b"D;1")
    assert not stub.session.should_close
    assert stub.handle(b"m80000000,4") == b"E03"
    stub.handle(b"vAttach;1")
    assert stub.handle(b"m80000000,4") == b"13051500"
    assert fake.calls == ["attached", "detached resume=True", "attached"]


def test_console_output_only_while_gdb_takes_it(stub: Stub, fake: FakeDebuggee, said: list[str]) -> None:
    stub.handle(b"?")
    fake.say = "searching"
    stub.handle(b"s")
    assert said == ["searching"]
    assert fake.console is not None
    fake.console("too late")
    assert said == ["searching"]


def test_fault_while_expediting_leaves_the_register_out(stub: Stub, fake: FakeDebuggee) -> None:
    def fail(*_: int) -> bytes:
        raise DebuggeeError("unavailable")

    fake.read_register = fail  # type: ignore[method-assign]  # a guest without registers
    assert stub.handle(b"?") == b"T05thread:1;"


def monitor(stub: Stub, line: str) -> str:
    reply = stub.handle(b"qRcmd," + line.encode().hex().encode())
    assert reply is not None
    return binascii.unhexlify(reply).decode() if reply != b"OK" else ""


def test_monitor_error_in_words(stub: Stub) -> None:
    assert monitor(stub, "nonsense") == "error: unknown command 'nonsense': see `monitor help`\n"
    stub.handle(GDB)
    packet = b"qRcmd," + b"loadvm x".hex().encode()
    assert stub.handle(packet) == b"E.no snapshot is called 'x'"


def test_long_monitor_output_goes_to_the_console(stub: Stub, fake: FakeDebuggee, said: list[str]) -> None:
    fake.icount = 5000
    text = monitor(stub, "history 5000")
    assert said
    assert max(map(len, said)) <= PACKET_SIZE // 8
    assert len(("".join(said) + text).splitlines()) == 5000


class Counted(str):
    """Counts the characters that slices of it copy."""

    copied = 0

    def __getitem__(self, index: Any) -> str:
        found = Counted(super().__getitem__(index))
        Counted.copied += len(found)
        return found


@pytest.mark.parametrize("length", [0, 1, PACKET_SIZE // 8, PACKET_SIZE // 8 + 1, 100 * PACKET_SIZE])
def test_long_output_is_not_copied_for_each_piece_of_it(
    length: int, stub: Stub, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Counted("0123456789" * (length // 10 + 1))[:length]
    Counted.copied = 0
    monkeypatch.setattr("rrgdb.rsp.monitor.run", lambda _session, _line: text)
    reply = stub.handle(b"qRcmd,78")
    assert reply is not None
    last = b"" if reply == b"OK" else bytes.fromhex(reply.decode())
    assert "".join(said) + last.decode() == text
    assert Counted.copied <= length


def test_packets_that_move_the_guest_or_may_take_long_are_not_brief(stub: Stub) -> None:
    brief = {c.name for c in COMMANDS if stub.dispatcher.look_up(c.name).brief}
    assert {b"g", b"m", b"p", b"qC", b"qXfer:features:read", b"Z", b"z"} <= brief
    assert not brief & {b"vCont", b"c", b"s", b"C", b"S", b"bs", b"bc", b"R", b"qRcmd", b"qSearch", b"qCRC", b"M", b"G"}
    assert not any(stub.dispatcher.look_up(packet).brief for packet in (b"qCxx", b"qC:", b""))


@pytest.mark.parametrize(
    ("packet", "resumes"),
    [
        *((packet, True) for packet in (b"c", b"s", b"C05", b"S05", b"vCont;c", b"vCont;s:1;c", b"bs", b"bc")),
        *((packet, False) for packet in (b"vCont?", b"?", b"g", b"qRcmd,6261636b", b"bx", b"vContx", b"")),
    ],
)
def test_what_resumes(stub: Stub, packet: bytes, resumes: bool) -> None:
    assert stub.dispatcher.look_up(packet).resumes is resumes


def test_qemus_packets(stub: Stub, fake: FakeDebuggee) -> None:
    """As QEMU 7.2 answers them under record and replay."""
    assert stub.handle(b"qqemu.Supported") == b"sstepbits;sstep;PhyMemMode"
    assert stub.handle(b"qqemu.sstepbits") == b"ENABLE=1"
    assert stub.handle(b"qqemu.sstep") == b"0x1"
    assert stub.handle(b"Qqemu.sstep=0x1") == b"OK"
    assert (stub.handle(b"Qqemu.sstep=0x7") or b"").startswith(b"E")
    assert stub.handle(b"qqemu.sstep") == b"0x1"
    fake.faceless = True
    assert stub.handle(b"qqemu.Supported") == b"sstepbits;sstep"


def test_memory_at_physical_addresses(stub: Stub, fake: FakeDebuggee) -> None:
    """The fake's RAM is mapped at BASE and begins at 0."""
    code = CODE[:4].hex().encode()
    assert stub.handle(b"qqemu.PhyMemMode") == b"0"
    assert (stub.handle(b"m0,4") or b"").startswith(b"E")
    assert stub.handle(b"Qqemu.PhyMemMode:1") == b"OK"
    assert stub.handle(b"qqemu.PhyMemMode") == b"1"
    assert stub.handle(b"m0,4") == code
    assert stub.handle(b"x0,4") == b"b" + CODE[:4]
    assert stub.handle(b"qCRC:0,4") == b"C%08x" % crc32(iter([CODE[:4]]))
    assert stub.handle(b"qSearch:memory:0;10;" + CODE[4:8]) == b"1,4"
    assert stub.handle(b"M100,2:abcd") == b"OK"
    assert stub.handle(b"X102,1:\x07") == b"OK"
    assert (stub.handle(b"m80000000,4") or b"").startswith(b"E")
    assert stub.handle(b"Qqemu.PhyMemMode:0") == b"OK"
    assert stub.handle(b"m80000100,3") == b"abcd07"
    for wrong in (b"Qqemu.PhyMemMode:x", b"Qqemu.PhyMemMode:"):
        assert (stub.handle(wrong) or b"").startswith(b"E")
