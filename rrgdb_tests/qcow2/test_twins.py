"""One random sequence of operations, done by us and by QEMU's tools: equal content, clean checks, each read by both."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rrgdb.qcow2 import Image
from rrgdb_tests.qcow2.conftest import Qemu

MOST = 1 << 20


@dataclass
class Layer:
    """One file of the chain."""

    name: str
    cluster_size: int
    compression: str
    snapshots: list[str] = field(default_factory=list)


class Ours:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.image: Image | None = None

    def top(self) -> Image:
        assert self.image is not None
        return self.image

    def create(self, layer: Layer, size: int, below: Layer | None, options: dict[str, Any]) -> None:
        self.close()
        under = {} if below is None else {"backing_file": below.name, "backing_format": "qcow2"}
        self.image = Image.create(
            self.directory / layer.name,
            size,
            cluster_size=layer.cluster_size,
            compression=layer.compression,
            **under,  # type: ignore[arg-type] - a dict of strings
            **options,
        )

    def write(self, offset: int, length: int, value: int) -> None:
        self.top().write(offset, bytes([value]) * length)

    def pack(self, offset: int, length: int, value: int) -> None:
        self.top().write_compressed(offset, bytes([value]) * length)

    def zero(self, offset: int, length: int) -> None:
        self.top().write_zeros(offset, length)

    def discard(self, offset: int, length: int) -> None:
        self.top().discard(offset, length)

    def snapshot(self, name: str) -> None:
        self.top().create_snapshot(name)

    def apply(self, name: str) -> None:
        self.top().apply_snapshot(next(s for s in self.top().snapshots if s.name == name))

    def delete(self, name: str) -> None:
        self.top().delete_snapshot(next(s for s in self.top().snapshots if s.name == name))

    def resize(self, size: int) -> None:
        self.top().resize(size)

    def commit(self, layer: Layer, below: Layer) -> None:
        self.top().commit()
        assert self.top().check().clean
        self.close()
        (self.directory / layer.name).unlink()
        self.image = Image.open(self.directory / below.name, writable=True)

    def rebase(self, below: Layer | None) -> None:
        self.top().rebase(*((None, None) if below is None else (below.name, "qcow2")))
        assert self.top().check().clean

    def reopen(self, layer: Layer) -> None:
        self.close()
        self.image = Image.open(self.directory / layer.name, writable=True)

    def close(self) -> None:
        if self.image is not None:
            self.image.close()
        self.image = None


class Theirs:
    def __init__(self, directory: Path, qemu: Qemu) -> None:
        self.directory = directory
        self.qemu = qemu
        self.path = directory
        self.waiting: list[str] = []

    def settle(self) -> None:
        if self.waiting:
            self.qemu.io(self.path, *self.waiting)
        self.waiting = []

    def img(self, verb: str, *args: str | Path) -> None:
        self.settle()
        self.qemu.img(verb, *args)

    def create(self, layer: Layer, size: int, below: Layer | None, options: dict[str, Any]) -> None:
        self.settle()
        self.path = self.directory / layer.name
        told = [f"cluster_size={layer.cluster_size}"]
        if options.get("version") == 2:
            told.append("compat=0.10")
        else:
            told += [f"compression_type={layer.compression}", f"refcount_bits={options.get('refcount_bits', 16)}"]
        under = [] if below is None else ["-b", below.name, "-F", "qcow2"]
        self.img("create", "-q", "-f", "qcow2", "-o", ",".join(told), *under, self.path, str(size))

    def write(self, offset: int, length: int, value: int) -> None:
        self.waiting.append(f"write -P {value} {offset} {length}")

    pack = write  # QEMU compresses only what is not allocated

    def zero(self, offset: int, length: int) -> None:
        self.waiting.append(f"write -z {offset} {length}")

    def discard(self, offset: int, length: int) -> None:
        self.waiting.append(f"discard {offset} {length}")

    def snapshot(self, name: str) -> None:
        self.img("snapshot", "-c", name, self.path)

    def apply(self, name: str) -> None:
        self.img("snapshot", "-a", name, self.path)

    def delete(self, name: str) -> None:
        self.img("snapshot", "-d", name, self.path)

    def resize(self, size: int) -> None:
        self.img("resize", "-q", "--shrink", "-f", "qcow2", self.path, str(size))

    def commit(self, layer: Layer, below: Layer) -> None:
        self.img("commit", "-q", "-f", "qcow2", self.path)
        self.path.unlink()
        self.path = self.directory / below.name

    def rebase(self, below: Layer | None) -> None:
        under = ["-b", ""] if below is None else ["-b", below.name, "-F", "qcow2"]
        self.img("rebase", "-q", "-f", "qcow2", *under, self.path)

    def reopen(self, layer: Layer) -> None:
        self.settle()


def play(directory: Path, qemu: Qemu, seed: int, steps: int) -> None:
    rng = random.Random(seed)
    for name in ("ours", "theirs"):
        (directory / name).mkdir(parents=True)
    ours, theirs = Ours(directory / "ours"), Theirs(directory / "theirs", qemu)
    options = rng.choice([{}, {}, {"version": 2}, {"refcount_bits": 64}, {"refcount_bits": 8}])
    chain: list[Layer] = []
    size = 0
    said: list[str] = []

    def both(verb: str, *args: Any) -> None:
        said.append(f"{verb}{args}")
        for side in (ours, theirs):
            getattr(side, verb)(*args)

    def add_layer() -> None:
        below = chain[-1] if chain else None
        compression = "zlib" if options.get("version") == 2 else rng.choice(["zlib", "zstd"])
        chain.append(Layer(f"l{len(said)}", rng.choice([512, 4096, 65536]), compression))
        both("create", chain[-1], size, below, options)

    size = rng.randrange(1, MOST // 512) * 512
    add_layer()
    for _ in range(steps):
        top = chain[-1]
        offset = rng.randrange(size // 512) * 512
        length = min(rng.randrange(1, 200) * 512, size - offset)
        low, high = -(-offset // top.cluster_size) * top.cluster_size, (offset + length) // top.cluster_size
        whole = low, high * top.cluster_size - low
        kind = rng.choice(
            ["write"] * 4
            + [
                "pack",
                "zero",
                "discard",
                "snapshot",
                "apply",
                "delete",
                "layer",
                "commit",
                "rebase",
                "resize",
                "reopen",
            ]
        )
        if kind == "write":
            both("write", offset, length, rng.randrange(1, 256))
        elif kind == "pack" and whole[1] > 0:
            both("pack", *whole, rng.randrange(256))
        elif kind == "zero":
            both("zero", offset, length)
        elif kind == "discard" and whole[1] > 0 and (options.get("version") != 2 or not chain[1:]):
            both("discard", *whole)  # without the zero flag, QEMU lets the backing file appear
        elif kind == "snapshot" and len(top.snapshots) < 5:
            top.snapshots.append(f"s{len(said)}")
            both("snapshot", top.snapshots[-1])
        elif kind == "apply" and top.snapshots:
            both("apply", rng.choice(top.snapshots))
            size = ours.top().size
        elif kind == "delete" and top.snapshots:
            both("delete", top.snapshots.pop(rng.randrange(len(top.snapshots))))
        elif kind == "layer" and len(chain) < 4:
            add_layer()
        elif kind == "commit" and len(chain) > 1 and options.get("version") != 2:
            chain.pop()
            both("commit", top, chain[-1])
            size = ours.top().size
        elif kind == "rebase" and len(chain) > 1 and not top.snapshots:  # QEMU lets the snapshots change
            chain.pop(-2)
            both("rebase", chain[-2] if chain[1:] else None)
        elif kind == "resize" and (options.get("version") != 2 or not (top.snapshots or chain[1:])):
            # QEMU leaves old bytes in the cluster that the new end cuts, and shows them when the disk grows again.
            wanted = rng.randrange(1, MOST // 65536) * 65536
            size = wanted if wanted < size else wanted + rng.randrange(128) * 512
            both("resize", size)
        elif kind == "reopen":
            both("reopen", top)
            theirs.settle()
            compare(ours, theirs, said)
    theirs.settle()
    compare(ours, theirs, said)
    ours.close()
    for layer in chain:
        for side in ("ours", "theirs"):
            path = directory / side / layer.name
            qemu.check(path)
            with Image.open(path) as image:
                assert image.check().clean
    top_paths = [directory / side / chain[-1].name for side in ("ours", "theirs")]
    qemu.img("compare", "-f", "qcow2", "-F", "qcow2", *top_paths)
    for name in list(chain[-1].snapshots):
        ours.reopen(chain[-1])
        both("apply", name)
        compare(ours, theirs, said)
    ours.close()


def compare(ours: Ours, theirs: Theirs, said: list[str]) -> None:
    with Image.open(theirs.path) as image:
        top = ours.top()
        assert image.size == top.size, said
        left, right = top.read(0, top.size), image.read(0, top.size)
        if left != right:
            at = next(i for i in range(len(left)) if left[i] != right[i])
            pytest.fail(f"byte {at}: {left[at]} and {right[at]} after {said}")


@pytest.mark.parametrize("seed", range(8))
def test_twins(tmp_path: Path, qemu: Qemu, seed: int) -> None:
    play(tmp_path, qemu, seed, 25)


@pytest.mark.slow
def test_twins_long(tmp_path: Path, qemu: Qemu) -> None:
    for seed in range(100, 300):
        play(tmp_path / str(seed), qemu, seed, 60)
