"""Moves forward: through history, at the live present, where it goes on being recorded, and in a diversion.

A run goes in slices, up to the next input, digest or snapshot; what is to stop it is armed in the engine.
"""

from __future__ import annotations

import threading
from bisect import bisect_left

from rrgdb.engine.base import NO_STOPS, EngineError, Exit, ExitKind, Underlying
from rrgdb.guest import Guest
from rrgdb.recording.door import DEBUGGER, Divergence, Door, HistoryEnd
from rrgdb.recording.log import EventLog
from rrgdb.timeline.arrival import Arrival
from rrgdb.timeline.checkpoints import Mark
from rrgdb.timeline.disks import DiskError
from rrgdb.timeline.index import Index
from rrgdb.timeline.marks import Marks, UnusableSnapshotError
from rrgdb.timeline.recorder import Recorder
from rrgdb.timeline.stop import Points, Stop, StopKind
from rrgdb.timeline.trail import Trail
from rrgdb.timeline.where import Return, Run, Whereabouts

FOREVER = (1 << 62) - 1
LEAST_SKIP = 10_000_000
"""instructions that take longer to replay than a mark behind them takes to restore"""
TRAP_TAKEN = b"\2"
"""what a debugger did about a breakpoint instruction, among its writes"""
SIGTRAP = 5


