"""Power cuts and kills at any point of a long work of all operations.

Every snapshot whose creation had returned is there with its content, unless its deletion had begun; no image is ever
corrupt. What the disk held since the last flush may be lost, as on any disk.

Between two syncs of a file, any of its writes may be lost or torn (a part of its sectors is there). Whatever is lost
behind an earlier write is a subset of what may be lost at the next sync, so the states are enumerated there: see
``enumerated``. ``states`` adds random sets of sectors.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import pytest

from rrgdb.qcow2 import Image
from rrgdb.qcow2.hostfile import Buffer, HostFile
from rrgdb_tests.qcow2.conftest import Qemu

SECTOR = 512


@dataclass(frozen=True)
class Event:
    kind: str  # write, sync, truncate, or must: names of snapshots that have to be there
    file: str = ""
    offset: int = 0
    data: bytes = b""
    names: frozenset[str] = frozenset()


class Log(Protocol):
    """Is told which snapshots have to be there from now on."""

    def must(self, names: list[str]) -> None: ...


class Tape:
    """Records what the library does to files, in its order."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.events: list[Event] = []
        write, sync, truncate = HostFile.write, HostFile.sync, HostFile.truncate

        def taped_write(file: HostFile, offset: int, buffers: list[Buffer]) -> None:
            self.events.append(Event("write", os.path.basename(file.path), offset, b"".join(buffers)))
            write(file, offset, buffers)

        def taped_sync(file: HostFile) -> None:
            self.events.append(Event("sync", os.path.basename(file.path)))
            sync(file)

        def taped_truncate(file: HostFile, length: int) -> None:
            self.events.append(Event("truncate", os.path.basename(file.path), length))
            truncate(file, length)

        patch.setattr(HostFile, "write", taped_write)
        patch.setattr(HostFile, "sync", taped_sync)
        patch.setattr(HostFile, "truncate", taped_truncate)

    def must(self, names: list[str]) -> None:
        self.events.append(Event("must", names=frozenset(names)))


