"""Coming to a position of history: marks are put back, and states compared with what was recorded there."""

from __future__ import annotations

from collections.abc import Callable

from rrgdb.guest import Guest
from rrgdb.recording.door import Divergence, Door
from rrgdb.recording.log import EventLog
from rrgdb.timeline.checkpoints import Mark
from rrgdb.timeline.marks import Marks, UnusableSnapshotError
from rrgdb.timeline.where import TimelineError


class Arrival:
    """At positions of one guest's history. ``say`` takes text for the user."""

    def __init__(self, guest: Guest, door: Door, log: EventLog, marks: Marks, say: Callable[[str], None]) -> None:
        self._guest = guest
        self._engine = guest.engine
        self._door = door
        self._log = log
        self._marks = marks
        self.say = say
        self._compared: set[str] = set()
        """snapshots (ids) whose state was compared with what was recorded"""

    def restore_best(self, icount: int) -> None:
        """Put the guest to the latest usable mark at or before a position."""
        while True:
            mark = self._marks.best(icount)
            try:
                self.put_back(mark)
                self._vouch_for(mark)
            except UnusableSnapshotError as e:
                self.pass_over(mark, e)
            else:
                return

    def put_back(self, mark: Mark) -> None:
        """Restore a mark of history. What a snapshot on disk brings is compared, before anything is built on it, with
        the digest recorded for its position, if there is one. After UnusableSnapshotError: restore another.

        Automatic snapshots have a digest of their own. That of another one's position may have been taken behind inputs
        that the snapshot does not have yet; of one before inputs that it has, nothing can be told, and nothing of one
        behind the guest's end."""
        self._marks.restore(mark)
        stored, expected = mark.stored, self.digests()
        if stored is None or mark.state is not None or stored.id in self._compared or not expected:
            return
        here, delivered = self._engine.icount, 0
        inputs, end = self._log.inputs, self._log.end
        first = inputs.index_at(here)
        brought = first < len(inputs) and inputs.icount(first) == here and self._door.next_input() != here
        unknown = (brought and not stored.automatic) or (end is not None and end.icount == here)
        agrees = unknown or self._marks.state_digest() in expected
        while not agrees and not stored.automatic and self._door.next_input() == here:
            delivered += self._door.deliver(here, 1)
            agrees = self._marks.state_digest() in expected
        if not agrees:
            raise UnusableSnapshotError(f"snapshot {stored.name} is not the state recorded at icount {here}")
        if delivered:
            self._marks.restore(mark)
        self._compared.add(stored.id)

    def _vouch_for(self, mark: Mark) -> None:
        """Where no starting snapshot tells that the store is of this recording, what was recorded at the first one that
        is used must. UnusableSnapshotError if it does not."""
        if mark.stored is None or self._marks.vouched:
            return
        name = mark.stored.name
        if not self.digests():
            raise UnusableSnapshotError(f"snapshot {name}: no digest tells whether it is of this recording")
        try:
            self.check()
        except Divergence as e:
            raise UnusableSnapshotError(f"snapshot {name}: {e}") from e
        self._marks.vouched = True

    def pass_over(self, mark: Mark, why: UnusableSnapshotError) -> None:
        """Use a snapshot no more, and say so. TimelineError if every replay needs it."""
        if not self._marks.drop(mark):
            raise TimelineError(str(why)) from why
        if mark.stored is not None:
            self.say(f"{why}; passed over\n")

    def check(self) -> None:
        """Compare the state on arrival with the digests recorded for this position. Raises Divergence.

        A digest may have been taken before, between or behind the inputs of a position, or behind the guest's end."""
        expected = self.digests()
        if not expected or self._marks.state_digest() in expected:
            return
        while self._door.next_input() == self._engine.icount:
            self._door.deliver(self._engine.icount, 1)
            self._engine.rearm()
            if self._marks.state_digest() in expected:
                return
        end = self._log.end
        if end is None or end.icount != self._engine.icount or self._guest.end is not None:
            raise self.differs()

    def differs(self) -> Divergence:
        """What to raise where the state is none of those recorded for this position."""
        i = self._log.digests.index_at(self._engine.icount)
        before = self._log.digests.icount(i - 1) if i else 0
        return self._door.divergence(
            self._engine.icount, f"another state behind icount {before}", "reached one that differs from it here"
        )

    def digests(self) -> set[bytes]:
        """Those recorded for this position."""
        digests = self._log.digests
        i = digests.index_at(self._engine.icount)
        found = set()
        while i < len(digests) and digests.icount(i) == self._engine.icount:
            found.add(digests[i].payload)
            i += 1
        return found
