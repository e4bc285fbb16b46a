"""What every group of measurements is given."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchlib.figures import Figures
from benchlib.guests import Guest
from rrgdb import opening
from rrgdb.opening import GuestOptions, Opened
from rrgdb.timeline.stop import Points


@dataclass(slots=True)
class Bench:
    """``work``: a scratch directory; ``kit``: the peer kit's copy in it, if there is a peer."""

    work: Path
    figures: Figures
    repeat: int
    quick: bool
    kit: Path | None = None
    recordings: dict[str, Path] = field(default_factory=dict)

    @contextmanager
    def new_recording(self, guest: Guest, memory: int | None = None) -> Iterator[Opened]:
        """A guest at its first instruction, being recorded; replaces the recording made before with as much RAM."""
        path = self.work / f"{guest.name}-{(memory or guest.memory) >> 20}M.rrgdb"
        shutil.rmtree(path, ignore_errors=True)
        with opening.record(path, guest.elf, GuestOptions(memory=memory or guest.memory)) as opened:
            yield opened

    def recording(self, guest: Guest) -> Path:
        """The finished recording of a guest, made when first asked for."""
        if guest.name not in self.recordings:
            with self.new_recording(guest) as opened:
                opened.timeline.run(Points({}))
                self.recordings[guest.name] = opened.recording.path
        return self.recordings[guest.name]

    @contextmanager
    def replay(self, guest: Guest) -> Iterator[Opened]:
        """The recording opened afresh, at its beginning: nothing is cached."""
        with opening.replay(self.recording(guest), writable=False) as opened:
            yield opened


def positions(end: int) -> list[int]:
    """10^4, 10^5, … within a recording of ``end`` instructions."""
    return [10**k for k in range(4, 13) if 10**k <= end]


def power(icount: int) -> str:
    return f"10^{len(str(icount)) - 1}"
