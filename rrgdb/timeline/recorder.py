"""What recording live asks for between slices of the guest: closing log chunks, showing output, taking snapshots."""

from __future__ import annotations

import time
from collections.abc import Callable

from rrgdb.engine.memory import PAGE
from rrgdb.guest import Guest
from rrgdb.recording.door import Door, Mode
from rrgdb.recording.events import Event, EventKind
from rrgdb.recording.log import EventLog
from rrgdb.snapshots.errors import NoRoomError, StoreError
from rrgdb.snapshots.naming import AUTOMATIC
from rrgdb.snapshots.store import SnapshotStore
from rrgdb.timeline.index import Index
from rrgdb.timeline.marks import Marks

SLICE = 0.01
"""seconds of guest time (of its thread's own) between two looks at inputs and outputs"""
CHUNK = 0.1
"""seconds after which a log chunk closes"""
IDLE = 0.001
"""seconds that a guest rests when it waits for an interrupt"""
LONGEST_REST = 0.1
"""seconds between two looks at whether anything has come, while the guest sleeps"""
COSTLY = 10
"""an automatic snapshot is to take no more than one part in so many of the guest's time"""
RAREST = 4
"""intervals that lie between two of them for that, at most"""
FIRST_SLICE = 100_000
STATE = "state"
GUEST = "guest"


