"""Damage of every kind, repaired: what is left is clean for us and for qemu-img, and what was sound is still there."""

from __future__ import annotations

import json
import random
import re
import struct
import subprocess
from pathlib import Path

import pytest

from rrgdb.qcow2 import Image, Qcow2Error, check_image, repair_image
from rrgdb_tests.qcow2.conftest import Qemu
from rrgdb_tests.qcow2.test_power import Tape, enumerated

SIZE = 512
DISK = 200_000


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("repair") / "a.qcow2"
    with Image.create(path, DISK // SIZE * SIZE, cluster_size=SIZE) as image:
        for turn in range(4):
            image.write(turn * 30_000, bytes([turn + 1]) * 20_000)
            image.write_compressed(150 * SIZE, b"%d small" % turn * 700 + bytes(-700 * 7 % SIZE))
            image.create_snapshot(f"s{turn}", vm_state_size=SIZE)
        image.write(1000, b"active" * 500)
        image.discard(90_000, 5000)
    return path.read_bytes()


def u64(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 8], "big")


def host(entry: int) -> int:
    return entry & 0x00FF_FFFF_FFFF_FE00


def places(raw: bytes) -> dict[str, list[int]]:
    """Offsets of entries, by what they are."""
    l1, table = u64(raw, 40), u64(raw, 48)
    l1_entries = [l1 + 8 * i for i in range(int.from_bytes(raw[36:40], "big")) if u64(raw, l1 + 8 * i)]
    l2 = [host(u64(raw, at)) + 8 * i for at in l1_entries for i in range(SIZE // 8)]
    blocks = [u64(raw, table + 8 * i) for i in range(SIZE // 8) if u64(raw, table + 8 * i)]
    return {
        "l1": l1_entries,
        "l2": [at for at in l2 if u64(raw, at)],
        "refcount": [block + 2 * i for block in blocks[:1] for i in range(SIZE // 2)],
        "table": [table + 8 * i for i in range(len(blocks))],
    }


def damage(sample: bytes, rng: random.Random) -> bytes:
    raw = bytearray(sample)
    found = places(sample)
    for _ in range(rng.randrange(1, 5)):
        kind = rng.choice(["refcount", "refcount", "l2", "l2", "l1", "copied", "table", "header"])
        if kind == "refcount":
            raw[(at := rng.choice(found[kind])) : at + 2] = struct.pack(">H", rng.choice([0, 1, 2, 5, 65535]))
        elif kind == "copied":
            raw[rng.choice(found["l2"] + found["l1"])] ^= 0x80
        elif kind == "header":
            raw[79] |= rng.choice([1, 2, 3])
        else:
            at = rng.choice(found[kind])
            value = u64(raw, at)
            other = rng.randrange(len(raw) // SIZE + 3) * SIZE
            choices = [value ^ 1 << rng.randrange(64), other | 1 << 63, other, rng.getrandbits(64), 1 << 40]
            raw[at : at + 8] = struct.pack(">Q", rng.choice(choices))
    return bytes(raw)


def contents(path: Path) -> list[bytes | None]:
    """What each snapshot and the disk read as, None where that is an error."""
    found: list[bytes | None] = []
    with Image.open(path) as image:
        for reader in (image, *map(image.view, image.snapshots)):
            try:
                found.append(reader.read(0, DISK // SIZE * SIZE))
            except Qcow2Error:
                found.append(None)
    return found


def one_repair(sample: bytes, path: Path, seed: int, qemu: Qemu) -> None:
    path.write_bytes(damage(sample, random.Random(seed)))
    try:
        check_image(path)
    except Qcow2Error:
        return
    leaks = repair_image(path, leaks_only=True)
    assert leaks.left.leak_count == 0 or leaks.found.corruption_count
    try:
        result = repair_image(path)
    except Qcow2Error as error:
        if "do not fit" not in str(error):
            raise
        return
    assert result.left.clean, (seed, result.left)
    qemu.check(path)
    with Image.open(path, writable=True) as image:
        assert not image.info().dirty
        assert not image.info().corrupt
        image.write(0, b"life goes on" * 1000)
        for snapshot in image.snapshots:
            image.delete_snapshot(snapshot)
        image.create_snapshot("new")
        assert image.check().clean
    qemu.check(path)


def test_repair(sample: bytes, tmp_path: Path, qemu: Qemu) -> None:
    for seed in range(25):
        one_repair(sample, tmp_path / "a", seed, qemu)


@pytest.mark.slow
def test_repair_long(sample: bytes, tmp_path: Path, qemu: Qemu) -> None:
    for seed in range(1000, 3000):
        one_repair(sample, tmp_path / "a", seed, qemu)


def test_repair_loses_nothing_that_is_sound(sample: bytes, tmp_path: Path) -> None:
    """Damage to refcounts and flags costs no byte; damage to one L2 entry at most one cluster of each tree."""
    path = tmp_path / "a"
    path.write_bytes(sample)
    sound = contents(path)
    found = places(sample)
    rng = random.Random(5)
    for at in rng.sample(found["refcount"], 20):
        raw = bytearray(sample)
        raw[at : at + 2] = struct.pack(">H", rng.choice([0, 3]))
        path.write_bytes(raw)
        repair_image(path)
        assert contents(path) == sound
    for at in rng.sample(found["l2"], 20):
        raw = bytearray(sample)
        raw[at : at + 8] = struct.pack(">Q", 1 << 50 | 1 << 63)
        path.write_bytes(raw)
        assert check_image(path).corruption_count
        repair_image(path)
        for old, new in zip(sound, contents(path), strict=True):
            assert old is not None
            assert new is not None
            unequal = [i for i in range(0, len(old), SIZE) if old[i : i + SIZE] != new[i : i + SIZE]]
            assert len(unequal) <= 1
            assert all(not any(new[i : i + SIZE]) for i in unequal)


def test_a_guest_cluster_on_a_refcount_block(sample: bytes, tmp_path: Path, qemu: Qemu) -> None:
    """Refcounts may fit, but a write to the one would change the other."""
    path = tmp_path / "a"
    found = places(sample)
    block, entry = found["refcount"][0], found["l2"][0]
    old = host(u64(sample, entry)) // SIZE
    raw = bytearray(sample)
    raw[entry : entry + 8] = struct.pack(">Q", block)
    path.write_bytes(raw)
    repair_image(path, leaks_only=True)
    raw = bytearray(path.read_bytes())
    for cluster, more in ((block // SIZE, 1), (old, 0)):
        at = block + 2 * cluster
        raw[at : at + 2] = struct.pack(">H", int.from_bytes(raw[at : at + 2], "big") + more)
    path.write_bytes(raw)
    qemu.check(path, codes=(2,))
    assert any("something else" in line for line in check_image(path).corruptions)
    assert repair_image(path).left.clean
    qemu.check(path)


def test_two_l1_entries_with_one_l2_table(sample: bytes, tmp_path: Path, qemu: Qemu) -> None:
    path = tmp_path / "a"
    one, two = places(sample)["l1"][:2]
    raw = bytearray(sample)
    raw[two : two + 8] = raw[one : one + 8]
    path.write_bytes(raw)
    assert check_image(path).corruption_count
    assert repair_image(path).left.clean
    qemu.check(path)
    assert path.read_bytes()[two : two + 8] == bytes(8)
    with Image.open(path, writable=True) as image:
        image.write(0, b"x" * image.size)
        assert image.check().clean


def test_a_sound_image_is_not_written(sample: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(sample)
    assert repair_image(path).found.clean
    assert repair_image(path, leaks_only=True).found.clean
    assert path.read_bytes() == sample


@pytest.mark.parametrize("leaks_only", [False, True])
def test_a_crash_during_repair(
    sample: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qemu: Qemu, leaks_only: bool
) -> None:
    """Whatever part of the repair is on disk, the next repair ends it, and no byte is lost."""
    path = tmp_path / "a"
    path.write_bytes(sample)
    sound = contents(path)
    raw = bytearray(sample)
    rng = random.Random(1)
    for at in places(sample)["refcount"][::7]:
        raw[at : at + 2] = struct.pack(">H", rng.choice([9, 300] if leaks_only else [0, 1, 9]))
    path.write_bytes(raw)
    with monkeypatch.context() as patch:
        tape = Tape(patch)
        repair_image(path, leaks_only=leaks_only)
    assert len(tape.events) >= 2
    seen = set()
    for _, files in enumerated(tape.events, {"a": bytes(raw)}, rng):
        if files["a"] not in seen:
            seen.add(files["a"])
            path.write_bytes(files["a"])
            assert repair_image(path).left.clean
            assert contents(path) == sound
    assert len(seen) >= (2 if leaks_only else 5)
    qemu.check(path)


def test_check_of_bitmaps(tmp_path: Path, qemu: Qemu) -> None:
    path = tmp_path / "a"
    Image.create(path, 1 << 20).close()
    qemu.img("bitmap", "--add", path, "b")
    qemu.img("bitmap", "--add", path, "c")
    qemu.io(path, "write 0 300k")
    assert check_image(path).clean
    raw = bytearray(path.read_bytes())
    raw[95] = 0  # the bit that says that they are consistent
    path.write_bytes(raw)
    assert check_image(path).leak_count
    with Image.open(path, writable=True) as image:
        image.write(0, b"x")
    assert repair_image(path, leaks_only=True).left.clean
    qemu.check(path)


def test_what_cannot_be_repaired(sample: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(sample[:40] + struct.pack(">Q", 1 << 40) + sample[48:])
    with pytest.raises(Qcow2Error, match="L1 table"):
        repair_image(path)
    path.write_bytes(b"not an image")
    with pytest.raises(Qcow2Error, match="magic"):
        repair_image(path)


def test_agreement_with_qemu_on_what_is_wrong(sample: bytes, tmp_path: Path, qemu: Qemu) -> None:
    """Statuses of both checks: clean, corrupt, leaks."""
    path = tmp_path / "a"
    agreed = 0
    for seed in range(40):
        path.write_bytes(damage(sample, random.Random(seed)))
        done = subprocess.run(
            ["qemu-img", "check", "--output=json", "-f", "qcow2", path], capture_output=True, text=True, check=False
        )
        if done.returncode == 1:
            continue  # QEMU could not check it to the end
        theirs = json.loads(done.stdout)
        ours = check_image(path)
        assert bool(ours.corruption_count) == bool(theirs.get("corruptions")), (seed, ours, theirs)
        agreed += 1
        if ours.corruption_count:
            continue
        assert ours.image_end == theirs["image-end-offset"]
        # QEMU does not look at refcounts behind the end of the file.
        if all(int(re.findall(r"\d+", line)[0]) < path.stat().st_size for line in ours.leaks):
            assert ours.leak_count == theirs.get("leaks", 0)
    assert agreed > 15
