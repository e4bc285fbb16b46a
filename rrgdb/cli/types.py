"""What options and arguments of the command line are made of: parameter types of click, and what commands share."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rrgdb.errors import Error
from rrgdb.lazy import imported

if TYPE_CHECKING:
    from rrgdb.opening.options import NewDisk

recording_argument = click.argument("recording", metavar="DIR", type=click.Path(path_type=Path))
SIZES = {"": 1 << 20, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Size(click.ParamType[int]):
    """Bytes with QEMU's suffixes K M G T; without one, mebibytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d{1,15})([KMGT]?)(i?B)?", str(value), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r}: expected a size such as 128M or 1G", param, ctx)
        return int(match[1]) * SIZES[match[2].upper()]


class Number(click.ParamType[int]):
    """A decimal or 0x… number."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            number = int(str(value), 0)
        except ValueError:
            self.fail(f"{value!r}: expected a number such as 1000 or 0x80000000", param, ctx)
        if number < 0:
            self.fail(f"{value!r}: expected a number that is not negative", param, ctx)
        return number


class Seconds(click.FloatRange):
    """Seconds that a clock can wait for."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        # Not a number compares as False.
        if not seconds <= threading.TIMEOUT_MAX:
            self.fail(f"{value!r}: expected a number of seconds, at most {threading.TIMEOUT_MAX:g}", param, ctx)
        return seconds


class Parsed(click.ParamType[Any]):
    """Text that a function turns into a value; errors of rrgdb's are usage errors. ``parse``: "module:function",
    imported when there is something to parse."""

    def __init__(self, name: str, parse: str) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return imported(self._parse)(value)
        except Error as e:
            self.fail(str(e), param, ctx)


class Disk(click.ParamType["NewDisk"]):
    """``[NAME=]FILE[,format=raw|qcow2][,readonly]``; a comma in FILE is doubled, as for QEMU."""

    name = "disk"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> NewDisk:
        from rrgdb.opening.options import NewDisk  # noqa: PLC0415 - not to say what the options are

        if isinstance(value, NewDisk):
            return value
        file, *settings = (part.replace("\0", ",") for part in str(value).replace(",,", "\0").split(","))
        match = re.match(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})=", file)
        name, file = (match[1], file[match.end() :]) if match else (None, file)
        disk = NewDisk(Path(file), name)
        for setting in settings:
            key, given, text = setting.partition("=")
            if key == "format" and given:
                disk = disk._replace(format=text)
            elif setting in ("readonly", "readonly=on", "readonly=off"):
                disk = disk._replace(readonly=text != "off")
            else:
                self.fail(f"{setting!r} in {value!r}: expected format=raw, format=qcow2 or readonly", param, ctx)
        if not file or "\0" in str(value):
            self.fail(f"{value!r}: expected [NAME=]FILE[,format=raw|qcow2][,readonly]", param, ctx)
        return disk


class MovedDisk(click.ParamType[tuple[str, Path]]):
    """``NAME=FILE``."""

    name = "disk"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        if isinstance(value, tuple):
            return value
        name, _, file = str(value).partition("=")
        if not name or not file or "\0" in file:
            self.fail(f"{value!r}: expected NAME=FILE, the name of a disk and where its image is now", param, ctx)
        return name, Path(file)


moved_disks_option = click.option(
    "--disk",
    "disks",
    type=MovedDisk(),
    multiple=True,
    metavar="NAME=FILE",
    help="Where the image of a disk is now, if it was moved.",
)
