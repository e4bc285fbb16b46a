"""The timeline: position, seek, run, and the way between past and live present.

All time travel is ``seek``: put back the nearest mark at or before the target, replay forward. While a guest is live
there is one present, the end of history; going back never disturbs it, and running forward past it goes on recording.
A diversion is a throw-away branch: it begins with the first write in the past and ends with the next move in time.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rrgdb.engine.base import Exit, ExitKind
from rrgdb.recording.doors import DEBUGGER, Divergence, Door, Mode
from rrgdb.recording.log import EventLog
from rrgdb.timeline.guest import Guest
from rrgdb.timeline.marks import Mark, Marks, UnusableSnapshotError
from rrgdb.timeline.recorder import Recorder
from rrgdb.timeline.stop import Points, Stop, StopKind

NEAR = tuple(4096 << 2 * k for k in range(7))
"""distances before a seek's target (instructions) at which checkpoints are left: the next step back is short"""
FOREVER = (1 << 62) - 1
_REGISTER, _MEMORY = struct.Struct("<BI"), struct.Struct("<BQ")


class TimelineError(Exception):
    """The move cannot be made: one line."""


class Timeline:
    """One guest in time. All calls but ``interrupt`` come from the engine thread.

    ``recorder`` is None for a recording at rest (see ``go_live``). ``say`` takes text for the user (progress).
    """

    def __init__(self, guest: Guest, door: Door, log: EventLog, marks: Marks) -> None:
        self.guest = guest
        self.engine = guest.engine
        self.door = door
        self.log = log
        self.marks = marks
        self.recorder: Recorder | None = None
        self.say: Callable[[str], None] = lambda _line: None
        self._interrupted = threading.Event()
        self._present: Mark | None = None
        self._origin: Mark | None = None
        self._origin_registers = b""
        self._diversion_ran = False
        self._live_end = 0
        door.wake = self.engine.interrupt
        door.attach_input(DEBUGGER, self._debugger_wrote)
        door.mode = Mode.REPLAY

    def go_live(self, recorder: Recorder) -> None:
        """The guest is new: from here on it is recorded."""
        self.recorder = recorder
        self.door.mode = Mode.RECORD

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
        if self.recorder is None:
            return self.log.horizon if self.log.end is None else self.log.end.icount
        return self.icount if self._present is None and self._origin is None else self._live_end

    @property
    def live(self) -> bool:
        """The guest can be run on past the end of history."""
        return self.recorder is not None

    @property
    def at_present(self) -> bool:
        """The guest is live and stands at its present, not in history and not in a diversion."""
        return self.live and self._present is None and self._origin is None

    @property
    def diverted_from(self) -> int | None:
        """Position at which the present diversion left history."""
        return None if self._origin is None else self._origin.icount

    def interrupt(self) -> None:
        """Thread-safe: end the running move soon, at an exact position."""
        self._interrupted.set()
        self.engine.interrupt()

    def clear_interrupt(self) -> None:
        """Forget an interrupt that nothing was running to heed."""
        self._interrupted.clear()
        self.engine.clear_interrupt()

    @property
    def interrupted(self) -> bool:
        return self._interrupted.is_set()

    # -- running forward -------------------------------------------------------------------------

    @contextmanager
    def armed(self, points: Points, *, collect: bool = False) -> Iterator[None]:
        """Points stop (or are noted) inside; nothing is left armed behind."""
        engine = self.engine
        engine.set_breakpoints((a, c is not None) for a, c in points.breakpoints.items())
        engine.set_watches(points.watches)
        engine.set_collect(collect)
        engine.ignore_stops_at(None if collect else engine.icount)
        try:
            yield
        finally:
            engine.set_breakpoints(())
            if points.watches:
                engine.set_watches(())
            engine.set_collect(False)
            engine.set_range(0, 0)
            engine.ignore_stops_at(None)

    def advance(self, limit: int) -> Exit:
        """Run forward to ``limit`` or to whatever stops before; inputs are delivered on the way.

        LIMIT short of ``limit`` means that history or the guest has ended. INTERRUPT is the user's only.
        """
        if self.at_present:
            return self._advance_live(limit)
        if self._origin is not None:
            return self._run_slice(limit)
        return self._advance_replay(min(limit, self.end))

    def _run_slice(self, limit: int) -> Exit:
        while True:
            exit_ = self.guest.run_until(limit)
            if exit_.kind is not ExitKind.INTERRUPT:
                return exit_
            self.engine.clear_interrupt()
            if self.interrupted or self.door.has_pending_input:
                return exit_

    def _advance_live(self, limit: int) -> Exit:
        assert self.recorder is not None
        while True:
            if self.guest.end is None and self.door.has_pending_input:
                self.door.take_inputs(self.icount)
            target = min(limit, self.recorder.slice_end())
            exit_ = self._run_slice(target)
            self.recorder.slice_done()
            if exit_.kind is ExitKind.INTERRUPT and not self.interrupted:
                continue
            if exit_.kind is not ExitKind.LIMIT or self.icount >= limit or self.guest.end is not None:
                return exit_

    def _advance_replay(self, limit: int) -> Exit:
        while self.icount < limit and self.guest.end is None:
            self._deliver_due()
            due = self.door.next_input()
            target = limit if due is None else min(limit, due)
            boundary = self.marks.next_stored(self.icount)
            if boundary is not None:
                target = min(target, boundary.icount)
            exit_ = self._run_slice(target)
            if boundary is not None and self.icount == boundary.icount and exit_.kind is ExitKind.LIMIT:
                self.check_digest()
                self.marks.arrived_at(boundary)
            if exit_.kind is ExitKind.INTERRUPT and not self.interrupted:
                continue
            if exit_.kind is not ExitKind.LIMIT:
                return exit_
        self._deliver_due()
        self._settle_end()
        self.door.flush_output()
        return Exit(ExitKind.LIMIT)

    def _settle_end(self) -> None:
        """An instruction that killed the guest did not retire: at the position before it, it is tried again."""
        end = self.log.end
        if end is None or self.guest.end is not None or self.icount != end.icount:
            return
        self._run_slice(self.icount + 1)
        if self.guest.end is None and not self.interrupted:
            raise Divergence(end.icount, f"the guest's end ({end.payload.decode()})", "went on")

    def _deliver_due(self) -> None:
        if self.door.next_input() == self.icount:
            self.door.deliver(self.icount)
            self.engine.rearm()

    def check_digest(self) -> None:
        """Compare the present state with the digest recorded at this position, if there is one. Raises Divergence."""
        recorded = self.log.digests
        i = recorded.index_at(self.icount)
        if i >= len(recorded) or recorded.icount(i) != self.icount:
            return
        expected = recorded[i].payload
        if self.marks.state_digest() == expected:
            return
        # The digest may have been taken behind inputs at this very position.
        self._deliver_due()
        if self.marks.state_digest() != expected:
            before = recorded.icount(i - 1) if i else self.start
            raise Divergence(
                self.icount, f"another state behind icount {before}", "reached one that differs from it here"
            )

    # -- seeking ---------------------------------------------------------------------------------

    def seek(self, icount: int) -> None:
        """Go to a position of history. TimelineError outside it; an interrupt leaves the position exact but elsewhere
        only if ``interrupted`` says so."""
        if not self.start <= icount <= self.end:
            raise TimelineError(f"icount {icount} is outside history ({self.start} to {self.end})")
        self.drop_diversion()
        if self.live and self._present is None and icount < self.icount:
            self._leave_present()
        if self._present is not None and icount == self._present.icount:
            self._return_to_present()
            return
        mark = self.marks.best(icount)
        if not mark.icount <= self.icount <= icount:
            self._restore(mark)
        self._replay_to(icount)
        self._deliver_due()
        if self.icount == icount:
            self._settle_end()

    def _restore(self, mark: Mark) -> None:
        try:
            self.marks.restore(mark)
        except UnusableSnapshotError as e:
            raise TimelineError(str(e)) from e

    def _replay_to(self, icount: int) -> None:
        """Run forward in history, leaving checkpoints near the target."""
        for distance in reversed(NEAR):
            at = icount - distance
            if at > self.icount and not self.interrupted:
                self.advance(at)
                if self.icount == at:
                    self.marks.keep_here()
        while self.icount < icount and not self.interrupted and self.guest.end is None:
            self.advance(icount)

    def _leave_present(self) -> None:
        assert self.recorder is not None
        if self.guest.end is None:
            self.recorder.close_chunk()
        self._live_end = self.icount
        self._present = self.marks.detached_here()
        self.door.mode = Mode.REPLAY

    def _return_to_present(self) -> None:
        assert self._present is not None
        self._restore(self._present)
        self._present = None
        self.door.mode = Mode.RECORD

    # -- forward moves ---------------------------------------------------------------------------

    def run(self, points: Points, *, steps: int | None = None, within: tuple[int, int] | None = None) -> Stop:
        """Continue to the first stop; ``steps``: at most so many instructions; ``within``: while pc in [start, end)."""
        first = self.icount
        if self._origin is not None:
            self._diversion_ran = True
        while True:
            limit = FOREVER if steps is None else first + steps
            if points.icount is not None and points.icount > self.icount:
                limit = min(limit, points.icount)
            with self.armed(points):
                if within is not None:
                    self.engine.set_range(*within)
                self.engine.ignore_stops_at(first)
                exit_, holds = self._run_armed(points, limit)
            stop = self._forward_stop(exit_, holds, first, limit, steps)
            if stop is not None:
                return stop

    def _run_armed(self, points: Points, limit: int) -> tuple[Exit, bool]:
        """Advance over conditional breakpoints that do not hold."""
        while True:
            exit_ = self.advance(limit)
            if exit_.kind is not ExitKind.BREAKPOINT:
                return exit_, False
            condition = points.breakpoints.get(self.engine.read(self.engine.arch.pc))
            if condition is None or condition():
                return exit_, True
            if self.interrupted:
                return Exit(ExitKind.INTERRUPT), False
            self.engine.ignore_stops_at(self.icount)

    def _forward_stop(self, exit_: Exit, holds: bool, first: int, limit: int, steps: int | None) -> Stop | None:
        pc = self.engine.read(self.engine.arch.pc)
        if holds:
            return Stop(StopKind.BREAKPOINT, self.icount, pc)
        if exit_.kind is ExitKind.WATCHPOINT:
            hit = exit_.hits[0]
            if self.engine.arch.nonsteppable_watchpoint:
                self._back_one()
            return Stop(StopKind.WATCHPOINT, self.icount, hit.address, hit.kind, hit.old, hit.new)
        if exit_.kind is ExitKind.INTERRUPT:
            self.clear_interrupt()
            return Stop(StopKind.INTERRUPT, self.icount)
        if exit_.kind is ExitKind.RANGE:
            return Stop(StopKind.STEP, self.icount)
        end = self.guest.end
        if end is not None and (steps is None or self.icount < limit):
            if self.icount == first:
                return Stop(StopKind.HISTORY_END, self.icount)
            if end.kind == "signal":
                return Stop(StopKind.SIGNAL, self.icount, value=end.value)
            return Stop(StopKind.EXIT, self.icount, value=end.value if end.kind == "exit" else 0)
        if self.icount >= limit:
            return Stop(StopKind.STEP, self.icount)
        if not self.live:
            return Stop(StopKind.HISTORY_END, self.icount)
        if self._present is not None:
            # The past has caught up with the present: from here on it is recorded.
            self._return_to_present()
            return None if not self.interrupted else Stop(StopKind.INTERRUPT, self.icount)
        return None

    def _back_one(self) -> None:
        """To the position before the instruction that retired last."""
        if self._origin is None:
            self.seek(self.icount - 1)
            return
        target = self.icount - 1
        self._restore(self._origin)
        self._run_slice(target)

    # -- diversions and writes -------------------------------------------------------------------

    def before_write(self) -> bool:
        """A debugger is about to write. True: the write belongs to the live present and is recorded (``record_write``);
        False: it goes into a diversion, which this begins if there is none."""
        if self._origin is None and self._present is not None and self.icount == self._present.icount:
            self._return_to_present()
        if self.at_present and self.guest.end is None:
            return True
        if self._origin is None:
            if self.live and self._present is None:
                self._live_end = self.icount
            self._origin = self.marks.detached_here()
            self._origin_registers = self.engine.read_registers()
            self._diversion_ran = False
            self.door.mode = Mode.DIVERT
            self.guest.resurrect()
        return False

    def write_register(self, number: int, value: int) -> None:
        """Write a register by its number in ``Arch.registers``."""
        if self.before_write():
            payload = _REGISTER.pack(0, number) + value.to_bytes(64, "little")
            self.door.inject(DEBUGGER, self.icount, payload)
            return
        self._apply_register(number, value)
        if self._diversion_ran and self.engine.read_registers() == self._origin_registers:
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
                self._apply_register(number, int.from_bytes(payload[_REGISTER.size :], "little"))
                return
        elif payload[:1] == b"\1" and len(payload) >= _MEMORY.size:
            _, address = _MEMORY.unpack_from(payload)
            self.engine.write_memory(address, payload[_MEMORY.size :])
            return
        raise Divergence(self.icount, "a debugger's write", f"{len(payload)} bytes that are none")

    def drop_diversion(self) -> None:
        """Back to where the diversion left history, if there is one."""
        if self._origin is None:
            return
        origin, self._origin = self._origin, None
        self._restore(origin)
        self.door.mode = Mode.RECORD if self.live and self._present is None else Mode.REPLAY

    def close(self) -> None:
        """Finish: the recording holds everything up to the live present. Raises LogError."""
        if self.recorder is not None:
            self.drop_diversion()
            if self._present is not None:
                self._return_to_present()
            self.recorder.stop()
