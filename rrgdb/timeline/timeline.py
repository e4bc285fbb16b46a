"""The timeline: position, seek, the way between past and live present, diversions, and a debugger's writes.

All time travel is ``seek``: put back the nearest mark at or before the target, replay forward. While a guest is live
there is one present, the end of history; going back never disturbs it, and running forward past it goes on recording.
A diversion is a throw-away branch: it begins with the first write in the past and ends with the next move in time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rrgdb.arch.cpu import MemoryFault
from rrgdb.engine.base import EngineError, Exit
from rrgdb.guest import Guest
from rrgdb.recording.door import DEBUGGER, Door
from rrgdb.recording.log import EventLog
from rrgdb.timeline.arrival import Arrival
from rrgdb.timeline.checkpoints import Mark
from rrgdb.timeline.forward import TRAP_TAKEN, Forward
from rrgdb.timeline.index import Index
from rrgdb.timeline.marks import Marks
from rrgdb.timeline.recorder import Recorder
from rrgdb.timeline.stop import Points, Stop
from rrgdb.timeline.where import Divert, Drop, Leave, TimelineError, Whereabouts

__all__ = ["NEAR", "Timeline", "TimelineError"]

NEAR = tuple(64 << 3 * k for k in range(7))
"""distances before a seek's target (instructions) at which checkpoints are left: the next step back is short"""
FAR = 8
"""part of the way from the nearest mark to a seek's target, before which a checkpoint would spare little of the way"""
_PHYSICAL = 3
"""kind of a debugger's write: to a physical address; 0 is a register, 1 a virtual address, 2 is TRAP_TAKEN's"""
_REGISTER, _MEMORY = struct.Struct("<BI"), struct.Struct("<BQ")


