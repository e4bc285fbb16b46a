"""What QEMU's options say of the machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rrgdb.cli.qemu import machine as machines
from rrgdb.cli.qemu.machine import IcountSettings, MachineSettings
from rrgdb.cli.qemu.values import Settings, split
from rrgdb.opening import OptionError


@pytest.mark.parametrize(
    ("values", "machine"),
    [
        ([], MachineSettings(None, False)),
        (["virt"], MachineSettings("virt", False)),
        (["virt-7.2"], MachineSettings("virt", False)),
        (["riscv64-virt", "dtb-randomness=on"], MachineSettings("riscv64-virt", True)),
        (["virt,gic-version=2,highmem=off,secure=off,dtb-randomness=off"], MachineSettings("virt", False)),
        (["type=virt,dtb-kaslr-seed=on"], MachineSettings("virt", True)),
        (["virt", "mps2-an385"], MachineSettings("mps2-an385", False)),
        (["virt,dtb-randomness"], MachineSettings("virt", True)),
    ],
)
def test_machines(values: list[str], machine: MachineSettings) -> None:
    assert machines.machine(values) == machine


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("virt,gic-version=3", "-M gic-version=3: the board has a GICv2"),
        ("virt,gic-version=max", "the board has a GICv2"),
        ("virt,secure=on", "-M secure=on: the CPU has no secure state"),
        ("virt,virtualization=on", "no EL2"),
        ("virt,aclint=on", "-M aclint=on: the board has a CLINT"),
        ("virt,aia=aplic", "the board has a PLIC"),
        ("virt,dtb-randomness=maybe", "-M dtb-randomness=maybe: expected on or off"),
        ("virt,kernel=x", "-M kernel=x: expected as -kernel"),
        ("virt,frobnicate=1", "-M frobnicate=1: expected dtb-randomness, gic-version"),
        ("virt,", "expected KEY=VALUE, got ''"),
        ("virt,=1", "expected KEY=VALUE, got '=1'"),
        ("virt,accel=kvm", "would not be exact"),
    ],
)
def test_machines_that_the_boards_are_not(value: str, reason: str) -> None:
    with pytest.raises(OptionError, match=re.escape(reason)):
        machines.machine([value])


@pytest.mark.parametrize(
    ("value", "settings"),
    [
        (None, IcountSettings()),
        ("3", IcountSettings(3)),
        ("shift=0", IcountSettings()),
        ("auto", IcountSettings(3)),
        ("shift=10,sleep=off,align=off", IcountSettings(10, sleep=False)),
        (
            "shift=auto,rr=record,rrfile=a,,b,rrsnapshot=boot",
            IcountSettings(3, recording=Path("a,b"), starting="boot"),
        ),
    ],
)
def test_icount(value: str | None, settings: IcountSettings) -> None:
    assert machines.icount(value) == settings


@pytest.mark.parametrize(
    "value", ["11", "shift=-1", "shift=x", "align=on", "rr=replay", "rr=x", "rrfile=", "sleep=2", "what=1", "", "٣"]
)
def test_icounts_that_are_none(value: str) -> None:
    with pytest.raises(OptionError, match=r"^-icount"):
        machines.icount(value)


def test_the_transport_is_the_old_one_unless_told_otherwise() -> None:
    assert machines.legacy([])
    assert machines.legacy(["virtio-mmio.force-legacy=on"])
    assert not machines.legacy(["virtio-mmio.force-legacy=false"])
    assert not machines.legacy(["driver=virtio-mmio,property=force-legacy,value=off"])
    for value in ("virtio-blk.x=1", "x", "virtio-mmio.force-legacy=2", "driver=a", "virtio-mmio.force-legacy=on,a=b"):
        with pytest.raises(OptionError, match=r"^-global"):
            machines.legacy([value])


def test_models() -> None:
    assert machines.model("cortex-a57") == "cortex-a57"
    with pytest.raises(OptionError, match="expected a model alone"):
        machines.model("cortex-a57,pmu=off")


def test_commas_are_doubled() -> None:
    assert split("a,,b,c=,,,d") == ["a,b", "c=,", "d"]
    assert Settings("-x", "a,,b,c=1", first="file").text("file") == "a,b"


@pytest.mark.parametrize(
    ("text", "number"), [("0x10", 16), ("16", 16), ("1K", 1024), ("0x1f", 31), ("010", 10), ("2m", 2 << 20)]
)
def test_numbers(text: str, number: int) -> None:
    assert Settings("-x", f"n={text}").number("n", 1 << 30) == number


@pytest.mark.parametrize("text", ["", "-1", "1_0", "0x", "1.5", "1Q", "9" * 25, "٣", " 1"])
def test_numbers_that_are_none(text: str) -> None:
    with pytest.raises(OptionError, match="expected a number below"):
        Settings("-x", f"n={text}").number("n", 1 << 30)
