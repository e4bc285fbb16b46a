"""New recordings of an image on a board."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from rrgdb.engine.memory import Ram
from rrgdb.engine.unicorn.build import build_id
from rrgdb.errors import Error
from rrgdb.opening.disks import new_disks
from rrgdb.opening.guests import Plan
from rrgdb.opening.images import asked_for
from rrgdb.opening.limits import BUDGET, INTERVAL
from rrgdb.opening.opened import Opened
from rrgdb.opening.options import GuestOptions, NewDisk, OptionError
from rrgdb.opening.stores import create_store
from rrgdb.opening.workers import pool_for
from rrgdb.recording.directory import Recording, default_path
from rrgdb.recording.manifest import Disk
from rrgdb.snapshots import naming
from rrgdb.snapshots.images import DiskImage
from rrgdb.snapshots.naming import START
from rrgdb.timeline.index import Index
from rrgdb.timeline.marks import Marks
from rrgdb.timeline.options import MEMORY_BUDGET
from rrgdb.timeline.recorder import Recorder
from rrgdb.timeline.timeline import Timeline

Say = Callable[[str], None]


def record(
    path: Path | None,
    image_path: Path | None,
    options: GuestOptions,
    *,
    interval: float = INTERVAL,
    budget: int = BUDGET,
    checkpoint_memory: int = MEMORY_BUDGET,
    starting: str = START,
    disks: Sequence[NewDisk] = (),
    jobs: int = 1,
    say: Say = lambda _line: None,
) -> Opened:
    """Begin a recording of ``image_path``, None: of what ``options.boot`` names, in directory ``path`` (default:
    ``NAME.rrgdb`` here), standing at icount 0.

    ``interval``: seconds of guest time between automatic snapshots; ``budget``: bytes that the store may take;
    ``checkpoint_memory``: bytes that checkpoints may take, and half of that again snapshots that wait for the disk;
    ``starting``: name of the starting snapshot; ``disks``: the guest's, in the order of their slots; ``jobs``: worker
    processes that share long searches, fewer than 2: none.

    Raises OSError, ImageError, OptionError, RecordingError, StoreError: one line each.
    """
    asked = asked_for(image_path, options, len(disks))
    plan, spec = asked.plan, asked.plan.spec
    problem = naming.problem(starting) if starting != START else None
    if problem is not None:
        raise OptionError(f"--rrsnapshot: {problem}")
    images = new_disks(disks, spec)
    listed = [Disk(i.name, str(i.path), i.format, i.size, i.mtime_ns or 0, i.readonly) for i in images]
    with ExitStack() as stack:
        for each in images:
            stack.callback(each.close)
        recording = Recording.create(
            path or default_path(asked.name, Path.cwd()),
            board=spec.name,
            cpu=plan.cpu,
            ram_bytes=asked.memory,
            images=asked.images,
            engine=build_id(),
            options=asked.settings.options(),
            disks=listed,
            revision=spec.revision,
        )
        stack.callback(give_up, recording)
        if plan.placed.left_out:
            say(plan.placed.left_out)
        paced = plan.clock.sleep
        opened = go_live(
            stack, recording, plan, images, interval, budget, checkpoint_memory, jobs, say, starting, paced=paced
        )
        stack.pop_all()
        return opened


def go_live(
    stack: ExitStack,
    recording: Recording,
    plan: Plan,
    images: Sequence[DiskImage],
    interval: float,
    budget: int,
    checkpoint_memory: int,
    jobs: int,
    say: Say,
    starting: str,
    *,
    paced: bool = True,
) -> Opened:
    """``stack`` closes what was opened if this fails. ``paced``: see ``Recorder``."""
    log = recording.log
    ram = Ram(plan.ram_bytes)
    stack.callback(ram.close)
    store = create_store(recording, ram.pages, images)
    stack.callback(store.close)
    built = plan.build(recording, ram, images, store, live=True)
    marks = Marks(built.guest, built.door, store, built.disks, budget=checkpoint_memory)
    index = Index(built.guest.engine, log, recording.open_index)
    marks.take_snapshot(starting)
    marks.flush()
    recorder = Recorder(
        built.guest,
        built.door,
        log,
        marks,
        index,
        store,
        interval=interval,
        budget=budget,
        waiting=checkpoint_memory // 2,
        say=say,
        paced=paced,
    )
    timeline = Timeline(built.guest, built.door, log, marks, index, recorder)
    recorder.close_chunk()
    return Opened(timeline, recording, built.guest, built.door, store, ram, pool_for(recording, timeline, jobs))


def give_up(recording: Recording) -> None:
    """Nothing was recorded: nothing is left."""
    with suppress(Error):
        recording.close()
    recording.remove()
