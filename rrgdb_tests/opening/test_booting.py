"""Guests that boot from several images: what is recorded of them is all that a replay needs, and all is checked."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rrgdb.arch import ARCHES
from rrgdb.board.firmware.boot import Boot, File, Firmware
from rrgdb.board.firmware.image import ImageError, Placed, load_image, place_image
from rrgdb.board.spec import BoardSpec, RamLayout
from rrgdb.opening import BootFiles, GuestOptions, LoaderFile, OptionError, record, replay
from rrgdb.recording.manifest import ManifestError
from rrgdb.timeline.stop import Points
from rrgdb.timeline.verify import verify
from rrgdb_tests.guests import build

STARTED: list[Boot] = []
FIRMWARE = b"firmware of the board"


def _boot(what: Boot, board: BoardSpec, ram: RamLayout, cpu: str, disks: int = 0) -> Placed:
    """An ELF kernel alone, where its segments say."""
    STARTED.append(what)
    if what.kernel is None or cpu not in ARCHES[board.arches[0]].models or disks:
        raise ImageError("kernel", 0, "nothing", "a kernel")
    return place_image(load_image(what.kernel.data, what.kernel.name), board, ram)


@pytest.fixture(autouse=True)
def loader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    firmware = tmp_path / "fw.bin"
    firmware.write_bytes(FIRMWARE)
    monkeypatch.setattr("rrgdb.opening.images.boot", _boot)
    monkeypatch.setattr("rrgdb.opening.images.arch_of", lambda file: "riscv64" if file.data[:1] == b"\x7f" else None)
    monkeypatch.setattr("rrgdb.opening.images.seed_sizes", lambda _: {"kaslr-seed": 8, "rng-seed": 32})
    monkeypatch.setattr(
        "rrgdb.opening.booting.default_firmware", lambda _: Firmware("opensbi", ("/no/such/file", str(firmware)))
    )
    STARTED.clear()


@pytest.fixture
def files(tmp_path: Path) -> BootFiles:
    (tmp_path / "a").mkdir()
    for name, data in (("a/kernel", b"an initrd"), ("tree.dtb", b"a tree"), ("extra.bin", b"extra")):
        (tmp_path / name).write_bytes(data)
    kernel = tmp_path / "kernel"
    kernel.write_bytes(build("riscv64", "status").read_bytes())
    loaders = (
        LoaderFile(0x80400000, tmp_path / "extra.bin"),
        LoaderFile(0x80500000, tmp_path / "extra.bin", raw=True),
        LoaderFile(0x80600000, data=b"1234", starts=True),
    )
    return BootFiles(kernel, tmp_path / "a/kernel", "console=ttyS0", tmp_path / "tree.dtb", None, loaders=loaders)


def _record(path: Path, options: GuestOptions) -> None:
    with record(path, None, options) as opened:
        opened.timeline.run(Points({}))


def _unnamed(boot: Boot) -> Boot:
    """Without the names of files, which are for messages."""

    def bare(file: File | None) -> File | None:
        return None if file is None else File("", file.data)

    loaders = tuple(replace(loader, file=bare(loader.file)) for loader in boot.loaders)
    return replace(
        boot,
        kernel=bare(boot.kernel),
        initrd=bare(boot.initrd),
        dtb=bare(boot.dtb),
        bios=bare(boot.bios),
        loaders=loaders,
    )


def test_a_recording_needs_no_file_of_the_users(files: BootFiles, tmp_path: Path) -> None:
    _record(tmp_path / "r", GuestOptions("virt", boot=files, shift=3, sleep=False, no_reboot=True, randomness=True))
    shutil.copytree(tmp_path / "r", tmp_path / "copy")
    for entry in tmp_path.iterdir():
        if entry.name != "copy":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    with replay(tmp_path / "copy") as opened:
        manifest = opened.recording.manifest
        assert verify(opened.timeline) > 0
    first, again = STARTED
    assert _unnamed(first) == _unnamed(again)
    assert first.bios is not None
    assert first.bios.data == FIRMWARE
    assert [len(seed) for seed in first.seeds.values()] == [8, 32]
    assert [(i.name, i.role, i.load_address) for i in manifest.guest.images] == [
        ("kernel", "kernel", None),
        ("kernel-1", "initrd", None),
        ("tree.dtb", "dtb", None),
        ("extra.bin", "loader", 0x80400000),
        ("extra.bin-1", "loader-raw", 0x80500000),
        ("data-80600000", "loader-data", 0x80600000),
        ("fw.bin", "firmware", None),
    ]
    options = dict(manifest.guest.options)
    assert len(str(options.pop("kaslr_seed"))) == 16
    assert len(str(options.pop("rng_seed"))) == 64
    assert options == {
        "append": "console=ttyS0", "start": "data-80600000", "shift": 3, "sleep": False, "no_reboot": True,
    }  # fmt: skip


def test_seeds_are_drawn_anew(files: BootFiles, tmp_path: Path) -> None:
    for name in ("a1", "a2"):
        _record(tmp_path / name, GuestOptions("virt", boot=files, randomness=True))
    assert STARTED[0].seeds != STARTED[1].seeds


def test_without_the_boards_firmware(files: BootFiles, tmp_path: Path) -> None:
    _record(tmp_path / "r", GuestOptions("virt", boot=replace(files, no_firmware=True)))
    assert STARTED[0].bios is None


def test_firmware_that_is_not_installed(files: BootFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrgdb.opening.booting.default_firmware", lambda _: Firmware("opensbi", ("/no/such/file",)))
    with pytest.raises(OptionError, match=r"^-bios: board riscv64-virt needs the Debian package opensbi: expected"):
        _record(tmp_path / "r", GuestOptions("virt", boot=files))
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("options", "load", "said"),
    [
        (GuestOptions("mps2-an385", legacy=True), 0, "slots of version 2 on revision 1 of board mps2-an385"),
        (GuestOptions("mps2-an385", virtio=("rng",)), 0, "disks alone on revision 1 of board mps2-an385"),
        (
            GuestOptions("riscv64-virt", virtio=("rng",) * 9),
            0x80000000,
            "at most 8 virtio devices on board riscv64-virt",
        ),
    ],
)
def test_virtio_devices_that_a_board_has_not(options: GuestOptions, load: int, said: str, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(64))
    with pytest.raises(OptionError, match=f"^-device: expected {said}"):
        record(tmp_path / "r", image, replace(options, load=load))


HOSTILE: list[tuple[str, object, str]] = [
    ("images.1.role", "kernel", "guest.images: expected at most one image of each role"),
    ("images.1.role", "vmlinux", "guest.images: expected at most one image of each role"),
    ("images.0.load_address", 0x80000000, "guest.images: expected at most one image of each role"),
    ("images.0.role", "initrd", "guest.images: expected at most one"),
    ("images.0.role", "loader", "guest.images: expected images for board riscv64-virt"),
    ("images.4.load_address", None, "guest.images: expected loader-raw: a file at an address"),
    ("images.5.load_address", None, "guest.images: expected loader-data: 1 to 8 bytes at an address"),
    ("options.start", "fw.bin", "guest.images: expected start: an image of a loader"),
    ("options.start", [], "guest.options.start: expected a printable string"),
    ("options.rng_seed", "00", "guest.options.rng_seed: expected 32 bytes in hex"),
    ("options.virtio", "disk", "guest.options.virtio: expected 0 disks"),
    ("options.virtio", " ".join(["rng"] * 9), "guest.options.virtio: expected at most 8 virtio devices"),
    ("options.more", 1, "guest.options.more: expected no such key"),
    ("options.args", "", "guest.options.args: expected none beside append"),
    ("cpu", "cortex-a57", "guest.cpu: expected one of sifive-u54"),
    ("board", "riscv32-virt", "guest.cpu: expected one of sifive-u34"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "said"), HOSTILE)
def test_a_manifest_is_checked(files: BootFiles, tmp_path: Path, key: str, value: object, said: str) -> None:
    _record(tmp_path / "r", GuestOptions("virt", boot=files))
    manifest = json.loads((tmp_path / "r/manifest.json").read_text())
    at: Any = manifest["guest"]
    *way, last = key.split(".")
    for part in way:
        at = at[int(part)] if isinstance(at, list) else at[part]
    at[last] = value
    (tmp_path / "r/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ManifestError) as caught:
        replay(tmp_path / "r")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
