"""Values of options."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from rrgdb.cli.types import Disk, MovedDisk
from rrgdb.opening import NewDisk


@pytest.mark.parametrize(
    ("text", "disk"),
    [
        ("root.img", NewDisk(Path("root.img"))),
        ("root=/srv/root.img", NewDisk(Path("/srv/root.img"), "root")),
        ("./a=b.img", NewDisk(Path("a=b.img"))),
        ("r=a=b", NewDisk(Path("a=b"), "r")),
        ("root=a.qcow2,format=qcow2,readonly", NewDisk(Path("a.qcow2"), "root", "qcow2", readonly=True)),
        ("a,,b,,,format=raw", NewDisk(Path("a,b,"), None, "raw")),
        ("a,readonly=on", NewDisk(Path("a"), readonly=True)),
        ("a,readonly,readonly=off", NewDisk(Path("a"))),
        ("a,format=vmdk", NewDisk(Path("a"), None, "vmdk")),  # refused where all of them are looked at
    ],
)
def test_disks(text: str, disk: NewDisk) -> None:
    assert Disk().convert(text, None, None) == disk


@pytest.mark.parametrize("text", ["", "root=", ",readonly", "a,", "a,cache=none", "a,format", "a\0b", "a,readonly=1"])
def test_disks_that_are_none(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected"):
        Disk().convert(text, None, None)


def test_moved_disks() -> None:
    assert MovedDisk().convert("root=a,b=c", None, None) == ("root", Path("a,b=c"))
    for text in ("root", "=a", "root=", ""):
        with pytest.raises(click.BadParameter, match="expected NAME=FILE"):
            MovedDisk().convert(text, None, None)
