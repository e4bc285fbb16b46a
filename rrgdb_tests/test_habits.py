"""A debugger that steps over nothing by itself is told each watch hit, and once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from rrgdb.arch import ARCHES
from rrgdb.board.boards import default_board
from rrgdb.engine.base import EngineError, Underlying
from rrgdb.opening import GuestOptions, record, replay
from rrgdb.rsp.debuggee import DebuggeeError, PhysicalWatch, Resume, StopReason, StopReply, ZPoint, ZType
from rrgdb.target import Target
from rrgdb.timeline import stop
from rrgdb.timeline.stop import Points
from rrgdb_tests.engine.unicorn.rig import assemble

C, S, BC, BS = Resume.CONTINUE, Resume.STEP, Resume.REVERSE_CONTINUE, Resume.REVERSE_STEP
BACK = (BC, BS)
KINDS = {"w": ZType.WRITE, "r": ZType.READ, "a": ZType.ACCESS}
BASE = {"riscv64": 0x80000000, "riscv32": 0x80000000, "aarch64": 0x40000000, "arm": 0x40000000}
DATA = 0x1000
SIGILL = 4
# In a loop: one store to the two words at DATA, then a load of the first.
STORES = {
    "riscv64": "li s0, {data}\nli s1, 4\n1: addi a0, a0, 1\nslli a1, a0, 32\nor a1, a1, a0\n"
    "sd a1, (s0)\nlw a2, (s0)\naddi s1, s1, -1\nbnez s1, 1b\nunimp",
    "aarch64": "ldr x0, ={data}\nmov x1, #4\n1: add w2, w2, #1\nstp w2, w2, [x0]\nldr w3, [x0]\n"
    "subs x1, x1, #1\nb.ne 1b\nudf #0\n.ltorg",
    "arm": "ldr r0, ={data}\nmov r1, #4\n1: add r2, r2, #1\nmov r3, r2\nstrd r2, r3, [r0]\nldr r4, [r0]\n"
    "subs r1, r1, #1\nbne 1b\nudf #0\n.ltorg",
    "i386": "mov esi, {data}\nmov edi, 4\n1: add eax, 1\nmovd xmm0, eax\npunpckldq xmm0, xmm0\n"
    "movq [esi], xmm0\nmov ecx, [esi]\ndec edi\njnz 1b\nud2",
    "x86_64": "mov esi, {data}\nmov edi, 4\n1: add rax, 1\nmov rbx, rax\nshl rbx, 32\nor rbx, rax\n"
    "mov [rsi], rbx\nmov ecx, [rsi]\ndec edi\njnz 1b\nud2",
}  # fmt: skip


@dataclass(frozen=True)
class Known:
    """What a guest does. ``accesses[kind]``: instructions that hit a watch of the first word; ``pcs``: by icount."""

    pcs: tuple[int, ...]
    accesses: dict[str, tuple[int, ...]]
    image: bytes
    recording: TemporaryDirectory[str]


def base(family: str) -> int:
    return BASE.get(family, 0x100000)


def options(family: str) -> GuestOptions:
    board = default_board(family).name
    return GuestOptions(board=board, memory=4 << 20, load=base(family), entry=base(family))


@cache
def known(family: str) -> Known:
    data = base(family) + DATA
    directory = TemporaryDirectory()
    image = Path(directory.name) / "image"
    image.write_bytes(assemble(family, STORES[family].format(data=data)))
    with record(Path(directory.name) / "r", image, options(family)) as opened:
        engine, timeline = opened.guest.engine, opened.timeline
        pcs, writes = [engine.read(engine.arch.pc)], []
        while timeline.run(Points({}), steps=1).kind is stop.StopKind.STEP:
            pcs.append(engine.read(engine.arch.pc))
        timeline.seek(0)
        for i in range(len(pcs) - 1):
            before = engine.read_memory(data, 4)
            timeline.seek(i + 1)
            if engine.read_memory(data, 4) != before:
                writes.append(i)
    reads = tuple(i + 1 for i in writes)
    accesses = {"w": tuple(writes), "r": reads, "a": tuple(sorted((*writes, *reads)))}
    return Known(tuple(pcs), accesses, image.read_bytes(), directory)


@contextmanager
def target(family: str) -> Iterator[Target]:
    """The guest's finished recording."""
    with replay(Path(known(family).recording.name) / "r", writable=False) as opened:
        yield Target(opened)


def watch(family: str, kind: str = "w", offset: int = 0, length: int = 4) -> ZPoint:
    return ZPoint(KINDS[kind], base(family) + DATA + offset, length)


