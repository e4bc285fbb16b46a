"""``python -m rrgdb.qcow2`` beside qemu-img."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rrgdb.qcow2 import Image, Qcow2UsageError
from rrgdb.qcow2.cli import main, parse_size
from rrgdb_tests.qcow2.conftest import Qemu
from rrgdb_tests.qcow2.test_options import texts


def run(capsys: pytest.CaptureFixture[str], *args: str | Path, status: int = 0) -> str:
    """Standard output; errors must be one line."""
    capsys.readouterr()
    assert main([str(arg) for arg in args]) == status
    said = capsys.readouterr()
    assert said.err.count("\n") == (1 if status and not said.out else 0), said.err
    return said.out or said.err


@pytest.fixture
def image(tmp_path: Path, qemu: Qemu) -> Path:
    path = tmp_path / "a.qcow2"
    (tmp_path / "base.raw").write_bytes(texts(1, 1 << 20))
    qemu.img("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", path, "2M")
    qemu.io(path, "write -P 4 100k 300k", "write -z 1M 128k")
    qemu.img("snapshot", "-c", "one", path)
    return path


def test_info_and_map(image: Path, qemu: Qemu, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = json.loads(run(capsys, "info", "--output=json", image)), qemu.info(image)
    assert ours == theirs
    told = json.loads(qemu.img("map", "--output=json", image))
    assert json.loads(run(capsys, "map", "--output=json", image)) == told
    text = run(capsys, "info", image)
    assert "virtual size: 2097152 bytes" in text
    assert "backing file: base.raw" in text
    assert "one" in text
    assert "0x19000" not in run(capsys, "map", image)


def test_statuses_of_check(image: Path, qemu: Qemu, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No errors" in run(capsys, "check", image)
    sound = image.read_bytes()
    table = int.from_bytes(sound[48:56], "big")
    block = int.from_bytes(sound[table : table + 8], "big")
    for value, status in ((b"\0\x09", 3), (b"\0\0", 2)):
        image.write_bytes(sound[: block + 10] + value + sound[block + 12 :])
        qemu.img("check", image, codes=(status,))
        run(capsys, "check", image, status=status)
        found = json.loads(run(capsys, "check", "--output=json", image, status=status))
        assert found["leaks" if status == 3 else "corruptions"] == 1 or status == 2
        run(capsys, "check", "-r", "leaks", image, status=0 if status == 3 else 2)
        assert "Repaired" in run(capsys, "check", "-r", "all", image) or status == 3
        qemu.img("check", image)
    image.write_bytes(b"QFI\xfb" + bytes(200))
    assert "expected" in run(capsys, "check", image, status=1)


@pytest.mark.parametrize(
    "options",
    [
        "cluster_size=512",
        "compat=0.10",
        "preallocation=metadata",
        "extended_l2=on",
        "data_file=data",
        "data_file=data,data_file_raw=on",
    ],
)
def test_what_check_info_and_map_tell(
    options: str, tmp_path: Path, qemu: Qemu, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each field as qemu-img: allocated, fragmented and compressed clusters, bitmaps, subclusters."""
    monkeypatch.chdir(tmp_path)
    path = Path("a")
    qemu.img("create", "-f", "qcow2", "-o", options, path, "5M")
    qemu.io(
        path, "write -P 1 1M 300k", "write -P 2 0 700k", "write -P 3 3M 1k", "write -P 4 2M 70k", "discard 64k 128k"
    )
    if "compat" not in options:
        qemu.io(path, "write -z 128k 192k", "write -z 2M 3k")
        for more in (("b0",), ("b1", "--disable", "-g", "512")):
            qemu.img("bitmap", "--add", "-f", "qcow2", *more[1:], path, more[0])
    if "data" not in options:
        qemu.io(path, "write -c -P 5 4M 128k", "write -c -P 6 4352k 64k")
        qemu.img("snapshot", "-c", "s", path)
        qemu.io(path, "write -P 7 512k 600k")
    assert json.loads(run(capsys, "check", "--output=json", path)) == qemu.check(path)
    assert json.loads(run(capsys, "info", "--output=json", path)) == qemu.info(path)
    if options in ("cluster_size=512", "extended_l2=on"):  # in others, qemu-img looks for holes of the file
        told = json.loads(qemu.img("map", "--output=json", path))
        assert json.loads(run(capsys, "map", "--output=json", path)) == told
    figures = [line for line in qemu.img("check", path).splitlines() if "allocated" in line]
    assert figures[0] in run(capsys, "check", path)
    assert ("bitmap b1: granularity 512\n" in run(capsys, "info", path)) == ("compat" not in options)


