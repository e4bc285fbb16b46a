"""Every combination of the format's options, written here and judged by QEMU's tools, and the other way round."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from rrgdb.qcow2 import Image
from rrgdb_tests.qcow2.conftest import Qemu
from rrgdb_tests.qcow2.test_options import texts
from rrgdb_tests.qcow2.test_qemu import raw_of

CLUSTER_SIZES = [512 << i for i in range(13)]
REFCOUNTS = [1, 2, 4, 8, 16, 32, 64]
BACKINGS = ["", "raw", "qcow2", "raw, absolute", "qcow2, absolute"]
VALUE = 0x5A


@dataclass(frozen=True)
class Options:
    """One combination. ``backing``: empty, or the format of what is under the image, with ``absolute``."""

    cluster_size: int
    version: int
    refcount_bits: int
    compression: str
    lazy: bool
    backing: str

    @property
    def size(self) -> int:
        return max(400_384, 3 * self.cluster_size + 1024)

    @property
    def snapshots(self) -> int:
        """How many the refcounts can count."""
        return {1: 0, 2: 1}.get(self.refcount_bits, 2)

    @property
    def backing_format(self) -> str:
        return self.backing.partition(",")[0]

    def backing_file(self, directory: Path) -> str:
        name = f"base.{self.backing_format}"
        return str(directory / name) if "absolute" in self.backing else name

    def create(self, path: Path) -> Image:
        how: dict[str, Any] = {"cluster_size": self.cluster_size, "version": self.version}
        if self.version == 3:
            how |= {"refcount_bits": self.refcount_bits, "compression": self.compression, "lazy_refcounts": self.lazy}
        if self.backing:
            how |= {"backing_file": self.backing_file(path.parent), "backing_format": self.backing_format}
        return Image.create(path, self.size, **how)

    def create_with(self, qemu: Qemu, path: Path) -> None:
        how = f"cluster_size={self.cluster_size},compat={'1.1' if self.version == 3 else '0.10'}"
        if self.version == 3:
            how += f",refcount_bits={self.refcount_bits},compression_type={self.compression}"
            how += f",lazy_refcounts={'on' if self.lazy else 'off'}"
        under = ("-b", self.backing_file(path.parent), "-F", self.backing_format) if self.backing else ()
        qemu.img("create", "-q", "-f", "qcow2", "-o", how, *under, path, str(self.size))


def combinations(cluster_size: int) -> Iterator[Options]:
    for backing in BACKINGS:
        yield Options(cluster_size, 2, 16, "zlib", lazy=False, backing=backing)
    for bits, compression, lazy, backing in product(REFCOUNTS, ["zlib", "zstd"], [False, True], BACKINGS):
        yield Options(cluster_size, 3, bits, compression, lazy, backing)


def sample() -> list[Options]:
    """Each value of each option at least once, in company that changes."""
    found = []
    for i, cluster_size in enumerate(CLUSTER_SIZES):
        every = list(combinations(cluster_size))
        found.append(every[i * 53 % len(every)])
    return found


def directory_with_base(tmp_path: Path, qemu: Qemu) -> Path:
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "base.raw").write_bytes(texts(4, 300_032))
    qemu.img("convert", "-f", "raw", "-O", "qcow2", tmp_path / "base.raw", tmp_path / "base.qcow2")
    return tmp_path


def work_of_ours(image: Image, options: Options, shadow: bytearray) -> dict[str, bytes]:
    """All that an image can be written with; returns what each snapshot holds."""
    rng = random.Random(options.cluster_size)
    size, kept = options.cluster_size, {}

    def put(offset: int, data: bytes) -> None:
        image.write(offset, data)
        shadow[offset : offset + len(data)] = data

    def pack() -> None:
        data = texts(8, max(65536, size))[: max(65536 // size, 1) * size]
        image.write_compressed(2 * max(65536, size) if size < 65536 else 0, data)
        at = 2 * max(65536, size) if size < 65536 else 0
        shadow[at : at + len(data)] = data

    def clear(offset: int, length: int) -> None:
        image.write_zeros(offset, length)
        shadow[offset : offset + length] = bytes(length)

    put(1000, rng.randbytes(70_000))
    if options.refcount_bits >= 8:
        pack()
    for number in range(options.snapshots):
        image.write_vmstate([(number * size, bytes([number + 1]) * size)])
        image.create_snapshot(
            f"s{number}", vm_state_size=2 * size, vm_clock_ns=10**9 * number, icount=number or None, date=(10**9, 5)
        )
        kept[f"s{number}"] = bytes(shadow)
        put(number * 30_000, bytes([number + 7]) * 20_000)
        clear(100_000 + number * 7, 50_000)
    if options.refcount_bits < 8:
        pack()
    put(options.size - 5000, bytes([VALUE]) * 5000)
    if size <= 16384:
        # Whole clusters at the end of the disk's middle.
        at = 262_144
        image.discard(at, 2 * size)
        shadow[at : at + 2 * size] = bytes(2 * size)
    return kept


def judge(qemu: Qemu, path: Path, shadow: bytes, kept: dict[str, bytes]) -> None:
    """What each of QEMU's tools says of an image of ours."""
    qemu.check(path)
    assert raw_of(qemu, path) == shadow
    (path.parent / "shadow").write_bytes(shadow)
    assert "identical" in qemu.img("compare", "-f", "qcow2", "-F", "raw", path, path.parent / "shadow")
    with Image.open(path) as image:
        assert image.info().as_json() == qemu.info(path)
        assert [e.as_json() for e in image.map()] == json.loads(qemu.img("map", "--output=json", path))
    listing = qemu.img("snapshot", "-l", path)
    assert all(name in listing for name in kept)
    qemu.io(path, f"read -P {VALUE} {len(shadow) - 5000} 5000")
    for name, content in kept.items():
        trial = path.with_name("trial")
        shutil.copy(path, trial)
        qemu.img("snapshot", "-a", name, trial)
        qemu.check(trial)
        assert raw_of(qemu, trial) == content