class Model:
    """Where a debugger of this family stands, and what it was told, by the rules alone."""

    def __init__(self, family: str, kind: str, breakpoint_at: int | None) -> None:
        self.known = known(family)
        self.before_access = ARCHES[family].nonsteppable_watchpoint
        self.accesses = self.known.accesses[kind]
        self.breaks = [i for i, pc in enumerate(self.known.pcs) if pc == breakpoint_at]
        self.end = len(self.known.pcs) - 1
        self.at = 0
        self.told: tuple[int, bool] | None = None

    def move(self, how: Resume) -> tuple[str, int]:
        back, start = how in BACK, self.at
        what = self._backward(how, start) if back else self._forward(how, start)
        if back and what[1] == 0:
            what = "begin", 0
        if what[0] == "watch":
            self.told = (what[1], back) if self.before_access else None
        elif what[1] != start or self.told != (start, back):
            self.told = None
        self.at = what[1]
        return what

    def _forward(self, how: Resume, start: int) -> tuple[str, int]:
        for i in range(start, self.end):
            if i > start and how is S:
                return "step", i
            if i > start and i in self.breaks:
                return "break", i
            if i in self.accesses and (i > start or self.told != (start, False)):
                return "watch", i if self.before_access else i + 1
        return ("step" if how is S else "end"), self.end

    def _backward(self, how: Resume, start: int) -> tuple[str, int]:
        if start == 0:
            return "begin", 0
        for i in range(start, 0, -1):
            if i < start and how is BS:
                return "step", i
            if i < start and i in self.breaks and not (not self.before_access and i in self.accesses):
                return "break", i
            if self.before_access:
                if i - 1 in self.accesses and (i < start or self.told != (start, True)):
                    return "watch", i
            elif i - 1 in self.accesses:
                return "watch", i - 1
        return ("step" if how is BS else "begin"), 0


_TOLD = {
    StopReason.WATCH: "watch",
    StopReason.RWATCH: "watch",
    StopReason.AWATCH: "watch",
    StopReason.SWBREAK: "break",
    StopReason.STEP: "step",
    StopReason.HISTORY_BEGIN: "begin",
    StopReason.HISTORY_END: "end",
    StopReason.SIGNAL: "end",
}


@pytest.mark.parametrize("family", STORES)
def test_each_hit_is_told_once_in_both_directions(family: str) -> None:
    writes = known(family).accesses["w"]
    after = ARCHES[family].nonsteppable_watchpoint
    with target(family) as t:
        t.insert(watch(family))
        forward, backward = [], []
        while t.resume(C).reason is StopReason.WATCH:
            forward.append(t.timeline.icount)
        while t.resume(BC).reason is StopReason.WATCH:
            backward.append(t.timeline.icount)
    assert forward == [i + (not after) for i in writes]
    assert backward == [i + after for i in reversed(writes)]


@pytest.mark.parametrize("family", STORES)
@pytest.mark.parametrize("kind", KINDS)
def test_any_moves_tell_what_the_rules_say(family: str, kind: str) -> None:
    """With a breakpoint at the store itself, and positions that were sought: those are not after a hit."""
    guest = known(family)
    store = guest.pcs[guest.accesses["w"][0]]
    with target(family) as t:
        for breakpoint_at in (None, store):
            t.insert(watch(family, kind))
            model, random, trace = Model(family, kind, breakpoint_at), Random(family + kind), [str(breakpoint_at)]
            t.faces.time.seek("start")
            if breakpoint_at is not None:
                t.insert(ZPoint(ZType.SOFTWARE, breakpoint_at, 4))
            for _ in range(120):
                if random.random() < 0.1:
                    model.at, model.told = random.randrange(model.end), None
                    t.faces.time.seek(str(model.at))
                    continue
                how = random.choice((C, C, BC, BC, S, BS))
                if how in (C, S) and model.at == model.end:
                    continue
                told, expected = t.resume(how), model.move(how)
                trace.append(f"{how.name}: {told.reason} {t.timeline.icount}, expected {expected}")
                assert (_TOLD[told.reason], t.timeline.icount) == expected, "\n".join(trace[-12:])


