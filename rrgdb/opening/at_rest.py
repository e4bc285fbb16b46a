"""Recordings that are there, opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from rrgdb.engine.memory import Ram
from rrgdb.engine.unicorn.build import build_id
from rrgdb.opening.disks import disks_of
from rrgdb.opening.guests import Plan
from rrgdb.opening.images import plan_recorded
from rrgdb.opening.opened import Opened
from rrgdb.opening.options import OptionError
from rrgdb.opening.stores import open_store
from rrgdb.opening.workers import pool_for
from rrgdb.recording.directory import Recording, RecordingError
from rrgdb.snapshots.images import DiskImage
from rrgdb.text import shown
from rrgdb.timeline.index import Index
from rrgdb.timeline.marks import Marks, WrongMachineError
from rrgdb.timeline.options import MEMORY_BUDGET
from rrgdb.timeline.timeline import Timeline


def replay(
    path: Path,
    *,
    writable: bool = True,
    checkpoint_memory: int = MEMORY_BUDGET,
    disks: Mapping[str, Path] | None = None,
    disks_needed: bool = True,
    jobs: int = 1,
) -> Opened:
    """Open a recording, standing at icount 0. ``writable``: named snapshots can be taken, if nobody else writes.
    ``checkpoint_memory``: bytes that checkpoints may take. ``disks``: where images of disks are now, by the names of
    the disks; not ``disks_needed``: the guest will not run, so they may be missing. ``jobs``: worker processes that
    share long searches and verification, fewer than 2: none.

    Raises RecordingError, ManifestError, LogError, OptionError: one line each. What is not
    usable but not needed either is told in ``messages``, a line each.
    """
    with ExitStack() as stack:
        recording = Recording.open(path, writable=writable)
        stack.callback(recording.close)
        if disks and not recording.manifest.guest.disks:
            raise OptionError(f"--disk {next(iter(disks))}: the recording has no disks")
        images: Sequence[DiskImage] = ()
        messages: list[str] = []
        of_script = recording.manifest.guest.kind == "script"
        if of_script:
            from rrgdb.opening.scripts import ScriptPlan  # noqa: PLC0415 - a board's guest needs nothing of it

            plan: Plan = ScriptPlan.recorded(recording)
        else:
            plan = plan_recorded(recording)
            images, messages = disks_of(recording, disks or {}, needed=disks_needed)
            for image in images:
                stack.callback(image.close)
        opened = _open(stack, recording, plan, images, messages, checkpoint_memory, jobs)
        if of_script:
            # What the script did before its first instruction.
            opened.timeline.seek(opened.timeline.start)
        stack.pop_all()
        return opened


def _open(
    stack: ExitStack,
    recording: Recording,
    plan: Plan,
    images: Sequence[DiskImage],
    messages: list[str],
    checkpoint_memory: int,
    jobs: int,
) -> Opened:
    """``stack`` closes what was opened if this fails."""
    ram = Ram(plan.ram_bytes)
    stack.callback(ram.close)
    end = recording.log.last
    store, said = open_store(recording, ram.pages, images, end)
    if store is not None:
        stack.callback(store.close)
    built = plan.build(recording, ram, images, store, live=False)
    try:
        marks = Marks(built.guest, built.door, store, built.disks, budget=checkpoint_memory, adopt=end)
    except WrongMachineError as e:
        raise RecordingError(f"{recording.snapshots}: {e}") from None
    index = Index(built.guest.engine, recording.log, recording.open_index)
    timeline = Timeline(built.guest, built.door, recording.log, marks, index)
    messages = [*messages, *said, *marks.said, *_of_recording(recording)]
    pool = pool_for(recording, timeline, jobs)
    return Opened(
        timeline, recording, built.guest, built.door, store, ram, pool, tuple(shown(message) for message in messages)
    )


def _of_recording(recording: Recording) -> list[str]:
    messages = []
    if recording.manifest.engine != build_id():
        messages.append(
            f"recorded with {recording.manifest.engine}, replaying with {build_id()}: a divergence would be told"
        )
    if recording.damage:
        messages.append(recording.damage)
    elif recording.log.truncated_bytes:
        messages.append(f"the event log ends in an incomplete chunk: history ends at icount {recording.log.horizon}")
    return messages
