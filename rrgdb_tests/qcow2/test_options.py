"""Every option of the format, written here and read by QEMU, and the other way round."""

from __future__ import annotations

import random
import signal
import struct
import subprocess
import sys
from contextlib import nullcontext, suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from rrgdb.qcow2 import Image, Qcow2Error, Qcow2UnsupportedError, check_image, repair_image
from rrgdb.qcow2.layout import EXT_END, EXT_FEATURE_NAMES
from rrgdb_tests.qcow2.conftest import Qemu
from rrgdb_tests.qcow2.test_qemu import raw_of, scribble

DISK = 1 << 20


def texts(seed: int, length: int = DISK) -> bytes:
    """Bytes of which some can be compressed well, some badly, some not at all."""
    rng = random.Random(seed)
    parts: list[bytes] = []
    while sum(map(len, parts)) < length:
        parts.append(
            rng.choice(
                [bytes([rng.randrange(256)]) * 9000, rng.randbytes(5000), b"word %d " % seed * 700, bytes(20_000)]
            )
        )
    return b"".join(parts)[:length]


VERSIONS: list[dict[str, Any]] = [
    {"version": 2},
    {"version": 3},
    {"version": 3, "lazy_refcounts": True},
    *({"version": 3, "refcount_bits": bits} for bits in (1, 2, 4, 8, 32, 64)),
    {"version": 3, "compression": "zstd"},
]


@pytest.mark.parametrize(("options", "cluster_size"), list(product(VERSIONS, [512, 4096, 65536])), ids=str)
def test_qemu_reads_and_writes_what_we_create(
    tmp_path: Path, qemu: Qemu, options: dict[str, Any], cluster_size: int
) -> None:
    path = tmp_path / "a.qcow2"
    shadow = bytearray(DISK)
    with Image.create(path, DISK, cluster_size=cluster_size, **options) as image:
        scribble(image, shadow, 1)
        image.write_compressed(0, texts(2)[: 4 * 65536])
        shadow[: 4 * 65536] = texts(2)[: 4 * 65536]
        if options.get("refcount_bits") == 1:
            with pytest.raises(Qcow2Error, match="do not fit"):
                image.create_snapshot("s")
        else:
            narrow = options.get("refcount_bits", 16) < 16  # many compressed clusters in one
            with suppress(Qcow2Error) if narrow else nullcontext():
                image.create_snapshot("s")
            scribble(image, shadow, 3)
        assert image.check().clean
    qemu.check(path)
    assert raw_of(qemu, path) == shadow
    told = qemu.info(path)["format-specific"]["data"]
    assert told["compat"] == ("0.10" if options["version"] == 2 else "1.1")
    assert told["refcount-bits"] == options.get("refcount_bits", 16)
    assert told.get("lazy-refcounts", False) == options.get("lazy_refcounts", False)
    assert told["compression-type"] == options.get("compression", "zlib")
    qemu.io(path, "write -P 33 100k 300k", "discard 0 64k")
    qemu.check(path)
    shadow[:] = raw_of(qemu, path)
    with Image.open(path, writable=True) as image:
        assert image.read(0, DISK) == shadow
        scribble(image, shadow, 4)
        assert image.check().clean
    qemu.check(path)
    assert raw_of(qemu, path) == shadow


QEMU_OPTIONS = [
    *(f"compat=1.1,refcount_bits={bits}" for bits in (1, 2, 4, 8, 16, 32, 64)),
    "compat=0.10",
    "compat=1.1,lazy_refcounts=on",
    "compat=1.1,compression_type=zstd",
    "preallocation=metadata",
]


@pytest.mark.parametrize(("options", "cluster_size"), list(product(QEMU_OPTIONS, [512, 65536])))
def test_we_read_and_write_what_qemu_creates(tmp_path: Path, qemu: Qemu, options: str, cluster_size: int) -> None:
    path = tmp_path / "a.qcow2"
    qemu.img("create", "-f", "qcow2", "-o", f"{options},cluster_size={cluster_size}", path, str(DISK))
    qemu.io(path, "write -P 17 1000 100000", "write -P 18 400k 100k", "discard 410k 64k")
    if "preallocation" not in options:  # QEMU does not compress over allocated clusters
        qemu.io(path, "write -c -P 5 512k 64k")
    shadow = bytearray(raw_of(qemu, path))
    with Image.open(path, writable=True) as image:
        assert image.read(0, DISK) == shadow
        assert image.check().clean
        scribble(image, shadow, 1)
        image.write_compressed(640 * 1024, b"abc" * 65536)
        shadow[640 * 1024 : 640 * 1024 + 3 * 65536] = b"abc" * 65536
        assert image.check().clean
    qemu.check(path)
    assert raw_of(qemu, path) == shadow


