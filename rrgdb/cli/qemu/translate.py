"""An argument list with QEMU's options in it, rewritten to one of rrgdb's own."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from rrgdb.cli.qemu.machine import memory
from rrgdb.cli.qemu.table import BY_NAME, Fate, QemuOption
from rrgdb.cli.qemu.values import brief
from rrgdb.opening.options import OptionError

_STUB = "--gdb"
"""a verb without this option has no debugger"""
_SOCKET_SETTINGS = re.compile(r",(server|server=on|wait=off|nowait|nodelay|nodelay=on)(?=,|$)")
"""what is so for each socket that a debugger may come by"""


@dataclass(frozen=True, slots=True)
class Own:
    """The options of rrgdb's that a verb has: name with dashes -> whether it takes a value."""

    values: Mapping[str, bool]

    @property
    def names(self) -> Collection[str]:
        return self.values.keys()


@dataclass
class _Translation:
    own: Own
    arguments: list[str]
    done: list[str] = field(default_factory=list)
    graphic: bool = True

    def run(self) -> list[str]:
        left = iter(self.arguments)
        for word in left:
            if word == "--" or not re.match(r"-.", word):
                # The image, and the guest's own arguments.
                return [*self._options(), word, *left]
            self._option(word, left)
        return self._options()

    def _options(self) -> list[str]:
        serial = any(word.startswith("--serial=") for word in self.done)
        return self.done if self.graphic or serial else ["--serial=mon:stdio", *self.done]

    def _option(self, word: str, left: Iterator[str]) -> None:
        name, equals, attached = word.partition("=")
        takes = self.own.values.get(name)
        qemu = BY_NAME.get(name.removeprefix("-").removeprefix("-"))
        if takes is not None and qemu is None:
            self.done.append(word)
            if takes and not equals:
                self.done.append(self._value(word, left))
        elif qemu is not None:
            if not qemu.value:
                if equals:
                    raise OptionError(f"{brief(word)}: {name} takes no value")
                self._known(qemu, name, "")
            else:
                self._known(qemu, name, attached if equals else self._value(word, left))
        elif self._is_short(word):
            self.done.append(word)
        else:
            raise OptionError(f"{brief(word)}: no such option{self._nearest(name)}")

    def _value(self, word: str, left: Iterator[str]) -> str:
        value = next(left, None)
        if value is None:
            raise OptionError(f"{word}: expected a value behind it")
        return value

    def _known(self, qemu: QemuOption, name: str, value: str) -> None:
        given = f"{name} {brief(value)}".rstrip()
        if qemu.fate is Fate.REFUSED:
            raise OptionError(f"{given}: refused: {_plain(qemu.note)}")
        option, _, fixed = qemu.to.partition(" ")
        needed = _STUB if qemu.name == "S" else option
        if needed and needed not in self.own.names:
            raise OptionError(f"{given}: expected with `rrgdb run` alone: `rrgdb record` has no debugger")
        if qemu.fate is Fate.NOTHING:
            if not re.fullmatch(qemu.accepts, value):
                raise OptionError(f"{given}: expected {f'{name} {qemu.value}'.rstrip()}: {_plain(qemu.note)}")
            return
        if qemu.name == "nographic":
            self.graphic = False
            return
        if qemu.name == "m":
            value = memory(value)
        if qemu.fate is Fate.MAPPED:
            value = fixed or _SOCKET_SETTINGS.sub("", value.removeprefix("tcp:"))
        self.done.append(f"{option}={value}" if qemu.value or fixed else option)

    def _is_short(self, word: str) -> bool:
        """Whether this is a one-letter option with its value attached."""
        return not word.startswith("--") and self.own.values.get(word[:2]) is True and not self._close(word, 0.75)

    def _close(self, name: str, cutoff: float = 0.6) -> list[str]:
        own = {known.lstrip("-"): known for known in self.own.names}
        qemu = {known: f"-{known}" for known in BY_NAME}
        known = {**qemu, **own} if name.startswith("--") else {**own, **qemu}
        return [known[match] for match in get_close_matches(name.lstrip("-"), known, n=1, cutoff=cutoff)]

    def _nearest(self, name: str) -> str:
        nearest = self._close(name)
        return f"; the nearest one is {nearest[0]}" if nearest else "; see --help"


def _plain(note: str) -> str:
    """A note of the documentation, for a terminal."""
    return note.replace("`", "")


def translate(arguments: Sequence[str], own: Own) -> list[str]:
    """``arguments`` of a verb with the options of QEMU's rewritten; whatever stands behind the image stays as it is.
    Raises OptionError."""
    return _Translation(own, list(arguments)).run()
