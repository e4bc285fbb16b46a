"""The writing side of the snapshot store: a thread of its own, so that no guest waits for a disk.

Snapshots go to the disk in the order in which they were taken. What has queued up by the time the disk is ready goes
as one group: all their data, then what they rely on (``before_commit``), then the one write that makes them part of the
image. A snapshot is on disk once that has been synced; until then its content stays in memory.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence

from rrgdb.errors import one_line
from rrgdb.qcow2 import Image, Snapshot
from rrgdb.snapshots.entries import PAGE, RAM_OFFSET, Deletion, Entry, Failure, Stored
from rrgdb.snapshots.errors import StoreError
from rrgdb.snapshots.overlays import Kept, Overlays, require_sound

_SWITCH_SECONDS = 0.0005


class StoreWriter:
    """Owns the image for writing. All methods are for one thread, the one that takes the snapshots.

    ``before_commit`` runs on the writer's thread; it raises OSError or StoreError. Unless ``sound``, the images are
    checked before they are written first: what is new must not go to where a snapshot is that damage hides.
    """

    def __init__(
        self,
        image: Image,
        ram_pages: int,
        disks: Overlays | None,
        before_commit: Callable[[], None],
        *,
        sound: bool = True,
    ) -> None:
        self.lock = threading.Condition()
        self._before_commit = before_commit
        self.queued_bytes = 0
        self.deletions = 0
        self._image = image
        self._ram_pages = ram_pages
        self._disks = disks
        self._sound = sound
        self.used_bytes = self._used()
        self._active: Entry | None = None
        self._queue: deque[Entry | Deletion] = deque()
        self._writing: list[Entry] = []
        self._staged: dict[Entry, tuple[Snapshot, Kept | None]] = {}
        self._busy = False
        self._closing = False
        self._lost: list[Stored] = []
        self._error: StoreError | None = None
        self._thread: threading.Thread | None = None

    def put(self, job: Entry | Deletion) -> None:
        """Queue a snapshot to be written, or a deletion."""
        with self.lock:
            if isinstance(job, Entry):
                self.queued_bytes += job.bytes
            else:
                self.deletions += 1
            self._queue.append(job)
            self.lock.notify_all()
            if self._thread is None:
                # The engine needs the interpreter between two runs: it must not wait for 5 ms.
                sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
                self._thread = threading.Thread(target=self._loop, name="snapshots", daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Until all that was queued is done, or has failed."""
        with self.lock:
            while self._queue or self._busy:
                self.lock.wait()

    def all_bytes(self) -> int:
        """What is in use once all that waits is on disk, at most."""
        with self.lock:
            waiting = [*(job for job in self._queue if isinstance(job, Entry)), *self._writing]
            return self.used_bytes + sum(entry.most for entry in waiting if entry.snapshot is None)

    def take_failure(self) -> Failure | None:
        """What went wrong since the last call."""
        with self.lock:
            if self._error is None:
                return None
            failure = Failure(self._lost, self._error)
            self._lost, self._error = [], None
            return failure

    def close(self) -> None:
        """Finish the queue, end the thread, close the image. Raises OSError or Qcow2Error if that fails."""
        self.wait()
        with self.lock:
            self._closing = True
            self.lock.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._image.close()

    # -- on the writer's thread

    def _loop(self) -> None:
        while True:
            with self.lock:
                self._busy = False
                self.lock.notify_all()
                while not self._queue and not self._closing:
                    self.lock.wait()
                if not self._queue:
                    return
                self._busy = True
                group = self._next()
            try:
                if isinstance(group, Deletion):
                    self._delete(group)
                else:
                    self._write(group)
                    with self.lock:
                        self._writing = []
            except Exception as e:  # whatever it is, somebody may wait for the group
                self._fail(group, e)

    def _next(self) -> list[Entry] | Deletion:
        """A deletion, or all snapshots that wait before the next one; under the lock."""
        group: list[Entry] = []
        while self._queue:
            job = self._queue[0]
            if isinstance(job, Deletion) and group:
                break
            self._queue.popleft()
            if isinstance(job, Deletion):
                return job
            group.append(job)
        self._writing = group
        return group

    def _require_sound(self) -> None:
        if not self._sound:
            require_sound(self._image)
            if self._disks is not None:
                self._disks.require_sound()
            self._sound = True

    def _write(self, group: Sequence[Entry]) -> None:
        self._require_sound()
        for entry in group:
            if entry.base is not None and entry.base is not self._active:
                self._go_to(entry.base)
            self._staged[entry] = self._stage(entry)
            self._active = entry
        self._commit()

    def _go_to(self, base: Entry) -> None:
        """Make the active state that of a snapshot: what it holds is shared with it then."""
        if self._staged:
            self._commit()
        if base.snapshot is None:
            raise StoreError("the snapshot that it builds on was not written")
        self._image.apply_snapshot(base.snapshot)
        if self._disks is not None:
            self._disks.go_to(base.kept)

    def _commit(self) -> None:
        """Bring what is staged to the disk; it is part of the store then."""
        self._before_commit()
        if self._disks is not None:
            self._disks.commit()
        self._image.flush()
        used = self._used()
        with self.lock:
            self.used_bytes = used
            for entry, (snapshot, kept) in self._staged.items():
                self.queued_bytes -= entry.bytes
                entry.snapshot, entry.base, entry.state, entry.blob, entry.pages = snapshot, None, None, b"", None
                entry.kept, entry.blocks = kept, None
        self._staged.clear()

    def _used(self) -> int:
        return self._image.used_bytes + (0 if self._disks is None else self._disks.used_bytes)

    def _stage(self, entry: Entry) -> tuple[Snapshot, Kept | None]:
        """Write what a snapshot holds, and make it part of the next commit."""
        kept = None if self._disks is None else self._stage_disks(self._disks, entry)
        image, pages = self._image, entry.pages
        assert pages is not None
        image.write_vmstate([(0, entry.blob)])
        image.write_vmstate((RAM_OFFSET + n * PAGE, pages[n]) for n in sorted(pages))
        name, icount, _ = entry.stored
        size = RAM_OFFSET + self._ram_pages * PAGE
        snapshot = image.create_snapshot(name, vm_state_size=size, vm_clock_ns=icount, icount=icount, commit=False)
        return snapshot, kept

    def _stage_disks(self, disks: Overlays, entry: Entry) -> Kept:
        if entry.base is None:
            disks.go_to(None)
        disks.write(entry.blocks or {})
        return disks.stage(entry.stored.moment)

    def _delete(self, deletion: Deletion) -> None:
        self._require_sound()
        going = deletion.entries
        if self._active in going:
            self._active = None
        self._image.delete_snapshots([e.snapshot for e in going if e.snapshot is not None])
        self._image.flush()
        if self._disks is not None:
            self._disks.delete([entry.kept for entry in going if entry.kept is not None])
        # Room has become scarce.
        self._image.fill_holes()
        used = self._used()
        with self.lock:
            self.used_bytes = used
            self.deletions -= 1

    def _fail(self, group: list[Entry] | Deletion, why: Exception) -> None:
        """What waits builds on what was not written: it is lost as well."""
        self._active = None
        self._writing = []
        self._staged.clear()
        entries = group.entries if isinstance(group, Deletion) else group
        names = ", ".join(entry.stored.name for entry in entries)
        what = f"cannot delete {names}" if isinstance(group, Deletion) else f"cannot take snapshot {names}"
        error = StoreError(f"{self._image.path}: {what}: {one_line(why)}")
        try:
            self._image.reload()
            if self._disks is not None:
                self._disks.give_up()
        except Exception as e:  # as above; the next write tells
            error = StoreError(f"{self._image.path}: {what}: {one_line(why)}; {one_line(e)}")
        with self.lock:
            lost = [
                *([] if isinstance(group, Deletion) else group),
                *(job for job in self._queue if isinstance(job, Entry)),
            ]
            self._queue.clear()
            self.deletions = 0
            for entry in lost:
                self.queued_bytes -= entry.bytes
            self._lost += [entry.stored for entry in lost]
            self._error = self._error or error
