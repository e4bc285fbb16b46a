"""What is imported when it is asked for. Names are data, and cost nothing; modules take time.

A command imports the CPU family, the board and the devices of its own guest alone. Two forms: a table of things of one
kind by their names, and the names that a package offers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


class Imported(MutableMapping[str, T]):
    """Things by their names. ``places``: name -> "module:attribute". What there is, is known without an import."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)
        self._found: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        if name not in self._found:
            self._found[name] = imported(self._places[name])
        return self._found[name]

    def __setitem__(self, name: str, value: T) -> None:
        self._places[name] = ""
        self._found[name] = value

    def __delitem__(self, name: str) -> None:
        del self._places[name]
        self._found.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def offered(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """``__getattr__`` of a package (its ``__name__``) that offers names of its modules. ``places``: name ->
    "module:attribute"; each is imported once."""

    def look_up(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = imported(places[name])
        setattr(import_module(package), name, found)
        return found

    return look_up


def imported(place: str) -> Any:
    """What "module:attribute" names."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
