"""Small sound images with every feature, made by rrgdb.qcow2 and, where it is there, by qemu-img."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

from rrgdb.qcow2 import Image

TOP = "top"
"""the name of the image that is used; the other files of a seed are under it"""
Files = dict[str, bytes]

_DISK = 200_192
_OURS: tuple[dict[str, Any], ...] = (
    {"cluster_size": 512},
    {"cluster_size": 512, "version": 2},
    {"cluster_size": 512, "refcount_bits": 1},
    {"cluster_size": 4096, "refcount_bits": 64, "compression": "zstd"},
    {"cluster_size": 1024, "refcount_bits": 8, "lazy_refcounts": True},
    {"cluster_size": 65536},
    {"cluster_size": 512, "backing_file": "base", "backing_format": "raw"},
    {"cluster_size": 4096, "backing_file": "middle", "backing_format": "qcow2"},
)
_THEIRS = (
    "compat=0.10,cluster_size=512",
    "compat=1.1,cluster_size=512,refcount_bits=2",
    "cluster_size=4096,compression_type=zstd",
    "cluster_size=4096,lazy_refcounts=on",
    "extended_l2=on,cluster_size=16384",
    "extended_l2=on,backing_file=base,backing_fmt=raw,cluster_size=16384",
    "data_file=outside,cluster_size=4096",
    "data_file=outside,data_file_raw=on,cluster_size=4096",
    "data_file=outside,extended_l2=on,cluster_size=16384",
    "backing_file=middle,backing_fmt=qcow2,cluster_size=4096",
)


def build(directory: Path) -> list[Files]:
    """Make all images below ``directory``; returns the files of each."""
    directory.mkdir(parents=True)
    made = [_ours(directory / f"ours-{number}", options) for number, options in enumerate(_OURS)]
    if shutil.which("qemu-img") and shutil.which("qemu-io"):
        made += [_theirs(directory / f"theirs-{number}", options) for number, options in enumerate(_THEIRS)]
    return made


def _under(directory: Path) -> None:
    """A raw file and an overlay of it."""
    directory.mkdir()
    rng = random.Random(7)
    (directory / "base").write_bytes(rng.randbytes(60_000).ljust(150_016, b"b"))
    with Image.create(
        directory / "middle", 180_224, cluster_size=1024, backing_file="base", backing_format="raw"
    ) as image:
        image.write(30_000, rng.randbytes(20_000))
        image.write_compressed(61_440, b"middle.." * 768)
        image.discard(100_352, 10_240)


def _ours(directory: Path, options: dict[str, Any]) -> Files:
    _under(directory)
    rng = random.Random(str(options))
    with Image.create(directory / TOP, _DISK, **options) as image:
        size = image.cluster_size
        turns = 1 if options.get("refcount_bits") == 1 else 4
        for turn in range(turns):
            image.write(turn * 30_000, rng.randbytes(9_000) + bytes([turn + 1]) * 9_000)
            image.write_compressed(131_072, b"turn %3d" % turn * 8192)
            image.discard(90_000 + turn * 1000, 9_000)
            image.write_vmstate([(i * size, bytes([i + turn + 1]) * size) for i in range(turn, 24, 3)])
            if turns > 1:
                # The refcounts of eight bits and less do not count that many compressed clusters in one.
                image.create_snapshot(
                    f"s{turn}", vm_state_size=24 * size, vm_clock_ns=turn, icount=turn or None, date=(turn, 0)
                )
        image.write(1000, b"active" * 500)
    return _files(directory, options.get("backing_file"))


def _theirs(directory: Path, options: str) -> Files:
    _under(directory)
    path = directory / TOP
    # qemu-img writes the name as it is told, and looks for it from where it runs.
    _run(directory, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, TOP, str(_DISK))
    work = ["write -P 3 1000 50000", "write -P 4 70000 30000", "write -z 96k 16k", "discard 64k 16k", "write 190k 3k"]
    outside = "data_file" in options
    # Compressed clusters share one, and two bits do not count two snapshots of that.
    if not outside and "refcount_bits=2" not in options:
        work.append("write -c -P 5 128k 32k")
    _io(directory, *work)
    if not outside:
        for name in ("one", "two"):
            _run(directory, "qemu-img", "snapshot", "-c", name, TOP)
            _io(directory, "write -P 6 10k 20k", "write -b -P 7 0 12k")
    if "compat=0.10" not in options:
        for name in ("bits", "more"):
            _run(directory, "qemu-img", "bitmap", "--add", "-g", "4k", TOP, name)
            _io(directory, "write -P 8 120k 4k")
    assert path.exists()
    return _files(directory, "outside" if outside else "base" if "backing" in options else None)


def _files(directory: Path, also: str | None) -> Files:
    wanted = {TOP} if also is None else {TOP, "outside"} if also == "outside" else {TOP, "base", "middle"}
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.name in wanted}


def _io(directory: Path, *commands: str) -> None:
    _run(directory, "qemu-io", "-f", "qcow2", *(part for command in commands for part in ("-c", command)), TOP)


def _run(directory: Path, *arguments: str) -> None:
    done = subprocess.run(arguments, cwd=directory, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode or "failed" in done.stdout:
        raise SystemExit(f"scripts/fuzz: {' '.join(arguments)}: {done.stderr or done.stdout}")