@pytest.mark.parametrize(("compression", "cluster_size"), list(product(["zlib", "zstd"], [512, 4096, 65536, 2 << 20])))
def test_compressed_clusters_both_ways(tmp_path: Path, qemu: Qemu, compression: str, cluster_size: int) -> None:
    raw, theirs, ours = tmp_path / "raw", tmp_path / "theirs.qcow2", tmp_path / "ours.qcow2"
    size = 5 << 20
    raw.write_bytes(texts(7, size))
    how = f"cluster_size={cluster_size},compression_type={compression}"
    qemu.img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", how, raw, theirs)
    with Image.open(theirs, writable=True) as image:
        assert image.read(0, size) == raw.read_bytes()
        assert image.check().clean
        image.create_snapshot("s")
        image.write(5000, b"new" * 3000)
        assert image.view("1").read(0, size) == raw.read_bytes()
        image.delete_snapshot("1")
    qemu.check(theirs)
    with Image.create(ours, size - 512, cluster_size=cluster_size, compression=compression) as image:
        content, at, rng = raw.read_bytes()[: size - 512], 0, random.Random(3)
        while at < len(content):  # in steps of all kinds: what is packed must go on where it stopped
            step = rng.choice([1, 1, 3, 40]) * cluster_size
            image.write_compressed(at, content[at : at + step])
            at += step
            if rng.random() < 0.1:
                image.flush()
        assert image.read(0, len(content)) == content
        assert image.check().clean
        assert image.info().file_size < 0.9 * size or cluster_size == 2 << 20
    qemu.check(ours)
    assert raw_of(qemu, ours) == content
    assert abs(ours.stat().st_size - theirs.stat().st_size) < 0.1 * size + 5 * cluster_size


