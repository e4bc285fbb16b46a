"""What QEMU's options plug in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rrgdb.cli.qemu.devices import plugged
from rrgdb.cli.qemu.serials import backends
from rrgdb.opening import LoaderFile, NewDisk, OptionError


def test_disks_are_those_of_the_devices_in_their_order() -> None:
    found = plugged(
        ["virtio-blk-device,drive=b", "virtio-rng-device,rng=r", "virtio-blk-device,id=d,drive=a,bootindex=1"],
        [
            "file=x,,y.img,if=none,id=a,format=raw,readonly=on,cache=none",
            "if=none,file=z.qcow2,id=b,format=qcow2,media=disk",
        ],
    )
    assert found.disks == (NewDisk(Path("z.qcow2"), "b", "qcow2"), NewDisk(Path("x,y.img"), "a", "raw", readonly=True))
    assert found.slots == ("disk", "rng", "disk")


@pytest.mark.parametrize(
    ("devices", "drives", "reason"),
    [
        ([], ["file=x,if=none,id=a"], "-drive id=a: no -device virtio-blk-device,drive=a"),
        ([], ["file=x,if=none,id=a", "file=x,if=none,id=a"], "-drive: expected an id of its own"),
        ([], ["file=x,id=a"], "expected if=none"),
        ([], ["file=x,if=virtio,id=a"], "-drive if=virtio: expected if=none"),
        ([], ["if=none,id=a"], "expected file="),
        ([], ["file=x,if=none"], "expected id="),
        ([], ["file=x,if=none,id=a,format=raw,bps=5"], "-drive bps=5"),
        (["virtio-blk-device"], [], "expected drive="),
        (["virtio-blk-device,drive=a"], [], "expected the id of a -drive"),
        (["virtio-blk-device,drive=a", "virtio-blk-device,drive=a"], ["file=x,if=none,id=a"], "of its own"),
        (["virtio-blk-pci,drive=a"], [], "the boards have no PCI: expected virtio-blk-device"),
        (["virtio-blk"], [], "expected virtio-blk-device"),
        (["virtio-rng-device,bus=virtio-mmio-bus.3"], [], "the slots are filled in the order"),
        (["virtio-rng-device,max-bytes=3"], [], "-device max-bytes=3"),
        (["e1000"], [], "-device e1000: expected one of loader, virtio-blk-device, virtio-rng-device"),
        ([""], [], "-device"),
    ],
)
def test_what_cannot_be_plugged_in(devices: list[str], drives: list[str], reason: str) -> None:
    with pytest.raises(OptionError, match=re.escape(reason)):
        plugged(devices, drives)


@pytest.mark.parametrize(
    ("value", "loader"),
    [
        ("file=a.bin,addr=0x80000000", LoaderFile(0x80000000, Path("a.bin"))),
        ("file=a.elf", LoaderFile(None, Path("a.elf"))),
        ("file=a.elf,cpu-num=0", LoaderFile(None, Path("a.elf"), starts=True)),
        ("file=a.elf,addr=4096,force-raw=on", LoaderFile(4096, Path("a.elf"), raw=True)),
        ("addr=0x1000,data=0x1234,data-len=4", LoaderFile(0x1000, data=b"\x34\x12\0\0")),
        ("addr=0x1000,data=0x1234,data-len=2,data-be=true", LoaderFile(0x1000, data=b"\x12\x34")),
        ("addr=0x1000,cpu-num=0", LoaderFile(0x1000, starts=True)),
    ],
)
def test_loaders(value: str, loader: LoaderFile) -> None:
    assert plugged([f"loader,{value}"], []).loaders == (loader,)
    assert plugged([f"loader,{value}"], []).slots is None


@pytest.mark.parametrize(
    "value",
    [
        "addr=0",
        "file=",
        "file=a,data=1,data-len=1",
        "file=a,force-raw=on",
        "data=1,addr=0",
        "data=256,data-len=1,addr=0",
        "data=1,data-len=9,addr=0",
        "data=1,data-len=0,addr=0",
        "data=1,data-len=1",
        "file=a,cpu-num=1",
        "file=a,addr=0x10000000000000000",
        "file=a,addr=-1",
        "file=a,what=1",
    ],
)
def test_loaders_that_are_none(value: str) -> None:
    with pytest.raises(OptionError, match=r"^-device"):
        plugged([f"loader,{value}"], [])


@pytest.mark.parametrize(
    ("serials", "chardevs", "found"),
    [
        ([], [], ["stdio"]),
        (["none"], [], ["null"]),
        (["mon:stdio"], [], ["mon:stdio"]),
        (["tcp::4444,server=on,wait=off"], [], ["tcp::4444,server"]),
        (["tcp:h:4444,server,nowait"], [], ["tcp:h:4444,server"]),
        (["unix:/tmp/a=b,server"], [], ["unix:/tmp/a=b,server"]),
        (["unix:/tmp/s,server=on,wait=off"], [], ["unix:/tmp/s,server"]),
        (["file:a,b=c"], [], ["file:a,b=c"]),
        (["chardev:c"], ["stdio,id=c,mux=on,signal=off"], ["mon:stdio"]),
        (["chardev:c"], ["file,id=c,path=x"], ["file:x"]),
        (["chardev:c"], ["socket,id=c,port=5,host=h,server=on,wait=off"], ["tcp:h:5,server"]),
        (["chardev:c"], ["socket,id=c,path=/p"], ["unix:/p"]),
        (["chardev:c", "chardev:d"], ["pty,id=d", "null,id=c"], ["null", "pty"]),
    ],
)
def test_serial_ports(serials: list[str], chardevs: list[str], found: list[str]) -> None:
    assert backends(serials, chardevs) == found


@pytest.mark.parametrize(
    ("serials", "chardevs"),
    [
        (["chardev:c"], []),
        (["chardev:c", "chardev:c"], ["null,id=c"]),
        ([], ["null,id=c"]),
        (["chardev:c"], ["null,id=c", "null,id=c"]),
        (["chardev:c"], ["spicevmc,id=c"]),
        (["chardev:c"], ["null"]),
        (["chardev:c"], ["file,id=c"]),
        (["chardev:c"], ["null,id=c,logfile=x"]),
        (["tcp::1,server=on,wait=on"], []),
        (["tcp::1,reconnect=5"], []),
    ],
)
def test_serial_ports_that_are_none(serials: list[str], chardevs: list[str]) -> None:
    with pytest.raises(OptionError, match=r"^-(serial|chardev)"):
        backends(serials, chardevs)
