"""The processes that share the long searches of a recording."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rrgdb.recording.directory import Recording
from rrgdb.timeline.timeline import Timeline

if TYPE_CHECKING:
    from rrgdb.workers.pool import Pool


def pool_for(recording: Recording, timeline: Timeline, jobs: int) -> Pool | None:
    """``jobs`` worker processes, told to the user of ``timeline``; fewer than 2: none."""
    if jobs < 2:
        return None
    from rrgdb.workers.pool import Pool  # noqa: PLC0415 - processes and their pipes

    moved = {image.name: str(image.path.resolve()) for image in timeline.marks.disks.images}
    return Pool(recording.path, jobs, moved, lambda line: timeline.say(f"{line}\n"))
