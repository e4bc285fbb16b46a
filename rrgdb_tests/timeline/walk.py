"""Random walks in time, each move judged by the oracle and each state by a straight replay."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

from rrgdb.engine.base import Exit, Watch
from rrgdb.habits import Habits
from rrgdb.opening import Opened, record, replay
from rrgdb.rsp.debuggee import Resume
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.conditions import agent_condition
from rrgdb.timeline.prepare import Preparation
from rrgdb.timeline.stop import Condition, Points, Stop, StopKind
from rrgdb_tests.timeline.oracle import Oracle, assert_disarmed, digests_straight, whole_state

NONE = Points({})


class Walk:
    """One walk. It begins as a recording; ``finish`` ends the guest and judges the states.

    Positions are checked at once; ``_seen`` holds the digests by position for the straight replay at the end."""

    def __init__(self, known: Oracle, directory: Path, seed: int, *, prepares: bool = False) -> None:
        self.known = known
        self.random = Random(seed)
        self.path = directory / f"walk-{seed}"
        self.opened: Opened = record(self.path, known.image, known.options, interval=1e-9, disks=known.disks)
        self.moves = 0
        self.prepares = prepares
        self.prepared = 0
        self._seed = seed
        self._seen: dict[int, tuple[bytes, str]] = {}
        self._names: dict[str, int] = {}
        self._pcs = sorted(set(known.pcs[:-1]))
        self._writers = known.writers()
        self._trace: list[str] = []

    # -- one move --------------------------------------------------------------------------------

    def move(self) -> None:
        kinds: list[Callable[[], str]] = [
            self._step,
            self._reverse_step,
            self._continue,
            self._reverse_continue,
            self._conditional,
            self._range,
            self._seek,
            self._seek_near,
            self._snapshot,
            self._load,
            self._delete,
            self._divert,
            self._replay_break,
        ]
        if self.known.watched:
            kinds += [self._watch, self._reverse_watch]
        if self.opened.timeline.live:
            kinds += [self._run_live, self._run_live, self._to_present]
        if self.random.random() < 0.01:
            kinds = [self._reopen]
        self._before = self.opened.timeline.icount
        what = self.random.choice(kinds)()
        self.moves += 1
        if self.prepares:
            self._prepare()
        self._trace = [*self._trace[-15:], f"{self._before}: {what} -> {self.opened.timeline.icount}"]
        self._look()

    def _prepare(self) -> None:
        """What idle time is used for; interrupted at some moment or never."""
        t = self.opened.timeline
        preparation = Preparation(t)
        if not preparation.due:
            return
        t.clear_interrupt()
        before = t.icount, t.marks.state_digest(), t.door.save(), t.guest.end
        steps, advance = self.random.choice((1, 2, 3, 5, 1000)), t.advance

        def interrupted_at_last(limit: int) -> Exit:
            nonlocal steps
            steps -= 1
            if not steps:
                t.interrupt()
            return advance(limit)

        t.advance = interrupted_at_last  # type: ignore[method-assign]
        preparation.work()
        del t.advance
        t.clear_interrupt()
        assert (t.icount, t.marks.state_digest(), t.door.save(), t.guest.end) == before, self._told("preparation")
        self.prepared += steps < 1000

    def _look(self) -> None:
        t = self.opened.timeline
        assert_disarmed(self.opened)
        if self.known.dies and t.icount == self.known.end:
            t.seek(t.end)
            if t.live and t.guest.end is None:
                return
        assert t.engine.read(t.engine.arch.pc) == self.known.pcs[t.icount], self._told("pc")
        digest = whole_state(self.opened)
        before = self._seen.setdefault(t.icount, (digest, self._trace[-1]))
        assert before[0] == digest, self._told(f"the state differs from that of {before[1]}")

    def _told(self, what: str) -> str:
        return f"{what}; seed {self._seed}, move {self.moves}:\n" + "\n".join(self._trace)

    def _expect(self, stop: Stop, kinds: tuple[StopKind, ...], position: int, what: str) -> None:
        t = self.opened.timeline
        assert stop.icount == t.icount, self._told(what)
        assert (stop.kind in kinds, stop.icount) == (True, position), self._told(
            f"{what} from {self._before}: {stop}, expected {kinds} at {position}"
        )

    # -- forward ---------------------------------------------------------------------------------

    def _forward(self, points: Points, hit: int | None, kind: StopKind, what: str, steps: int | None = None) -> str:
        """``hit``: position of the first stop behind this one that the oracle knows, in all of the guest's life."""
        t, n = self.opened.timeline, self._before
        last = self.known.end if t.live else t.end
        limit = last if steps is None else min(n + steps, last)
        stop = t.run(points, steps=steps)
        ends = (StopKind.EXIT, StopKind.SIGNAL, StopKind.HISTORY_END)
        # A watch that the last instruction hits is told of; a breakpoint where history ends is not arrived at.
        told_at_last = self.known.dies or kind is StopKind.WATCHPOINT
        if hit is not None and hit <= limit and (hit < last or told_at_last):
            self._expect(stop, (kind,), hit, what)
        elif steps is not None and n + steps <= last:
            self._expect(stop, (StopKind.STEP, *(ends if n + steps == last else ())), n + steps, what)
        else:
            self._expect(stop, ends, last, what)
        return what

    def _step(self) -> str:
        steps = self.random.choice((1, 1, 1, 2, 7, 100, 700))
        return self._forward(NONE, None, StopKind.STEP, f"step {steps}", steps)

    def _run_live(self) -> str:
        """Further into the unknown: from the present on."""
        t = self.opened.timeline
        t.seek(t.end)
        self._before = t.icount
        steps = self.random.choice((1, 30, 500, 1500))
        return self._forward(NONE, None, StopKind.STEP, f"live {steps}", steps)

    def _to_present(self) -> str:
        t = self.opened.timeline
        t.seek(t.end)
        assert t.at_present, self._told("present")
        return "to the present"

    def _breakpoints(self) -> dict[int, None]:
        return dict.fromkeys(self.random.choices(self._pcs, k=self.random.choice((1, 1, 3))))

    def _next_pc(self, wanted: Callable[[int], bool], behind: int) -> int | None:
        return next((i for i in range(behind + 1, len(self.known.pcs)) if wanted(i)), None)

    def _continue(self) -> str:
        points = self._breakpoints()
        hit = self._next_pc(lambda i: self.known.attempts(i) in points, self._before)
        return self._forward(Points(dict(points)), hit, StopKind.BREAKPOINT, "continue to a breakpoint")

    def _range(self) -> str:
        pc = self.known.pcs[self._before]
        start, end = pc - self.random.choice((0, 8, 64)), pc + self.random.choice((1, 16, 64))
        t = self.opened.timeline
        if self._before >= t.end and not t.live:
            return self._step()
        known = self.known
        hit = self._next_pc(lambda i: i not in known.interrupted and not start <= known.pcs[i] < end, self._before)
        stop = t.run(NONE, within=(start, end))
        last = self.known.end if t.live else t.end
        if hit is not None and hit < last:
            self._expect(stop, (StopKind.STEP,), hit, "range step")
        return "range step"

    def _condition(self) -> tuple[Points, Callable[[int], bool]]:
        pc = self.random.choice(self._pcs)
        if not self.known.watched:
            return Points({pc: Condition(lambda: False)}), lambda _i: False
        address, size = self.known.watched
        value = self.random.choice(self.known.values)
        engine = self.opened.timeline.engine
        if self.random.random() < 0.5:
            ref = {4: 0x19, 8: 0x1A}[size]
            number = int.from_bytes(value, "little")
            condition = agent_condition(
                engine, (struct.pack(">BQBBQBB", 0x25, address, ref, 0x25, number, 0x13, 0x27),)
            )
        else:
            condition = Condition(lambda: engine.read_memory(address, size) == value)
        return (
            Points({pc: condition}),
            lambda i: self.known.attempts(i) == pc and self.known.values[i] == value,
        )

    def _conditional(self) -> str:
        points, wanted = self._condition()
        if self.random.random() < 0.5:
            hit = self._next_pc(wanted, self._before)
            return self._forward(points, hit, StopKind.BREAKPOINT, "continue to a condition")
        return self._backward(points, self._last_pc(wanted), StopKind.BREAKPOINT, "reverse-continue to a condition")

    def _watch(self) -> str:
        assert self.known.watched is not None
        writer = next((i for i in self._writers if i >= self._before), None)
        if writer == self.known.end - 1:
            return self._step()
        points = Points({}, (Watch(*self.known.watched, "w"),))
        if writer is None or self.random.random() < 0.5:
            return self._forward(points, writer and writer + 1, StopKind.WATCHPOINT, "watch")
        return self._as_gdb(Resume.CONTINUE, points, writer, "watch")

    def _as_gdb(self, how: Resume, points: Points, writer: int, what: str) -> str:
        """To a watch that an instruction hits, as a debugger is told of it."""
        t = self.opened.timeline
        last = self.known.end if t.live else t.end
        stop = Habits(t, Backward(t)).move(how, points)
        back = how is Resume.REVERSE_CONTINUE
        if not back and writer >= last:
            self._expect(stop, (StopKind.EXIT, StopKind.SIGNAL, StopKind.HISTORY_END), last, what)
            return what
        hit = writer + (t.engine.arch.nonsteppable_watchpoint is back)
        at_begin = back and hit == 0
        self._expect(stop, (StopKind.HISTORY_BEGIN if at_begin else StopKind.WATCHPOINT,), hit, f"{what} for GDB")
        return what

    # -- backward --------------------------------------------------------------------------------

    def _backward(self, points: Points, hit: int | None, kind: StopKind, what: str) -> str:
        stop = Backward(self.opened.timeline).run(points)
        if hit is not None:
            self._expect(stop, (kind,), hit, what)
        else:
            self._expect(stop, (StopKind.HISTORY_BEGIN,), 0, what)
        return what

    def _last_pc(self, wanted: Callable[[int], bool]) -> int | None:
        return next((i for i in range(self._before - 1, -1, -1) if wanted(i)), None)

    def _reverse_step(self) -> str:
        steps = self.random.choice((1, 1, 1, 2, 7, 100, 3000))
        stop = Backward(self.opened.timeline).step(NONE, steps)
        kind = StopKind.STEP if self._before else StopKind.HISTORY_BEGIN
        self._expect(stop, (kind,), max(self._before - steps, 0), f"reverse step {steps}")
        return f"reverse step {steps}"

    def _reverse_continue(self) -> str:
        points = self._breakpoints()
        hit = self._last_pc(lambda i: self.known.attempts(i) in points)
        return self._backward(Points(dict(points)), hit, StopKind.BREAKPOINT, "reverse-continue")

    def _reverse_watch(self) -> str:
        assert self.known.watched is not None
        t = self.opened.timeline
        writer = next((i for i in reversed(self._writers) if i < self._before), None)
        points = Points({}, (Watch(*self.known.watched, "w"),))
        if writer is not None and self.random.random() < 0.5:
            return self._as_gdb(Resume.REVERSE_CONTINUE, points, writer, "reverse watch")
        stop = Backward(t).run(points)
        if writer is None:
            self._expect(stop, (StopKind.HISTORY_BEGIN,), 0, "reverse watch")
            return "reverse watch, nothing"
        self._expect(stop, (StopKind.WATCHPOINT,), writer, "reverse watch")
        values = self.known.values
        assert (stop.old, stop.new) == (values[writer], values[writer + 1]), self._told(f"values {stop}")
        return "reverse watch"

    # -- seeks, snapshots, diversions ------------------------------------------------------------

    def _seek(self) -> str:
        t = self.opened.timeline
        to = self.random.choice((t.start, t.end, *(self.random.randint(t.start, t.end) for _ in range(4))))
        t.seek(to)
        assert t.icount == to, self._told(f"seek {to}")
        return f"seek {to}"

    def _seek_near(self) -> str:
        t = self.opened.timeline
        to = max(t.start, min(t.end, self._before + self.random.randint(-40, 40)))
        t.seek(to)
        assert t.icount == to, self._told(f"seek {to}")
        return f"seek near {to}"

    def _replay_break(self) -> str:
        t = self.opened.timeline
        if t.end < 2:
            return "nothing"
        at = self.random.randint(1, t.end - 1)
        if at < self._before:
            return self._backward(Points({}, (), at), at, StopKind.STEP, f"reverse to {at}")
        if at == self._before:
            return "nothing"
        return self._forward(Points({}, (), at), at, StopKind.STEP, f"forward to {at}")

    def _snapshot(self) -> str:
        t = self.opened.timeline
        if t.at_present and t.recorder is not None and t.guest.end is None:
            t.recorder.close_chunk()
        name = f"s{self.moves}"
        t.marks.take_snapshot(name)
        self._names[name] = t.icount
        return f"savevm {name}"

    def _load(self) -> str:
        if not self._names:
            return "nothing"
        name = self.random.choice(list(self._names))
        self.opened.timeline.seek(self._names[name])
        assert self.opened.timeline.icount == self._names[name], self._told(f"loadvm {name}")
        return f"loadvm {name}"

    def _delete(self) -> str:
        """One of the snapshots taken by name or by itself, often the one that the present builds on."""
        marks = self.opened.timeline.marks
        candidates = marks.stored[1:]
        if not candidates:
            return "nothing"
        stored = self.random.choice([candidates[-1], self.random.choice(candidates)])
        marks.delete_snapshot(stored)
        self._names.pop(stored.name, None)
        return f"delvm {stored.name}"

    def _divert(self) -> str:
        t = self.opened.timeline
        if t.at_present or t.icount == t.end or (self.known.watched is None):
            return "nothing"
        t.write_memory(self.known.watched[0], self.random.randbytes(self.known.watched[1]))
        number = self.random.randrange(8)
        t.write_register(number, self.random.getrandbits(32))
        assert t.diverted_from == self._before, self._told("diversion")
        if self.random.random() < 0.5:
            t.run(NONE, steps=self.random.randint(1, 50))
        if self.random.random() < 0.5:
            t.drop_diversion()
            assert t.icount == self._before, self._told("dropped diversion")
            return "diversion"
        if self._before == 0:
            t.drop_diversion()
            return "diversion"
        return f"diversion, {self._reverse_step()}"

    def _reopen(self) -> str:
        here = self.opened.timeline.icount
        self.opened.close()
        self.opened = replay(self.path)
        assert not self.opened.messages, self._told(str(self.opened.messages))
        t = self.opened.timeline
        t.seek(min(here, t.end))
        return "reopen"

    # -- the end ---------------------------------------------------------------------------------

    def finish(self, scratch: Path) -> None:
        self.opened.close()
        for position, digest in digests_straight(self.path, self._seen, scratch).items():
            seen, move = self._seen[position]
            assert seen == digest, self._told(f"position {position} after {move} is not what a straight replay has")