@dataclass
class Disk:
    """What one file surely holds, and what it may hold."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Event] = field(default_factory=list)

    def add(self, event: Event) -> None:
        if event.kind == "truncate":
            self.pending.append(event)
        else:
            for i in range(0, len(event.data), SECTOR):
                self.pending.append(Event("write", event.file, event.offset + i, event.data[i : i + SECTOR]))

    def settle(self) -> None:
        for event in self.pending:
            apply(self.durable, event)
        self.pending.clear()

    def cut(self, rng: random.Random, chances: tuple[float, ...]) -> bytes:
        content = bytearray(self.durable)
        chance = rng.choice(chances)
        for event in self.pending:
            if rng.random() < chance:
                apply(content, event)
        return bytes(content)


def apply(content: bytearray, event: Event) -> None:
    end = event.offset + len(event.data)
    content.extend(bytes(max(0, end - len(content))))
    if event.kind == "truncate":
        del content[event.offset :]
    else:
        content[event.offset : end] = event.data


def states(
    events: list[Event],
    before: dict[str, bytes],
    rng: random.Random,
    each: int,
    chances: tuple[float, ...] = (0, 0.1, 0.5, 0.9, 1),
) -> Iterator[tuple[frozenset[str], dict[str, bytes]]]:
    """(names that must be there, content of each file) after power cuts, ``each`` times behind each event."""
    disks = {name: Disk(bytearray(content)) for name, content in before.items()}
    must: frozenset[str] = frozenset()
    for event in events:
        if event.kind == "must":
            must = event.names
            continue
        disk = disks.setdefault(event.file, Disk())
        if event.kind == "sync":
            disk.settle()
        else:
            disk.add(event)
        for _ in range(each):
            yield must, {name: disk.cut(rng, chances) for name, disk in disks.items()}


_CUTS = 16  # places where one write is torn


def lost(writes: list[Event]) -> Iterator[list[Event]]:
    """What may be left of ``writes``: the first so many, each alone, all but one; and each of them torn."""
    for i in range(len(writes) + 1):
        yield writes[:i]
    for i, event in enumerate(writes):
        yield [event]
        yield writes[:i] + writes[i + 1 :]
        sectors = range(SECTOR, len(event.data), SECTOR)
        for cut in sectors[:: max(1, len(sectors) // _CUTS)]:
            head = replace(event, data=event.data[:cut])
            tail = replace(event, offset=event.offset + cut, data=event.data[cut:])
            for part in (head, tail):
                yield [*writes[:i], part]
                yield [*writes[:i], part, *writes[i + 1 :]]


def enumerated(
    events: list[Event], before: dict[str, bytes], rng: random.Random
) -> Iterator[tuple[frozenset[str], dict[str, bytes]]]:
    """As ``states``, but all of ``lost`` for the writes between two syncs; of other files all is there, or nothing."""
    disks = {name: Disk(bytearray(content)) for name, content in before.items()}
    must: frozenset[str] = frozenset()
    names = sorted({event.file for event in events if event.file})
    for event in [*events, *(Event("sync", name) for name in names)]:
        if event.kind == "must":
            must = event.names
            continue
        disk = disks.setdefault(event.file, Disk())
        if event.kind != "sync":
            disk.pending.append(event)
            continue
        files = {name: disk.cut(rng, (0, 1)) for name, disk in disks.items()}
        for left in lost(disk.pending):
            content = bytearray(disk.durable)
            for write in left:
                apply(content, write)
            yield must, files | {event.file: bytes(content)}
        disk.settle()


def killed(events: list[Event], before: dict[str, bytes]) -> Iterator[tuple[frozenset[str], dict[str, bytes]]]:
    """As ``states``: a process that dies leaves all that it has written, and of one write the first bytes."""
    files = {name: bytearray(content) for name, content in before.items()}
    must: frozenset[str] = frozenset()
    for event in events:
        if event.kind == "must":
            must = event.names
            continue
        for cut in [*range(SECTOR, len(event.data), SECTOR)[:_CUTS], len(event.data)]:
            if event.kind != "sync":
                apply(files.setdefault(event.file, bytearray()), replace(event, data=event.data[:cut]))
            yield must, {name: bytes(content) for name, content in files.items()}


class Work:
    """Random operations of all kinds on an overlay, and what each snapshot holds."""

    def __init__(self, image: Image, log: Log, rng: random.Random) -> None:
        self.image, self.log, self.rng = image, log, rng
        self.alike = True  # the two backing files
        self.content: dict[str, tuple[bytes, bytes]] = {}
        self.names: list[str] = []
        self.complete: list[str] = []

    def step(self, turn: int) -> None:
        image, rng, size = self.image, self.rng, self.image.cluster_size
        offset = rng.randrange(image.size // size) * size
        length = min(rng.randrange(1, 30) * size, image.size - offset)
        match rng.randrange(17):
            case 0 | 1 | 2:
                image.write(offset, rng.randbytes(length))
            case 3:
                image.write(offset + 1, rng.randbytes(length - 2))
            case 4:
                image.discard(offset, length)
            case 5:
                image.write_compressed(offset, (b"%06d %d " % (turn, offset) * length)[:length])
            case 6 | 7:
                image.write_vmstate([(i * size, rng.randbytes(size)) for i in rng.sample(range(40), 10)])
            case 8 | 9:
                name = f"s{turn}"
                self.content[name] = image.read(0, image.size), image.read_vmstate(0, 40 * size)
                commit = rng.random() < 0.6
                image.create_snapshot(name, commit=commit)
                self.names.append(name)
                if commit:
                    self._committed()
            case 10 if len(self.names) > 2:
                gone = self.names.pop(rng.randrange(len(self.names)))
                self.log.must([name for name in self.complete if name != gone])
                image.delete_snapshot(next(s for s in image.snapshots if s.name == gone))
                self._committed()
            case 11 if self.names:
                name = rng.choice(self.names)
                image.apply_snapshot(next(s for s in image.snapshots if s.name == name))
            case 12 if image.info().version == 3:
                image.resize(rng.randrange(20, 120) * size)
            case 13:
                image.flush()
                self._committed()
            case 14:
                image.write_zeros(offset + 7, length - 9)
            case 15:
                name = rng.choice(["base-1", "second-base", None])
                image.rebase(name, name and "raw", unsafe=self.alike and None not in (name, image.backing_file))
                self._committed()
            case 16 if image.backing_file is not None:
                image.commit()
                self.alike = False
                self._committed()

    def _committed(self) -> None:
        self.complete = list(self.names)
        self.log.must(self.complete)


def verify(path: Path, must: frozenset[str], content: dict[str, tuple[bytes, bytes]]) -> int:
    with Image.open(path) as image:
        found = image.check()
        assert not found.corruption_count, found.corruptions
        names = {snapshot.name for snapshot in image.snapshots}
        assert must <= names, (must, names)
        for snapshot in image.snapshots:
            view = image.view(snapshot)
            disk, vm = content[snapshot.name]
            assert view.read(0, view.size) == disk
            assert view.read_vmstate(0, len(vm)) == vm
        image.read(0, image.size)
        return len(names)


OPTIONS: list[dict[str, Any]] = [
    {"cluster_size": 512},
    {"cluster_size": 1024, "compression": "zstd", "refcount_bits": 64},
    {"cluster_size": 512, "version": 2},
    {"cluster_size": 4096},
]


BELOW = random.Random(5).randbytes(40_000)
BEFORE = {"base-1": BELOW, "second-base": BELOW}


def do_work(directory: Path, options: dict[str, Any], seed: int, turns: int, log: Log, *, barriers: bool) -> Work:
    """The image ``a`` in ``directory``, new, and ``turns`` operations on it."""
    directory.mkdir(exist_ok=True)
    for name, data in BEFORE.items():
        (directory / name).write_bytes(data)
    size = 80 * options["cluster_size"]
    how: dict[str, Any] = {"backing_file": "base-1", "backing_format": "raw", "barriers": barriers, **options}
    with Image.create(directory / "a", size, **how) as image:
        work = Work(image, log, random.Random(seed))
        for turn in range(turns):
            work.step(turn)
    return work


def survived(directory: Path, must: frozenset[str], files: dict[str, bytes], work: Work) -> int:
    """Verify one state; returns the number of its snapshots."""
    if files["a"][:4] != b"QFI\xfb":
        assert not must
        return 0
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return verify(directory / "a", must, work.content)


def each(found: Iterator[tuple[frozenset[str], dict[str, bytes]]], step: int, directory: Path, work: Work) -> int:
    """Verify every ``step``-th of the states, each one once; returns the number of snapshots seen."""
    done: set[int] = set()
    seen = 0
    for must, files in islice(found, 0, None, step):
        key = hash((must, *files.items()))
        if key not in done:
            done.add(key)
            seen += survived(directory, must, files, work)
    return seen


def taped(directory: Path, options: dict[str, Any], seed: int, turns: int, *, barriers: bool) -> tuple[Work, Tape]:
    with pytest.MonkeyPatch.context() as patch:
        tape = Tape(patch)
        return do_work(directory, options, seed, turns, tape, barriers=barriers), tape


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_power_cuts(tmp_path: Path, options: dict[str, Any]) -> None:
    work, tape = taped(tmp_path, options, 1, 60, barriers=True)
    assert each(enumerated(tape.events, BEFORE, work.rng), options["cluster_size"] // 17, tmp_path, work) > 20
    assert each(states(tape.events, BEFORE, work.rng, 1), 13, tmp_path, work) > 20


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_kills(tmp_path: Path, options: dict[str, Any]) -> None:
    """The same without barriers: a process that dies at any byte harms nothing."""
    work, tape = taped(tmp_path, options, 2, 60, barriers=False)
    assert each(killed(tape.events, BEFORE), options["cluster_size"] // 50, tmp_path, work) > 20


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_power_cut(tmp_path: Path, options: dict[str, Any]) -> None:
    seen = 0
    for seed in range(10, 13):
        directory = tmp_path / str(seed)
        work, tape = taped(directory, options, seed, 60, barriers=True)
        seen += each(enumerated(tape.events, BEFORE, work.rng), 1, directory, work)
        seen += each(states(tape.events, BEFORE, work.rng, 2), 1, directory, work)
    assert seen > 3_000


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_kill(tmp_path: Path, options: dict[str, Any]) -> None:
    seen = 0
    for seed in range(40, 43):
        directory = tmp_path / str(seed)
        work, tape = taped(directory, options, seed, 80, barriers=False)
        seen += each(killed(tape.events, BEFORE), 1, directory, work)
    assert seen > 1_000


DYING = """
import os, signal, sys
from pathlib import Path
from rrgdb.qcow2.hostfile import HostFile
from rrgdb_tests.qcow2.test_power import OPTIONS, do_work

