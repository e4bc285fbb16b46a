"""``-device`` and ``-drive``: what is plugged in, and what is put into RAM."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from rrgdb.cli.qemu.values import Settings
from rrgdb.opening.options import LoaderFile, NewDisk, OptionError

_ANY: Collection[str] = ()
_DRIVE: dict[str, tuple[Collection[str], str]] = {
    "if": (("none",), "expected if=none, and -device virtio-blk-device,drive=ID"),
    "media": (("disk",), "the boards have no CD-ROM drive"),
    "snapshot": (_ANY, ""),
    "cache": (_ANY, ""),
    "aio": (_ANY, ""),
    "discard": (_ANY, ""),
    "detect-zeroes": (_ANY, ""),
    "auto-read-only": (_ANY, ""),
    "driver": (("raw", "qcow2"), "expected format=raw or format=qcow2"),
}
"""settings of ``-drive`` that change nothing for a guest whose images are never written"""
_DEVICE: dict[str, tuple[Collection[str], str]] = {"id": (_ANY, ""), "bootindex": (_ANY, "")}
_BUS = "the slots are filled in the order of the devices, as QEMU fills them"
_SLOTTED = {"virtio-blk-device": "disk", "virtio-rng-device": "rng"}
_PCI = {
    name: driver
    for driver in _SLOTTED
    for base in (driver.removesuffix("-device"),)
    for name in (base, f"{base}-pci", f"{base}-pci-non-transitional", f"{base}-pci-transitional")
}
DRIVERS = ("loader", *_SLOTTED)


@dataclass(frozen=True, slots=True)
class Plugged:
    """``disks`` in the order of their slots; ``slots``: see ``GuestOptions.virtio``, None: nothing was plugged in."""

    disks: tuple[NewDisk, ...]
    slots: tuple[str, ...] | None
    loaders: tuple[LoaderFile, ...]


def plugged(devices: Sequence[str], drives: Sequence[str]) -> Plugged:
    images = dict(map(_drive, drives))
    if len(images) != len(drives):
        raise OptionError("-drive: expected an id of its own for each")
    disks, slots, loaders = [], [], []
    for value in devices:
        settings = Settings("-device", value, first="driver")
        driver = settings.text("driver")
        if driver == "loader":
            loaders.append(_loader(settings))
            continue
        if driver in _PCI:
            raise OptionError(f"-device {driver}: refused: the boards have no PCI: expected {_PCI[driver]}")
        if driver not in _SLOTTED:
            raise OptionError(f"-device {driver[:60]}: expected one of {', '.join(DRIVERS)}")
        kind = _SLOTTED[driver]
        if settings.get("bus") is not None:
            raise settings.refuse("bus", _BUS)
        if kind == "disk":
            name = settings.text("drive")
            if name not in images:
                raise OptionError(f"-device {driver},drive={name[:60]}: expected the id of a -drive, of its own")
            disks.append(images.pop(name))
        else:
            settings.take("rng")
        slots.append(kind)
        settings.only(_DEVICE)
        settings.finish(("id", "drive" if kind == "disk" else "rng"))
    if images:
        raise OptionError(f"-drive id={next(iter(images))}: no -device virtio-blk-device,drive={next(iter(images))}")
    return Plugged(tuple(disks), tuple(slots) or None, tuple(loaders))


def _drive(value: str) -> tuple[str, NewDisk]:
    settings = Settings("-drive", value)
    if settings.get("if") is None:
        raise OptionError(f"{settings.given}: expected if=none: the boards have no drive by themselves")
    settings.only(_DRIVE)
    file, name = settings.text("file"), settings.text("id")
    format_ = settings.take("format")
    readonly = settings.switch("readonly", settings.switch("read-only"))
    settings.finish(("file", "if", "id", "format", "readonly"))
    return name, NewDisk(Path(file), name, format_, readonly)


def _loader(settings: Settings) -> LoaderFile:
    address, cpu = settings.number("addr", 1 << 64), settings.number("cpu-num", 1)
    raw = settings.switch("force-raw")
    path, value, length = settings.take("file"), settings.number("data", 1 << 64), settings.number("data-len", 9)
    big = settings.switch("data-be")
    settings.finish(("file", "addr", "force-raw", "cpu-num", "data", "data-len", "data-be"))
    given = settings.given
    if path is not None:
        if not path or value is not None or length is not None or big:
            raise OptionError(f"{given}: expected file=FILE, or data= and data-len=, not both")
        if raw and address is None:
            raise OptionError(f"{given}: expected addr= with force-raw=on")
        return LoaderFile(address, Path(path), raw=raw, starts=cpu is not None)
    if length is None and value is None and address is not None and cpu is not None and not raw:
        return LoaderFile(address, starts=True)
    if value is None or not length or address is None or raw:
        raise OptionError(f"{given}: expected file=FILE, data=…,data-len=1 to 8,addr=…, or addr=…,cpu-num=0")
    if value >> 8 * length:
        raise OptionError(f"{given}: expected data of at most {length} bytes")
    return LoaderFile(address, data=value.to_bytes(length, "big" if big else "little"), starts=cpu is not None)
