"""Moving in time, and snapshots, as a debugger asks for them: two faces of the debuggee that a timeline is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rrgdb.arch.cpu import MemoryFault
from rrgdb.arch.disassemble import disassemble
from rrgdb.engine.base import Engine, EngineError
from rrgdb.opening import Opened
from rrgdb.recording.door import Divergence
from rrgdb.recording.log import LogError
from rrgdb.rsp.debuggee import DebuggeeError, EventInfo, HistoryLine, ReplayInfo, SnapshotInfo, StopReply
from rrgdb.snapshots import naming
from rrgdb.snapshots.entries import Stored
from rrgdb.snapshots.errors import StoreError
from rrgdb.snapshots.naming import START
from rrgdb.text import shown
from rrgdb.timeline.timeline import Timeline, TimelineError

EEXIST, ENOENT, EBUSY, EIO = 17, 2, 16, 5
MAX_HISTORY = 10_000


class Traveller(Protocol):
    """Whose time it is. ``replay_break``: the icount at which it stops when it passes; ``stopped``: as in
    ``ReplayInfo``."""

    opened: Opened
    stopped: str
    replay_break: int | None

    def go(self, icount: int) -> StopReply: ...


class Travel:
    """Implements ``rrgdb.rsp.debuggee.Snapshots``, and so ``Time``. Made when it is asked for: a traveller that held it
    would be a part of a circle, and its guest's memory would wait for the collector."""

    def __init__(self, traveller: Traveller) -> None:
        self._traveller = traveller
        self._timeline = traveller.opened.timeline

    def replay_info(self) -> ReplayInfo:
        t, recording = self._timeline, self._traveller.opened.recording
        origin, stopped = t.diverted_from, self._traveller.stopped
        return ReplayInfo(mode(t), t.icount, t.start, t.end, shown(str(recording.path)), origin, stopped)

    def engine_info(self) -> Sequence[str]:
        counts = self._timeline.engine.counts
        share = 100 * counts.single / max(counts.executed, 1)
        return [
            f"instructions executed here: {counts.executed:,}",
            f"  looked at one by one: {counts.single:,} ({share:.1f} %)",
            f"blocks that their own code counts now: {counts.blocks:,}",
            counts.way,
        ]

    def seek(self, where: str) -> StopReply:
        t = self._timeline
        if where == START:
            return self._traveller.go(t.start)
        if where == "end":
            return self._traveller.go(t.end)
        stored = self._find(where)
        if stored is not None:
            return self._traveller.go(stored.icount)
        try:
            icount = int(where, 0)
        except ValueError:
            raise DebuggeeError(f"{where}: expected an icount, start, end, or the name of a snapshot", ENOENT) from None
        return self._traveller.go(icount)

    def seek_relative(self, delta: int) -> StopReply:
        t = self._timeline
        here = t.icount if t.diverted_from is None else t.diverted_from
        return self._traveller.go(max(t.start, min(t.end, here + delta)))

    def history(self, count: int) -> Sequence[HistoryLine]:
        t = self._timeline
        if t.diverted_from is not None:
            raise DebuggeeError("a diversion has no history: go back to the recording first", EBUSY)
        engine, here = t.engine, t.icount
        first = max(t.start, here - min(count, MAX_HISTORY))
        lines: list[HistoryLine] = []
        t.clear_interrupt()
        with told():
            t.seek(first)
            while t.icount < here and not t.interrupted:
                pc = engine.pc
                code = bytes_at(engine, pc, engine.arch.max_instruction_length)
                size, text = disassemble(engine.arch, code, pc, engine.arch.in_second_set(engine))
                lines.append(HistoryLine(t.icount, pc, f"{code[:size].hex()}  {text}"))
                t.advance(t.icount + 1)
            t.clear_interrupt()
            t.seek(here)
        return lines

    # -- snapshots and events --------------------------------------------------------------------

    def _find(self, name: str) -> Stored | None:
        stored = self._timeline.marks.stored
        return next((s for s in stored if s.name == name), None) or next(
            (s for s in stored if shown(s.name) == name), None
        )

    def save_snapshot(self, name: str) -> None:
        problem = naming.problem(name)
        if problem is not None:
            raise DebuggeeError(problem, EEXIST)
        t = self._timeline
        if t.diverted_from is not None:
            raise DebuggeeError("a diversion is thrown away: it takes no snapshots", EBUSY)
        with told():
            if t.at_present and t.recorder is not None and t.guest.end is None:
                t.recorder.close_chunk()
            old = self._find(name)
            if old is not None:
                t.marks.delete_snapshot(old)
            t.marks.take_snapshot(name)
            t.marks.flush()

    def load_snapshot(self, name: str) -> StopReply:
        return self._traveller.go(self._known(name).icount)

    def delete_snapshot(self, name: str) -> None:
        stored = self._known(name)
        with told():
            self._timeline.marks.delete_snapshot(stored)
            self._timeline.marks.flush()

    def _known(self, name: str) -> Stored:
        stored = self._find(name)
        if stored is None:
            raise DebuggeeError(f"there is no snapshot {name}", ENOENT)
        return stored

    def snapshots(self) -> Sequence[SnapshotInfo]:
        sizes = self._timeline.marks.sizes(lambda line: self._timeline.say(f"{line}\n"))
        return [SnapshotInfo(shown(s.name), s.icount, sizes[s.id], s.automatic) for s in self._timeline.marks.stored]

    def events(self, limit: int) -> Sequence[EventInfo]:
        log, here = self._timeline.log, self._timeline.icount
        found = []
        for events in (log.answers, log.inputs, log.digests):
            first = events.index_at(here)
            found += [
                EventInfo(e.icount, f"{e.kind.name.lower()} {shown(e.source)}", len(e.payload))
                for e in events[first : first + limit]
            ]
        if log.end is not None:
            found.append(EventInfo(log.end.icount, "end", len(log.end.payload)))
        return sorted(found, key=lambda e: e.icount)[:limit]

    def replay_break(self, icount: int) -> None:
        self._traveller.replay_break = icount

    def replay_delete_break(self) -> None:
        self._traveller.replay_break = None


def mode(timeline: Timeline) -> str:
    """As in ``ReplayInfo``."""
    return "diversion" if timeline.diverted_from is not None else "record" if timeline.at_present else "replay"


def bytes_at(engine: Engine, address: int, length: int) -> bytes:
    """b'' where there is no memory."""
    try:
        return engine.read_memory(address, length)
    except MemoryFault:
        return b""


@contextmanager
def told() -> Iterator[None]:
    """What the timeline cannot do, in the debugger's terms."""
    try:
        yield
    except (TimelineError, EngineError, StoreError, LogError, Divergence) as e:
        raise DebuggeeError(shown(str(e)), EIO) from e
