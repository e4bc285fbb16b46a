"""Breakpoint instructions in a guest that has no handler for them: they stop for a debugger, which may go on behind."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from rrgdb.board.boards import default_board
from rrgdb.opening import GuestOptions, Opened, record, replay
from rrgdb.rsp.debuggee import Resume, StopReason, StopReply, ZPoint, ZType
from rrgdb.target import Target
from rrgdb.timeline.stop import Points
from rrgdb.timeline.verify import verify
from rrgdb_tests.engine.unicorn.rig import assemble

C, S, BC, BS = Resume.CONTINUE, Resume.STEP, Resume.REVERSE_CONTINUE, Resume.REVERSE_STEP
TRAP, ILLEGAL = 5, 4
BASE = {"riscv64": 0x80000000, "aarch64": 0x40000000, "arm": 0x40000000}
DATA = 0x1000
# What stands at DATA is counted up before and behind each of two breakpoint instructions.
_RISCV = (
    "li s0, {data}\nli a0, 1\nsw a0, (s0)\nlr.w a1, (s0)\n{brk}\nsc.w a2, a0, (s0)\nli a0, 2\nsw a0, (s0)\n"
    "{brk}\nli a0, 3\nsw a0, (s0)\n.4byte 0"
)
_X86 = "mov esi, {data}\nmov dword ptr [esi], 1\n{brk}\nmov dword ptr [esi], 2\n{brk}\nmov dword ptr [esi], 3\nud2"
_ARM = (
    "ldr r0, ={data}\nmov r1, #1\nstr r1, [r0]\nldrex r2, [r0]\n{brk}\nstrex r3, r1, [r0]\nmov r1, #2\nstr r1, [r0]\n"
    "{brk}\nmov r1, #3\nstr r1, [r0]\nudf #0\n.ltorg"
)
# name: (family, source, breakpoint instruction, its bytes)
GUESTS = {
    "ebreak": ("riscv64", _RISCV, ".option norvc\nebreak\n.option rvc", 4),
    "c.ebreak": ("riscv64", _RISCV, "c.ebreak", 2),
    "brk": (
        "aarch64",
        "ldr x0, ={data}\nmov w1, #1\nstr w1, [x0]\nldxr w2, [x0]\n{brk}\nstxr w3, w1, [x0]\nmov w1, #2\n"
        "str w1, [x0]\n{brk}\nmov w1, #3\nstr w1, [x0]\nudf #0\n.ltorg",
        "brk #7",
        4,
    ),
    "bkpt": ("arm", _ARM, "bkpt #7", 4),
    "bkpt in Thumb": ("arm", "adr r4, 1f + 1\nbx r4\n.thumb\n1: " + _ARM, "bkpt #7", 2),
    "int3 on i386": ("i386", _X86, "int3", 1),
    "int3": ("x86_64", _X86, "int3", 1),
}


def base(family: str) -> int:
    return BASE.get(family, 0x100000)


@cache
def image_of(what: str) -> bytes:
    family, source, brk, _ = GUESTS[what]
    return assemble(family, source.format(data=base(family) + DATA, brk=brk))


def options(family: str) -> GuestOptions:
    return GuestOptions(board=default_board(family).name, memory=4 << 20, load=base(family), entry=base(family))


@pytest.fixture(params=GUESTS)
def what(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def live(what: str, tmp_path: Path) -> Iterator[Opened]:
    family = GUESTS[what][0]
    (tmp_path / "image").write_bytes(image_of(what))
    with record(tmp_path / "r", tmp_path / "image", options(family)) as opened:
        yield opened


class Debugger:
    """A target with a debugger attached."""

    def __init__(self, opened: Opened, what: str) -> None:
        self.target = Target(opened)
        self.target.attached(lambda _text: None)
        self.timeline, self.engine = opened.timeline, opened.timeline.engine
        self._what = what

    @property
    def here(self) -> tuple[int, int]:
        return self.timeline.icount, self.engine.read(self.engine.arch.pc)

    @property
    def value(self) -> int:
        return int.from_bytes(self.engine.read_memory(base(GUESTS[self._what][0]) + DATA, 4), "little")

    def trap(self, how: Resume) -> tuple[int, int]:
        """Resume; it must stop at a breakpoint instruction."""
        stop = self.target.resume(how)
        assert (stop.reason, stop.signal) == (StopReason.SIGNAL, TRAP)
        assert self.timeline.guest.end is None
        return self.here

    def skip(self) -> None:
        """As ``set $pc += 4``."""
        arch = self.engine.arch
        pc = self.engine.read(arch.pc) + GUESTS[self._what][3]
        self.target.write_register(1, arch.register_index[arch.pc], pc.to_bytes(arch.bits // 8, "little"))


def ended(stop: StopReply) -> bool:
    return (stop.reason, stop.signal) == (StopReason.SIGNAL, ILLEGAL)


def test_a_live_guest_goes_on_where_the_debugger_puts_it(what: str, live: Opened, tmp_path: Path) -> None:
    debugger = Debugger(live, what)
    resume = debugger.target.resume
    first = debugger.trap(C)
    assert debugger.value == 1
    for how in (C, S, C):
        assert debugger.trap(how) == first
    assert resume(BS).reason is StopReason.STEP
    assert debugger.trap(C) == first
    debugger.skip()
    second = debugger.trap(C)
    assert debugger.value == 2
    assert (second[0] > first[0] + 1, debugger.timeline.at_present) == (True, True)
    assert debugger.trap(BC) == first
    assert resume(BC).reason is StopReason.HISTORY_BEGIN
    assert debugger.trap(C) == first
    assert debugger.trap(C) == second
    debugger.skip()
    assert ended(resume(C))
    assert debugger.value == 3
    live.close()
    with replay(tmp_path / "r", writable=False) as opened:
        assert verify(opened.timeline) > 0
        opened.timeline.seek(0)
        again = Debugger(opened, what)
        assert again.trap(C) == first
        assert again.trap(C) == second
        assert ended(again.target.resume(C))
        assert again.trap(BC) == second
        assert again.trap(BC) == first
        assert again.target.resume(S).reason is StopReason.STEP
        assert again.here == (first[0] + 1, first[1] + GUESTS[what][3])
        assert again.target.resume(BS).reason is StopReason.STEP
        assert again.here == first
        again.timeline.seek(second[0] + 1)
        assert again.trap(BC) == second


@pytest.mark.parametrize("what", [what for what in GUESTS if not what.startswith("int3")])
def test_right_behind_an_access_that_was_told_it_stops(what: str, live: Opened, tmp_path: Path) -> None:
    """A debugger that is told of a store before it is made passes it: what stands behind it is met."""
    debugger = Debugger(live, what)
    for _ in range(2):
        debugger.trap(C)
        debugger.skip()
    second = debugger.timeline.icount - 1
    live.close()
    with replay(tmp_path / "r", writable=False) as opened:
        opened.timeline.seek(0)
        again = Debugger(opened, what)
        again.target.insert(ZPoint(ZType.WRITE, base(GUESTS[what][0]) + DATA, 4))
        seen = [again.target.resume(C).reason for _ in range(4)]
        assert seen == [StopReason.WATCH, StopReason.SIGNAL, StopReason.WATCH, StopReason.SIGNAL]
        assert (again.timeline.icount, again.value) == (second, 2)
        assert again.target.resume(BC).reason is StopReason.WATCH
        assert again.trap(BC)[0] < second


def test_in_a_diversion(what: str, live: Opened) -> None:
    """The breakpoint instruction is met in a past that is another one, and left by writing pc."""
    debugger = Debugger(live, what)
    first = debugger.trap(C)
    debugger.timeline.seek(first[0] - 1)
    debugger.target.write_memory(1, base(GUESTS[what][0]) + DATA + 4, b"other")
    assert debugger.trap(C) == first
    assert debugger.trap(C) == first
    debugger.skip()
    assert debugger.trap(C)[0] > first[0]
    assert (debugger.value, debugger.timeline.diverted_from) == (2, first[0] - 1)
    debugger.skip()
    assert ended(debugger.target.resume(C))
    assert debugger.target.resume(BS).reason in (StopReason.STEP, StopReason.HISTORY_BEGIN)
    assert debugger.trap(C) == first
    assert debugger.timeline.at_present


def test_with_no_debugger_it_ends_the_guest(what: str, live: Opened, tmp_path: Path) -> None:
    """Such a recording ends there, and a diversion goes on behind."""
    stop = live.timeline.run(Points({}))
    assert (stop.value, live.guest.end is not None) == (TRAP, True)
    end = stop.icount
    live.close()
    with replay(tmp_path / "r", writable=False) as opened:
        assert verify(opened.timeline) > 0
        opened.timeline.seek(0)
        debugger = Debugger(opened, what)
        stop_there = debugger.target.resume(C)
        assert (stop_there.reason, stop_there.signal, debugger.timeline.icount) == (StopReason.SIGNAL, TRAP, end)
        assert debugger.target.resume(C).reason is StopReason.HISTORY_END
        debugger.skip()
        assert debugger.trap(C)[0] > end
        assert debugger.value == 2
        assert debugger.target.resume(BC).reason is StopReason.HISTORY_BEGIN


def test_a_debugger_that_leaves_lets_it_end(what: str, live: Opened) -> None:
    debugger = Debugger(live, what)
    debugger.trap(C)
    debugger.target.detached(resume=True)
    while debugger.target.idle(quiet=True) is not None:
        pass
    assert live.guest.end is not None
    assert (live.guest.end.kind, live.guest.end.value) == ("signal", TRAP)


def test_a_recording_that_is_finished_there_ends_there(what: str, live: Opened, tmp_path: Path) -> None:
    debugger = Debugger(live, what)
    here = debugger.trap(C)
    live.close()
    with replay(tmp_path / "r", writable=False) as opened:
        assert verify(opened.timeline) > 0
        opened.timeline.seek(0)
        again = Debugger(opened, what)
        assert again.target.resume(C).reason is StopReason.HISTORY_END
        assert again.here == here


@pytest.mark.parametrize("what", ["ebreak", "int3"])
def test_a_repaired_instruction_goes_on(what: str, live: Opened, tmp_path: Path) -> None:
    """The debugger writes another instruction over it, and a register: pc stays."""
    debugger = Debugger(live, what)
    icount, pc = debugger.trap(C)
    debugger.target.write_register(1, 5, (7).to_bytes(8, "little"))
    debugger.target.write_memory(1, pc, {"ebreak": b"\x13\0\0\0", "int3": b"\x90"}[what])
    second = debugger.trap(C)
    assert debugger.value == 2
    assert debugger.trap(BC) == (icount, pc)
    assert debugger.trap(C) == second
    live.close()
    with replay(tmp_path / "r", writable=False) as opened:
        assert verify(opened.timeline) > 0
