"""Small sound recordings: one of each CPU family, one with a disk, two of scripts."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rrgdb
from rrgdb.opening import GuestOptions, NewDisk, Opened, record, replay
from rrgdb.timeline.stop import Points
from rrgdb_tests.guests import ARCHES, build
from rrgdb_tests.script import programs
from rrgdb_tests.script.rig import Trace, new_uc

DISK = "disk.raw"
"""the user's image of the recording with a disk; it is no file of a case"""
STEPS = 1500
_OPTIONS = GuestOptions(memory=2 << 20)
_NONE = Points({})


@dataclass(frozen=True)
class Seed:
    """``files`` by their paths in the recording; ``right``: state digests by position, the last one is the end;
    ``disk``: the name of its disk, if it has one."""

    name: str
    files: dict[str, bytes]
    right: dict[int, bytes]
    disk: str | None = None


def make_disk(work: Path) -> Path:
    """The image that the guest with a disk reads."""
    path = work / DISK
    path.write_bytes(random.Random(5).randbytes(64 << 10))
    return path


def build_all(work: Path) -> list[Seed]:
    """Make all recordings below ``work``."""
    corpus = work / "corpus"
    corpus.mkdir(parents=True)
    disk = make_disk(work)
    seeds = [_board(corpus, arch) for arch in ARCHES]
    seeds.append(_with_disk(corpus, disk))
    seeds += [_script(corpus, arch) for arch in ("x86_64", "arm")]
    return seeds


def _board(corpus: Path, arch: str) -> Seed:
    path = corpus / arch
    with record(path, build(arch, "mixer"), _OPTIONS, interval=1e-9) as opened:
        for n in range(6):
            opened.timeline.run(_NONE, steps=STEPS)
            opened.door.feed("serial0", b"line %d\r" % n)
        opened.timeline.run(_NONE, steps=STEPS)
    return _finished(path)


def _with_disk(corpus: Path, disk: Path) -> Seed:
    path = corpus / "disk"
    image = build("riscv64", "disks", {"ROUNDS": 6, "WORK": 20, "SECTORS": 64})
    with record(path, image, _OPTIONS, interval=1e-9, disks=[NewDisk(disk)]) as opened:
        while opened.guest.end is None and opened.timeline.icount < 30 * STEPS:
            opened.timeline.run(_NONE, steps=4 * STEPS)
    return _finished(path, "disk0")


def _script(corpus: Path, arch: str) -> Seed:
    path = corpus / f"script-{arch}"
    uc: Any = new_uc(arch)
    with rrgdb.attach(uc, path, memory=1 << 20):
        programs.run(uc, arch, Trace())
    return _finished(path)


def _finished(path: Path, disk: str | None = None) -> Seed:
    """With snapshots that have names, and the index that searches make."""
    with replay(path, writable=True) as opened:
        end = opened.timeline.end
        for position in (end // 3, end // 2 + 1):
            opened.timeline.seek(position)
            opened.timeline.marks.take_snapshot(f"at {position}")
        opened.timeline.marks.flush()
        right = _right(opened, end)
    files = {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
    return Seed(path.name, files, right, disk)


def _right(opened: Opened, end: int) -> dict[int, bytes]:
    timeline = opened.timeline
    marks = {stored.icount for stored in timeline.marks.stored}
    some = random.Random(end).sample(range(end), 6)
    right = {}
    for position in sorted({*marks, *(m + 1 for m in marks if m < end), *some, end}):
        timeline.seek(position)
        right[position] = timeline.marks.state_digest()
    return right
