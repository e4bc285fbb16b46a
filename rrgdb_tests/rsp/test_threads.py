"""Threads: a machine of two CPUs, packet by packet, and as a real gdb sees it."""

from __future__ import annotations

import re

import pytest

from rrgdb_tests.rsp.fake import A0, BASE, BETWEEN, COUNTER, TwoCpus
from rrgdb_tests.rsp.stub import Stub
from rrgdb_tests.rsp.test_gdb import GDB, after, gdb
from rrgdb_tests.rsp.test_server import serving

needs_gdb = pytest.mark.skipif(GDB is None, reason="gdb-multiarch is not installed")
OFFERED = b"qSupported:multiprocess+;swbreak+;hwbreak+;error-message+;vContSupported+"


@pytest.fixture
def two() -> TwoCpus:
    return TwoCpus()


@pytest.fixture
def smp(two: TwoCpus) -> Stub:
    stub = Stub(two)
    stub.handle(OFFERED)
    return stub


def at(stub: Stub, thread: int) -> int:
    """pc of a thread, which is selected."""
    assert stub.handle(b"Hgp1.%x" % thread) == b"OK"
    return int.from_bytes(bytes.fromhex((stub.handle(b"p20") or b"").decode()), "little")


def stopped(reply: bytes | None) -> tuple[bytes, bytes]:
    """(reason, thread)"""
    match = re.fullmatch(rb"T05(?:(\w+):[^;]*;)??(?:[0-9a-f]+:[0-9a-f]+;)+thread:(.*);", reply or b"")
    assert match is not None, reply
    return match[1] or b"", match[2]


def test_lists_of_threads(smp: Stub) -> None:
    assert smp.handle(b"qfThreadInfo") == b"mp1.1,p1.2"
    assert smp.handle(b"qsThreadInfo") == b"l"
    assert smp.handle(b"qThreadExtraInfo,p1.2") == b"CPU 1, replay, icount 0".hex().encode()
    assert [smp.handle(packet) for packet in (b"Tp1.2", b"T2", b"Tp1.3", b"Tp2.1")] == [
        b"OK", b"OK", *2 * [b"E.no such thread: there are 2, the first, p1.1"],
    ]  # fmt: skip
    assert re.search(
        rb'<thread id="p1.1" core="0">CPU 0, replay, icount 0</thread>\n'
        rb'<thread id="p1.2" core="1">CPU 1, replay, icount 0</thread>\n',
        smp.handle(b"qXfer:threads:read::0,1000") or b"",
    )


def test_a_thread_is_selected_and_stays_so_until_a_stop(smp: Stub, two: TwoCpus) -> None:
    assert smp.handle(b"qC") == b"QCp1.1"
    assert (at(smp, 1), at(smp, 2)) == (BASE, BASE + BETWEEN)
    assert smp.handle(b"qC") == b"QCp1.2"
    for any_thread in (b"Hg0", b"Hgp1.-1", b"Hg-1", b"Hgp1.0", b"Hgp0.0"):
        assert smp.handle(any_thread) == b"OK"
        assert smp.handle(b"qC") == b"QCp1.2"
    assert (smp.handle(b"g") or b"").endswith((BASE + BETWEEN).to_bytes(8, "little").hex().encode())
    assert smp.handle(b"Pa=0500000000000000") == b"OK"
    assert two.registers_written == {(2, A0): (5).to_bytes(8, "little")}
    assert smp.handle(b"pa") == b"0500000000000000"
    assert smp.handle(b"qRcmd," + b"info registers".hex().encode()) is not None
    assert stopped(smp.handle(b"vCont;s:p1.1;c")) == (b"", b"p1.1")
    assert smp.handle(b"qC") == b"QCp1.1"


def test_the_thread_that_hits_is_told_with_its_registers(smp: Stub) -> None:
    smp.handle(b"Z0,%x,4" % (BASE + BETWEEN + 4))
    reply = smp.handle(b"vCont;c:p1.-1")
    assert stopped(reply) == (b"swbreak", b"p1.2")
    assert b"20:%b;" % (BASE + BETWEEN + 4).to_bytes(8, "little").hex().encode() in (reply or b"")
    assert (at(smp, 1), at(smp, 2)) == (BASE + 4, BASE + BETWEEN + 4)
    smp.handle(b"Z2,%x,4" % COUNTER)
    assert stopped(smp.handle(b"vCont;c")) == (b"watch", b"p1.1")
    assert stopped(smp.handle(b"vCont;c")) == (b"swbreak", b"p1.2")
    assert stopped(smp.handle(b"bc")) == (b"watch", b"p1.1")


@pytest.mark.parametrize(
    ("packet", "positions", "thread"),
    [
        (b"vCont;s:p1.1;c:p1.-1", (1, 0), b"p1.1"),
        (b"vCont;s:p1.2;c:p1.-1", (1, 1), b"p1.2"),
        (b"vCont;s:p1.2;c", (1, 1), b"p1.2"),
        (b"vCont;s:p1.2", (0, 1), b"p1.2"),
        (b"vCont;s:2;t", (0, 1), b"p1.2"),
        (b"vCont;t:1;s", (0, 1), b"p1.2"),
        (b"vCont;r%x,%x:p1.2;c" % (BASE + BETWEEN, BASE + BETWEEN + 8), (2, 2), b"p1.2"),
        (b"vCont;r%x,%x:p1.2" % (BASE + BETWEEN, BASE + BETWEEN + 8), (0, 2), b"p1.2"),
    ],
)
def test_who_runs(smp: Stub, packet: bytes, positions: tuple[int, int], thread: bytes) -> None:
    assert stopped(smp.handle(packet)) == (b"", thread)
    assert (at(smp, 1), at(smp, 2)) == (BASE + 4 * positions[0], BASE + BETWEEN + 4 * positions[1])


