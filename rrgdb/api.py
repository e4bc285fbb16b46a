"""Recordings as Python objects.

>>> import rrgdb
>>> with rrgdb.open("firmware.rrgdb") as recording:       # doctest: +SKIP
...     recording.seek(recording.end)
...     stop = recording.reverse_continue(watch=[(0x8000_1000, 4)])
...     print(stop.icount, recording.registers["pc"], recording.memory(0x8000_1000, 4))

Positions are icounts: position n is the state before instruction number n. Nothing here changes a recording.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from rrgdb import opening
from rrgdb.arch.base import Arch
from rrgdb.engine.base import Watch
from rrgdb.recording.manifest import Manifest
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.stop import Points, Stop, StopKind
from rrgdb.timeline.verify import verify

__all__ = ["Recording", "Snapshot", "Stop", "StopKind", "open_recording"]


class Snapshot(NamedTuple):
    """A named position that the recording can be put back to at once."""

    name: str
    icount: int


class _Registers(Mapping[str, int]):
    """Registers at the present position by GDB's names, as unsigned integers."""

    def __init__(self, opened: opening.Opened) -> None:
        self._engine = opened.timeline.engine

    def __getitem__(self, name: str) -> int:
        if name not in self._engine.arch.register_index:
            raise KeyError(name)
        return self._engine.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._engine.arch.register_index)

    def __len__(self) -> int:
        return len(self._engine.arch.register_index)


class Recording:
    """An open recording and a position in it (icount 0 at first). Use it as a context manager or ``close`` it.

    Methods that move raise ``rrgdb.TimelineError`` for positions outside the recording and ``rrgdb.Divergence`` if the
    replay does not do what was recorded.
    """

    def __init__(self, opened: opening.Opened) -> None:
        self._opened = opened
        self._timeline = opened.timeline
        self._backward = Backward(opened.timeline, opened.workers)
        self.registers: Mapping[str, int] = _Registers(opened)
        self.messages: tuple[str, ...] = opened.messages
        """what was found on opening that limits the recording, a line each"""

    @property
    def arch(self) -> Arch:
        """The CPU family: its register table and more."""
        return self._timeline.engine.arch

    @property
    def manifest(self) -> Manifest:
        """What the guest is made of."""
        return self._opened.recording.manifest

    @property
    def icount(self) -> int:
        """The present position."""
        return self._timeline.icount

    @property
    def start(self) -> int:
        return self._timeline.start

    @property
    def end(self) -> int:
        """The last position."""
        return self._timeline.end

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        return tuple(Snapshot(s.name, s.icount) for s in self._timeline.marks.stored)

    def memory(self, address: int, length: int) -> bytes:
        """Bytes at a virtual address: fewer where memory ends, ``rrgdb.MemoryFault`` if there are none."""
        return self._timeline.engine.read_memory(address, length)

    def seek(self, icount: int) -> None:
        """Go to a position."""
        self._timeline.seek(icount)

    def step(self, count: int = 1) -> Stop:
        """``count`` instructions forward."""
        return self._timeline.run(Points({}), steps=count)

    def reverse_step(self, count: int = 1) -> Stop:
        """``count`` instructions back."""
        return self._backward.step(Points({}), count)

    def cont(
        self,
        breakpoints: Iterable[int] = (),
        watch: Iterable[tuple[int, int]] = (),
        watch_physical: Iterable[tuple[int, int]] = (),
    ) -> Stop:
        """Forward to the first breakpoint (addresses), behind the first change of a watched range ((address, bytes)),
        or to the end."""
        return self._timeline.run(_points(breakpoints, watch, watch_physical))

    def reverse_continue(
        self,
        breakpoints: Iterable[int] = (),
        watch: Iterable[tuple[int, int]] = (),
        watch_physical: Iterable[tuple[int, int]] = (),
    ) -> Stop:
        """Back to the last breakpoint before this position, to where the last change of a watched range is still to
        come, or to the beginning."""
        return self._backward.run(_points(breakpoints, watch, watch_physical))

    def state_digest(self) -> bytes:
        """16 bytes that are equal for equal states."""
        return self._timeline.marks.state_digest()

    def verify(self) -> int:
        """Replay everything and compare with the recorded digests; returns how many agreed."""
        return verify(self._timeline, workers=self._opened.workers)

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _points(
    breakpoints: Iterable[int], watch: Iterable[tuple[int, int]], watch_physical: Iterable[tuple[int, int]]
) -> Points:
    watches = [Watch(address, length, "w") for address, length in watch]
    watches += [Watch(address, length, "w", physical=True) for address, length in watch_physical]
    return Points(dict.fromkeys(breakpoints), tuple(watches))


def open_recording(
    path: str | os.PathLike[str], jobs: int = 1, disks: Mapping[str, str | os.PathLike[str]] | None = None
) -> Recording:
    """Open a recording directory for reading. Raises what ``rrgdb.opening.replay`` raises: one line each.

    ``jobs``: with 2 or more, so many worker processes share long searches and ``verify``. ``disks``: where images of
    disks are now, by the names of the disks, if they were moved."""
    moved = {name: Path(place) for name, place in (disks or {}).items()}
    return Recording(opening.replay(Path(path), writable=False, disks=moved, jobs=jobs))
