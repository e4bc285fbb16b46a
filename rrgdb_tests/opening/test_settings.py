"""``guest.options``: what is written is read again, and nothing else is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrgdb.opening.settings import Settings, parse
from rrgdb.recording.manifest import ManifestError, Option, misfit


def _misfit(key: str, expected: str, got: object) -> ManifestError:
    return misfit(Path("manifest.json"), key, expected, got)


texts = st.text(max_size=20).filter(str.isprintable)
of_all = {
    "shift": st.integers(0, 10),
    "sleep": st.booleans(),
    "no_reboot": st.booleans(),
    "virtio": st.none() | st.lists(st.sampled_from(["disk", "rng", "console"]), min_size=1).map(" ".join),
    "legacy": st.booleans(),
}
of_images = st.builds(Settings, args=texts, entry=st.none() | st.integers(0, (1 << 64) - 1), **of_all)
of_boots = st.builds(
    Settings,
    append=texts,
    start=st.none() | texts | st.integers(0, (1 << 64) - 1),
    kaslr_seed=st.none() | st.binary(min_size=8, max_size=8).map(bytes.hex),
    rng_seed=st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex),
    **of_all,
)


@given(of_images | of_boots)
def test_round_trip(settings: Settings) -> None:
    assert parse(settings.options(), _misfit) == settings


def test_an_image_alone_has_the_options_of_old() -> None:
    assert Settings(args="a b").options() == {"args": "a b"}
    assert Settings(entry=16).options() == {"args": "", "entry": 16}
    assert Settings(append="").options() == {"append": ""}


HOSTILE: list[tuple[str, Option, str]] = [
    ("args", 5, "text"),
    ("args", "x" * 65537, "text"),
    ("entry", "5", "an address"),
    ("entry", -1, "an address"),
    ("entry", True, "an address"),
    ("append", True, "text of at most"),
    ("append", "x" * 65537, "text of at most"),
    ("start", True, "the name of an image, or an address"),
    ("start", -1, "the name of an image, or an address"),
    ("start", 1 << 64, "the name of an image, or an address"),
    ("kaslr_seed", "00" * 7, "8 bytes in hex"),
    ("kaslr_seed", "0g" * 8, "8 bytes in hex"),
    ("kaslr_seed", 0, "8 bytes in hex"),
    ("rng_seed", "00" * 33, "32 bytes in hex"),
    ("rng_seed", "AA" * 32, "32 bytes in hex"),
    ("shift", 0, "a number from 1 to 10"),
    ("shift", 11, "a number from 1 to 10"),
    ("shift", True, "a number from 1 to 10"),
    ("shift", "3", "a number from 1 to 10"),
    ("sleep", True, "false"),
    ("sleep", 0, "false"),
    ("no_reboot", False, "true"),
    ("no_reboot", 1, "true"),
    ("virtio", "", "words of disk, rng, console"),
    ("virtio", "disk  rng", "words of disk, rng, console"),
    ("virtio", "disk gpu", "words of disk, rng, console"),
    ("virtio", "rng " * 200 + "rng", "words of disk, rng, console"),
    ("virtio", 1, "words of disk, rng, console"),
    ("legacy", False, "true"),
    ("legacy", "on", "true"),
    ("more", 1, "no such key"),
]


@pytest.mark.parametrize(("key", "value", "expected"), HOSTILE)
def test_each_value_is_checked(key: str, value: Option, expected: str) -> None:
    beside: dict[str, Option] = {} if key in ("args", "entry") else {"append": ""}
    with pytest.raises(ManifestError, match=rf"^manifest\.json: guest\.options\.{key}: expected {expected}"):
        parse({**beside, key: value}, _misfit)


@pytest.mark.parametrize("key", ["args", "entry"])
def test_what_is_booted_has_none_of_an_image(key: str) -> None:
    with pytest.raises(ManifestError, match=rf"guest\.options\.{key}: expected none beside append"):
        parse({"append": "", key: "" if key == "args" else 1}, _misfit)


@pytest.mark.parametrize(("key", "value"), [("start", 5), ("kaslr_seed", "00" * 8), ("rng_seed", "00" * 32)])
def test_an_image_has_none_of_what_is_booted(key: str, value: Option) -> None:
    with pytest.raises(ManifestError, match=rf"guest\.options\.{key}: expected none without append"):
        parse({"args": "", key: value}, _misfit)
