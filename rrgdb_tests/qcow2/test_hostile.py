"""Damaged images: Qcow2Error or data, in bounded time and memory."""

from __future__ import annotations

import gc
import os
import random
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from rrgdb.qcow2 import Image, Qcow2Error, Qcow2UnsupportedError, View, check_image, repair_image
from rrgdb.qcow2.cli import main
from rrgdb.qcow2.tables import TableCache
from rrgdb_tests.qcow2.conftest import Qemu


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("hostile") / "a.qcow2"
    with Image.create(path, 200_192, cluster_size=512) as image:
        for turn in range(4):
            image.write(turn * 30_000, bytes([turn + 1]) * 20_000)
            image.write_vmstate([(i * 512, bytes([i + turn + 1]) * 512) for i in range(turn, 60, 3)])
            image.create_snapshot(f"s{turn}", vm_state_size=60 * 512, icount=turn)
        image.write(1000, b"active" * 500)
    return path.read_bytes()


def exercise(path: Path) -> None:
    """Everything a user may do; only Qcow2Error may come out."""

    def attempt(action: Callable[[], object]) -> None:
        said = "offset"
        try:
            action()
        except Qcow2Error as error:
            said = str(error)
        except ValueError as error:
            # A damaged size makes our ranges misuse, a damaged cluster size our compressed writes.
            said = str(error).replace("outside", "offset").replace("whole clusters", "offset")
        assert "offset" in said
        assert "\n" not in said

    def scattered(view: View, size: int) -> None:
        offsets, buffers = range(0, 8 * size, size), [bytearray(size) for _ in range(8)]
        view.read_vmstate_clusters_into(offsets, buffers)
        assert buffers == view.read_vmstate_clusters(offsets)

    def everything(image: Image, writable: bool) -> None:
        attempt(lambda: image.read(0, 200_000))
        attempt(lambda: image.read_vmstate(0, 60 * 512))
        attempt(image.check)
        attempt(lambda: sum(1 for _ in image.map(0, min(image.size, 200_000))))
        attempt(lambda: image.info().as_json())
        for snapshot in image.snapshots[:8]:
            attempt(lambda s=snapshot: image.view(s).read(0, 200_000))
            attempt(lambda s=snapshot: image.view(s).read_vmstate_clusters(range(0, 60 * 512, 512)))
            attempt(lambda s=snapshot: scattered(image.view(s), image.cluster_size))
            attempt(lambda s=snapshot: image.diff_vmstate(None, s, 0, 1 << 40))
        if writable:
            attempt(lambda: image.write(500, b"x" * 5000))
            attempt(lambda: image.write_vmstate([(0, b"y" * 1024)]))
            attempt(lambda: image.create_snapshot("more"))
            for snapshot in image.snapshots[:3]:
                attempt(lambda s=snapshot: image.apply_snapshot(s))
                attempt(lambda s=snapshot: image.delete_snapshot(s))
            attempt(lambda: image.discard(0, 100_000))
            attempt(lambda: image.write_compressed(0, b"packed" * 256))
            attempt(lambda: image.resize(150_016))
            attempt(lambda: image.rebase("elsewhere", "raw", unsafe=True))
            attempt(lambda: image.resize(300_032))

    for writable in (False, True):
        try:
            image = Image.open(path, writable=writable, backing=False)
        except Qcow2Error:
            continue
        everything(image, writable)
        attempt(image.close)
    attempt(lambda: check_image(path))
    attempt(lambda: repair_image(path, leaks_only=True))
    attempt(lambda: repair_image(path))


