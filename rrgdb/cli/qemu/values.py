"""Values of QEMU's options: ``[VALUE][,KEY=VALUE…]``, a comma in a value doubled (QEMU manual, "Invocation")."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from rrgdb.cli.types import SIZES
from rrgdb.opening.options import OptionError

_SWITCH = {"on": True, "yes": True, "true": True, "y": True, "off": False, "no": False, "false": False, "n": False}
_LONGEST = 60
"""characters of a value that an error shows"""


def brief(text: str) -> str:
    """As much of a text as an error shows."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def split(text: str) -> list[str]:
    """The parts of a value between commas."""
    return [part.replace("\0", ",") for part in text.replace("\0", "").replace(",,", "\0").split(",")]


class Settings:
    """One value being taken apart. ``first``: the key of a first part that has none. The last of several values for a
    key counts, as for QEMU. Errors are ``OptionError``, one line that begins with the option as it was given."""

    def __init__(self, option: str, text: str, first: str | None = None) -> None:
        self.option = option
        self.given = f"{option} {brief(text)}"
        self._left: dict[str, str] = {}
        for number, part in enumerate(split(text)):
            key, equals, value = part.partition("=")
            if not equals:
                key, value = (first, part) if number == 0 and first is not None else (part, "on")
            if not key:
                raise OptionError(f"{self.given}: expected KEY=VALUE, got {brief(part)!r}")
            self._left[key] = value

    def refuse(self, key: str, reason: str) -> OptionError:
        value = self._left.get(key)
        shown = key if value is None else f"{key}={brief(value)}"
        return OptionError(f"{self.option} {shown}: {reason}")

    def get(self, key: str) -> str | None:
        """A value, without taking it."""
        return self._left.get(key)

    def take(self, key: str) -> str | None:
        return self._left.pop(key, None)

    def text(self, key: str) -> str:
        """A value that must be there, and not empty."""
        if not self._left.get(key):
            raise OptionError(f"{self.given}: expected {key}=…")
        return self._left.pop(key)

    def switch(self, key: str, default: bool = False) -> bool:
        value = self._left.get(key)
        if value is None:
            return default
        if value not in _SWITCH:
            raise self.refuse(key, "expected on or off")
        del self._left[key]
        return _SWITCH[value]

    def number(self, key: str, limit: int) -> int | None:
        """A number below ``limit``, decimal or 0x…, with QEMU's suffixes of sizes; None if it is not there."""
        value = self._left.get(key)
        if value is None:
            return None
        match = re.fullmatch(r"(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})([KMGT]?)", value, re.ASCII | re.IGNORECASE)
        found = int(match[1], 16 if match[1][:2] in ("0x", "0X") else 10) if match else limit
        if match and match[2]:
            found *= SIZES[match[2].upper()]
        if found >= limit:
            raise self.refuse(key, f"expected a number below {limit:#x}")
        del self._left[key]
        return found

    def only(self, accepted: Mapping[str, tuple[Collection[str], str]]) -> None:
        """Settings that change nothing: key -> (the values that it may have, none: any; why no others)."""
        for key in self._left.keys() & accepted.keys():
            values, reason = accepted[key]
            if values and self._left[key] not in values:
                raise self.refuse(key, reason)
            del self._left[key]

    def finish(self, known: Collection[str] = ()) -> None:
        """Refuse what was not taken; ``known``: the keys that there are, for the message."""
        for key in self._left:
            expected = f"expected {', '.join(known)}" if known else "expected no such setting"
            raise self.refuse(key, expected)