def test_packing_goes_on_behind_freed_clusters(tmp_path: Path, qemu: Qemu) -> None:
    """The cluster in which packing stopped may belong to somebody else meanwhile."""
    path, size = tmp_path / "a", 4096
    rng = random.Random(1)
    shadow = bytearray(200 * size)
    with Image.create(path, len(shadow), cluster_size=size) as image:
        for turn in range(400):
            at = rng.randrange(190) * size
            match rng.randrange(5):
                case 0:
                    image.discard(at, 10 * size)
                    shadow[at : at + 10 * size] = bytes(10 * size)
                case 1:
                    image.flush()
                case 2:
                    image.write(at, data := rng.randbytes(3 * size))
                    shadow[at : at + len(data)] = data
                case _:
                    image.write_compressed(at, data := b"%07d " % turn * (2 * size // 8))
                    shadow[at : at + len(data)] = data
            if turn % 50 == 7:
                image.create_snapshot(f"s{turn}")
        assert image.read(0, len(shadow)) == shadow
        assert image.check().clean
    qemu.check(path)
    assert raw_of(qemu, path) == shadow


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_damaged_compressed_clusters(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a"
    with Image.create(path, 65536, compression=compression) as image:
        image.write_compressed(0, b"x1y2" * 16384)
    sound = path.read_bytes()
    l1 = int.from_bytes(sound[40:48], "big")
    l2 = int.from_bytes(sound[l1 : l1 + 8], "big") & ~(1 << 63)
    at = int.from_bytes(sound[l2 : l2 + 8], "big") & ((1 << 54) - 1)
    said: list[str] = []
    for i in range(24):
        path.write_bytes(sound[: at + i] + bytes([sound[at + i] ^ 0xA5]) + sound[at + i + 1 :])
        with Image.open(path) as image:
            try:
                assert len(image.read(0, 65536)) == 65536
            except Qcow2Error as error:
                said.append(str(error))
    assert len(said) > 5
    assert all("offset" in line and "\n" not in line for line in said)


def test_zstd_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Image.create(tmp_path / "a", 65536, compression="zstd") as image:
        image.write_compressed(0, bytes(range(256)) * 256)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with Image.open(tmp_path / "a") as image:
        assert image.check().clean
        with pytest.raises(Qcow2UnsupportedError, match="needs the Python package zstandard"):
            image.read(0, 10)


def test_misuse_of_create(tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [
        {"version": 4},
        {"refcount_bits": 3},
        {"refcount_bits": 128},
        {"compression": "lz4"},
        {"version": 2, "refcount_bits": 8},
        {"version": 2, "lazy_refcounts": True},
        {"version": 2, "compression": "zstd"},
    ]
    for options in wrong:
        with pytest.raises(ValueError, match=r"version|refcount|compression"):
            Image.create(tmp_path / "a", 512, **options)
    assert not (tmp_path / "a").exists()
    with Image.create(tmp_path / "a", 100_352) as image:
        for offset, length in ((1, 65536), (0, 65535), (65536, 65536)):
            with pytest.raises(ValueError, match=r"whole clusters|outside"):
                image.write_compressed(offset, bytes(length))


def test_unknown_bits_and_extensions(tmp_path: Path, qemu: Qemu) -> None:
    """Compatible bits, additional fields and unknown extensions stay; autoclear bits go with the first writer."""
    path = tmp_path / "a"
    Image.create(path, 1 << 20).close()
    raw = bytearray(path.read_bytes())
    table = raw.index(struct.pack(">I", EXT_FEATURE_NAMES))
    length = int.from_bytes(raw[table + 4 : table + 8], "big")
    assert (table, length) == (112, 8 * 48)
    unknown = struct.pack(">II", 0x12345678, 5) + b"hello\0\0\0" + struct.pack(">II", EXT_END, 0)
    raw[120:128] = bytes(8)  # two more header fields that nobody knows
    raw[112:136] = struct.pack(">QQQ", 0, 77, 88)
    raw[100:104] = struct.pack(">I", 136)
    raw[136 : 136 + len(unknown)] = unknown
    raw[80:88] = struct.pack(">Q", 1 << 40 | 1)
    raw[88:96] = struct.pack(">Q", 1 << 50)
    path.write_bytes(raw)
    with Image.open(path) as image:
        assert image.read(0, 5) == bytes(5)
    assert path.read_bytes()[88:96] != bytes(8)
    image = Image.open(path, writable=True)
    assert path.read_bytes()[88:96] == bytes(8)  # before anything is written
    image.write(0, b"x")
    image.rebase("base.raw", "raw", unsafe=True)
    image.close()
    after = path.read_bytes()
    assert after[80:88] == struct.pack(">Q", 1 << 40 | 1)
    assert after[112:136] == struct.pack(">QQQ", 0, 77, 88)
    assert unknown[:16] in after[:256]
    (tmp_path / "base.raw").write_bytes(b"b" * 4096)
    qemu.check(path)
    told = qemu.info(path)
    assert (told["backing-filename"], told["backing-filename-format"]) == ("base.raw", "raw")


def test_the_name_of_an_unknown_feature_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    Image.create(path, 1 << 20).close()
    raw = bytearray(path.read_bytes())
    raw[120 + 7 * 48 : 120 + 8 * 48] = struct.pack(">BB46s", 0, 9, b"wishful thinking")
    raw[72:80] = struct.pack(">Q", 1 << 9)
    path.write_bytes(raw)
    with pytest.raises(Qcow2UnsupportedError, match=r"bit 9 \(wishful thinking\)"):
        Image.open(path)


def test_extensions_that_fill_the_first_cluster(tmp_path: Path, qemu: Qemu) -> None:
    """They need no end marker then, and none is added when the header is written anew."""
    path = tmp_path / "a"
    with Image.create(path, 1 << 20, cluster_size=512) as image:
        image.write(0, b"data")
    raw = bytearray(path.read_bytes())
    raw[112:512] = struct.pack(">II", 0x12345678, 392) + bytes(range(196)) * 2
    path.write_bytes(raw)
    with Image.open(path, writable=True) as image:
        with pytest.raises(ValueError, match="does not fit"):
            image.rebase("base", "raw", unsafe=True)
        image.rebase(None, None)
        assert image.read(0, 4) == b"data"
    assert path.read_bytes()[112:512] == raw[112:512]
    qemu.check(path)


def test_lazy_refcounts_of_a_qemu_that_died(tmp_path: Path, qemu: Qemu) -> None:
    """Its refcounts are not on disk, and the dirty bit says so."""
    path = tmp_path / "a"
    qemu.img("create", "-f", "qcow2", "-o", "lazy_refcounts=on,cluster_size=4096", path, "1M")
    qemu.img("snapshot", "-c", "s", path)
    arguments = ["-f", "qcow2", "-c", "write -P 7 5000 100000", "-c", "flush", "-c", "abort", str(path)]
    assert subprocess.run(["qemu-io", *arguments], capture_output=True, check=False).returncode == -signal.SIGABRT
    with Image.open(path) as image:
        assert image.info().dirty
        assert image.check().corruption_count
        assert image.read(5000, 100_000) == b"\7" * 100_000
    with Image.open(path, writable=True) as image:
        assert not image.info().dirty
        assert image.check().clean
        image.write(0, b"more")
        assert image.view("1").read(0, 1 << 20) == bytes(1 << 20)
    qemu.check(path)
    assert raw_of(qemu, path)[:5001] == b"more" + bytes(4996) + b"\7"


@pytest.mark.parametrize("name", ["AES", "LUKS"])
def test_encrypted_images_are_refused(tmp_path: Path, qemu: Qemu, name: str) -> None:
    path = tmp_path / "a"
    how = "encrypt.format=aes,encrypt.key-secret=s"
    qemu.img("create", "-f", "qcow2", "--object", "secret,id=s,data=word", "-o", how, path, "1M")
    if name == "LUKS":  # making one takes QEMU seconds, and fails on a busy machine
        raw = bytearray(path.read_bytes())
        raw[32:36] = struct.pack(">I", 2)
        path.write_bytes(raw)
    for action in (Image.open, check_image, repair_image):
        with pytest.raises(Qcow2UnsupportedError, match=f"offset 32: {name} encryption is not supported"):
            action(path)
