"""rrgdb.qcow2 beside `qemu-img convert`: sequential reading and writing, on a file system in memory and on a disk."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from benchlib.bench import Bench
from benchlib.figures import QEMU, RRGDB, timed
from benchlib.guests import Guest
from rrgdb.qcow2 import Image
from rrgdb.qcow2.convert import copy_to_qcow2, copy_to_raw, create_raw, open_disk

GROUP = "qcow2"
WRITE, WRITE_DURABLE, READ, CONVERT = "write", "write until it is on disk", "read", "convert"
SIZE, QUICK_SIZE = 512 << 20, 64 << 20
STEPS = (64 << 10, 4 << 20)
CLUSTER = 64 << 10
PLACES = {"tmpfs": Path("/dev/shm"), "disk": Path(__file__).resolve().parents[2]}


@contextmanager
def _directory(place: Path) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix=".bench-", dir=place))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _qemu(*arguments: object) -> None:
    subprocess.run(["qemu-img", "convert", *map(str, arguments)], check=True)


def _to_qcow2(source: Path, target: Path) -> None:
    with closing(open_disk(str(source), "raw")) as disk, Image.create(target, disk.size, cluster_size=CLUSTER) as image:
        copy_to_qcow2(disk, image, compressed=False)


def _to_raw(source: Path, target: Path) -> None:
    with closing(open_disk(str(source), "qcow2")) as disk, closing(create_raw(str(target), disk.size)) as raw:
        copy_to_raw(disk, raw)
        raw.flush()


def _write(path: Path, content: memoryview, step: int) -> tuple[float, float]:
    """Seconds until the last write returned, and until the file was closed and on disk."""
    with Image.create(path, len(content), cluster_size=CLUSTER) as image:
        writing, _ = timed(lambda: [image.write(at, content[at : at + step]) for at in range(0, len(content), step)])
        closing, _ = timed(image.close)
    return writing, writing + closing


def _read(path: Path, step: int) -> float:
    buffer = memoryview(bytearray(step))
    with Image.open(path) as image:
        return timed(lambda: [image.read_into(at, buffer) for at in range(0, image.size, step)])[0]


def _one(bench: Bench, place: str, directory: Path) -> None:
    size = QUICK_SIZE if bench.quick else SIZE
    content = np.random.default_rng(1).bytes(size)
    raw, image, out = directory / "raw", directory / "image", directory / "out"
    raw.write_bytes(content)
    taken: dict[tuple[str, str], list[float]] = {}

    def note(who: str, what: str, seconds: float) -> None:
        taken.setdefault((what, who), []).append(seconds)

    def convert(who: str, what: str, run: Callable[..., None], *arguments: object) -> None:
        out.unlink(missing_ok=True)
        note(who, what, timed(lambda: run(*arguments, out))[0])

    # Everything takes its turn in each round: what else the machine does hits all alike.
    for _ in range(bench.repeat):
        for step in STEPS:
            image.unlink(missing_ok=True)
            writing, durable = _write(image, memoryview(content), step)
            note(RRGDB, f"{WRITE}: {step >> 10} KiB at a time", writing)
            note(RRGDB, f"{WRITE_DURABLE}: {step >> 10} KiB at a time", durable)
            note(RRGDB, f"{READ}: {step >> 10} KiB at a time", _read(image, step))
        to_qcow2 = ("-f", "raw", "-O", "qcow2")
        convert(QEMU, f"{CONVERT} raw to qcow2", _qemu, *to_qcow2, raw)
        convert(QEMU, f"{CONVERT} raw to qcow2, until it is on disk", _qemu, "-t", "writeback", *to_qcow2, raw)
        convert(RRGDB, f"{CONVERT} raw to qcow2, until it is on disk", _to_qcow2, raw)
        to_raw = ("-f", "qcow2", "-O", "raw")
        convert(QEMU, f"{CONVERT} qcow2 to raw", _qemu, *to_raw, image)
        convert(QEMU, f"{CONVERT} qcow2 to raw, until it is on disk", _qemu, "-t", "writeback", *to_raw, image)
        convert(RRGDB, f"{CONVERT} qcow2 to raw, until it is on disk", _to_raw, image)
        assert out.read_bytes() == content
    for (what, who), seconds in taken.items():
        bench.figures.add(GROUP, place, what, "MiB/s", [size / (1 << 20) / s for s in seconds], who=who)


def measure(bench: Bench, _: Guest) -> None:
    """All of this group; there is no guest in it, a column is a place."""
    for name, place in PLACES.items():
        if place.is_dir():
            with _directory(place) as directory:
                _one(bench, name, directory)