@pytest.mark.parametrize(
    ("before", "positions", "thread"),
    [
        ([], (1, 0), b"p1.1"),
        ([b"Hgp1.2"], (1, 1), b"p1.2"),
        ([b"Hgp1.2", b"Hcp1.1", b"Hc0"], (1, 1), b"p1.2"),
        ([b"Hcp1.2"], (0, 1), b"p1.2"),
        ([b"Hcp1.2", b"Hcp1.-1"], (1, 0), b"p1.1"),
        ([b"Hgp1.2", b"Hcp1.1"], (1, 0), b"p1.1"),
    ],
)
def test_who_runs_by_hc(smp: Stub, before: list[bytes], positions: tuple[int, int], thread: bytes) -> None:
    assert [smp.handle(packet) for packet in before] == [b"OK"] * len(before)
    assert stopped(smp.handle(b"s")) == (b"", thread)
    assert (at(smp, 1), at(smp, 2)) == (BASE + 4 * positions[0], BASE + BETWEEN + 4 * positions[1])


def test_a_step_back_is_the_thread_s_own(smp: Stub) -> None:
    smp.handle(b"vCont;s:p1.2;c")
    smp.handle(b"vCont;s:p1.1;c")
    smp.handle(b"Hgp1.2")
    assert stopped(smp.handle(b"bs")) == (b"", b"p1.2")
    assert (at(smp, 1), at(smp, 2)) == (BASE + 4, BASE + BETWEEN)


def test_vcont_for_threads_that_are_not_there(smp: Stub) -> None:
    assert smp.handle(b"vCont;s:p1.3") == b"E.vCont without an action for any thread"
    assert smp.handle(b"vCont;t") == b"OK"


# -- gdb -----------------------------------------------------------------------------------------


@pytest.mark.e2e
@needs_gdb
async def test_gdb_sees_both_cpus() -> None:
    async with serving(TwoCpus()) as running:
        text = await gdb(
            running, "info threads", "thread 2", "p/x $pc", "p/x $a1", "p $t0 = 7", "thread apply 1 p/x $a1",
            "thread apply all p $t0",
        )  # fmt: skip
    threads = after(text, "info threads")
    assert re.search(r"\* 1 .*CPU 0, replay, icount 0.*0x0*80000000", threads)
    assert re.search(r"  2 .*CPU 1, replay, icount 0.*0x0*80000100", threads)
    assert after(text, "p/x $pc").endswith("= 0x80000100")
    assert after(text, "p/x $a1").endswith("= 0x80001100")
    assert after(text, "thread apply 1 p/x $a1").endswith("= 0x80001000")
    values = re.findall(r"Thread (\d) .*\n\$\d+ = (\d+)", after(text, "thread apply all p $t0"))
    assert values == [("2", "7"), ("1", "0")]


@pytest.mark.e2e
@needs_gdb
async def test_gdb_stops_in_the_thread_that_hits() -> None:
    async with serving(TwoCpus()) as running:
        text = await gdb(
            running, "break *0x80000104", "continue", "info threads", "delete", "watch *(int *) 0x80001000",
            "continue 1", "reverse-continue", "delete 2", "break *0x80000108 thread 2", "continue 2",
        )  # fmt: skip
    assert re.search(r"Thread 2 .*hit Breakpoint 1, 0x0*80000104", after(text, "continue"))
    assert re.search(r"\* 2 .*0x0*80000104", after(text, "info threads"))
    for command in ("continue 1", "reverse-continue"):
        assert "Thread 1 hit Hardware watchpoint 2" in after(text, command)
    assert "Thread 2 hit Breakpoint 3, 0x0000000080000108" in after(text, "continue 2")


@pytest.mark.e2e
@needs_gdb
async def test_gdb_steps_a_thread_alone_and_with_the_others() -> None:
    two = TwoCpus()
    async with serving(two) as running:
        text = await gdb(
            running, "thread 2", "stepi", "monitor when", "set scheduler-locking on", "stepi 2", "p/x $pc",
            "thread apply 1 p/x $pc", "monitor info replay", "set scheduler-locking off", "thread 1", "reverse-stepi",
            "thread apply all p/x $pc",
        )  # fmt: skip
    assert "0x0000000080000104" in after(text, "stepi")
    assert after(text, "monitor when").startswith("icount 2 ")  # the other CPU has run as well
    assert after(text, "p/x $pc").endswith("= 0x80000100")
    assert after(text, "thread apply 1 p/x $pc").endswith("= 0x80000004")
    assert "icount: 4" in after(text, "monitor info replay")
    # back to before CPU 0's one instruction, and with it all that came later
    assert "0x0000000080000000" in after(text, "reverse-stepi")
    assert two.icount == 0
