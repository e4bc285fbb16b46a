"""What the options of ``rrgdb run`` and ``rrgdb record`` that say what the guest is come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrgdb.backends.base import Backend
from rrgdb.backends.serial import SerialError
from rrgdb.backends.serial import parse as parse_serial
from rrgdb.cli.qemu import machine as machines
from rrgdb.cli.qemu.devices import Plugged, plugged
from rrgdb.cli.qemu.serials import backends
from rrgdb.cli.qemu.values import brief
from rrgdb.opening.options import BootFiles, GuestOptions, NewDisk, OptionError


@dataclass(frozen=True, slots=True)
class Chosen:
    """A guest as it was asked for. ``image``: None where it boots from ``options.boot``."""

    image: Path | None
    options: GuestOptions
    disks: tuple[NewDisk, ...]
    output: Path | None
    starting: str


def chosen(image: Path | None, args: Sequence[str], given: Mapping[str, Any]) -> Chosen:
    """What the values of all options of a guest come to. Raises OptionError."""
    devices = plugged(given["devices"], given["drives"])
    files = _files(image, given, devices)
    legacy, disks = _slots(devices, given)
    of_machine, time = machines.machine(given["machines"]), machines.icount(given["icount"])
    options = GuestOptions(
        board=of_machine.board,
        cpu=None if given["cpu"] is None else machines.model(given["cpu"]),
        memory=given["memory"],
        load=given["load"],
        entry=given["entry"],
        args=" ".join(args),
        boot=files,
        shift=time.shift,
        sleep=time.sleep,
        no_reboot=given["no_reboot"],
        randomness=of_machine.randomness,
        virtio=devices.slots,
        legacy=legacy,
    )
    if time.recording is not None and given["output"] is not None:
        raise OptionError("-icount rrfile=: expected once, as -o")
    return Chosen(image, options, disks, given["output"] or time.recording, time.starting or given["rrsnapshot"])


def _slots(devices: Plugged, given: Mapping[str, Any]) -> tuple[bool, tuple[NewDisk, ...]]:
    """Whether the slots are of version 1, as those of ``-device`` are unless told otherwise, and the disks."""
    legacy = machines.legacy(given["globals_"])
    if devices.slots is None:
        return legacy and bool(given["globals_"]), given["disks"]
    if given["disks"]:
        raise OptionError("--disk and -device: expected disks by one of the two: -drive and -device")
    return legacy, devices.disks


def _files(image: Path | None, given: Mapping[str, Any], devices: Plugged) -> BootFiles | None:
    """None for an image that is started as it is."""
    paths = {key: _path(f"-{name}", given[key]) for key, name in _FILES.items()}
    no_firmware = given["firmware"] == "none"
    if given["firmware"] in ("none", "default"):
        paths["firmware"] = None
    if image is not None:
        of_boot = [f"-{_FILES[key]}" for key, path in paths.items() if path is not None]
        of_boot += ["-append"] if given["append"] is not None else []
        of_boot += ["-device loader"] if devices.loaders else []
        if of_boot:
            raise OptionError(f"{str(image)!r}: expected no IMAGE together with {of_boot[0]}")
        return None
    if paths["kernel"] is None and paths["firmware"] is None and not devices.loaders:
        raise OptionError("expected an IMAGE, or -kernel FILE, or -bios FILE; see --help")
    for key in ("initrd", "append"):
        if given[key] is not None and paths["kernel"] is None:
            raise OptionError(f"-{key}: expected together with -kernel")
    for key in ("load", "entry"):
        if given[key] is not None:
            raise OptionError(f"--{key}: expected with an IMAGE alone")
    return BootFiles(append=given["append"] or "", no_firmware=no_firmware, loaders=devices.loaders, **paths)


_FILES = {"kernel": "kernel", "initrd": "initrd", "dtb": "dtb", "firmware": "bios"}
"""name in ``BootFiles`` -> QEMU's option"""


def _path(option: str, text: str | None) -> Path | None:
    if text is None:
        return None
    if not text or "\0" in text:
        raise OptionError(f"{option} {text!r}: expected a file")
    return Path(text)


SERIAL_PORTS = 1
"""of every board"""


def serial_backends(given: Mapping[str, Any]) -> list[Backend]:
    """The backends of the serial ports, not started. Raises OptionError."""
    texts = backends(given["serials"], given["chardevs"])
    if len(texts) > SERIAL_PORTS:
        raise OptionError(f"-serial {brief(texts[SERIAL_PORTS])}: the boards have {SERIAL_PORTS} serial port")
    try:
        return [parse_serial(text) for text in texts]
    except SerialError as e:
        raise OptionError(str(e)) from None
