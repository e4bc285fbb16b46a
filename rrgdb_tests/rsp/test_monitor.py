"""``monitor`` commands: the table, abbreviations, and the answers."""

from __future__ import annotations

import pytest

from rrgdb.rsp.debuggee import DebuggeeError, PhysicalWatch, StopReason, StopReply, ZType
from rrgdb.rsp.faces import BASE
from rrgdb.rsp.monitor import COMMANDS, MonitorError, run
from rrgdb.rsp.session import Session
from rrgdb_tests.rsp.fake import FakeDebuggee
from rrgdb_tests.rsp.stub import Stub

HINT = "maintenance flush register-cache"


def test_help_names_every_command(session: Session) -> None:
    lines = run(session, "help").splitlines()
    assert len(lines) == len(COMMANDS)
    for command, line in zip(COMMANDS, lines, strict=True):
        assert line.startswith(" ".join((*command.words, command.argument)).rstrip())
        assert line.endswith(command.help)


def test_commands_whose_face_is_missing_are_unknown(session: Session, fake: FakeDebuggee) -> None:
    fake.faceless = True
    assert [line.split("  ")[0] for line in run(session, "help").splitlines()] == [
        "help",
        "info registers [NAME]",
        "x [/FORMAT] ADDRESS",
    ]
    assert run(session, "info r").startswith("zero")  # no other command begins so
    for command in COMMANDS:
        if command.face is not BASE:
            with pytest.raises(MonitorError, match="unknown command"):
                run(session, " ".join(command.words))


@pytest.mark.parametrize(
    ("line", "icount", "first"),
    [
        ("seek 100", 100, "icount 100"),
        ("seek 0x10", 16, "icount 16"),
        ("seek end", 30_000, "icount 30000 (the end of history)"),
        ("seek start", 0, "icount 0 (the beginning of history)"),
        ("seek 999999", 30_000, "icount 30000 (the end of history)"),
        ("replay_seek 7", 7, "icount 7"),
        ("back", 49, "icount 49"),
        ("back 10", 40, "icount 40"),
        ("back 51", 0, "icount 0 (the beginning of history)"),
        ("forward", 51, "icount 51"),
        ("f 0x10", 66, "icount 66"),
        ("loadvm here", 20, "icount 20"),
        ("seek here", 20, "icount 20"),
    ],
)
def test_what_moves_says_so(session: Session, fake: FakeDebuggee, line: str, icount: int, first: str) -> None:
    fake.saved["here"] = 20
    fake.icount = 50
    text = run(session, line)
    assert text.splitlines()[0] == first
    assert HINT in text.splitlines()[-1]
    assert fake.icount == icount


def test_a_move_that_is_interrupted_says_so(session: Session, fake: FakeDebuggee) -> None:
    fake.seek_relative = lambda _: StopReply(StopReason.INTERRUPT)  # type: ignore[method-assign]  # a slow guest
    assert run(session, "back 5").startswith("icount 0 (interrupted)\n")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("when", "icount 4 of 0..30000, replay\n"),
        ("wh", "icount 4 of 0..30000, replay\n"),
        ("history 2", "           2  0x80000008  j 0x80000000\n           3  0x80000000  addi a0, a0, 1\n"),
        ("info snapshots", "no snapshots\n"),
        ("i r", None),
        ("savevm a", "snapshot a at icount 4\n"),
        ("info events 1", "             100        1 bytes  serial0\n"),
        ("info replay", "recording: fake.rrgdb\nmode: replay\nicount: 4\nhistory: 0..30000\n"),
        ("in rep", "recording: fake.rrgdb\nmode: replay\nicount: 4\nhistory: 0..30000\n"),
        ("replay_break 0x20", ""),
        ("replay_d", ""),
    ],
)
def test_what_stays(session: Session, fake: FakeDebuggee, line: str, text: str | None) -> None:
    fake.icount = 4
    if text is None:
        with pytest.raises(MonitorError, match="'r' is ambiguous: registers, replay"):
            run(session, line)
        return
    assert run(session, line) == text
    assert fake.icount == 4


def test_registers(session: Session, fake: FakeDebuggee) -> None:
    fake.icount = 1
    lines = run(session, "info reg").splitlines()
    assert lines[-2:] == ["pc      0x0000000080000004", "mcause  0x0000000000000002"]
    assert lines[10] == "a0      0x0000000000000001"
    assert len(lines) == 34
    for name in ("mcause", "$mcause", "MCAUSE"):
        assert run(session, f"info registers {name}") == "mcause  0x0000000000000002\n"
    with pytest.raises(MonitorError, match="no register 'scause'"):
        run(session, "info registers scause")


def test_memory_in_qemus_formats(session: Session, fake: FakeDebuggee) -> None:
    virtual = "80000000: 0x00150513 0x00a5a023 0xff9ff06f 0x00000000\n"
    fake.byteorder = "little"
    assert run(session, "x/4x 0x80000000") == "00000000" + virtual
    assert run(session, "xp /4xw 0") == "00000000" + virtual.replace("8", "0", 1)
    assert run(session, "xp 0") == "0000000000000000: 0x00150513\n"
    assert run(session, "xp /2xg 0xfff8") == "000000000000fff8: 0x0000000000000000 Cannot access memory\n"
    assert run(session, "x 0") == "0000000000000000: Cannot access memory\n"


