"""What a debugger is told by a real guest: conditions that cannot be evaluated, and the beginning of history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rrgdb.opening import GuestOptions, Opened, record, replay
from rrgdb.target import Target
from rrgdb.timeline.stop import Points
from rrgdb_tests.agent.test_evaluate import assemble
from rrgdb_tests.guests import build
from rrgdb_tests.rsp.stub import Stub
from rrgdb_tests.timeline.oracle import OPTIONS, symbol

ARCHES = ("riscv64", "x86_64")
READY = 60
"""seconds in which a worker has to be up on a machine that is busy"""


class Told(Stub):
    """``said`` is what the user sees besides."""

    def __init__(self, opened: Opened) -> None:
        self.said: list[str] = []
        self.timeline = opened.timeline
        self.target = Target(opened)
        super().__init__(self.target, self.said.append)

    def ask(self, packet: bytes) -> bytes:
        reply = self.handle(packet)
        assert reply is not None
        return reply

    def stop(self, packet: bytes) -> tuple[bytes, int]:
        """(reason of the stop, icount)"""
        self.session.offered = frozenset({"swbreak", "hwbreak"})
        reply = self.ask(packet)
        assert reply[:3] == b"T05"
        return reply[3:].partition(b";")[0].partition(b":")[0], self.timeline.icount


@pytest.fixture(scope="module", params=ARCHES)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Image and recording."""
    image = build(request.param, "ticker", {"TICKS": 10, "WORK": 200})
    path = tmp_path_factory.mktemp("target") / "r"
    with record(path, image, OPTIONS, interval=1e-6) as opened:
        opened.timeline.run(Points({}))
    return image, path


@pytest.fixture
def opened(recorded: tuple[Path, Path]) -> Iterator[Opened]:
    with replay(recorded[1], writable=False) as opened:
        yield opened


ENDLESS = bytes.fromhex("210000")
FAILURES = {
    "division by zero": (assemble("1 0 div_signed end"), "divides by zero"),
    "remainder by zero": (assemble("1 0 rem_unsigned end"), "divides by zero"),
    "unreadable memory": (assemble("0xfffffffffffffff0 ref32 end"), "0xfffffffffffffff0"),
    "null": (assemble("0xdead000000000000 ref64 end"), "0xdead000000000000"),
    "underflow": (assemble("add end"), "stack underflow"),
    "overflow": (bytes.fromhex("2201210000"), "more than 100 values"),
    "underflow in a loop": (bytes.fromhex("22012929210000"), "stack underflow"),
    "no such register": (assemble("reg:9999 end"), "register 9999"),
    "the register behind the last": (assemble("reg:0x7fff end"), "register 32767"),
    "bad opcode": (b"\xff\x27", "unknown operation 0xff"),
    "floating point": (b"\x1b\x27", "ref_float is not supported"),
    "too many steps": (ENDLESS, "not finished after 10000"),
    "cut off": (b"\x25\x00", "ends inside const64"),
    "no end": (b"\x22\x00", "runs off its end"),
    "jump to nowhere": (b"\x21\x00\x09\x27", "no instruction"),
    "empty": (b"", "0 bytes"),
    "long": (b"\x28" * 2000 + b"\x27", "2001 bytes"),
}


def insert(address: int, code: bytes) -> bytes:
    return b"Z0,%x,4;X%x,%b" % (address, len(code), code.hex().encode())


@pytest.mark.parametrize("code_and_words", FAILURES.values(), ids=FAILURES)
def test_a_condition_that_cannot_be_evaluated_stops_and_says_why(
    opened: Opened, recorded: tuple[Path, Path], code_and_words: tuple[bytes, str]
) -> None:
    code, words = code_and_words
    stub, tick = Told(opened), symbol(recorded[0], "tick")
    stub.ask(b"Z0,%x,4" % tick)
    expected = [stub.stop(packet) for packet in (b"c", b"c", b"bc")]
    assert stub.said == []
    stub.timeline.seek(0)
    assert stub.ask(insert(tick, code)) == b"OK"
    assert [stub.stop(packet) for packet in (b"c", b"c", b"bc")] == expected
    assert len(stub.said) == 3
    for line in stub.said:
        assert line.startswith(f"breakpoint at {tick:#x}: its condition cannot be evaluated: ")
        assert line.count("\n") == 1
        assert words in line


def test_conditions_that_can_be_evaluated_say_nothing(opened: Opened, recorded: tuple[Path, Path]) -> None:
    stub, tick = Told(opened), symbol(recorded[0], "tick")
    stub.ask(b"Z0,%x,4;X3,220027X3,220127" % tick)
    assert stub.stop(b"c")[0] == b"swbreak"
    assert stub.stop(b"bc")[0] == b"replaylog"
    stub.ask(b"Z0,%x,4;X4,22012827" % tick)
    assert stub.stop(b"c")[0] == b"swbreak"
    assert stub.said == []