def test_the_end_of_an_image_whose_refcounts_are_lost(
    image: Path, qemu: Qemu, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = bytearray(image.read_bytes())
    table = int.from_bytes(raw[48:56], "big")
    raw[table : table + 8] = bytes(8)
    image.write_bytes(raw)
    ours = json.loads(run(capsys, "check", "--output=json", image, status=2))
    assert ours["image-end-offset"] == qemu.check(image, codes=(2,))["image-end-offset"] > 0


def test_snapshots(image: Path, qemu: Qemu, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "snapshot", "-c", "two", image)
    listing = run(capsys, "snapshot", "-l", image)
    assert "one" in listing
    assert "two" in listing
    run(capsys, "snapshot", "-a", "one", image)
    run(capsys, "snapshot", "-d", "1", image)
    assert [s["name"] for s in qemu.info(image)["snapshots"]] == ["two"]
    assert "'nine'" in run(capsys, "snapshot", "-d", "nine", image, status=1)
    assert "''" in run(capsys, "snapshot", "-d", "", image, status=1)
    run(capsys, "snapshot", "-c", "", image)
    assert [s["name"] for s in qemu.info(image)["snapshots"]] == ["two", ""]
    run(capsys, "snapshot", "-d", "", image)
    assert [s["name"] for s in qemu.info(image)["snapshots"]] == ["two"]
    qemu.check(image)


def test_names_do_not_drive_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Image.create(tmp_path / "a", 512) as image:
        image.create_snapshot("\x1b[31mred\udc80\n")
    listing = run(capsys, "snapshot", tmp_path / "a")
    assert r"\x1b[31mred" in listing
    assert "\x1b" not in run(capsys, "info", "--output=json", tmp_path / "a")


def test_create_convert_compare(tmp_path: Path, image: Path, qemu: Qemu, capsys: pytest.CaptureFixture[str]) -> None:
    raw, packed, plain = tmp_path / "raw", tmp_path / "packed", tmp_path / "plain"
    run(capsys, "convert", image, raw)
    qemu.img("compare", "-f", "qcow2", "-F", "raw", image, raw)
    run(capsys, "convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd,cluster_size=4k", raw, packed)
    run(capsys, "convert", "-f", "qcow2", "-O", "qcow2", "-o", "compat=0.10", packed, plain)
    for path in (packed, plain):
        qemu.check(path)
        assert "identical" in qemu.img("compare", image, path)
        assert "identical" in run(capsys, "compare", image, path)
    assert packed.stat().st_size < plain.stat().st_size
    qemu.io(plain, "write -P 99 12345 1")
    assert "offset 12345!" in run(capsys, "compare", plain, raw, status=1)
    qemu.img("compare", plain, raw, codes=(1,))
    run(capsys, "compare", plain, tmp_path / "none", status=2)
    run(capsys, "create", tmp_path / "new", "1M", "-o", "refcount_bits=1,lazy_refcounts=on,cluster_size=512")
    run(capsys, "create", "-b", "a.qcow2", "-F", "qcow2", tmp_path / "over")
    assert qemu.info(tmp_path / "over")["virtual-size"] == 2 << 20
    assert "File exists" in run(capsys, "create", tmp_path / "new", "1M", status=1)
    assert "exists" in run(capsys, "convert", raw, packed, status=1)
    assert "identical" in run(capsys, "compare", tmp_path / "over", raw)
    for path in (tmp_path / "new", tmp_path / "over"):
        qemu.check(path)


def test_resize_commit_rebase(tmp_path: Path, image: Path, qemu: Qemu, capsys: pytest.CaptureFixture[str]) -> None:
    over = tmp_path / "over"
    run(capsys, "create", "-b", "a.qcow2", "-F", "qcow2", over)
    qemu.io(over, "write -P 3 0 70000")
    run(capsys, "resize", over, "+512k")
    assert "--shrink" in run(capsys, "resize", over, "1M", status=1)
    run(capsys, "convert", over, tmp_path / "raw")
    run(capsys, "commit", over)
    assert "identical" in run(capsys, "compare", over, tmp_path / "raw")
    assert "identical" in run(capsys, "compare", image, tmp_path / "raw")
    run(capsys, "rebase", "-b", "base.raw", "-F", "raw", over)
    assert "identical" in run(capsys, "compare", over, tmp_path / "raw")
    run(capsys, "rebase", "-u", "-b", "elsewhere", "-F", "raw", over)
    assert qemu.info(over)["backing-filename"] == "elsewhere"
    run(capsys, "rebase", "-u", "-b", "a.qcow2", over)
    run(capsys, "resize", "--shrink", over, "1M")
    assert "--shrink" in run(capsys, "resize", over, "-64k", status=1)
    run(capsys, "resize", "--shrink", over, "-64k")
    run(capsys, "resize", "--shrink", over, "--", "-64k")
    assert qemu.info(over)["virtual-size"] == (1 << 20) - (128 << 10)
    qemu.check(over)
    qemu.check(image)


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["frobnicate"],
        ["info"],
        ["info", "/nonexistent"],
        ["create", "x"],
        ["create", "x", "12Q"],
        ["create", "x", "1M", "-o", "colour=red"],
        ["create", "x", "1M", "-o", "compat=7"],
        ["create", "x", "-1"],
        ["resize", "x", "nan"],
    ],
)
def test_misuse_is_one_line(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(capsys, *args, status=1).startswith("qcow2: ")
    assert not list(tmp_path.iterdir())


def test_sizes() -> None:
    assert [parse_size(text) for text in ("0", "512", "64k", "1.5M", "2G", "7b")] == [
        0,
        512,
        65536,
        3 << 19,
        2 << 30,
        7,
    ]
    for text in ("", "k", "1x", "-5", "inf", "1e400", "8E8E", "9" * 30):
        with pytest.raises(ValueError, match="expected a size"):
            parse_size(text)


def test_as_a_module(tmp_path: Path) -> None:
    Image.create(tmp_path / "a", 512).close()
    done = subprocess.run(
        [sys.executable, "-m", "rrgdb.qcow2", "check", tmp_path / "a"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image, "open", interrupted)
    assert run(capsys, "commit", tmp_path / "a", status=1) == "qcow2: interrupted\n"


def test_progress(image: Path, tmp_path: Path, qemu: Qemu, capsys: pytest.CaptureFixture[str]) -> None:
    over, raw, packed = tmp_path / "over", tmp_path / "raw", tmp_path / "packed"
    assert main(["create", "-b", "a.qcow2", "-F", "qcow2", str(over)]) == 0
    qemu.io(over, "write -P 3 0 70000")
    for arguments in (
        ["convert", "-p", over, raw],
        ["convert", "-p", "-c", "-O", "qcow2", raw, packed],
        ["compare", "-p", over, packed],
        ["rebase", "-p", "-b", "base.raw", "-F", "raw", over],
        ["commit", "-p", over],
    ):
        capsys.readouterr()
        assert main([str(part) for part in arguments]) == 0
        said = capsys.readouterr().err
        assert "/100%)\r" in said
        assert said.endswith("\n")
        assert arguments[0] == "compare" or "(100.00/100%)" in said


def test_what_is_not_finished_is_gone(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image, "read_into", interrupted)
    for how in ([], ["-O", "qcow2"]):
        assert "interrupted" in run(capsys, "convert", *how, image, tmp_path / "new", status=1)
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("size", [1, 511, 513, 1000, 70001])
def test_sizes_are_whole_sectors(size: int, tmp_path: Path, qemu: Qemu, capsys: pytest.CaptureFixture[str]) -> None:
    """QEMU leaves out what is behind the last whole sector of a qcow2 disk, so nothing may be there."""
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(range(1, 251)) * (size // 250 + 1))
    os.truncate(raw, size)
    sectors = -(-size // 512) * 512
    for how in ([], ["-c"], ["-o", "cluster_size=512"], ["-c", "-o", "cluster_size=512"]):
        run(capsys, "convert", *how, "-O", "qcow2", raw, tmp_path / "new")
        assert qemu.info(tmp_path / "new")["virtual-size"] == sectors
        assert "identical" in qemu.img("compare", "-f", "raw", "-F", "qcow2", raw, tmp_path / "new")
        assert "identical" in run(capsys, "compare", "-s", raw, tmp_path / "new")
        (tmp_path / "new").unlink()
    run(capsys, "create", tmp_path / "empty", str(size))
    run(capsys, "create", "-b", "raw", "-F", "raw", tmp_path / "over")
    for name in ("empty", "over"):
        assert qemu.info(tmp_path / name)["virtual-size"] == sectors
    assert json.loads(run(capsys, "map", "--output=json", tmp_path / "over")) == json.loads(
        qemu.img("map", "--output=json", tmp_path / "over")
    )
    assert "512" in run(capsys, "resize", tmp_path / "empty", "+1000", status=1)
    qemu.io(tmp_path / "over", f"write -P 7 {sectors - 512} 512")
    run(capsys, "commit", tmp_path / "over")
    assert raw.read_bytes()[sectors - 512 :] == bytes([7]) * 512


def test_an_odd_disk_is_copied_whole(tmp_path: Path, qemu: Qemu, capsys: pytest.CaptureFixture[str]) -> None:
    """A qcow2 disk may have any size; QEMU sees less of it."""
    odd = tmp_path / "odd"
    with Image.create(odd, 1024) as image:
        image.write(0, b"x" * 1024)
    with odd.open("r+b") as file:
        file.seek(24)
        file.write((1001).to_bytes(8, "big"))
    for how in ([], ["-c"]):
        run(capsys, "convert", *how, "-O", "qcow2", odd, tmp_path / "new")
        with Image.open(tmp_path / "new") as image:
            assert image.read(0, image.size) == b"x" * 1001 + bytes(23)
        qemu.check(tmp_path / "new")
        (tmp_path / "new").unlink()


def test_a_fault_is_not_told_as_a_mistake_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(Image, "create", fail)
    with pytest.raises(ValueError, match="a fault"):
        main(["create", str(tmp_path / "x"), "1M"])
    monkeypatch.undo()
    with pytest.raises(Qcow2UsageError):
        Image.create(tmp_path / "x", 1 << 20, cluster_size=3)
