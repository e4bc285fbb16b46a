"""What all options of a guest come to together."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrgdb.cli.main import cli
from rrgdb.cli.qemu import chosen as qemu
from rrgdb.cli.qemu.chosen import Chosen
from rrgdb.cli.qemu.table import BY_NAME, Fate
from rrgdb.errors import one_line
from rrgdb.opening import BootFiles, GuestOptions, LoaderFile, NewDisk, OptionError


def chosen(*arguments: str) -> Chosen:
    command = cli.commands["record"]
    values = command.make_context("record", list(arguments)).params
    for backend in qemu.serial_backends(values):
        backend.close()
    return qemu.chosen(values["image"], values["args"], values)


def test_a_kernel_as_for_qemu() -> None:
    found = chosen(
        *[
            "-M",
            "virt,dtb-randomness=on",
            "-cpu",
            "cortex-a57",
            "-m",
            "512M",
            "-nographic",
            "-kernel",
            "Image",
            "-initrd",
            "i.gz",
        ],
        *["-append", "console=ttyAMA0 quiet"],
        *["-icount", "shift=auto,sleep=off,rr=record,rrfile=out.rrgdb", "-no-reboot"],
        *["-drive", "file=d.img,if=none,id=root,format=raw", "-device", "virtio-blk-device,drive=root"],
        *["-device", "loader,file=x.bin,addr=0x44000000"],
    )
    assert found == Chosen(
        None,
        GuestOptions(
            board="virt",
            cpu="cortex-a57",
            memory=512 << 20,
            boot=BootFiles(
                kernel=Path("Image"),
                initrd=Path("i.gz"),
                append="console=ttyAMA0 quiet",
                loaders=(LoaderFile(0x44000000, Path("x.bin")),),
            ),
            shift=3,
            sleep=False,
            no_reboot=True,
            randomness=True,
            virtio=("disk",),
            legacy=True,
        ),
        (NewDisk(Path("d.img"), "root", "raw"),),
        Path("out.rrgdb"),
        "start",
    )


def test_an_image_as_before() -> None:
    found = chosen("-M", "riscv64-virt", "--disk", "root=d.img", "x.elf", "-kernel", "2")
    options = GuestOptions(board="riscv64-virt", args="-kernel 2")
    assert found == Chosen(Path("x.elf"), options, (NewDisk(Path("d.img"), "root"),), None, "start")


def test_slots_are_of_version_1_for_devices_alone() -> None:
    assert not chosen("-kernel", "k").options.legacy
    assert chosen("-kernel", "k", "-device", "virtio-rng-device").options.legacy
    new = ("-global", "virtio-mmio.force-legacy=false")
    assert not chosen("-kernel", "k", "-device", "virtio-rng-device", *new).options.legacy


def test_firmware() -> None:
    for name, files in (
        ("none", BootFiles(kernel=Path("k"), no_firmware=True)),
        ("default", BootFiles(kernel=Path("k"))),
        ("fw.bin", BootFiles(kernel=Path("k"), firmware=Path("fw.bin"))),
    ):
        assert chosen("-kernel", "k", "-bios", name).options.boot == files
    assert chosen("-bios", "u-boot.bin").options.boot == BootFiles(firmware=Path("u-boot.bin"))
    assert chosen("-bios", "none", "x.elf").options.boot is None


TAKEN = sorted(name for name, option in BY_NAME.items() if option.fate in (Fate.SAME, Fate.MAPPED) and name != "help")
KEYS = st.sampled_from(
    [
        "virt",
        "type",
        "shift",
        "auto",
        "sleep",
        "rr",
        "rrfile",
        "file",
        "id",
        "if",
        "none",
        "format",
        "readonly",
        "drive",
        "loader",
        "addr",
        "data",
        "data-len",
        "cpu-num",
        "virtio-blk-device",
        "virtio-rng-device",
        "virtio-mmio.force-legacy",
        "server",
        "stdio",
        "chardev:c",
        "socket",
        "host",
        "port",
        "path",
    ]
)
VALUES = KEYS | st.text(max_size=8) | st.integers().map(str) | st.just("on")
TEXTS = st.lists(st.builds("{}={}".format, KEYS, VALUES) | VALUES, max_size=5).map(",".join)


@given(st.lists(st.tuples(st.sampled_from(TAKEN), TEXTS), max_size=4))
def test_whatever_values_say_is_taken_or_refused_in_one_line(options: list[tuple[str, str]]) -> None:
    words = [word for name, text in options for word in ([f"-{name}", text] if BY_NAME[name].value else [f"-{name}"])]
    said = ""
    try:
        chosen(*words, "-kernel", "k")
    except OptionError as e:
        said = one_line(e)
    assert len(said.splitlines()) < 2
    assert len(said) < 1000


def test_help_is_asked_for_as_qemus() -> None:
    with pytest.raises(click.exceptions.Exit):
        chosen("-help")