def test_the_machine(session: Session) -> None:
    assert run(session, "info tlb").splitlines()[2:] == [f"{0x80000000:016x} {0:016x} {0x10000:016x} rwx ---"]
    assert run(session, "info mtree").splitlines() == [
        "address-space: memory",
        "  0000000000000000-ffffffffffffffff (prio 0, i/o): system",
        "    0000000000000000-000000000000ffff (prio 0, ram): ram",
        "",
        "address-space: I/O",
        "  0000000000000000-000000000000ffff (prio 0, i/o): io",
        "    0000000000000070-0000000000000071 (prio 0, i/o): cmos",
    ]
    assert run(session, "info irq") == "lines that are high: none\n"
    assert run(session, "info engine") == "instructions executed here: 7\n"


def test_where_a_virtual_address_is(session: Session) -> None:
    assert run(session, "gva2gpa 0x80001234") == "gpa: 0x1234\n"
    assert run(session, "gva2gpa 0") == "Unmapped\n"


def test_physical_addresses_are_watched(session: Session, fake: FakeDebuggee) -> None:
    assert run(session, "watch-physical") == "no physical address is watched\n"
    assert run(session, "watch-physical 0x1000 4") == "watching 0x1000 4 w\n"
    assert run(session, "watch-p 8192 0x10 a") == "watching 0x2000 16 a\n"
    assert run(session, "watch-physical 0x1000 1 r") == "watching 0x1000 1 r\n"
    assert run(session, "watch-physical") == "0x1000 4 w\n0x2000 16 a\n0x1000 1 r\n"
    assert run(session, "unwatch-physical 0x1000") == ""
    assert fake.watched == [PhysicalWatch(0x2000, 16, ZType.ACCESS)]
    with pytest.raises(MonitorError, match=r"0x1000 is not watched: see `monitor watch-physical`"):
        run(session, "unwatch-physical 0x1000")
    assert run(session, "unw all") == run(session, "unwatch-physical all") == ""
    assert fake.watched == []


def test_when_tells_what_no_stop_reply_can(session: Session, fake: FakeDebuggee) -> None:
    fake.stopped = "watch-physical 0x1000: 1 -> 2"
    assert run(session, "when") == "icount 0 of 0..30000, replay; watch-physical 0x1000: 1 -> 2\n"


def test_watchpoints_are_of_one_address_space_or_of_any(session: Session, fake: FakeDebuggee) -> None:
    assert run(session, "watch-space") == "any address space\n"
    assert run(session, "watch-space current") == "the address space of the page tables at 0x1000\n"
    assert run(session, "watch-space") == "the address space of the page tables at 0x1000\n"
    assert run(session, "watch-space any") == "any address space\n"
    assert fake.bound is None


def test_snapshots_by_name(session: Session, fake: FakeDebuggee) -> None:
    fake.icount = 9
    run(session, "savevm nine")
    assert "nine" in run(session, "info snapshots")
    assert run(session, "delvm nine") == "snapshot nine deleted\n"
    with pytest.raises(DebuggeeError, match="no snapshot"):
        run(session, "delvm nine")


def test_replay_break(stub: Stub, fake: FakeDebuggee) -> None:
    run(stub.session, "replay_break 12")
    stub.handle(b"c")
    assert fake.icount == 12
    run(stub.session, "replay_delete_break")
    stub.handle(b"c")
    assert fake.icount == fake.end


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "empty command"),
        ("nonsense", "unknown command 'nonsense'"),
        ("replay_", "ambiguous: replay_break, replay_delete_break, replay_seek"),
        ("info", "'info' needs one of: replay, snapshots, events, registers, tlb, mtree, irq, engine"),
        ("info x", "unknown command 'x'"),
        ("when now", "`when` takes no argument"),
        ("seek", "`seek` needs an argument: ICOUNT"),
        ("seek 1 2", "takes one argument"),
        ("x /1x 0 0", "takes two arguments at most"),
        ("x", "needs an argument"),
        ("xp", "needs an argument"),
        ("xp /4xw", "bad address '/4xw'"),
        ("xp /4i 0", "bad format '/4i'"),
        ("xp /xwx 0", "bad format '/xwx'"),
        ("xp /999999 0", "at most 100000 numbers"),
        ("x 0x10000000000000000", "at most"),
        ("back x", "bad count 'x'"),
        ("back -1", "bad count '-1'"),
        ("back 1_0", "bad count"),
        ("back 0x8000000000000000", "at most"),
        ("history 10001", "at most 10000"),
        ("savevm", "needs an argument"),
        ("savevm " + "n" * 65, "bad name"),
        ("savevm a\x01", "bad name"),
        ("x" * 501, "501 characters"),
        ("watch-physical 0x1000", "needs an address and a length"),
        ("watch-physical 0x1000 4 w 1", "takes three arguments at most"),
        ("watch-physical here 4", "bad address 'here'"),
        ("watch-physical 0x1000 0", "0 bytes"),
        ("watch-physical 0x1000 4097", "at most 4096"),
        ("watch-physical 0x1000 4 x", "bad kind 'x'"),
        ("watch-physical 0x10000000000000000 4", "at most"),
        ("unwatch-physical", "needs an argument"),
        ("unwatch-physical some", "bad address 'some'"),
        ("watch-space mine", "bad space 'mine'"),
        ("watch-", "ambiguous: watch-physical, watch-space"),
    ],
)
def test_mistakes_in_one_line(session: Session, line: str, message: str) -> None:
    with pytest.raises(DebuggeeError, match=message.replace("[", r"\[")) as caught:
        run(session, line)
    assert "\n" not in str(caught.value)