class Timeline:
    """One guest in time. All calls but ``interrupt`` come from the engine thread.

    ``recorder``: of a guest that is new and recorded from here on; None for a recording at rest. ``say`` takes text for
    the user (progress). ``forward``: what executes the guest.
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
        self.recorder = recorder
        self.say: Callable[[str], None] = lambda _line: None
        self._where = Whereabouts(self.engine, door, log, live=recorder is not None)
        self._arrival = Arrival(guest, door, log, marks, self._tell)
        self.forward = Forward(guest, door, log, marks, index, self._where, self._arrival, recorder)
        door.wake = self.engine.interrupt
        door.attach_input(DEBUGGER, self._debugger_wrote)

    def _tell(self, text: str) -> None:
        self.say(text)

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
        self.forward.interrupt()

    def clear_interrupt(self) -> None:
        """Forget an interrupt that nothing was running to heed."""
        self.forward.clear_interrupt()

    @property
    def interrupted(self) -> bool:
        return self.forward.interrupted

    # -- forward: see ``Forward`` ----------------------------------------------------------------

    def run(self, points: Points, *, steps: int | None = None, within: tuple[int, int] | None = None) -> Stop:
        """Continue to the first stop; ``steps``: at most so many instructions; ``within``: while pc in [start, end)."""
        return self.forward.run(points, steps=steps, within=within)

    def advance(self, limit: int) -> Exit:
        """Run forward to ``limit``, or to whatever is armed and stops before."""
        return self.forward.advance(limit)

    def stop_where_it_starts(self) -> None:
        """The next run stops also at a breakpoint where it begins: the guest has been moved there."""
        self.forward.moved = True

    # -- seeking ---------------------------------------------------------------------------------

    def put_back(self, mark: Mark) -> None:
        """Restore a mark of history, of which a snapshot on disk is compared first with what was recorded there. After
        UnusableSnapshotError: restore another."""
        self._arrival.put_back(mark)

    def stand_at(self, mark: Mark) -> None:
        """Stand at a snapshot, before inputs that came behind it, and compare it with what was recorded there. Raises
        UnusableSnapshotError, Divergence."""
        self.drop_diversion()
        self.marks.restore(mark)
        self._arrival.check()

    def seek(self, icount: int) -> None:
        """Go to a position of history. TimelineError outside it; an interrupt leaves the position exact but elsewhere
        only if ``interrupted`` says so."""
        if not self.start <= icount <= self.end:
            raise TimelineError(f"icount {icount} is outside history ({self.start} to {self.end})")
        self.drop_diversion()
        self.forward.moved = False
        if self.at_present and icount < self.icount:
            self._leave_present()
        present = self._where.present
        if present is not None and icount == present.icount:
            self.forward.return_to_present()
            return
        if not self.marks.best(icount).icount <= self.icount <= icount:
            self._arrival.restore_best(icount)
        self._replay_to(icount)

    def seek_regardless(self, icount: int) -> None:
        """As ``seek``, and no interrupt ends it: for short ways. Interrupts are forgotten."""
        self.clear_interrupt()
        self.seek(icount)
        while self.interrupted:
            self.clear_interrupt()
            self.seek(icount)

    @contextmanager
    def excursion(self) -> Iterator[None]:
        """Within history, the guest may be taken anywhere inside; then it is put back into the state that it is in."""
        here = self.marks.detached_here()
        try:
            yield
        finally:
            self.forward.restore(here)

    def _replay_to(self, icount: int) -> None:
        """Run forward in history, leaving checkpoints near the target."""
        here = self.icount
        farthest = (icount - here) // FAR
        for distance in reversed(NEAR):
            at = icount - distance
            if at > here and distance <= farthest and not self.interrupted:
                self.forward.advance(at)
                here = self.icount
                if here == at:
                    self.marks.keep_here()
        while self.icount < icount and not self.interrupted:
            if self.guest.end is not None:
                ended = self.icount
                self._arrival.restore_best(ended)
                raise self.door.divergence(ended, f"instructions up to {icount}", "ends")
            self.forward.advance(icount)
        self.forward.deliver_due()
        end = self.log.end
        if self.icount == icount and end is not None and end.icount == icount:
            self.forward.advance(icount + 1)

    def _leave_present(self) -> None:
        assert self.recorder is not None
        if self.guest.end is None:
            self.recorder.close_chunk()
        if not self.marks.incomplete:
            self.index.note()
        self.forward.told = self.icount
        self._where.happens(Leave(self.marks.detached_here()))

    # -- diversions and writes -------------------------------------------------------------------

    def before_write(self) -> bool:
        """A debugger is about to write. True: the write belongs to the live present and is recorded (``record_write``);
        False: it goes into a diversion, which this begins if there is none."""
        present = self._where.present
        if self.in_history and present is not None and self.icount == present.icount:
            self.forward.return_to_present()
        if self.at_present and self.guest.end is None:
            if self.forward.trapped == self.icount:
                # The debugger takes the exception, which counts as one that the guest takes; what it does comes behind.
                self.engine.count_one()
                self.door.inject(DEBUGGER, self.icount, TRAP_TAKEN)
            return True
        if self.at_present:
            self._leave_present()
        if self.in_history:
            self._where.happens(Divert(self.marks.detached_here(), self.engine.read_registers()))
            self.guest.resurrect()
        return False

    def write_register(self, number: int, value: int) -> None:
        """Write a register by its number in the target description."""
        arch = self.engine.arch
        self.forward.moved |= number == arch.register_index[arch.pc]
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

    def write_physical(self, address: int, data: bytes) -> None:
        """As ``write_memory``, at a physical address."""
        if len(self.engine.ram.read(address, len(data))) < len(data):
            raise MemoryFault(address)
        if self.before_write():
            self.door.inject(DEBUGGER, self.icount, _MEMORY.pack(_PHYSICAL, address) + data)
            return
        self._apply_physical(address, data)

    def _apply_physical(self, address: int, data: bytes) -> None:
        self.engine.pages_changed(self.engine.ram.write(address, data))

    def _apply_register(self, number: int, value: int) -> None:
        self.engine.arch.write_numbered(self.engine, number, value)

    def _debugger_wrote(self, payload: bytes) -> None:
        """The sink of the debugger's writes, live and in replay."""
        if payload[:1] == b"\0" and len(payload) == _REGISTER.size + 64:
            _, number = _REGISTER.unpack_from(payload)
            if number < self.engine.arch.numbered:
                try:
                    self._apply_register(number, int.from_bytes(payload[_REGISTER.size :], "little"))
                except EngineError:
                    # A value that the CPU does not take: it did not take it live either, and the debugger was told.
                    if self.at_present:
                        raise
                return
        elif payload == TRAP_TAKEN:
            return
        elif payload[:1] in (b"\1", bytes((_PHYSICAL,))) and len(payload) >= _MEMORY.size:
            kind, address = _MEMORY.unpack_from(payload)
            apply = self._apply_physical if kind == _PHYSICAL else self.engine.write_memory
            try:
                apply(address, payload[_MEMORY.size :])
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
        self.forward.restore(diversion.origin)
        present = self._where.present
        if present is not None and present.icount == self.icount:
            self.forward.return_to_present()

    def close(self) -> None:
        """Finish: the recording holds everything up to the live present. Raises LogError."""
        if self.recorder is not None:
            self.drop_diversion()
            if self._where.present is not None:
                self.forward.return_to_present()
            self.recorder.stop()