def ours(tmp_path: Path, qemu: Qemu, options: Options) -> None:
    path = directory_with_base(tmp_path, qemu) / "a.qcow2"
    below = (tmp_path / "base.raw").read_bytes() if options.backing else b""
    shadow = bytearray(below.ljust(options.size, b"\0"))
    with options.create(path) as image:
        assert image.read(0, options.size) == shadow
        kept = work_of_ours(image, options, shadow)
        assert image.read(0, options.size) == shadow
        assert image.check().clean
    judge(qemu, path, bytes(shadow), kept)


def theirs(tmp_path: Path, qemu: Qemu, options: Options) -> None:
    path, size = directory_with_base(tmp_path, qemu) / "a.qcow2", options.cluster_size
    options.create_with(qemu, path)
    pack = f"write -c -P 3 {2 * max(65536, size) if size < 65536 else 0} {max(65536, size)}"
    names = [f"s{number}" for number in range(options.snapshots)]
    qemu.io(path, "write -P 1 1000 70000" if size < 65536 else pack, "write -z 200k 40k")
    for number, name in enumerate(names):
        qemu.io(path, f"write -b -P {number + 1} 0 {size}", f"write -P {number + 7} {number * 30_000} 20000")
        qemu.img("snapshot", "-c", name, path)
    last = [pack] if size < 65536 else []
    discard = ["discard 256k 8k"] if options.version == 3 or not options.backing else []
    qemu.io(path, *last, *discard, f"write -P {VALUE} {options.size - 5000} 5000")
    whole = raw_of(qemu, path)
    with Image.open(path) as image:
        assert image.read(0, image.size) == whole
        assert image.check().clean
        assert image.info().as_json() == qemu.info(path)
        assert [e.as_json() for e in image.map()] == json.loads(qemu.img("map", "--output=json", path))
        assert [s.name for s in image.snapshots] == names
        for number, snapshot in enumerate(image.snapshots):
            out = path.with_name("out")
            qemu.img("convert", "-l", f"snapshot.name={snapshot.name}", "-f", "qcow2", "-O", "raw", path, out)
            view = image.view(snapshot)
            assert view.read(0, view.size) == out.read_bytes()
            assert view.read_vmstate(0, size) == bytes([number + 1]) * size
    shadow = bytearray(whole)
    with Image.open(path, writable=True) as image:
        image.write(50_000, b"ours" * 9000)
        shadow[50_000:86_000] = b"ours" * 9000
        for snapshot in image.snapshots[:1]:
            image.delete_snapshot(snapshot)
        assert image.read(0, image.size) == shadow
        assert image.check().clean
    qemu.check(path)
    assert raw_of(qemu, path) == shadow


@pytest.mark.parametrize("options", sample(), ids=str)
def test_what_we_write(tmp_path: Path, qemu: Qemu, options: Options) -> None:
    ours(tmp_path, qemu, options)


@pytest.mark.parametrize("options", sample(), ids=str)
def test_what_qemu_writes(tmp_path: Path, qemu: Qemu, options: Options) -> None:
    theirs(tmp_path, qemu, options)


def test_the_sample_has_everything() -> None:
    for name, values in (
        ("version", {2, 3}),
        ("refcount_bits", set(REFCOUNTS)),
        ("compression", {"zlib", "zstd"}),
        ("lazy", {False, True}),
        ("backing", set(BACKINGS)),
    ):
        assert {getattr(options, name) for options in sample()} == values, name


@pytest.mark.slow
@pytest.mark.parametrize("cluster_size", CLUSTER_SIZES)
def test_every_combination(tmp_path: Path, qemu: Qemu, cluster_size: int) -> None:
    for number, options in enumerate(combinations(cluster_size)):
        for direction in (ours, theirs):
            directory = tmp_path / f"{number}-{direction.__name__}"
            try:
                direction(directory, qemu, options)
            except AssertionError as error:
                raise AssertionError(f"{direction.__name__} with {options}") from error
            shutil.rmtree(directory)