def test_workers_stop_at_such_a_condition(recorded: tuple[Path, Path]) -> None:
    tick = symbol(recorded[0], "tick")
    codes = [code for code, _ in FAILURES.values()]
    with replay(recorded[1], writable=False, jobs=2) as opened:
        assert opened.workers is not None
        opened.workers.start()
        assert opened.workers.ready(READY)
        stub = Told(opened)
        stub.target._backward._patience = 0
        opened.timeline.index.clear_since = lambda end, *_args: end  # type: ignore[method-assign]
        opened.timeline.seek(opened.timeline.end)
        stub.ask(b"Z0,%x,4" % tick)
        expected = stub.stop(b"bc")
        for code in codes:
            opened.timeline.seek(opened.timeline.end)
            stub.ask(insert(tick, code))
            assert stub.stop(b"bc") == expected
        assert len(stub.said) == len(codes)
        assert all("cannot be evaluated" in line for line in stub.said)
        assert opened.workers._number > len(codes)


# -- threads -------------------------------------------------------------------------------------


def test_every_cpu_of_the_guest_is_a_thread(
    opened: Opened, recorded: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second CPU is that of another guest, a few instructions further on."""
    stub = Told(opened)
    alone = stub.ask(b"g")
    with replay(recorded[1], writable=False) as other:
        other.timeline.seek(20)
        cpus = opened.timeline.engine, other.timeline.engine
        further = cpus[1].read_registers().hex().encode()
        assert further != alone
        monkeypatch.setattr(type(opened.guest), "cpus", property(lambda _: cpus))
        assert stub.ask(b"qfThreadInfo") == b"m1,2"
        assert bytes.fromhex(stub.ask(b"qThreadExtraInfo,2").decode()) == b"CPU 1, replay, icount 0"
        assert stub.ask(b"g") == alone
        assert stub.ask(b"Hg2") == b"OK"
        assert stub.ask(b"g") == further
        pc = cpus[1].arch.register_index[cpus[1].arch.pc]
        assert int.from_bytes(bytes.fromhex(stub.ask(b"p%x" % pc).decode()), "little") == cpus[1].read(cpus[1].arch.pc)
        # What a debugger writes is logged without a CPU, and history has them all run.
        for refused in (b"P%x=%b" % (pc, stub.ask(b"p%x" % pc)), b"G" + alone, b"M%x,1:00" % cpus[1].pc, b"vCont;s:2"):
            assert stub.ask(refused) == b"E16", refused
        assert opened.timeline.diverted_from is None


# -- the beginning of history --------------------------------------------------------------------


def test_every_way_to_the_first_instruction_is_told_as_the_beginning(
    opened: Opened, recorded: tuple[Path, Path]
) -> None:
    stub = Told(opened)
    pc = opened.timeline.engine.read(opened.timeline.engine.arch.pc)
    begin = (b"replaylog", 0)
    never = insert(pc, assemble("0 end"))
    fails = insert(pc, assemble("1 0 div_signed end"))
    points = [b"Z0,%x,4" % pc, b"Z1,%x,4" % pc, never, fails, b"qRcmd," + b"replay_break 0".hex().encode()]
    for point in (None, *points):
        if point is not None:
            assert not stub.ask(point).startswith(b"E")
        for packets in ([b"bs"], [b"bc"], [b"bs", b"bs"], [b"bs", b"bc"], [b"bc", b"bs"]):
            stub.timeline.seek(1)
            assert [stub.stop(packet) for packet in packets] == [begin] * len(packets)
        stub.timeline.seek(3)
        assert [stub.stop(b"bs") for _ in range(4)][2:] == [begin] * 2


def test_a_watch_that_the_first_instruction_hits_is_told_as_the_beginning(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes.fromhex("c6050010100007 90 90 ebfe"))  # movb $7, 0x101000; nop; nop; jmp .
    options = GuestOptions(board="i386-pc", memory=4 << 20, load=0x100000)
    with record(tmp_path / "r", image, options) as opened:
        opened.timeline.run(Points({}), steps=10)
        stub = Told(opened)
        assert stub.ask(b"m101000,1") == b"07"
        assert stub.ask(b"Z2,101000,1") == b"OK"
        assert stub.stop(b"bc") == (b"replaylog", 0)
        assert stub.ask(b"m101000,1") == b"00"
        assert stub.stop(b"c") == (b"watch", 1)
        assert stub.stop(b"bs") == (b"replaylog", 0)
