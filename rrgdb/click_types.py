"""What options and arguments of the command line are made of: parameter types of click, and what commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

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


class Parsed(click.ParamType[Any]):
    """Text that ``parse`` turns into a value; its one-line errors are usage errors."""

    def __init__(self, name: str, parse: Callable[[str], Any], error: type[Exception]) -> None:
        self.name = name
        self._parse = parse
        self._error = error

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except self._error as e:
            self.fail(str(e), param, ctx)