@pytest.mark.parametrize("family", ["riscv64", "aarch64", "arm"])
def test_a_written_pc_is_not_after_a_hit(family: str) -> None:
    """The debugger puts pc elsewhere, onto another store: that one is told."""
    writes = known(family).accesses["w"]
    with target(family) as t:
        t.insert(watch(family))
        t.resume(C)
        arch = t.arch
        number, size = arch.register_index[arch.pc], arch.bits // 8
        store = t.engine.read(arch.pc)
        before = known(family).pcs[writes[0] - 1]
        t.write_register(1, number, before.to_bytes(size, "little"))
        assert t.resume(S).reason is StopReason.STEP
        assert t.engine.read(arch.pc) == store
        assert t.resume(C).reason is StopReason.WATCH
        assert t.engine.read(arch.pc) == store
        assert t.resume(C).reason is StopReason.WATCH
        assert t.timeline.diverted_from == writes[0]


def test_a_search_that_fails_behind_an_access_that_was_told_moves_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with target("riscv64") as t:
        t.insert(watch("riscv64"))
        t.faces.time.seek("end")
        assert t.resume(BC).reason is StopReason.WATCH
        here, run = t.timeline.icount, t._backward.run

        def failing(points: Points, *, steps: int | None = None) -> stop.Stop:
            if steps is None:
                raise EngineError("no such luck")
            return run(points, steps=steps)

        monkeypatch.setattr(t._backward, "run", failing)
        with pytest.raises(DebuggeeError, match="no such luck"):
            t.resume(BC)
        assert t.timeline.icount == here


def test_an_instruction_that_jumps_to_itself_hits_each_time(tmp_path: Path) -> None:
    data = BASE["arm"] + DATA
    source = f"ldr r0, ={data}\nadr r1, 1f\nstr r1, [r0]\nstr r1, [r0, #4]\nadr r2, 2f\nstr r2, [r0, #8]\n"
    image = tmp_path / "image"
    image.write_bytes(assemble("arm", source + "1: ldr pc, [r0], #4\n2: udf #0\n.ltorg"))
    with record(tmp_path / "r", image, options("arm")) as opened:
        Target(opened).resume(C)
    with replay(tmp_path / "r", writable=False) as opened:
        t = Target(opened)
        t.insert(watch("arm", "r", length=12))
        forward = [t.timeline.icount for _ in range(3) if t.resume(C).reason is StopReason.RWATCH]
        assert forward == [forward[0], forward[0] + 1, forward[0] + 2]
        assert t.resume(C).reason is StopReason.SIGNAL
        backward = [t.timeline.icount for _ in range(3) if t.resume(BC).reason is StopReason.RWATCH]
        assert backward == [i + 1 for i in reversed(forward)]
        assert t.resume(BC).reason is StopReason.HISTORY_BEGIN


