"""Where a server listens: ``[HOST]:PORT``, ``unix:PATH`` or ``stdio``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from rrgdb.errors import Error

LOOPBACK = "127.0.0.1"
_TCP = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s:\[\]]*)):([0-9]{1,5})")


class AddressError(Error):
    """The address cannot be read or cannot be listened on; one line."""


@dataclass(frozen=True, slots=True)
class TcpAddress:
    host: str
    port: int
    """0: any free port"""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class StdioAddress:
    def __str__(self) -> str:
        return "stdio"


Address: TypeAlias = TcpAddress | UnixAddress | StdioAddress


def parse_address(text: str) -> Address:
    """Raises AddressError. The host is this machine alone (127.0.0.1) if it is left out."""
    if text == "stdio":
        return StdioAddress()
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise AddressError(f"{text!r}: a path is expected behind unix:")
        return UnixAddress(path)
    match = _TCP.fullmatch(text)
    if not match or int(match[3]) > 65535:
        raise AddressError(f"{text!r}: [HOST]:PORT, unix:PATH or stdio is expected")
    return TcpAddress(match[1] or match[2] or LOOPBACK, int(match[3]))