class Forward:
    """Execution of one guest. All calls but ``interrupt`` come from the engine thread. See ``Timeline``."""

    def __init__(
        self,
        guest: Guest,
        door: Door,
        log: EventLog,
        marks: Marks,
        index: Index,
        where: Whereabouts,
        arrival: Arrival,
        recorder: Recorder | None,
    ) -> None:
        self._guest = guest
        self._engine = guest.engine
        self._door = door
        self._log = log
        self._marks = marks
        self._index = index
        self._where = where
        self._arrival = arrival
        self._trail = Trail(marks)
        self._interrupted = threading.Event()
        self._recorder = recorder
        self.debugged = False
        """a debugger holds the guest: live, a breakpoint instruction that it does not handle stops it"""
        self.moved = False
        """the guest was put where it stands: the next run stops also at a breakpoint there"""
        self.trapped: int | None = None
        """where the present stood when a breakpoint instruction stopped it"""
        self.told = 0
        """up to this position of history all output was shown"""
        self._stops_at_traps = False
        self._passed: int | None = None
        self._traps: list[int] = []
        self._inputs_seen = 0

    def interrupt(self) -> None:
        """Thread-safe: end the running move soon, at an exact position."""
        self._interrupted.set()
        self._engine.interrupt()
        self._door.woken.set()

    def clear_interrupt(self) -> None:
        """Forget an interrupt that nothing was running to heed."""
        # In this order one that comes now is forgotten whole, never by half.
        self._engine.clear_interrupt()
        self._interrupted.clear()

    @property
    def interrupted(self) -> bool:
        return self._interrupted.is_set()

    # -- to a position ---------------------------------------------------------------------------

    def advance(self, limit: int) -> Exit:
        """Run forward to ``limit`` or to whatever stops before; inputs are delivered on the way.

        LIMIT short of ``limit`` means that history or the guest has ended. INTERRUPT is the user's only. Divergence
        or EngineError in replay leave the guest where it was."""
        if self._where.at_present:
            return self._advance_live(limit)
        if not self._where.in_history:
            return self._run_slice(limit)
        here = self._engine.icount
        while True:
            try:
                exit_ = self._replay(limit)
                self._note_told()
                return exit_
            except HistoryEnd as e:
                self._recover(here)
                raise self._door.divergence(e.icount, "no further question", "asks one") from e
            except DiskError as e:
                # Another process may have deleted the snapshot that the disks build on: without it, once more.
                mark = self._marks.of(e.stored)
                if mark is not None:
                    self._arrival.pass_over(mark, UnusableSnapshotError(str(e)))
                self._recover(here)
                if mark is None or self._engine.icount != here:
                    raise
            except (Divergence, EngineError):
                self._recover(here)
                raise

    def _note_told(self) -> None:
        if self._door.all_told:
            self.told = max(self.told, self._engine.icount)

    def _run_slice(self, limit: int) -> Exit:
        while True:
            self._guest.debugged = self.debugged or not self._where.at_present
            exit_ = self._guest.run_until(limit)
            if exit_.kind is ExitKind.BREAKPOINT_TRAP and self._where.in_history:
                if not self._is_taken():
                    self._guest.debugged = False
                    return self._guest.run_until(limit)
                if self._stops_at_traps and self._engine.icount != self._passed:
                    return exit_
                self._engine.count_one()
                continue
            if exit_.kind is not ExitKind.INTERRUPT:
                return exit_
            self._engine.clear_interrupt()
            asked = self._door.has_pending_input or self._marks.disks.many
            if self.interrupted or (asked and self._where.at_present):
                return exit_

    def _is_taken(self) -> bool:
        """In history: the breakpoint instruction here did not end the guest, since a debugger helped it on."""
        event = self._door.next_event
        return (
            event is not None
            and event.icount == self._engine.icount + 1
            and (event.source, event.payload) == (DEBUGGER, TRAP_TAKEN)
        )

    def traps(self) -> list[int]:
        """Positions of history at breakpoint instructions that a debugger took, ascending."""
        inputs = self._log.inputs
        if self._inputs_seen > len(inputs):
            self._traps, self._inputs_seen = [], 0
        for i in range(self._inputs_seen, len(inputs)):
            event = inputs[i]
            if (event.source, event.payload) == (DEBUGGER, TRAP_TAKEN):
                self._traps.append(event.icount - 1)
        self._inputs_seen = len(inputs)
        return self._traps

    def _advance_live(self, limit: int) -> Exit:
        assert self._recorder is not None
        if self._marks.incomplete:
            raise EngineError(f"the guest cannot go on: {self._marks.incomplete}")
        while True:
            if self._guest.end is None and self._door.has_pending_input:
                self._door.take_inputs(self._engine.icount)
            target = min(limit, self._recorder.slice_end())
            try:
                exit_ = self._run_slice(target)
            except DiskError as e:
                self._marks.incomplete = str(e)
                raise
            self._recorder.slice_done()
            if exit_.kind is not ExitKind.INTERRUPT and exit_.kind is not ExitKind.LIMIT:
                return exit_
            if self._guest.end is not None or (exit_.kind is ExitKind.LIMIT and self._engine.icount >= limit):
                return Exit(ExitKind.LIMIT)
            if self.interrupted:
                return Exit(ExitKind.INTERRUPT)

    # -- replay ----------------------------------------------------------------------------------

    def _replay(self, limit: int) -> Exit:
        """``advance`` in history. The guest dies at the end of history only if ``limit`` lies behind it."""
        until = min(limit, self._where.end)
        while True:
            self.deliver_due()
            if self._engine.icount >= until or self._guest.end is not None:
                break
            due = self._door.next_input()
            target = until if due is None else min(until, due)
            digests = self._log.digests
            i = digests.index_at(self._engine.icount + 1)
            digest = digests.icount(i) if i < len(digests) else FOREVER
            mark = self._marks.next_stored(self._engine.icount)
            target = min(target, digest, FOREVER if mark is None else mark.icount)
            exit_ = self._run_slice(target)
            if exit_.kind is not ExitKind.LIMIT:
                # A watch stops behind the instruction: inputs at this position belong to it.
                self.deliver_due()
                return exit_
            stands = mark if mark is not None and mark.icount == self._engine.icount else None
            if self._engine.icount == digest or stands is not None:
                self._arrival.check()
                self._know_ram(stands)
                self._index.note()
        before_death = self._die() if limit > self._engine.icount else None
        self._door.flush_output()
        return before_death or Exit(ExitKind.LIMIT)

    def deliver_due(self) -> None:
        """In history, deliver the inputs of this position that were not yet."""
        due = self._door.next_input() if self._where.in_history else None
        if due is not None and due <= self._engine.icount:
            self._door.deliver(self._engine.icount)
            self._engine.rearm()

    def _know_ram(self, mark: Mark | None) -> None:
        """Replay stands at a snapshot, or at a digest of a snapshot that was given up (None)."""
        if mark is None:
            self._marks.keep_here()
            return
        try:
            self._marks.arrived_at(mark)
        except UnusableSnapshotError as e:
            self._arrival.pass_over(mark, e)

    def _die(self) -> Exit | None:
        """The instruction that killed the guest did not retire: at the last position it is tried again. Returns what
        stopped before it."""
        end = self._log.end
        if end is None or self._guest.end is not None or self._engine.icount != end.icount:
            return None
        exit_ = self._run_slice(self._engine.icount + 1)
        if self._guest.end is None:
            if exit_.kind is not ExitKind.LIMIT:
                return exit_
            raise self._door.divergence(
                end.icount, f"the guest's end ({end.payload.decode(errors='replace')})", "went on"
            )
        expected = self._arrival.digests()
        if expected and self._marks.state_digest() not in expected:
            raise self._arrival.differs()
        return None

    def _recover(self, icount: int) -> None:
        """Replay went wrong: back to a position of history that can be reached."""
        self._arrival.restore_best(icount)
        mark = self._engine.icount
        try:
            self._replay_through(icount)
        except (Divergence, HistoryEnd, EngineError):
            self._arrival.restore_best(mark)

    def _replay_through(self, icount: int) -> None:
        """Run forward in history to a position, whatever is armed and whoever interrupts."""
        stops = self._engine.stops
        try:
            while self._engine.icount < icount and self._guest.end is None:
                self._engine.arm(stops, ignored_at=self._engine.icount)
                if self._replay(icount).kind is ExitKind.INTERRUPT:
                    self.clear_interrupt()
            self.deliver_due()
        finally:
            self._engine.arm(stops)

    def restore(self, mark: Mark) -> None:
        """In history, put back a mark that is in no list. If it cannot be, replay comes to the same position."""
        try:
            self._marks.restore(mark)
        except UnusableSnapshotError as e:
            self._arrival.say(f"{e}; replaying instead\n")
            self._arrival.restore_best(mark.icount)
            self._replay_through(mark.icount)

    def return_to_present(self) -> None:
        """From wherever in a live guest's history."""
        present = self._where.present
        assert present is not None
        self.restore(present)
        self._where.happens(Return())

    # -- to a stop -------------------------------------------------------------------------------

    def run(self, points: Points, *, steps: int | None = None, within: tuple[int, int] | None = None) -> Stop:
        """Continue to the first stop; ``steps``: at most so many instructions; ``within``: while pc in [start, end)."""
        first, ended = self._engine.icount, self._guest.end is not None
        # A resume does not stop at once where it starts, but for a call that a debugger has set up.
        ignored, self.moved = None if self.moved else first, False
        if self._where.diversion is not None:
            self._where.happens(Run())
        stops = points.stops(within=within)
        while True:
            limit = FOREVER if steps is None else first + steps
            if points.icount is not None and points.icount > self._engine.icount:
                limit = min(limit, points.icount)
            ahead = FOREVER
            if self._where.in_history and steps is None and within is None and self._guest.end is None:
                ahead = self._skip_ahead(points, limit)
            self._engine.arm(stops, ignored)
            self._stops_at_traps, self._passed = True, ignored
            try:
                exit_, holds = self._run_armed(points, min(limit, ahead))
            finally:
                self._stops_at_traps = False
                self._engine.arm(NO_STOPS)
            if exit_.kind is ExitKind.LIMIT and self._engine.icount == ahead < limit and self._guest.end is None:
                continue
            stop = self._stop(points, exit_, holds, ended, limit)
            if stop is not None:
                return stop

    def _skip_ahead(self, points: Points, limit: int) -> int:
        """Pass over history in which nothing stops, and whose output was shown; returns a position behind which to ask
        again."""
        traps = self.traps()
        trap = bisect_left(traps, self._engine.icount)
        ceiling = min(self.told, limit, self._where.end, *traps[trap : trap + 1]) - 1
        if ceiling - self._engine.icount < LEAST_SKIP:
            return FOREVER
        under = self.underlying(points)
        if under is None:
            return FOREVER
        self._index.note()
        clear = self._index.clear_until(self._engine.icount, ceiling, points.breakpoints, under.pages)
        if self._marks.best(clear).icount - self._engine.icount >= LEAST_SKIP:
            self._arrival.restore_best(clear)
        return self._index.span_end(clear) or FOREVER

    def underlying(self, points: Points) -> Underlying | None:
        """What no watch hits without a write to, as things are mapped here; None if one may do so all the same."""
        if any(w.kind != "w" for w in points.watches):
            return None
        data, tables = set[int](), set[int]()
        for watch in points.watches:
            found = self._engine.underlying(watch)
            if found is None:
                return None
            data |= found.data
            tables |= found.tables
        return Underlying(frozenset(data), frozenset(tables))

    def _run_armed(self, points: Points, limit: int) -> tuple[Exit, bool]:
        """Advance over breakpoints whose conditions the engine cannot judge, and that do not hold. In history, leave a
        trail."""
        if not self._where.in_history:
            return self._run_over(points, limit)
        self._trail.begin(self._engine.icount)
        while (look := self._trail.next_look()) < min(limit, self._where.end):
            exit_, holds = self._run_over(points, look)
            if exit_.kind is not ExitKind.LIMIT or self._engine.icount != look or self._guest.end is not None:
                break
            self._trail.look(look)
        else:
            exit_, holds = self._run_over(points, limit)
        self._trail.end(self._engine.icount)
        return exit_, holds

    def _run_over(self, points: Points, limit: int) -> tuple[Exit, bool]:
        while True:
            exit_ = self.advance(limit)
            if exit_.kind is not ExitKind.BREAKPOINT:
                return exit_, False
            condition = points.breakpoints.get(self._engine.pc)
            if condition is None or condition():
                return exit_, True
            if self.interrupted:
                return Exit(ExitKind.INTERRUPT), False
            self._engine.arm(self._engine.stops, ignored_at=self._engine.icount)

    def _stop(self, points: Points, exit_: Exit, holds: bool, ended: bool, limit: int) -> Stop | None:
        pc = self._engine.pc
        if holds:
            return Stop(StopKind.BREAKPOINT, self._engine.icount, pc)
        if exit_.kind is ExitKind.WATCHPOINT:
            return Stop.at_watch(self._engine.icount, exit_.hits)
        if exit_.kind is ExitKind.INTERRUPT:
            self.clear_interrupt()
            return Stop(StopKind.INTERRUPT, self._engine.icount)
        if exit_.kind is ExitKind.RANGE:
            return Stop(StopKind.STEP, self._engine.icount)
        if exit_.kind is ExitKind.BREAKPOINT_TRAP:
            if self._where.at_present:
                self.trapped = self._engine.icount
            return Stop(StopKind.SIGNAL, self._engine.icount, value=SIGTRAP)
        end = self._guest.end
        if end is not None:
            if ended:
                return Stop(StopKind.HISTORY_END, self._engine.icount)
            if end.kind == "signal":
                return Stop(StopKind.SIGNAL, self._engine.icount, value=end.value)
            return Stop(StopKind.EXIT, self._engine.icount, value=end.value if end.kind == "exit" else 0)
        if self._engine.icount >= limit:
            return Stop(StopKind.STEP, self._engine.icount)
        if not self._where.live:
            return Stop(StopKind.HISTORY_END, self._engine.icount)
        if self._where.in_history:
            # The past has caught up with the present: from here on it is recorded.
            self.return_to_present()
            return None if not self.interrupted else Stop(StopKind.INTERRUPT, self._engine.icount)
        return None