def damage(sample: bytes, rng: random.Random) -> bytes:
    data = bytearray(sample)
    tables = (0, 0, *(int.from_bytes(sample[at : at + 8], "big") for at in (40, 48, 64)))
    block = int.from_bytes(sample[tables[3] : tables[3] + 8], "big")
    l2 = int.from_bytes(sample[tables[2] : tables[2] + 8], "big") & ~(1 << 63)
    for _ in range(rng.randrange(1, 4)):
        start = rng.choice((*tables, block, l2))
        at = start + rng.randrange(rng.choice((112, 300)) if start == 0 else 512)
        if at < len(data):
            match rng.randrange(4):
                case 0:
                    data[at] ^= 1 << rng.randrange(8)
                case 1:
                    data[at] = rng.choice((0, 1, 0x7F, 0xFF))
                case 2:
                    data[at // 8 * 8 : at // 8 * 8 + 8] = rng.randbytes(8)
                case 3:
                    data[at // 8 * 8 : at // 8 * 8 + 8] = struct.pack(">Q", rng.randrange(len(data) // 512 + 2) * 512)
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


def fuzz(sample: bytes, directory: Path, seeds: range) -> None:
    path = directory / "damaged.qcow2"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in seeds:
        path.write_bytes(damage(sample, random.Random(seed)))
        exercise(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10  # KiB


FOREIGN = ["compat=0.10,cluster_size=512", "compression_type=zstd,cluster_size=4096", "extended_l2=on", "data_file"]


@pytest.fixture(scope="module", params=FOREIGN)
def foreign(tmp_path_factory: pytest.TempPathFactory, qemu: Qemu, request: pytest.FixtureRequest) -> bytes:
    """Images of QEMU with features that ours do not have."""
    directory = tmp_path_factory.mktemp("foreign")
    path = directory / "a.qcow2"
    options = f"data_file={directory}/ext" if request.param == "data_file" else request.param
    qemu.img("create", "-f", "qcow2", "-o", options, path, "200192")
    qemu.io(path, "write -P 3 1000 50000", "write -P 4 70000 30000", "write -z 96k 8k")
    if request.param != "data_file":
        qemu.io(path, "write -c 128k 64k")
        qemu.img("snapshot", "-c", "s", path)
        qemu.io(path, "write -P 5 0 100000")
        qemu.img("bitmap", "--add", path, "b", codes=(0, 1))
    return path.read_bytes()


def test_fuzz(sample: bytes, tmp_path: Path) -> None:
    fuzz(sample, tmp_path, range(100))


def test_fuzz_foreign(foreign: bytes, tmp_path: Path) -> None:
    fuzz(foreign, tmp_path, range(40))


@pytest.mark.slow
def test_fuzz_long(sample: bytes, tmp_path: Path) -> None:
    fuzz(sample, tmp_path, range(1000, 8000))


@pytest.mark.slow
def test_fuzz_foreign_long(foreign: bytes, tmp_path: Path) -> None:
    fuzz(foreign, tmp_path, range(1000, 4000))


def test_fuzz_the_command_line(
    sample: bytes, foreign: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A status of qemu-img and at most one line of error, whatever the file is."""
    path = tmp_path / "a"
    verbs = (
        ["info"],
        ["check"],
        ["map", "--output=json"],
        ["snapshot", "-l"],
        ["check", "-r", "all"],
        ["compare", path],
    )
    for seed in range(25):
        path.write_bytes(damage(foreign if seed % 2 else sample, random.Random(seed)))
        for verb in verbs:
            capsys.readouterr()
            assert main([str(part) for part in (*verb, path)]) in (0, 1, 2, 3)
            assert capsys.readouterr().err.count("\n") <= 1


def test_every_truncation(sample: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.qcow2"
    for length in [*range(0, 130, 7), *range(512, len(sample), len(sample) // 40)]:
        path.write_bytes(sample[:length])
        exercise(path)


def patched(sample: bytes, path: Path, *patches: tuple[int, str, int]) -> Path:
    data = bytearray(sample)
    for offset, form, value in patches:
        struct.pack_into(form, data, offset, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("offset", "form", "value", "error"),
    [
        (0, ">I", 0, "magic"),
        (4, ">I", 4, "version"),
        (20, ">I", 8, "cluster_bits"),
        (20, ">I", 63, "cluster_bits"),
        (24, ">Q", 1 << 63, "disk size"),
        (24, ">Q", 1 << 50, "covers the disk size"),
        (32, ">I", 1, "AES"),
        (32, ">I", 2, "LUKS"),
        (36, ">I", 1 << 31, "32 MiB"),
        (36, ">I", 4_000_000, "L1 table"),
        (40, ">Q", 1, "cluster boundary"),
        (60, ">I", 1 << 30, "snapshots"),
        (60, ">I", 60_000, "expected"),
        (64, ">Q", 1 << 62, "snapshot table"),
        (72, ">Q", 16, "cluster_bits 14..21"),
        (72, ">Q", 1 << 40, "incompatible feature bit 40"),
        (96, ">I", 7, "refcount_order"),
        (100, ">I", 100, "header_length"),
        (8, ">Q", 1 << 40, "backing file name"),
    ],
)
def test_headers(sample: bytes, tmp_path: Path, offset: int, form: str, value: int, error: str) -> None:
    with pytest.raises(Qcow2Error, match=error):
        Image.open(patched(sample, tmp_path / "a", (offset, form, value)))


def test_corrupt_images_are_for_reading(sample: bytes, tmp_path: Path, qemu: Qemu) -> None:
    path = patched(sample, tmp_path / "a", (72, ">Q", 2))
    with Image.open(path) as image:
        assert image.read(0, 10) == b"\x01" * 10
        assert image.info().corrupt
    with pytest.raises(Qcow2Error, match="marked corrupt"):
        Image.open(path, writable=True)
    assert repair_image(path).left.clean
    with Image.open(path, writable=True) as image:
        assert not image.info().corrupt
    qemu.check(path)


@pytest.mark.parametrize("damage", [0, 1, 7])
def test_dirty_images_get_their_refcounts_repaired(sample: bytes, tmp_path: Path, qemu: Qemu, damage: int) -> None:
    """As after a crash of QEMU with lazy refcounts: any refcount may be wrong."""
    table = int.from_bytes(sample[48:56], "big")
    block = int.from_bytes(sample[table : table + 8], "big")
    patches = [(block + 2 * cluster, ">H", damage) for cluster in range(0, 250, 3)]
    path = patched(sample, tmp_path / "a", (72, ">Q", 1), *patches)
    with Image.open(path) as image:
        assert image.info().dirty
        before = [image.view(s).read(0, image.size) for s in image.snapshots]
    with Image.open(path, writable=True) as image:
        assert not image.info().dirty
        assert image.check().clean
        image.write(0, b"new" * 20_000)
        assert [image.view(s).read(0, image.size) for s in image.snapshots] == before
    qemu.check(path)


def test_data_that_points_at_metadata_is_not_written(sample: bytes, tmp_path: Path) -> None:
    """An L2 entry that names the refcount table would let a guest write rewrite it."""
    l1, table = (int.from_bytes(sample[at : at + 8], "big") for at in (40, 48))
    l2 = int.from_bytes(sample[l1 : l1 + 8], "big") & ~(1 << 63)
    path = patched(sample, tmp_path / "a", (l2, ">Q", table | 1 << 63))
    with pytest.raises(Qcow2Error, match="no guest cluster lies on"):
        Image.open(path, writable=True)
    with Image.open(path) as image:
        assert not image.check().clean


def test_huge_sparse_files_cost_nothing(sample: bytes, tmp_path: Path) -> None:
    path = patched(sample, tmp_path / "a", (60, ">I", 65536), (36, ">I", 1 << 22))
    with path.open("r+b") as file:
        file.truncate(1 << 42)
    exercise(path)


def test_huge_disks_cost_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sizes that no loop over clusters would get through."""
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        with Image.create(path, 1 << 60, cluster_size=2 << 20) as image:
            image.write((1 << 59) + 5, b"far away")
            assert len(list(image.map())) == 3
            assert image.check().clean
    assert main(["compare", str(one), str(two)]) == 0
    with Image.open(two, writable=True) as image:
        image.write(1 << 58, b"x")
    assert main(["compare", str(one), str(two)]) == 1
    assert str(1 << 58) in capsys.readouterr().out


def test_check_of_a_huge_file_is_refused(sample: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(sample)
    with path.open("r+b") as file:
        file.truncate(1 << 42)
    for action in (check_image, repair_image):
        with pytest.raises(Qcow2UnsupportedError, match="clusters of file"):
            action(path)


def test_check_agrees_with_qemu_on_damage(sample: bytes, tmp_path: Path, qemu: Qemu) -> None:
    """Refcount damage: both find corruption, or leaks, or nothing."""
    table = int.from_bytes(sample[48:56], "big")
    block = int.from_bytes(sample[table : table + 8], "big")
    for cluster in range(0, 200, 11):
        for value in (0, 1, 2, 9):
            path = patched(sample, tmp_path / "a", (block + 2 * cluster, ">H", value))
            found = qemu.check(path, codes=(0, 2, 3))
            with Image.open(path) as image:
                result = image.check()
            assert bool(result.corruptions) == bool(found.get("corruptions")), (cluster, value)
            assert bool(result.leaks) == bool(found.get("leaks")), (cluster, value)


def test_backing_loops_and_depth(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    Image.create(one, 512).close()
    Image.create(two, 512, backing_file="one", backing_format="qcow2").close()
    one.unlink()
    one.symlink_to("two")
    with pytest.raises(Qcow2Error, match="loop"):
        Image.open(two)
    previous = tmp_path / "d0"
    Image.create(previous, 512, cluster_size=512).close()
    with pytest.raises(Qcow2Error, match="at most 64"):  # noqa: PT012 - which link fails is the library's choice
        for i in range(1, 70):
            Image.create(
                tmp_path / f"d{i}", 512, cluster_size=512, backing_file=f"d{i - 1}", backing_format="qcow2"
            ).close()


@pytest.mark.parametrize("name", ["nbd://host/x", "json:{}", "ssh:x"])
def test_backing_names_that_are_no_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(Qcow2UnsupportedError, match="not a local file"):
        Image.create(tmp_path / "a", 512, backing_file=name, backing_format="raw")
    assert not (tmp_path / "a").exists()


def test_no_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Qcow2Error, match="regular file"):
        Image.open(tmp_path / "fifo")


def test_refcounts_far_behind_the_end_cost_no_memory(sample: bytes, tmp_path: Path) -> None:
    table, clusters = int.from_bytes(sample[48:56], "big"), len(sample) // 512
    block = int.from_bytes(sample[table : table + 8], "big")
    bigger = sample + bytes(16 * 512) + (8 << 20) * b"\0"
    first = clusters * 512
    moved = struct.pack(">Q", block) + sample[table + 8 : table + 512]
    bigger = bigger[:first] + moved + bytes(15 * 512 - 8) + struct.pack(">Q", block)
    path = patched(bigger, tmp_path / "a", (48, ">Q", first), (56, ">I", 16))
    with pytest.raises(Qcow2Error, match="inside the file"):
        Image.open(path, writable=True)
    exercise(path)


def test_a_snapshot_of_free_clusters_is_not_applied(tmp_path: Path) -> None:
    """Its data would be given out again while the active state uses it."""
    path = tmp_path / "a"
    with Image.create(path, 0, cluster_size=512) as image:
        image.write_vmstate([(0, b"old" * 512)])
        taken = image.create_snapshot("s")
        image.write_vmstate([(0, b"new" * 512)])
    sound = path.read_bytes()
    table, l1 = int.from_bytes(sound[48:56], "big"), taken.l1_offset
    l2 = int.from_bytes(sound[l1 : l1 + 8], "big")
    block = int.from_bytes(sound[table : table + 8], "big")
    for cluster in (l2 // 512, int.from_bytes(sound[l2 : l2 + 8], "big") // 512):
        assert sound[block + 2 * cluster : block + 2 * cluster + 2] == b"\0\1"
        with Image.open(patched(sound, path, (block + 2 * cluster, ">H", 0)), writable=True) as image:
            for action in (image.apply_snapshot, image.delete_snapshot):
                with pytest.raises(Qcow2Error, match="refcounts"):
                    action("1")
            assert image.read_vmstate(0, 512) == (b"new" * 512)[:512]
            assert image.snapshots == (taken,)


def test_two_snapshots_with_one_id(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with Image.create(path, 512, cluster_size=512) as image:
        for name in ("one", "two"):
            image.create_snapshot(name)
    sound = path.read_bytes()
    at = sound.index(b"2two")
    path.write_bytes(sound[:at] + b"1" + sound[at + 1 :])
    with Image.open(path, writable=True) as image:
        one, two = image.snapshots
        assert image.view(one).read(0, 1) == b"\0"
        for action in (image.view, image.delete_snapshot, image.apply_snapshot):
            with pytest.raises(Qcow2Error, match="different ids"):
                action(two)


def entry_at(raw: bytes, index: int = 0) -> tuple[int, int]:
    """(offset of the first L2 table, offset of its entry ``index``) of an image."""
    l1 = int.from_bytes(raw[40:48], "big")
    l2 = int.from_bytes(raw[l1 : l1 + 8], "big") & ~(1 << 63)
    return l2, l2 + 8 * index


def test_data_that_points_at_its_own_l2_table(tmp_path: Path, qemu: Qemu) -> None:
    """The refcount says 2, so it fits; but a write to the guest cluster must not change what maps it."""
    path = tmp_path / "a"
    with Image.create(path, 1 << 20, cluster_size=4096) as image:
        image.write(0, b"data" * 2048)
    sound = path.read_bytes()
    l2, entry = entry_at(sound, 1)
    table = int.from_bytes(sound[48:56], "big")
    block = int.from_bytes(sound[table : table + 8], "big")
    l1 = int.from_bytes(sound[40:48], "big")
    patched(sound, path, (entry, ">Q", l2), (l1, ">Q", l2), (block + 2 * (l2 // 4096), ">H", 2))
    assert check_image(path).corruption_count
    with pytest.raises(Qcow2Error, match="no guest cluster lies on"):
        Image.open(path, writable=True)
    assert repair_image(path).left.clean
    qemu.check(path)
    with Image.open(path, writable=True) as image:
        assert image.read(0, 8192) == b"data" * 1024 + bytes(4096)


def test_a_snapshot_whose_data_is_its_own_l2_table_is_not_applied(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with Image.create(path, 1 << 20, cluster_size=4096) as image:
        image.write(0, b"data" * 2048)
        taken = image.create_snapshot("s")
        image.write(0, b"next" * 2048)
    sound = path.read_bytes()
    l2 = int.from_bytes(sound[taken.l1_offset : taken.l1_offset + 8], "big")
    with Image.open(patched(sound, path, (l2, ">Q", l2)), writable=True) as image:
        with pytest.raises(Qcow2Error, match="no guest cluster lies on"):
            image.apply_snapshot(taken)
        assert image.read(0, 8) == b"nextnext"


def test_two_guest_clusters_on_one_host_cluster(tmp_path: Path, qemu: Qemu) -> None:
    """The format allows it. When the one leaves, the other owns the cluster, and its flag has to say so."""
    path = tmp_path / "a"
    for leave in ("write", "discard", "resize"):
        path.unlink(missing_ok=True)
        with Image.create(path, 1 << 20, cluster_size=4096) as image:
            image.write(0, b"data" * 2048)
        sound = path.read_bytes()
        _, entry = entry_at(sound)
        patched(sound, path, (entry + 8, ">Q", int.from_bytes(sound[entry : entry + 8], "big")))
        assert repair_image(path).left.clean
        with Image.open(path, writable=True) as image:
            match leave:
                case "write":
                    image.write(4096, b"mine")
                case "discard":
                    image.discard(4096, 4096)
                case "resize":
                    image.resize(4096)
            assert image.read(0, 4096) == b"data" * 1024
            assert image.check().clean
        qemu.check(path)


@pytest.mark.parametrize("name", [b"", b"a\0b"])
def test_names_of_data_files_that_are_none(tmp_path: Path, qemu: Qemu, name: bytes) -> None:
    path = tmp_path / "a"
    qemu.img("create", "-f", "qcow2", "-o", f"data_file={tmp_path}/ext", path, "1M")
    raw = path.read_bytes()
    at = raw.index(b"DATA" + len(f"{tmp_path}/ext").to_bytes(4, "big"))
    path.write_bytes(raw[: at + 4] + len(name).to_bytes(4, "big") + name.ljust(8, b"\0") + bytes(8) + raw[at + 24 :])
    with pytest.raises(Qcow2Error, match="name of the external data file"):
        Image.open(path)


def test_version_2_snapshots_that_do_not_cover_the_disk(tmp_path: Path) -> None:
    """They say no disk size; the one that a writer would note for them must fit their L1 tables."""
    path = tmp_path / "a"
    with Image.create(path, 1 << 20, cluster_size=512, version=2) as image:
        taken = image.create_snapshot("s")
    sound = path.read_bytes()
    at = int.from_bytes(sound[64:72], "big")
    bare = struct.pack(">QIHHIIQII", taken.l1_offset, 1, 1, 1, 0, 0, 0, 0, 0) + b"1s"
    path.write_bytes(sound[:at] + bare.ljust(512, b"\0") + sound[at + 512 :])
    with Image.open(path) as image:
        assert image.view("1").read(0, 512) == bytes(512)
    with pytest.raises(Qcow2Error, match="cover the disk size"):
        Image.open(path, writable=True)


def test_a_long_chain_takes_little_memory(tmp_path: Path) -> None:
    Image.create(tmp_path / "0", 1 << 20, cluster_size=512).close()
    for i in range(1, 50):
        how = {"backing_file": str(i - 1), "backing_format": "qcow2"}
        Image.create(tmp_path / str(i), 1 << 20, cluster_size=512, **how).close()  # type: ignore[arg-type]

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    gc.collect()
    before = resident()
    with Image.open(tmp_path / "49") as image:
        assert not any(image.read(0, 4096))
        assert resident() - before < 50 << 20


def test_what_is_refused_is_let_go(sample: bytes, tmp_path: Path) -> None:
    """Nothing has to wait for the collector of cycles: tables take much room."""
    path = tmp_path / "a"
    l1 = int.from_bytes(sample[40:48], "big")
    path.write_bytes(sample[:l1] + b"\x7f" * 8 + sample[l1 + 8 :])
    told = ""
    gc.collect()
    gc.disable()
    try:
        try:
            Image.open(path)
        except Qcow2Error as error:
            told = str(error)
        assert not [each for each in gc.get_objects() if isinstance(each, TableCache)]
    finally:
        gc.enable()
    assert "reserved bits" in told
