"""What decides how a guest runs beside its images: ``guest.options`` of a manifest, checked as whatever a file says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from rrgdb.opening.options import MAX_SHIFT, VIRTIO
from rrgdb.recording.manifest import MAX_DISKS, Option

MAX_TEXT = 1 << 16
"""characters of a guest's arguments, and of a kernel's command line"""
KASLR_BYTES, RNG_BYTES = 8, 32
"""of the seeds in a device tree, as QEMU's"""
Misfit = Callable[[str, str, object], Exception]


@dataclass(frozen=True, slots=True)
class Settings:
    """Each field is one of ``guest.options``; one with its default is not written.

    ``append``: the kernel's command line, of a guest that boots from its images as QEMU does; None: its one image is
    started as it is, with ``args``, a raw one at ``entry``. ``start``: where the CPU starts in place of the kernel, the
    name of an image or an address. ``kaslr_seed``, ``rng_seed``: of the device tree, in hex. ``shift`` and what stands
    behind it: see ``GuestOptions``; ``virtio`` as words."""

    args: str = ""
    entry: int | None = None
    append: str | None = None
    start: str | int | None = None
    kaslr_seed: str | None = None
    rng_seed: str | None = None
    shift: int = 0
    sleep: bool = True
    no_reboot: bool = False
    virtio: str | None = None
    legacy: bool = False

    @property
    def seeds(self) -> dict[str, bytes]:
        """Properties of the device tree's /chosen."""
        given = {"kaslr-seed": self.kaslr_seed, "rng-seed": self.rng_seed}
        return {name: bytes.fromhex(seed) for name, seed in given.items() if seed is not None}

    @property
    def slots(self) -> tuple[str, ...] | None:
        return None if self.virtio is None else tuple(self.virtio.split(" "))

    def options(self) -> dict[str, Option]:
        """As a manifest has them."""
        written = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return written if self.append is not None else {"args": self.args} | written


@dataclass(frozen=True, slots=True)
class _Rule:
    expected: str
    holds: Callable[[Any], bool]


def _text(limit: int, pattern: str = ".*") -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and len(value) <= limit and re.fullmatch(pattern, value) is not None


def _number(limit: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 0 <= value < limit


def _only(which: bool) -> Callable[[Any], bool]:
    """A switch is written where it is not as usual."""
    return lambda value: value is which


_WORDS = "|".join(VIRTIO)
_RULES: dict[str, _Rule] = {
    "args": _Rule("text", _text(MAX_TEXT)),
    "entry": _Rule("an address, of a raw image alone", _number(1 << 64)),
    "append": _Rule(f"text of at most {MAX_TEXT} characters", _text(MAX_TEXT)),
    "start": _Rule(
        "the name of an image, or an address", lambda value: _text(MAX_TEXT)(value) or _number(1 << 64)(value)
    ),
    "kaslr_seed": _Rule(f"{KASLR_BYTES} bytes in hex", _text(MAX_TEXT, rf"[0-9a-f]{{{2 * KASLR_BYTES}}}")),
    "rng_seed": _Rule(f"{RNG_BYTES} bytes in hex", _text(MAX_TEXT, rf"[0-9a-f]{{{2 * RNG_BYTES}}}")),
    "shift": _Rule(f"a number from 1 to {MAX_SHIFT}", lambda value: _number(MAX_SHIFT + 1)(value) and value > 0),
    "sleep": _Rule("false", _only(False)),
    "no_reboot": _Rule("true", _only(True)),
    "virtio": _Rule(
        f"words of {', '.join(VIRTIO)}, with a space between two",
        _text(MAX_DISKS * 8, rf"(?:{_WORDS})(?: (?:{_WORDS}))*"),
    ),
    "legacy": _Rule("true", _only(True)),
}
_OF_BOOT = ("start", "kaslr_seed", "rng_seed")
_OF_IMAGE = ("args", "entry")


def parse(given: Mapping[str, Option], misfit: Misfit) -> Settings:
    """The settings of a manifest; ``misfit`` makes the error for a key, what was expected and what was found."""
    for key, value in given.items():
        rule = _RULES.get(key)
        if rule is None:
            raise misfit(f"guest.options.{key}", "no such key", value)
        if not rule.holds(value):
            raise misfit(f"guest.options.{key}", rule.expected, value)
    boots = "append" in given
    for key in _OF_IMAGE if boots else _OF_BOOT:
        if key in given:
            raise misfit(f"guest.options.{key}", f"none {'beside' if boots else 'without'} append", given[key])
    return Settings(**given)  # type: ignore[arg-type]  # each was checked against its rule
