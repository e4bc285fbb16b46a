"""What opening hands out: a timeline with everything that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rrgdb.engine.memory import Ram
from rrgdb.errors import Error
from rrgdb.guest import Guest
from rrgdb.recording.directory import Recording
from rrgdb.recording.door import Door
from rrgdb.recording.log import LogError
from rrgdb.snapshots.store import SnapshotStore
from rrgdb.timeline.timeline import Timeline

if TYPE_CHECKING:
    from rrgdb.workers.pool import Pool


@dataclass(slots=True)
class Opened:
    """A timeline with everything that belongs to it; ``close`` finishes and syncs the recording. ``messages``: a line
    for the user of whatever is not usable but not needed either."""

    timeline: Timeline
    recording: Recording
    guest: Guest
    door: Door
    store: SnapshotStore | None
    ram: Ram
    workers: Pool | None
    messages: tuple[str, ...] = ()
    closed: bool = False

    def discard(self) -> bool:
        """Close the recording, and remove it if nothing has happened in it; whether it was removed."""
        unused = self.timeline.live and self.timeline.end == self.timeline.start
        self.close()
        if unused:
            self.recording.remove()
        return unused

    def close(self) -> None:
        """Idempotent. Raises LogError, StoreError or ManifestError if what was recorded last cannot be written, the
        first of them; all is closed then."""
        if self.closed:
            return
        self.closed = True
        failure: BaseException | None = None
        parts = (self.timeline, self.door, self.workers, self.timeline.index, self.store, self.timeline.marks.disks)
        for part in (*parts, self.recording, self.ram):
            try:
                if part is not None:
                    part.close()
            except BaseException as e:  # whatever it is, the rest is closed
                failure = failure or e
        if failure is not None:
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Error as late:
            # What went wrong first is what the user hears of, unless now the log could not be written.
            if not isinstance(error, Error) or (isinstance(late, LogError) and not isinstance(error, LogError)):
                raise
