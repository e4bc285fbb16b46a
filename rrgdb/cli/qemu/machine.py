"""``-machine``, ``-m``, ``-cpu``, ``-icount`` and ``-global``: what they say of the machine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from rrgdb.cli.qemu.values import Settings, split
from rrgdb.opening.options import MAX_SHIFT, OptionError

SWITCH = ("on", "off")
AUTO_SHIFT = 3
"""nanoseconds as a power of two: what QEMU's ``shift=auto`` begins with (its ``icount_configure``)"""
MACHINE: dict[str, tuple[Collection[str], str]] = {
    "gic-version": (("2",), "the board has a GICv2"),
    "its": (SWITCH, "expected on or off"),
    "highmem": (SWITCH, "expected on or off"),
    "highmem-redists": (SWITCH, "expected on or off"),
    "highmem-ecam": (SWITCH, "expected on or off"),
    "highmem-mmio": (SWITCH, "expected on or off"),
    "secure": (("off",), "the CPU has no secure state"),
    "virtualization": (("off",), "the CPU has no EL2 for guests"),
    "mte": (("off",), "the CPU has no tagged memory"),
    "iommu": (("none",), "the board has no IOMMU"),
    "ras": (("off",), "the board reports no memory errors"),
    "acpi": (("off", "auto"), "the board has a device tree and no ACPI tables"),
    "aclint": (("off",), "the board has a CLINT"),
    "aia": (("none",), "the board has a PLIC"),
    "aia-guests": (("0",), "the board has a PLIC"),
    "accel": (("tcg",), "a CPU of the host would not be exact"),
    "usb": (("off",), "the board has no USB"),
    "graphics": (SWITCH, "expected on or off"),
    "dump-guest-core": (SWITCH, "expected on or off"),
    "mem-merge": (SWITCH, "expected on or off"),
    "suppress-vmdesc": (SWITCH, "expected on or off"),
}
"""settings of ``-machine`` that change nothing: the values that they may have, and why no others"""
_ELSEWHERE = {"kernel": "-kernel", "initrd": "-initrd", "append": "-append", "dtb": "-dtb", "firmware": "-bios"}


@dataclass(frozen=True, slots=True)
class MachineSettings:
    """``board``: its name, None: the one for the CPU. ``randomness``: the device tree has random seeds."""

    board: str | None
    randomness: bool


def machine(values: Sequence[str]) -> MachineSettings:
    """What several ``-machine`` say together, later ones above earlier ones."""
    board, randomness = None, False
    for value in values:
        settings = Settings("-M", value, first="type")
        board = settings.take("type") or board
        for key in ("dtb-kaslr-seed", "dtb-randomness"):
            randomness = settings.switch(key, randomness)
        for key, option in _ELSEWHERE.items():
            if settings.get(key) is not None:
                raise settings.refuse(key, f"expected as {option}")
        settings.only(MACHINE)
        settings.finish(("dtb-randomness", *MACHINE))
    return MachineSettings(_QEMUS.get(board or "", board), randomness)


_QEMUS = {"virt-7.2": "virt"}
"""names of QEMU's with its version"""


def memory(value: str) -> str:
    """The size of ``-m``, as rrgdb's ``--memory`` takes it."""
    settings = Settings("-m", value, first="size")
    size = settings.text("size")
    for key in ("slots", "maxmem"):
        if settings.get(key) is not None:
            raise settings.refuse(key, "RAM cannot be plugged in")
    settings.finish(("size",))
    return size


def model(value: str) -> str:
    """The model of ``-cpu``. Whether a CPU has it is seen later."""
    name, *features = split(value)
    if features:
        raise OptionError(f"-cpu {value[:60]}: expected a model alone: what it can do is fixed")
    return name


@dataclass(frozen=True, slots=True)
class IcountSettings:
    """See ``GuestOptions``; ``recording``: of ``rr=record,rrfile=``, ``starting``: of ``rrsnapshot=``."""

    shift: int = 0
    sleep: bool = True
    recording: Path | None = None
    starting: str | None = None


def icount(value: str | None) -> IcountSettings:
    if value is None:
        return IcountSettings()
    settings = Settings("-icount", value, first="shift")
    if settings.get("shift") == "auto":
        settings.take("shift")
        shift = AUTO_SHIFT
    else:
        given = settings.number("shift", MAX_SHIFT + 1)
        shift = 0 if given is None else given
    sleep = settings.switch("sleep", True)
    if settings.switch("align"):
        raise OptionError("-icount align=on: refused: the guest runs as fast as it can")
    mode, file, starting = settings.take("rr"), settings.take("rrfile"), settings.take("rrsnapshot")
    if mode == "replay":
        raise OptionError("-icount rr=replay: refused: `rrgdb replay DIR` replays a recording, which has all options")
    if mode not in (None, "record"):
        raise OptionError(f"-icount rr={mode[:60]}: expected record")
    if file is not None and (not file or "\0" in file):
        raise OptionError("-icount rrfile=: expected the directory of the recording")
    settings.finish(("shift", "sleep", "align", "rr", "rrfile", "rrsnapshot"))
    return IcountSettings(shift, sleep, None if file is None else Path(file), starting)


def legacy(values: Sequence[str]) -> bool:
    """Whether ``-global`` leaves the virtio slots at version 1, as they are for QEMU."""
    old = True
    for value in values:
        settings = Settings("-global", value)
        if settings.get("driver") is not None:  # -global driver=…,property=…,value=…
            name = f"{settings.text('driver')}.{settings.text('property')}"
            settings = Settings("-global", f"{name}={settings.text('value')}")
        key = "virtio-mmio.force-legacy"
        if settings.get(key) is None:
            raise OptionError(f"{settings.given}: expected {key}=on or {key}=off")
        old = settings.switch(key)
        settings.finish((key,))
    return old
