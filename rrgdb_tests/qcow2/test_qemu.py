"""What we write QEMU reads, what QEMU writes we read."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rrgdb.qcow2 import Image, Qcow2UnsupportedError
from rrgdb_tests.qcow2.conftest import Qemu

SIZES = [512, 4096, 65536, 2 << 20]


def raw_of(qemu: Qemu, path: Path) -> bytes:
    out = path.with_suffix(".raw")
    qemu.img("convert", "-f", "qcow2", "-O", "raw", path, out)
    return out.read_bytes()


def scribble(image: Image, shadow: bytearray, seed: int, count: int = 12) -> None:
    rng = random.Random(seed)
    for _ in range(count):
        offset = rng.randrange(len(shadow))
        data = rng.randbytes(min(rng.choice([1, 511, 4096, 70000]), len(shadow) - offset))
        if rng.random() < 0.2:
            image.discard(offset, len(data))
            low = -(-offset // image.cluster_size) * image.cluster_size
            end = offset + len(data)
            high = end if end == len(shadow) else end // image.cluster_size * image.cluster_size
            if low < high:
                shadow[low:high] = bytes(high - low)
        else:
            image.write(offset, data)
            shadow[offset : offset + len(data)] = data


@pytest.mark.parametrize("cluster_size", SIZES)
def test_qemu_reads_what_we_write(tmp_path: Path, qemu: Qemu, cluster_size: int) -> None:
    path = tmp_path / "a.qcow2"
    shadow = bytearray(5861 * 512)
    with Image.create(path, len(shadow), cluster_size=cluster_size) as image:
        scribble(image, shadow, cluster_size)
        assert image.read(0, len(shadow)) == shadow
        image.create_snapshot("one")
        kept = bytes(shadow)
        scribble(image, shadow, cluster_size + 1)
    qemu.check(path)
    assert raw_of(qemu, path) == shadow
    qemu.img("snapshot", "-a", "one", path)
    qemu.check(path)
    assert raw_of(qemu, path) == kept


@pytest.mark.parametrize("options", [f"cluster_size={size}" for size in SIZES] + ["compat=0.10", "refcount_bits=1"])
def test_we_read_what_qemu_writes(tmp_path: Path, qemu: Qemu, options: str) -> None:
    path = tmp_path / "a.qcow2"
    qemu.img("create", "-f", "qcow2", "-o", options, path, "8M")
    qemu.io(path, "write -P 17 1000 100000", "write -P 18 4M 1M", "discard 5M 64k")
    if "compat" not in options:
        qemu.io(path, "write -z 4M 128k")
    with Image.open(path) as image:
        assert image.size == 8 << 20
        assert image.read(0, 8 << 20) == raw_of(qemu, path)
        assert image.check().clean


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
def test_all_refcount_widths_are_written(tmp_path: Path, qemu: Qemu, bits: int) -> None:
    path = tmp_path / "a.qcow2"
    qemu.img("create", "-f", "qcow2", "-o", f"cluster_size=512,refcount_bits={bits}", path, "1M")
    qemu.io(path, "write -P 17 1000 100000")
    with Image.open(path, writable=True) as image:
        image.write(60_000, b"x" * 300_000)
        if bits > 1:
            image.create_snapshot("s")
            image.write(0, b"y" * 1000)
    qemu.check(path)


def test_taking_turns(tmp_path: Path, qemu: Qemu) -> None:
    path = tmp_path / "a.qcow2"
    shadow = bytearray(1 << 20)
    Image.create(path, len(shadow), cluster_size=4096).close()
    for turn in range(4):
        qemu.io(path, f"write -P {turn + 1} {turn * 50_000} 90000", f"discard {turn * 65536 + 4096} 8192")
        qemu.img("snapshot", "-c", f"q{turn}", path)
        shadow[:] = raw_of(qemu, path)
        with Image.open(path, writable=True) as image:
            assert image.read(0, len(shadow)) == shadow
            scribble(image, shadow, turn, 5)
            image.create_snapshot(f"r{turn}", icount=turn)
            assert [s.name for s in image.snapshots][-2:] == [f"q{turn}", f"r{turn}"]
            image.delete_snapshot(image.snapshots[len(image.snapshots) // 2])
        qemu.check(path)
        assert raw_of(qemu, path) == shadow
    qemu.img("snapshot", "-d", "r3", path)
    with Image.open(path, writable=True) as image:
        image.apply_snapshot(image.snapshots[-1])
        assert image.check().clean
    qemu.check(path)


def test_a_vm_state_only_image(tmp_path: Path, qemu: Qemu) -> None:
    path = tmp_path / "vm.qcow2"
    with Image.create(path, 0, cluster_size=4096) as image:
        image.write_vmstate([(0, b"a" * 4096), (5 << 30, b"b" * 8192)])
        image.create_snapshot("s 1", vm_state_size=(5 << 30) + 8192, vm_clock_ns=3_723_004_000_000, icount=123456789)
        image.create_snapshot("s 2", date=(1_000_000_000, 5))
    qemu.check(path)
    listing = qemu.img("snapshot", "-l", path)
    assert "5 GiB" in listing
    assert "123456789" in listing
    assert "01:02:03.004" in listing
    found = qemu.info(path)
    assert found["virtual-size"] == 0
    one, two = found["snapshots"]
    assert (one["id"], one["name"], one["vm-state-size"], one["icount"]) == ("1", "s 1", (5 << 30) + 8192, 123456789)
    assert (two["date-sec"], two["date-nsec"], two.get("icount")) == (1_000_000_000, 5, None)


def test_qemu_finds_the_vm_state_where_we_put_it(tmp_path: Path, qemu: Qemu) -> None:
    path = tmp_path / "a.qcow2"
    with Image.create(path, 1 << 20, cluster_size=4096) as image:
        image.write_vmstate([(4096, b"a" * 4096)])
        image.create_snapshot("s", vm_state_size=8192)
    # qemu-io's "reopen"-free way to the VM state: bdrv_load_vmstate at byte offsets behind the disk.
    assert qemu.io(path, "read -b -P 97 4096 4096", "read -b -P 0 0 4096")
    qemu.io(path, "write -b -P 98 0 4096")
    with Image.open(path) as image:
        assert image.read_vmstate(0, 8192) == b"b" * 4096 + b"a" * 4096
        assert image.view("1").read_vmstate(0, 8192) == bytes(4096) + b"a" * 4096


@pytest.mark.parametrize("backing", ["raw", "qcow2"])
def test_overlays(tmp_path: Path, qemu: Qemu, backing: str) -> None:
    base = tmp_path / "base.img"
    content = random.Random(1).randbytes(700_000 // 512 * 512)
    (tmp_path / "raw").write_bytes(content)
    qemu.img("convert", "-f", "raw", "-O", backing, tmp_path / "raw", base)
    shadow = bytearray(content).ljust(1 << 20, b"\0")
    path = tmp_path / "sub" / "over.qcow2"
    path.parent.mkdir()
    with Image.create(
        path, len(shadow), cluster_size=4096, backing_file="../base.img", backing_format=backing
    ) as image:
        assert image.read(0, len(shadow)) == shadow
        scribble(image, shadow, 5)
        assert image.read(0, len(shadow)) == shadow
        image.create_snapshot("s")
    qemu.check(path)
    assert raw_of(qemu, path) == shadow
    assert qemu.info(path)["backing-filename-format"] == backing
    top = tmp_path / "top.qcow2"
    qemu.img("create", "-f", "qcow2", "-b", "sub/over.qcow2", "-F", "qcow2", top, "2M")
    qemu.io(top, "write -P 9 5000 5000", "write -z 64k 64k")
    with Image.open(top) as image:
        assert image.read(0, 2 << 20) == raw_of(qemu, top)
    (tmp_path / "shadow").write_bytes(shadow)
    qemu.img("compare", "-f", "qcow2", "-F", "raw", path, tmp_path / "shadow")


def test_deflated_clusters_are_read(tmp_path: Path, qemu: Qemu) -> None:
    raw, path = tmp_path / "raw", tmp_path / "c.qcow2"
    raw.write_bytes(b"".join(bytes([i % 256]) * 3000 for i in range(200)).ljust(1 << 20, b"\0"))
    qemu.img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4096", raw, path)
    with Image.open(path, writable=True) as image:
        assert image.read(0, 1 << 20) == raw.read_bytes()
        assert image.check().clean
        image.create_snapshot("s")
        image.write(5000, b"new" * 3000)
        assert image.view("1").read(0, 1 << 20) == raw.read_bytes()
        image.delete_snapshot("1")
    qemu.check(path)


def test_bitmaps_are_not_written(tmp_path: Path, qemu: Qemu) -> None:
    path = tmp_path / "a.qcow2"
    Image.create(path, 1 << 20).close()
    qemu.img("bitmap", "--add", path, "b")
    with Image.open(path) as image:
        assert image.read(0, 512) == bytes(512)
    with pytest.raises(Qcow2UnsupportedError, match="bitmaps"):
        Image.open(path, writable=True)