number, turns, step = map(int, sys.argv[2:])
write, left = HostFile.write, 0

def dying(file, offset, buffers):
    global left
    left -= 1
    if left == 0:
        data = b"".join(buffers)
        write(file, offset, [data[: len(data) // 2 // 512 * 512]])  # a signal does not divide less than a page
        os.kill(os.getpid(), signal.SIGKILL)
    write(file, offset, buffers)

class Said:
    def must(self, names):
        (directory / "must").write_text(" ".join(names))

HostFile.write = dying
status = -signal.SIGKILL
while status:
    left += step
    directory = Path(sys.argv[1]) / str(left)
    child = os.fork()
    if not child:
        do_work(directory, OPTIONS[number], 3, turns, Said(), barriers=False)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
"""


def die_in_writes(directory: Path, number: int, turns: int, step: int, qemu: Qemu) -> int:
    """Processes that kill themselves in the middle of their n-th write, for every ``step``-th n; returns how many."""
    work, _ = taped(directory / "whole", OPTIONS[number], 3, turns, barriers=False)
    died = directory / "died"
    died.mkdir()
    subprocess.run([sys.executable, "-c", DYING, *map(str, (died, number, turns, step))], check=True)
    for where in died.iterdir():
        path, said = where / "a", where / "must"
        must = frozenset(said.read_text().split()) if said.exists() else frozenset()
        if path.read_bytes()[:4] == b"QFI\xfb":
            verify(path, must, work.content)
            qemu.check(path, codes=(0, 3))
        else:
            assert not must
    return len(list(died.iterdir()))


def test_sigkill_in_a_write(tmp_path: Path, qemu: Qemu) -> None:
    assert die_in_writes(tmp_path, 0, 40, 31, qemu) > 4


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(OPTIONS)))
def test_sigkill_in_every_write(tmp_path: Path, qemu: Qemu, number: int) -> None:
    assert die_in_writes(tmp_path, number, 40, 1, qemu) > 100


@pytest.mark.parametrize("backing", ["raw", "qcow2"])
@pytest.mark.parametrize("how", ["commit", "rebase"])
def test_power_cuts_while_a_chain_changes(tmp_path: Path, qemu: Qemu, backing: str, how: str) -> None:
    """Commit and safe rebase: what the overlay and its snapshots read as never changes, whatever is on the disk."""
    rng = random.Random(3)
    below = rng.randbytes(50_176)
    base, other, top = tmp_path / "base", tmp_path / "other", tmp_path / "top"
    other.write_bytes(below[:20_480] + rng.randbytes(10_240) + below[30_720:])
    if backing == "raw":
        base.write_bytes(below)
    else:
        with Image.create(base, len(below), cluster_size=512) as image:
            image.write(0, below)
            image.create_snapshot("kept")
    with Image.create(top, 70_144, cluster_size=1024, backing_file="base", backing_format=backing) as image:
        expected = {}
        for turn in range(12):
            offset = rng.randrange(60_000)
            image.write(offset, rng.randbytes(rng.randrange(1, 5000)))
            if turn % 3 == 0:
                expected[image.create_snapshot(f"s{turn}").id] = image.read(0, image.size)
        image.discard(10_240, 8192)
        expected[""] = image.read(0, image.size)
    before = {path.name: path.read_bytes() for path in (base, other, top)}
    with pytest.MonkeyPatch.context() as patch:
        tape = Tape(patch)
        with Image.open(top, writable=True) as image:
            if how == "commit":
                image.commit()
            else:
                image.rebase("other", "raw")
    assert top.read_bytes() != before["top"]
    seen = 0
    some = islice(enumerated(tape.events, before, rng), 0, None, 23)
    for _, files in chain(some, states(tape.events, before, rng, 1)):
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        with Image.open(top) as image:
            assert {ident: image.view(ident).read(0, image.size) for ident in expected if ident} | {
                "": image.read(0, image.size)
            } == expected
            assert not image.check().corruption_count
        if backing == "qcow2":
            with Image.open(base) as image:
                assert not image.check().corruption_count
                assert image.view("1").read(0, len(below)) == below
        seen += 1
    assert seen > 10
    for name in ("base", "top") if backing == "qcow2" else ("top",):
        qemu.check(tmp_path / name, codes=(0, 3))
