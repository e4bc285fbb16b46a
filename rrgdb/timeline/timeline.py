"""The timeline: position, seek, run, and the way between past and live present.

All time travel is ``seek``: put back the nearest mark at or before the target, replay forward. While a guest is live
there is one present, the end of history; going back never disturbs it, and running forward past it goes on recording.
A diversion is a throw-away branch: it begins with the first write in the past and ends with the next move in time.
"""

from __future__ import annotations

import struct
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from rrgdb.arch.base import MemoryFault
from rrgdb.engine.base import EngineError, Exit, ExitKind, armed
from rrgdb.engine.memory import PAGE
from rrgdb.errors import Error
from rrgdb.guest import Guest
from rrgdb.recording.door import DEBUGGER, Divergence, Door, HistoryEnd
from rrgdb.recording.log import EventLog
from rrgdb.timeline.checkpoints import Mark
from rrgdb.timeline.disks import DiskError
from rrgdb.timeline.index import Index
from rrgdb.timeline.marks import Marks, UnusableSnapshotError
from rrgdb.timeline.recorder import Recorder
from rrgdb.timeline.stop import Points, Stop, StopKind
from rrgdb.timeline.trail import Trail
from rrgdb.timeline.where import Divert, Drop, Leave, Return, Run, Whereabouts

NEAR = tuple(64 << 2 * k for k in range(10))
"""distances before a seek's target (instructions) at which checkpoints are left: the next step back is short"""
FOREVER = (1 << 62) - 1
LEAST_SKIP = 10_000_000
"""instructions that take longer to replay than a mark behind them takes to restore"""
_REGISTER, _MEMORY = struct.Struct("<BI"), struct.Struct("<BQ")
_TRAP_TAKEN = b"\2"
SIGTRAP = 5


class TimelineError(Error):
    """The move cannot be made: one line."""