class Recorder:
    """Keeps a recording complete while the guest runs live.

    ``interval``: seconds of measured guest time between automatic snapshots: a replay from one to the next takes about
    as long. It is up to ``RAREST`` times that where snapshots are costly. ``budget``: bytes that the store may take;
    where the next snapshot might not fit, the interval doubles and every other automatic one goes. ``waiting``: bytes
    of snapshots that may wait for the disk. ``say``: one line for the user. ``running``: a clock of guest time; what
    others do on the machine, and rest, cost a replay nothing. ``paced``: where the guest sleeps, virtual time passes no
    faster than the host's.
    """

    def __init__(
        self,
        guest: Guest,
        door: Door,
        log: EventLog,
        marks: Marks,
        index: Index,
        store: SnapshotStore,
        *,
        interval: float,
        budget: int,
        waiting: int,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        running: Callable[[], float] = time.thread_time,
        paced: bool = True,
    ) -> None:
        self._guest = guest
        self._door = door
        self._log = log
        self._marks = marks
        self._index = index
        self._store: SnapshotStore | None = store
        self._interval = interval
        self._budget = budget
        self._waiting = waiting
        self._said_full = False
        self._say = say
        self._clock = clock
        self._running = running
        self._paced = paced
        self._per_slice = FIRST_SLICE
        self._since_snapshot = self._pays_after = 0.0
        self._chunk_closed = clock()
        self._started = 0.0
        self._started_at = 0
        guest.idle = self._rest
        door.rest = self._sleep

    def slice_end(self) -> int:
        """icount at which the next slice ends."""
        self._started = self._running()
        self._started_at = self._guest.engine.icount
        return self._started_at + self._per_slice

    def slice_done(self) -> None:
        """A slice, or a part of one, has run."""
        icount = self._guest.engine.icount
        spent = self._running() - self._started
        self._since_snapshot += spent
        ran = icount - self._started_at
        if spent > 0 and ran >= self._per_slice // 2:
            self._per_slice = max(1_000, min(int(ran / spent * SLICE), 4 * self._per_slice))
        self._tell()
        self._settle()
        if self._guest.end is not None:
            self._finish()
        elif (self._is_due() or self._marks.disks.many) and ran:
            began = self._running()
            self._snapshot()
            self._pays_after = COSTLY * (self._running() - began)
        elif self._door.output_pending or self._clock() - self._chunk_closed >= CHUNK:
            self.close_chunk()

    def _is_due(self) -> bool:
        return self._since_snapshot >= max(self._interval, min(self._pays_after, RAREST * self._interval))

    def close_chunk(self) -> None:
        """Everything up to the present is on disk; output that waited for it goes out. Raises LogError."""
        # An instruction whose disk could not be read is none of history.
        self._log.close_chunk(self._guest.engine.icount - bool(self._marks.incomplete))
        self._chunk_closed = self._clock()
        self._door.flush_output()

    def _tell(self) -> None:
        """What has become worth a notice."""
        for text in self._guest.notices.take():
            self._say(text)

    def _rest(self) -> None:
        if self._door.mode is not Mode.RECORD:
            return
        self._tell()
        if not self._door.has_pending_input:
            time.sleep(IDLE)

    def _sleep(self, ns: int | None) -> int:
        """See ``Host.sleep``. Without a timer that would end it, virtual time stands."""
        if ns is not None and not self._paced:
            return ns
        engine, door = self._guest.engine, self._door
        if door.output_pending or self._clock() - self._chunk_closed >= CHUNK:
            self.close_chunk()
        began = time.monotonic_ns()
        while not engine.interrupted and not door.has_pending_input:
            slept = time.monotonic_ns() - began
            if ns is not None and slept >= ns:
                return ns
            door.woken.wait(LONGEST_REST if ns is None else min((ns - slept) * 1e-9, LONGEST_REST))
            door.woken.clear()
        return 0 if ns is None else min(time.monotonic_ns() - began, ns)

    def _digest(self) -> None:
        icount = self._guest.engine.icount
        digests = self._log.digests
        if not digests or digests.icount(-1) < icount or self._guest.end is not None:
            self._log.append(Event(icount, EventKind.DIGEST, STATE, self._marks.state_digest()))

    def _snapshot(self) -> None:
        self._since_snapshot = 0.0
        self._digest()
        self.close_chunk()
        self._index.note()
        many = self._marks.disks.many
        self._keep(wait=many)
        if many and self._marks.disks.many:
            self._marks.disks.wait()

    def _keep(self, *, wait: bool) -> None:
        """Take a snapshot if there is room for it. ``wait``: for those that are on their way to the disk."""
        if wait and self._store is not None:
            self._store.flush()
            self._settle()
        # Where the disk is slow, snapshots get rarer. The guest waits only where the next one has become as large as
        # what waits may be: one that writes to all of its RAM would be in memory twice.
        if self._store is not None and self._store.queued_bytes > self._waiting:
            if PAGE * self._marks.changed_pages <= self._waiting:
                return
            self._store.flush()
            self._settle()
        if self._store is None:
            return
        try:
            if self._may_fit(self._store):
                self._marks.take_snapshot(f"{AUTOMATIC}{self._guest.engine.icount}", self._budget)
            else:
                self._make_room(self._store)
        except NoRoomError:
            self._make_room(self._store)
        except StoreError as e:
            self._give_up(e)

    def _settle(self) -> None:
        try:
            self._marks.settle()
        except StoreError as e:
            self._give_up(e)

    def _give_up(self, why: StoreError) -> None:
        if self._store is not None:
            self._say(f"{why}; the recording goes on without automatic snapshots")
        self._store = None

    def _may_fit(self, store: SnapshotStore) -> bool:
        """Whether it is worth to find out what the next snapshot takes."""
        return store.used_bytes + PAGE * self._marks.changed_pages <= self._budget

    def _make_room(self, store: SnapshotStore) -> None:
        """For one of the next snapshots, unless that is under way."""
        if not store.deleting and not store.queued_bytes:
            self._thin(store)

    def _thin(self, store: SnapshotStore) -> None:
        automatic = [s for s in self._marks.stored if s.automatic]
        self._interval *= 2
        if len(automatic) > 1:
            # The file does not shrink, but what was given up is used again before it grows.
            self._marks.delete_snapshots(automatic[:-1:2])
            self._say(
                f"snapshot budget of {self._budget} bytes reached: "
                f"snapshots are now {self._interval:g} s of guest time apart"
            )
        elif not self._said_full:
            self._said_full = True
            self._say(f"snapshot budget of {self._budget} bytes: there is no room for automatic snapshots")

    def _finish(self) -> None:
        end = self._guest.end
        if end is None or self._log.end is not None:
            return
        self._digest()
        icount = self._guest.engine.icount
        self._log.append(Event(icount, EventKind.END, GUEST, f"{end.kind}:{end.value}".encode()))
        self.close_chunk()
        self._index.note()

    def stop(self) -> None:
        """Recording ends here: what is to be on disk goes there. Raises LogError."""
        if self._marks.incomplete:
            self.close_chunk()
        elif self._guest.end is None:
            self._digest()
            self.close_chunk()
            self._index.note()
        self._log.sync()
        try:
            self._marks.flush()
        except StoreError as e:
            self._say(str(e))