def test_a_live_guest_goes_on_behind_each_hit(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(known("riscv64").image)
    writes = known("riscv64").accesses["w"]
    with record(tmp_path / "r", image, options("riscv64")) as opened:
        t = Target(opened)
        t.insert(watch("riscv64"))
        for i in writes:
            assert t.resume(C).reason is StopReason.WATCH
            assert t.timeline.icount == i
        assert t.resume(BC).reason is StopReason.WATCH
        assert t.timeline.icount == writes[-2] + 1
        assert t.resume(C).reason is StopReason.WATCH
        assert t.resume(C).reason is StopReason.SIGNAL
        assert opened.guest.end is not None


@pytest.mark.parametrize("family", STORES)
def test_what_is_not_there_is_watched_and_never_hit(family: str) -> None:
    """No move is refused for it, and searches pass over history as if it were not there."""
    with target(family) as t:
        for address in (0x3000_0000 if family in BASE else 0x6000_0000, 0x7000_0000, (1 << 32) - 8, (1 << 64) - 8):
            for kind in KINDS.values():
                t.insert(ZPoint(kind, address, 8))
        points = t._armed()
        assert t.timeline.forward.underlying(replace(points, watches=points.watches[::3])) == Underlying()
        assert t.resume(S).reason is StopReason.STEP
        assert t.resume(C).reason is StopReason.SIGNAL
        assert t.resume(BS).reason is StopReason.STEP
        assert t.resume(BC).reason is StopReason.HISTORY_BEGIN


def test_a_watchpoint_has_at_most_4096_bytes_and_there_are_64_ranges() -> None:
    with target("riscv64") as t:
        for length in (4097, 1 << 20, 1 << 63):
            with pytest.raises(DebuggeeError, match=f"a watchpoint of {length} bytes: at most 4096"):
                t.insert(watch("riscv64", length=length))
        t.insert(watch("riscv64", length=4096))
        for i in range(63):
            t.insert(ZPoint(ZType.WRITE, 16 * i, 4))
        with pytest.raises(DebuggeeError, match="at most 64 watched ranges"):
            t.insert(ZPoint(ZType.WRITE, 0x2000, 4))
        assert t.resume(C).reason is StopReason.WATCH


def test_a_breakpoint_where_no_instruction_can_stand_is_never_hit() -> None:
    guest = known("riscv64")
    with target("riscv64") as t:
        for kind in (ZType.SOFTWARE, ZType.HARDWARE):
            t.insert(ZPoint(kind, guest.pcs[3] + 1, 4))
        assert t.resume(C).reason is StopReason.SIGNAL
        assert t.resume(BC).reason is StopReason.HISTORY_BEGIN


# -- two ranges, one store -----------------------------------------------------------------------


def _addresses(told: StopReply) -> list[int]:
    assert told.reason is StopReason.WATCH
    assert told.address is not None
    return [told.address, *(address for kind, address in told.also if kind is StopReason.WATCH)]


@pytest.mark.parametrize("family", STORES)
def test_bytes_that_change_where_a_diversion_is_left_are_told_there(family: str) -> None:
    """A debugger remembers the diversion's. Once, and what is not mapped is no matter."""
    address = base(family) + DATA
    with target(family) as t:
        t.insert(watch(family))
        t.insert(ZPoint(ZType.WRITE, 0x7000_0000, 4))
        t.faces.time.seek("10")
        t.write_memory(1, address, b"odd!")
        told = t.resume(BC)
        assert (_addresses(told)[0] - address, t.timeline.icount, t.timeline.diverted_from) == (0, 10, None)
        told = t.resume(BC)
        assert told.reason is StopReason.WATCH
        assert t.timeline.icount < 10


@pytest.mark.parametrize("family", STORES)
def test_two_ranges_that_one_store_changes_are_told_together(family: str) -> None:
    first = base(family) + DATA
    with target(family) as t:
        t.insert(watch(family))
        t.insert(watch(family, offset=4))
        for how in (C, BC):
            for _ in range(4):
                assert sorted(_addresses(t.resume(how))) == [first, first + 4]
            if how is C:
                t.resume(C)
        assert t.resume(BC).reason is StopReason.HISTORY_BEGIN


@pytest.mark.parametrize("family", STORES)
def test_or_one_after_the_other_at_the_same_position(family: str) -> None:
    first = base(family) + DATA
    with target(family) as t:
        t.insert(watch(family))
        t.insert(watch(family, offset=4))
        for how in (C, BC):
            for _ in range(4):
                stops = [(_addresses(t.resume(how, separately=True)), t.timeline.icount) for _ in range(2)]
                assert sorted(address for (address,), _ in stops) == [first, first + 4]
                assert stops[0][1] == stops[1][1]
            if how is C:
                t.resume(C)
        assert t.resume(BC).reason is StopReason.HISTORY_BEGIN


@pytest.mark.parametrize("family", ["riscv64", "aarch64", "arm"])
@pytest.mark.parametrize("how", [C, BC])
@pytest.mark.parametrize("physical", [False, True])
def test_a_debugger_that_steps_over_the_access_is_told_the_second_range_there(
    family: str, how: Resume, physical: bool
) -> None:
    """As GDB does: watchpoints out, a step, watchpoints in. ``physical``: the same bytes are watched by their physical
    address all the while."""
    step = S if how is C else BS
    points = (watch(family), watch(family, offset=4))
    with target(family) as t:
        if how is BC:
            t.resume(C)
        if physical:
            _watch_physical(t, family, length=8)
        seen = []
        for _ in range(8):
            for point in points:
                t.insert(point)
            seen.append((_addresses(t.resume(how, separately=True)), t.timeline.icount))
            for point in points:
                t.remove(point)
            assert t.resume(step).reason is StopReason.STEP
    for one, other in zip(seen[::2], seen[1::2], strict=True):
        assert one[1] == other[1]
        assert one[0] != other[0]
    assert len({icount for _, icount in seen}) == 4


def test_ranges_that_overlap_where_the_bytes_changed_need_one_stop() -> None:
    first = base("riscv64") + DATA
    with target("riscv64") as t:
        t.insert(watch("riscv64", offset=-8, length=12))
        t.insert(watch("riscv64"))
        assert _addresses(t.resume(C, separately=True)) == [first, first]
        here = t.timeline.icount
        t.resume(C, separately=True)
        assert t.timeline.icount > here


def _watch_physical(t: Target, family: str, offset: int = 0, length: int = 4, kind: str = "w") -> list[str]:
    """Watch there; returns what the user will see."""
    assert t.faces.watching is not None
    t.faces.watching.watch_physical(PhysicalWatch(base(family) + DATA + offset, length, KINDS[kind]))
    said: list[str] = []
    t.timeline.say = said.append
    return said


@pytest.mark.parametrize("family", STORES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_hit_at_a_physical_address_stops_behind_the_access_and_before_it_going_back(family: str, kind: str) -> None:
    """On all families: no debugger steps over it by itself."""
    accesses = known(family).accesses[kind]
    with target(family) as t:
        said = _watch_physical(t, family, kind=kind)
        for access in accesses:
            assert t.resume(C) == StopReply(StopReason.SIGNAL, 0)
            assert t.timeline.icount == access + 1
            assert t.faces.time.replay_info().stopped == said[-1].rstrip()
        assert t.resume(C) == StopReply(StopReason.SIGNAL, SIGILL)
        assert t.faces.time.replay_info().stopped == ""
        assert len(said) == len(accesses)
        for access in reversed(accesses):
            assert t.resume(BC) == StopReply(StopReason.SIGNAL, 0)
            assert t.timeline.icount == access
        assert t.resume(BC).reason is StopReason.HISTORY_BEGIN
        assert said == [*said[: len(accesses)], *said[len(accesses) - 1 :: -1]]
        assert t.faces.watching.unwatch_physical(None) == 1
        assert t.resume(C) == StopReply(StopReason.SIGNAL, SIGILL)


@pytest.mark.parametrize("family", STORES)
def test_what_is_told_of_a_physical_address(family: str) -> None:
    at = base(family) + DATA
    for offset, length, kind, expected in (
        (0, 4, "w", f"watch-physical {at:#x}: 0x00000000 -> 0x00000001"),
        (1, 1, "r", f"watch-physical {at + 1:#x}: read, 0x00"),
        (-20, 64, "w", f"watch-physical {at:#x}: 00 00 00 00 00 -> 01 00 00 00 01"),
        (4, 2, "a", f"watch-physical {at + 4:#x}: 0x0000 -> 0x0001"),
    ):
        with target(family) as t:
            said = _watch_physical(t, family, offset, length, kind)
            t.resume(C)
            assert said == [f"{expected}\n"]


@pytest.mark.parametrize("family", STORES)
def test_one_instruction_hits_what_a_debugger_knows_and_what_it_does_not(family: str) -> None:
    """Told once, with the debugger's own."""
    model = Model(family, "w", None)
    with target(family) as t:
        t.insert(watch(family))
        said = _watch_physical(t, family, offset=4)
        for how in (C, BC):
            for number in range(1, 5):
                stop = t.resume(how)
                expected = model.move(how)
                assert (stop.reason, *_addresses(stop)) == (StopReason.WATCH, base(family) + DATA)
                assert t.timeline.icount == expected[1]
                assert len(said) == number + 4 * (how is BC)
            t.resume(how)
            model.move(how)
        assert len(said) == 8


@pytest.mark.parametrize("family", STORES)
def test_a_step_tells_of_a_physical_address_and_what_is_removed_is_not_told(family: str) -> None:
    access = known(family).accesses["w"][0]
    with target(family) as t:
        said = _watch_physical(t, family)
        assert not t.steps_at_once
        for _ in range(access):
            assert t.resume(S).reason is StopReason.STEP
        assert t.resume(S) == StopReply(StopReason.SIGNAL, 0)
        assert t.resume(BS) == StopReply(StopReason.SIGNAL, 0)
        assert len(said) == 2
        t.detached(resume=False)
        assert t.steps_at_once
        assert t.resume(C) == StopReply(StopReason.SIGNAL, SIGILL)


def test_physical_watches_are_limited_and_named_once() -> None:
    with target("riscv64") as t:
        _watch_physical(t, "riscv64")
        _watch_physical(t, "riscv64")
        watching = t.faces.watching
        assert watching.physical_watches() == [PhysicalWatch(base("riscv64") + DATA, 4, ZType.WRITE)]
        for n in range(63):
            _watch_physical(t, "riscv64", offset=16 * n + 8)
        with pytest.raises(DebuggeeError, match="cannot watch"):
            _watch_physical(t, "riscv64", offset=-8)
        assert len(watching.physical_watches()) == 64


def test_where_addresses_are_physical_there_is_no_space() -> None:
    with target("riscv64") as t:
        with pytest.raises(DebuggeeError, match="addresses are physical here"):
            t.faces.watching.bind_watches(True)
        assert t.faces.watching.bound_to() is None
        assert t.faces.physical.translate(1, base("riscv64")) == base("riscv64")