class Timeline:
    """One guest in time. All calls but ``interrupt`` come from the engine thread.

    ``recorder``: of a guest that is new and recorded from here on; None for a recording at rest. ``say`` takes text for
    the user (progress).
    """

    def __init__(
        self, guest: Guest, door: Door, log: EventLog, marks: Marks, index: Index, recorder: Recorder | None = None
    ) -> None:
        self.guest = guest
        self.engine = guest.engine
        self.door = door
        self.log = log
        self.marks = marks
        self.index = index
        self._trail = Trail(marks)
        self.recorder = recorder
        self.say: Callable[[str], None] = lambda _line: None
        self._interrupted = threading.Event()
        self._where = Whereabouts(self.engine, door, log, live=recorder is not None)
        self._pc_written = False
        self.debugged = False
        """a debugger holds the guest: live, a breakpoint instruction that it does not handle stops it"""
        self._trapped: int | None = None
        """where the present stood when such an instruction stopped it"""
        self._stops_at_traps = False
        self._passed: int | None = None
        self._traps: list[int] = []
        self._inputs_seen = 0
        self._checked: set[str] = set()
        """snapshots (ids) whose state was compared with what was recorded"""
        self._told = 0
        """up to this position of history all output was shown"""
        door.wake = self.engine.interrupt
        door.attach_input(DEBUGGER, self._debugger_wrote)

    # -- where we are ----------------------------------------------------------------------------

    @property
    def icount(self) -> int:
        return self.engine.icount

    @property
    def start(self) -> int:
        """First position of history."""
        return 0

    @property
    def end(self) -> int:
        """Last position of history: of the log, or the live present."""
        return self._where.end

    @property
    def live(self) -> bool:
        """The guest can be run on past the end of history."""
        return self._where.live

    @property
    def at_present(self) -> bool:
        """The guest is live and stands at its present, not in history and not in a diversion."""
        return self._where.at_present

    @property
    def in_history(self) -> bool:
        """The guest stands in history: not at its live present, and not in a diversion."""
        return self._where.in_history

    @property
    def diverted_from(self) -> int | None:
        """Position at which the present diversion left history."""
        diversion = self._where.diversion
        return None if diversion is None else diversion.origin.icount

    def interrupt(self) -> None:
        """Thread-safe: end the running move soon, at an exact position."""
        self._interrupted.set()
        self.engine.interrupt()

    def clear_interrupt(self) -> None:
        """Forget an interrupt that nothing was running to heed."""
        # In this order one that comes now is forgotten whole, never by half.
        self.engine.clear_interrupt()
        self._interrupted.clear()

    @property
    def interrupted(self) -> bool:
        return self._interrupted.is_set()

    # -- running forward -------------------------------------------------------------------------

    def advance(self, limit: int) -> Exit:
        """Run forward to ``limit`` or to whatever stops before; inputs are delivered on the way.

        LIMIT short of ``limit`` means that history or the guest has ended. INTERRUPT is the user's only. Divergence
        or EngineError in replay leave the guest where it was."""
        if self.at_present:
            return self._advance_live(limit)
        if not self.in_history:
            return self._run_slice(limit)
        here = self.icount
        while True:
            try:
                exit_ = self._replay(limit)
                self._note_told()
                return exit_
            except HistoryEnd as e:
                self._recover(here)
                raise self.door.divergence(e.icount, "no further question", "asks one") from e
            except DiskError as e:
                # Another process may have deleted the snapshot that the disks build on: without it, once more.
                mark = self.marks.of(e.stored)
                if mark is not None:
                    self._pass_over(mark, UnusableSnapshotError(str(e)))
                self._recover(here)
                if mark is None or self.icount != here:
                    raise
            except (Divergence, EngineError):
                self._recover(here)
                raise

    def _note_told(self) -> None:
        if self.door.all_told:
            self._told = max(self._told, self.icount)

    def _run_slice(self, limit: int) -> Exit:
        while True:
            self.guest.debugged = self.debugged or not self.at_present
            exit_ = self.guest.run_until(limit)
            if exit_.kind is ExitKind.BREAKPOINT_TRAP and self.in_history:
                if not self._is_taken():
                    self.guest.debugged = False
                    return self.guest.run_until(limit)
                if self._stops_at_traps and self.icount != self._passed:
                    return exit_
                self.engine.count_one()
                continue
            if exit_.kind is not ExitKind.INTERRUPT:
                return exit_
            self.engine.clear_interrupt()
            if self.interrupted or (self.at_present and (self.door.has_pending_input or self.marks.disks.many)):
                return exit_

    def _is_taken(self) -> bool:
        """In history: the breakpoint instruction here did not end the guest, since a debugger helped it on."""
        event = self.door.next_event
        return (
            event is not None
            and event.icount == self.icount + 1
            and (event.source, event.payload) == (DEBUGGER, _TRAP_TAKEN)
        )

    def traps(self) -> list[int]:
        """Positions of history at breakpoint instructions that a debugger took, ascending."""
        inputs = self.log.inputs
        if self._inputs_seen > len(inputs):
            self._traps, self._inputs_seen = [], 0
        for i in range(self._inputs_seen, len(inputs)):
            event = inputs[i]
            if (event.source, event.payload) == (DEBUGGER, _TRAP_TAKEN):
                self._traps.append(event.icount - 1)
        self._inputs_seen = len(inputs)
        return self._traps

    def _advance_live(self, limit: int) -> Exit:
        assert self.recorder is not None
        if self.marks.incomplete:
            raise EngineError(f"the guest cannot go on: {self.marks.incomplete}")
        while True:
            if self.guest.end is None and self.door.has_pending_input:
                self.door.take_inputs(self.icount)
            target = min(limit, self.recorder.slice_end())
            try:
                exit_ = self._run_slice(target)
            except DiskError as e:
                self.marks.incomplete = str(e)
                raise
            self.recorder.slice_done()
            if exit_.kind is not ExitKind.INTERRUPT and exit_.kind is not ExitKind.LIMIT:
                return exit_
            if self.guest.end is not None or (exit_.kind is ExitKind.LIMIT and self.icount >= limit):
                return Exit(ExitKind.LIMIT)
            if self.interrupted:
                return Exit(ExitKind.INTERRUPT)

    # -- replay ----------------------------------------------------------------------------------

    def _replay(self, limit: int) -> Exit:
        """``advance`` in history. The guest dies at the end of history only if ``limit`` lies behind it."""
        until = min(limit, self.end)
        while True:
            self._deliver_due()
            if self.icount >= until or self.guest.end is not None:
                break
            due = self.door.next_input()
            target = until if due is None else min(until, due)
            digests = self.log.digests
            i = digests.index_at(self.icount + 1)
            digest = digests.icount(i) if i < len(digests) else FOREVER
            mark = self.marks.next_stored(self.icount)
            target = min(target, digest, FOREVER if mark is None else mark.icount)
            exit_ = self._run_slice(target)
            if exit_.kind is not ExitKind.LIMIT:
                # A watch stops behind the instruction: inputs at this position belong to it.
                self._deliver_due()
                return exit_
            stands = mark if mark is not None and mark.icount == self.icount else None
            if self.icount == digest or stands is not None:
                self._check_here()
                self._know_ram(stands)
                self.index.note()
        before_death = self._die() if limit > self.icount else None
        self.door.flush_output()
        return before_death or Exit(ExitKind.LIMIT)

    def _deliver_due(self) -> None:
        due = self.door.next_input() if self.in_history else None
        if due is not None and due <= self.icount:
            self.door.deliver(self.icount)
            self.engine.rearm()

    def _know_ram(self, mark: Mark | None) -> None:
        """Replay stands at a snapshot, or at a digest of a snapshot that was given up (None)."""
        if mark is None:
            self.marks.keep_here()
            return
        try:
            self.marks.arrived_at(mark)
        except UnusableSnapshotError as e:
            self._pass_over(mark, e)

    def _pass_over(self, mark: Mark, why: UnusableSnapshotError) -> None:
        if not self.marks.drop(mark):
            raise TimelineError(str(why)) from why
        if mark.stored is not None:
            self.say(f"{why}; passed over\n")

    def _check_here(self) -> None:
        """Compare the state on arrival with the digests recorded for this position. Raises Divergence.

        A digest may have been taken before, between or behind the inputs of a position, or behind the guest's end."""
        expected = self._digests_here()
        if not expected or self.marks.state_digest() in expected:
            return
        while self.door.next_input() == self.icount:
            self.door.deliver(self.icount, 1)
            self.engine.rearm()
            if self.marks.state_digest() in expected:
                return
        end = self.log.end
        if end is None or end.icount != self.icount or self.guest.end is not None:
            raise self._differs()

    def _digests_here(self) -> set[bytes]:
        digests = self.log.digests
        i = digests.index_at(self.icount)
        found = set()
        while i < len(digests) and digests.icount(i) == self.icount:
            found.add(digests[i].payload)
            i += 1
        return found

    def stand_at(self, mark: Mark) -> None:
        """Stand at a snapshot, before inputs that came behind it, and compare it with what was recorded there. Raises
        UnusableSnapshotError, Divergence."""
        self.drop_diversion()
        self.marks.restore(mark)
        self._check_here()

    def _differs(self) -> Divergence:
        i = self.log.digests.index_at(self.icount)
        before = self.log.digests.icount(i - 1) if i else self.start
        return self.door.divergence(
            self.icount, f"another state behind icount {before}", "reached one that differs from it here"
        )

    def _die(self) -> Exit | None:
        """The instruction that killed the guest did not retire: at the last position it is tried again. Returns what
        stopped before it."""
        end = self.log.end
        if end is None or self.guest.end is not None or self.icount != end.icount:
            return None
        exit_ = self._run_slice(self.icount + 1)
        if self.guest.end is None:
            if exit_.kind is not ExitKind.LIMIT:
                return exit_
            raise self.door.divergence(
                end.icount, f"the guest's end ({end.payload.decode(errors='replace')})", "went on"
            )
        expected = self._digests_here()
        if expected and self.marks.state_digest() not in expected:
            raise self._differs()
        return None

    def _recover(self, icount: int) -> None:
        """Replay went wrong: back to a position of history that can be reached."""
        self._restore_best(icount)
        mark = self.icount
        try:
            self._replay_through(icount)
        except (Divergence, HistoryEnd, EngineError):
            self._restore_best(mark)

    def _replay_through(self, icount: int) -> None:
        """Run forward in history to a position, whatever is armed and whoever interrupts."""
        stops = self.engine.stops
        try:
            while self.icount < icount and self.guest.end is None:
                self.engine.arm(replace(stops, ignored_at=self.icount))
                if self._replay(icount).kind is ExitKind.INTERRUPT:
                    self.clear_interrupt()
            self._deliver_due()
        finally:
            self.engine.arm(stops)

    # -- seeking ---------------------------------------------------------------------------------

    def seek(self, icount: int) -> None:
        """Go to a position of history. TimelineError outside it; an interrupt leaves the position exact but elsewhere
        only if ``interrupted`` says so."""
        if not self.start <= icount <= self.end:
            raise TimelineError(f"icount {icount} is outside history ({self.start} to {self.end})")
        self.drop_diversion()
        self._pc_written = False
        if self.at_present and icount < self.icount:
            self._leave_present()
        present = self._where.present
        if present is not None and icount == present.icount:
            self._return_to_present()
            return
        if not self.marks.best(icount).icount <= self.icount <= icount:
            self._restore_best(icount)
        self._replay_to(icount)

    def seek_regardless(self, icount: int) -> None:
        """As ``seek``, and no interrupt ends it: for short ways. Interrupts are forgotten."""
        self.clear_interrupt()
        self.seek(icount)
        while self.interrupted:
            self.clear_interrupt()
            self.seek(icount)

    def _restore_best(self, icount: int) -> None:
        """Put the guest to the latest usable mark at or before a position."""
        while True:
            mark = self.marks.best(icount)
            try:
                self.put_back(mark)
                self._vouch_for(mark)
            except UnusableSnapshotError as e:
                self._pass_over(mark, e)
            else:
                return

    def put_back(self, mark: Mark) -> None:
        """Restore a mark of history. What a snapshot on disk brings is compared, before anything is built on it, with
        the digest recorded for its position, if there is one. After UnusableSnapshotError: restore another.

        Automatic snapshots have a digest of their own. That of another one's position may have been taken behind inputs
        that the snapshot does not have yet; of one before inputs that it has, nothing can be told, and nothing of one
        behind the guest's end."""
        self.marks.restore(mark)
        stored, expected = mark.stored, self._digests_here()
        if stored is None or mark.state is not None or stored.id in self._checked or not expected:
            return
        here, delivered = self.icount, 0
        inputs, end = self.log.inputs, self.log.end
        first = inputs.index_at(here)
        brought = first < len(inputs) and inputs.icount(first) == here and self.door.next_input() != here
        unknown = (brought and not stored.automatic) or (end is not None and end.icount == here)
        agrees = unknown or self.marks.state_digest() in expected
        while not agrees and not stored.automatic and self.door.next_input() == here:
            delivered += self.door.deliver(here, 1)
            agrees = self.marks.state_digest() in expected
        if not agrees:
            raise UnusableSnapshotError(f"snapshot {stored.name} is not the state recorded at icount {here}")
        if delivered:
            self.marks.restore(mark)
        self._checked.add(stored.id)

    def _vouch_for(self, mark: Mark) -> None:
        """Where no starting snapshot tells that the store is of this recording, what was recorded at the first one that
        is used must. UnusableSnapshotError if it does not."""
        if mark.stored is None or self.marks.vouched:
            return
        name = mark.stored.name
        if not self._digests_here():
            raise UnusableSnapshotError(f"snapshot {name}: no digest tells whether it is of this recording")
        try:
            self._check_here()
        except Divergence as e:
            raise UnusableSnapshotError(f"snapshot {name}: {e}") from e
        self.marks.vouched = True

    def _restore(self, mark: Mark) -> None:
        """In history, put back a mark that is in no list. If it cannot be, replay comes to the same position."""
        try:
            self.marks.restore(mark)
        except UnusableSnapshotError as e:
            self.say(f"{e}; replaying instead\n")
            self._restore_best(mark.icount)
            self._replay_through(mark.icount)

    @contextmanager
    def excursion(self) -> Iterator[None]:
        """Within history, the guest may be taken anywhere inside; then it is put back into the state that it is in."""
        here = self.marks.detached_here()
        try:
            yield
        finally:
            self._restore(here)

    def _replay_to(self, icount: int) -> None:
        """Run forward in history, leaving checkpoints near the target."""
        for distance in reversed(NEAR):
            at = icount - distance
            if at > self.icount and not self.interrupted:
                self.advance(at)
                if self.icount == at:
                    self.marks.keep_here()
        while self.icount < icount and not self.interrupted:
            if self.guest.end is not None:
                ended = self.icount
                self._restore_best(ended)
                raise self.door.divergence(ended, f"instructions up to {icount}", "ends")
            self.advance(icount)
        self._deliver_due()
        end = self.log.end
        if self.icount == icount and end is not None and end.icount == icount:
            self.advance(icount + 1)

    def _leave_present(self) -> None:
        assert self.recorder is not None
        if self.guest.end is None:
            self.recorder.close_chunk()
        if not self.marks.incomplete:
            self.index.note()
        self._told = self.icount
        self._where.happens(Leave(self.marks.detached_here()))

    def _return_to_present(self) -> None:
        present = self._where.present
        assert present is not None
        self._restore(present)
        self._where.happens(Return())

    def stop_where_it_starts(self) -> None:
        """The next run stops also at a breakpoint where it begins: the guest has been moved there."""
        self._pc_written = True

    # -- forward moves ---------------------------------------------------------------------------

    def run(self, points: Points, *, steps: int | None = None, within: tuple[int, int] | None = None) -> Stop:
        """Continue to the first stop; ``steps``: at most so many instructions; ``within``: while pc in [start, end)."""
        first, ended = self.icount, self.guest.end is not None
        # A resume does not stop at once where it starts, but for a call that a debugger has set up.
        ignored, self._pc_written = None if self._pc_written else first, False
        if self._where.diversion is not None:
            self._where.happens(Run())
        while True:
            limit = FOREVER if steps is None else first + steps
            if points.icount is not None and points.icount > self.icount:
                limit = min(limit, points.icount)
            ahead = FOREVER
            if self.in_history and steps is None and within is None and self.guest.end is None:
                ahead = self._skip_ahead(points, limit)
            stops = replace(points.stops(), within=within, ignored_at=ignored)
            with armed(self.engine, stops):
                self._stops_at_traps, self._passed = True, ignored
                try:
                    exit_, holds = self._run_armed(points, min(limit, ahead))
                finally:
                    self._stops_at_traps = False
            if exit_.kind is ExitKind.LIMIT and self.icount == ahead < limit and self.guest.end is None:
                continue
            stop = self._forward_stop(points, exit_, holds, ended, limit)
            if stop is not None:
                return stop

    def _skip_ahead(self, points: Points, limit: int) -> int:
        """Pass over history in which nothing stops, and whose output was shown; returns a position behind which to ask
        again."""
        traps = self.traps()
        trap = bisect_left(traps, self.icount)
        ceiling = min(self._told, limit, self.end, *traps[trap : trap + 1]) - 1
        if ceiling - self.icount < LEAST_SKIP:
            return FOREVER
        pages = self.watched_pages(points)
        if pages is None:
            return FOREVER
        self.index.note()
        clear = self.index.clear_until(self.icount, ceiling, points.breakpoints, pages)
        if self.marks.best(clear).icount - self.icount >= LEAST_SKIP:
            self._restore_best(clear)
        return self.index.span_end(clear) or FOREVER

    def watched_pages(self, points: Points) -> set[int] | None:
        """RAM pages without a write to which no watch hits; None if it may do so all the same."""
        engine = self.engine
        if not points.watches:
            return set()
        if engine.translates or any(w.kind != "w" for w in points.watches):
            return None
        pages: set[int] = set()
        try:
            for watch in points.watches:
                if engine.out_of_reach(watch.address, watch.length):
                    continue
                first, _ = engine.ram.locate(watch.address)
                last, _ = engine.ram.locate(watch.address + max(watch.length, 1) - 1)
                pages.update(range(first // PAGE, last // PAGE + 1))
        except MemoryFault:
            return None
        return pages

    def _run_armed(self, points: Points, limit: int) -> tuple[Exit, bool]:
        """Advance over breakpoints whose conditions the engine cannot judge, and that do not hold. In history, leave a
        trail."""
        if not self.in_history:
            return self._run_over(points, limit)
        self._trail.begin(self.icount)
        while (look := self._trail.next_look()) < min(limit, self.end):
            exit_, holds = self._run_over(points, look)
            if exit_.kind is not ExitKind.LIMIT or self.icount != look or self.guest.end is not None:
                break
            self._trail.look(look)
        else:
            exit_, holds = self._run_over(points, limit)
        self._trail.end(self.icount)
        return exit_, holds

    def _run_over(self, points: Points, limit: int) -> tuple[Exit, bool]:
        while True:
            exit_ = self.advance(limit)
            if exit_.kind is not ExitKind.BREAKPOINT:
                return exit_, False
            condition = points.breakpoints.get(self.engine.pc)
            if condition is None or condition():
                return exit_, True
            if self.interrupted:
                return Exit(ExitKind.INTERRUPT), False
            self.engine.arm(replace(self.engine.stops, ignored_at=self.icount))

    def _forward_stop(self, points: Points, exit_: Exit, holds: bool, ended: bool, limit: int) -> Stop | None:
        pc = self.engine.pc
        if holds:
            return Stop(StopKind.BREAKPOINT, self.icount, pc)
        if exit_.kind is ExitKind.WATCHPOINT:
            return Stop.at_watch(self.icount, exit_.hits)
        if exit_.kind is ExitKind.INTERRUPT:
            self.clear_interrupt()
            return Stop(StopKind.INTERRUPT, self.icount)
        if exit_.kind is ExitKind.RANGE:
            return Stop(StopKind.STEP, self.icount)
        if exit_.kind is ExitKind.BREAKPOINT_TRAP:
            if self.at_present:
                self._trapped = self.icount
            return Stop(StopKind.SIGNAL, self.icount, value=SIGTRAP)
        end = self.guest.end
        if end is not None:
            if ended:
                return Stop(StopKind.HISTORY_END, self.icount)
            if end.kind == "signal":
                return Stop(StopKind.SIGNAL, self.icount, value=end.value)
            return Stop(StopKind.EXIT, self.icount, value=end.value if end.kind == "exit" else 0)
        if self.icount >= limit:
            return Stop(StopKind.STEP, self.icount)
        if not self.live:
            return Stop(StopKind.HISTORY_END, self.icount)
        if self.in_history:
            # The past has caught up with the present: from here on it is recorded.
            self._return_to_present()
            return None if not self.interrupted else Stop(StopKind.INTERRUPT, self.icount)
        return None

    # -- diversions and writes -------------------------------------------------------------------

    def before_write(self) -> bool:
        """A debugger is about to write. True: the write belongs to the live present and is recorded (``record_write``);
        False: it goes into a diversion, which this begins if there is none."""
        present = self._where.present
        if self.in_history and present is not None and self.icount == present.icount:
            self._return_to_present()
        if self.at_present and self.guest.end is None:
            if self._trapped == self.icount:
                # The debugger takes the exception, which counts as one that the guest takes; what it does comes behind.
                self.engine.count_one()
                self.door.inject(DEBUGGER, self.icount, _TRAP_TAKEN)
            return True
        if self.at_present:
            self._leave_present()
        if self.in_history:
            self._where.happens(Divert(self.marks.detached_here(), self.engine.read_registers()))
            self.guest.resurrect()
        return False

    def write_register(self, number: int, value: int) -> None:
        """Write a register by its number in ``Arch.registers``."""
        self._pc_written |= self.engine.arch.registers[number].name == self.engine.arch.pc
        if self.before_write():
            payload = _REGISTER.pack(0, number) + value.to_bytes(64, "little")
            self.door.inject(DEBUGGER, self.icount, payload)
            return
        self._apply_register(number, value)
        diversion = self._where.diversion
        if diversion is not None and diversion.ran and self.engine.read_registers() == diversion.registers:
            # An inferior call is over: GDB has put back all registers.
            self.drop_diversion()

    def write_memory(self, address: int, data: bytes) -> None:
        """MemoryFault if any byte of the range does not exist; nothing is written then."""
        if self.before_write():
            self.engine.check_memory(address, len(data))
            self.door.inject(DEBUGGER, self.icount, _MEMORY.pack(1, address) + data)
            return
        self.engine.write_memory(address, data)

    def _apply_register(self, number: int, value: int) -> None:
        self.engine.write(self.engine.arch.registers[number].name, value)

    def _debugger_wrote(self, payload: bytes) -> None:
        """The sink of the debugger's writes, live and in replay."""
        if payload[:1] == b"\0" and len(payload) == _REGISTER.size + 64:
            _, number = _REGISTER.unpack_from(payload)
            if number < len(self.engine.arch.registers):
                try:
                    self._apply_register(number, int.from_bytes(payload[_REGISTER.size :], "little"))
                except EngineError:
                    # A value that the CPU does not take: it did not take it live either, and the debugger was told.
                    if self.at_present:
                        raise
                return
        elif payload == _TRAP_TAKEN:
            return
        elif payload[:1] == b"\1" and len(payload) >= _MEMORY.size:
            _, address = _MEMORY.unpack_from(payload)
            try:
                self.engine.write_memory(address, payload[_MEMORY.size :])
            except MemoryFault as e:
                raise self.door.divergence(self.icount, "a debugger's write to memory", f"has {e}") from e
            return
        raise self.door.divergence(self.icount, "a debugger's write", f"{len(payload)} bytes that are none")

    def drop_diversion(self) -> None:
        """Back to where the diversion left history, if there is one."""
        diversion = self._where.diversion
        if diversion is None:
            return
        self._where.happens(Drop())
        self._restore(diversion.origin)
        present = self._where.present
        if present is not None and present.icount == self.icount:
            self._return_to_present()

    def close(self) -> None:
        """Finish: the recording holds everything up to the live present. Raises LogError."""
        if self.recorder is not None:
            self.drop_diversion()
            if self._where.present is not None:
                self._return_to_present()
            self.recorder.stop()
