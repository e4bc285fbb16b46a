"""Power cuts: any sector that was written since the last sync of its file may be missing, at any point of a long work.

Every snapshot whose creation had returned is there with its content, unless its deletion had begun; no image is ever
corrupt. What the disk held since the last flush may be lost, as on any disk.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


class Work:
    """Random operations of all kinds on an overlay, and what each snapshot holds."""

    def __init__(self, image: Image, tape: Tape, rng: random.Random) -> None:
        self.image, self.tape, self.rng = image, tape, rng
        self.content: dict[str, tuple[bytes, bytes]] = {}
        self.names: list[str] = []
        self.complete: list[str] = []

    def step(self, turn: int) -> None:
        image, rng, size = self.image, self.rng, self.image.cluster_size
        offset = rng.randrange(image.size // size) * size
        length = min(rng.randrange(1, 30) * size, image.size - offset)
        match rng.randrange(14):
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
                self.tape.must([name for name in self.complete if name != gone])
                image.delete_snapshot(next(s for s in image.snapshots if s.name == gone))
                self._committed()
            case 11 if self.names:
                name = rng.choice(self.names)
                image.apply_snapshot(next(s for s in image.snapshots if s.name == name))
            case 12 if image.info().version == 3:
                image.resize(rng.randrange(20, 120) * size)
            case 13:
                if rng.random() < 0.5:
                    image.rebase(rng.choice(["base-1", "second-base"]), "raw", unsafe=True)
                else:
                    image.flush()
                    self._committed()

    def _committed(self) -> None:
        self.complete = list(self.names)
        self.tape.must(self.complete)


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


def cut_power(tmp_path: Path, options: dict[str, Any], seed: int, *, turns: int, each: int, power: bool = True) -> int:
    rng = random.Random(seed)
    below = rng.randbytes(40_000)
    before = {"base-1": below, "second-base": below}
    tmp_path.mkdir(exist_ok=True)
    for name, data in before.items():
        (tmp_path / name).write_bytes(data)
    path = tmp_path / "a"
    with pytest.MonkeyPatch.context() as patch:
        tape = Tape(patch)
        size = 80 * options["cluster_size"]
        with Image.create(path, size, backing_file="base-1", backing_format="raw", barriers=power, **options) as image:
            work = Work(image, tape, rng)
            for turn in range(turns):
                work.step(turn)
    seen = 0
    # A process that is killed leaves all that it has written.
    chances = (0, 0.1, 0.5, 0.9, 1) if power else (1.0,)
    for must, files in states(tape.events, before, rng, each, chances):
        if files["a"][:4] != b"QFI\xfb":
            assert not must
            continue
        path.write_bytes(files["a"])
        seen += verify(path, must, work.content)
    return seen


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_power_cuts(tmp_path: Path, options: dict[str, Any]) -> None:
    assert cut_power(tmp_path, options, 1, turns=40, each=1) > 20


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_kills(tmp_path: Path, options: dict[str, Any]) -> None:
    """The same without barriers: a process that dies between any two writes harms nothing."""
    assert cut_power(tmp_path, options, 2, turns=60, each=1, power=False) > 20


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_power_cuts_long(tmp_path: Path, options: dict[str, Any]) -> None:
    for seed in range(10, 18):
        cut_power(tmp_path / str(seed), options, seed, turns=80, each=4)


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
    for _, files in states(tape.events, before, rng, 2):
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
