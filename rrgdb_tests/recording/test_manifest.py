"""The manifest: strict in what it takes, one line about what it does not."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrgdb.recording import manifest as manifests
from rrgdb.recording.manifest import MAX_IMAGE, MAX_RAM, MAX_SIZE, Disk, Guest, Image, Manifest, ManifestError

WHERE = Path("some.rrgdb/manifest.json")
IMAGE = Image("kernel.elf", "kernel", None, 12, "ab" * 32)
MANIFEST = Manifest(
    bytes(range(16)),
    "2026-01-02T03:04:05+00:00",
    "0.1.0",
    "unicorn 2.1.4",
    Guest(
        "board", "virt", "rv64", 128 << 20, (IMAGE, Image("dtb", "dtb", 1 << 63, 0, "0" * 64)), {"shift": 3, "x": True}
    ),
)

texts = st.text(min_size=1, max_size=255).filter(str.isprintable)
images = st.builds(
    Image,
    texts,
    texts,
    st.none() | st.integers(0, (1 << 64) - 1),
    st.integers(0, MAX_IMAGE),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
)
disks = st.builds(
    Disk,
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True),
    st.text(max_size=100).filter(str.isprintable).map(lambda path: f"/{path}"),
    st.sampled_from(["raw", "qcow2"]),
    st.integers(1, 1 << 47).map(lambda sectors: 512 * sectors),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.booleans(),
)
guests = st.builds(
    Guest,
    st.just("board"),
    texts,
    texts,
    st.integers(0, MAX_RAM),
    st.lists(images, max_size=4, unique_by=lambda image: image.name).map(tuple),
    st.dictionaries(texts, st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | texts | st.just(""), max_size=5),
    st.lists(disks, max_size=3, unique_by=lambda disk: disk.name).map(tuple),
)
made = st.builds(
    Manifest,
    st.binary(min_size=16, max_size=16),
    st.datetimes().map(lambda when: when.isoformat()),
    texts,
    texts,
    guests,
)


def refused(data: bytes) -> str:
    with pytest.raises(ManifestError) as caught:
        manifests.parse(data, WHERE)
    text = str(caught.value)
    assert text.startswith(f"{WHERE}: ")
    assert "\n" not in text
    assert len(text) < 600
    return text


@given(made)
def test_round_trip(manifest: Manifest) -> None:
    assert manifests.parse(manifest.to_json().encode(), WHERE) == manifest


@pytest.mark.parametrize(
    ("images", "options", "version"),
    [
        ((), {}, 2),
        ((IMAGE,), {"args": "a", "entry": 1}, 2),
        ((IMAGE,), {"append": ""}, 3),
        ((IMAGE,), {"args": "a", "shift": 3}, 3),
        (MANIFEST.guest.images, {"args": "a"}, 3),
    ],
)
def test_the_version_is_the_lowest_that_says_what_the_guest_is(
    images: tuple[Image, ...], options: dict[str, str | int], version: int
) -> None:
    guest = replace(MANIFEST.guest, images=images, options=options)
    assert json.loads(replace(MANIFEST, guest=guest).to_json())["version"] == version


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    manifests.write(path, MANIFEST)
    assert manifests.read(path) == MANIFEST
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifest.json"]
    with pytest.raises(ManifestError, match=r"missing.json: cannot read the manifest: No such file"):
        manifests.read(tmp_path / "missing.json")
    with pytest.raises(ManifestError, match="cannot write the manifest: No such file"):
        manifests.write(tmp_path / "missing" / "manifest.json", MANIFEST)
    with pytest.raises(ManifestError, match="cannot read the manifest"):
        manifests.read(tmp_path)


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "manifest.json"
    manifests.write(path, MANIFEST)
    before = path.read_bytes()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.write", full)
        with pytest.raises(ManifestError, match="No space left"):
            manifests.write(path, MANIFEST)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def changed(path: str, value: object) -> bytes:
    """The sample manifest with the value at ``path`` replaced (``...``: removed)."""
    whole = json.loads(MANIFEST.to_json())
    at: Any = whole
    *way, last = path.split(".")
    for key in way:
        at = at[int(key)] if isinstance(at, list) else at[key]
    if value is Ellipsis:
        del at[last]
    else:
        at[last] = value
    return json.dumps(whole).encode()


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("format", "other", "format: expected 'rrgdb-recording', got 'other'"),
        ("version", 4, "version: expected at most 3: this recording was made by a newer rrgdb, got 4"),
        ("behaviour", 0, "behaviour: expected an integer from 1"),
        ("behaviour", ..., "behaviour: expected this key, it is missing"),
        ("guest.revision", "1", "guest.revision: expected an integer from 1"),
        ("version", True, "version: expected a version number"),
        ("version", 0, "version: expected a version number"),
        ("version", ..., "version: expected this key, it is missing"),
        ("created", "yesterday", "created: expected a date and time"),
        ("created", 5, "created: expected 1 to 255"),
        ("recording_id", "00", "recording_id: expected 32 lower-case hex digits"),
        ("recording_id", "zz" * 16, "recording_id: expected 32"),
        ("engine", "", "engine: expected 1 to 255"),
        ("engine", "a\nb", "engine: expected 1 to 255"),
        ("rrgdb", "x" * 256, "rrgdb: expected 1 to 255"),
        ("rrgdb", "\ud800", "rrgdb: expected 1 to 255"),
        ("more", 1, "more: expected no such key, got 1"),
        ("guest", [], "guest: expected an object, got []"),
        ("guest.kind", "program", "guest.kind: expected board or script, got 'program'"),
        ("guest.ram_bytes", "1", "guest.ram_bytes: expected an integer"),
        ("guest.ram_bytes", 1.5, "guest.ram_bytes: expected an integer"),
        ("guest.ram_bytes", -1, "guest.ram_bytes: expected an integer"),
        ("guest.ram_bytes", MAX_RAM + 1, "guest.ram_bytes: expected an integer"),
        ("guest.cpu", None, "guest.cpu: expected 1 to 255"),
        ("guest.images", {}, "guest.images: expected a list"),
        ("guest.images", [{}] * 65, "guest.images: expected a list of at most 64"),
        ("guest.images", [1], "guest.images[0]: expected an object, got 1"),
        ("guest.images.1.name", "kernel.elf", "guest.images: expected a different name"),
        ("guest.images.1.load_address", 1 << 64, "guest.images[1].load_address: expected null or an address"),
        ("guest.images.1.load_address", False, "guest.images[1].load_address: expected null or an address"),
        ("guest.images.1.size", MAX_IMAGE + 1, "guest.images[1].size: expected an integer"),
        ("guest.images.1.sha256", "AB" * 32, "guest.images[1].sha256: expected 64"),
        ("guest.images.1.path", "/", "guest.images[1].path: expected no such key"),
        ("guest.options", None, "guest.options: expected an object"),
        ("guest.options", {str(number): 1 for number in range(65)}, "guest.options: expected at most 64"),
        ("guest.options.a", [], "guest.options.a: expected a printable string, an integer or a boolean"),
        ("guest.options.a", 0.5, "guest.options.a: expected a printable string"),
        ("guest.options.a", "\x1b[2J", "guest.options.a: expected a printable string"),
        ("guest.options.a", 1 << 64, "guest.options.a: expected an integer of 64 bits"),
        ("guest.options.\n", 1, "guest.options: expected option names"),
    ],
)
def test_wrong_values(path: str, value: object, what: str) -> None:
    assert f"{WHERE}: {what}" in refused(changed(path, value))


def test_hostile_json() -> None:
    assert "expected JSON in UTF-8" in refused(b"")
    assert "expected JSON in UTF-8" in refused(b"\xff")
    assert "expected JSON in UTF-8" in refused(b"\xef\xbb\xbf{}")
    assert "top level: expected an object" in refused(b"[]")
    assert "NaN is no JSON number" in refused(b'{"format": NaN}')
    assert "twice" in refused(b'{"format": 1, "format": 1}')
    assert "depth" in refused(b"[" * 500_000)
    assert "depth" in refused(b'{"a":' * 100_000)
    assert "expected JSON" in refused(b"1" * 100_000)
    assert "at most 1048576 bytes" in refused(b" " * (MAX_SIZE + 1))
    assert "expected no such key" in refused(changed("\n\x1b" * 500, 1))
    assert "got 'xxxxxxxx" in refused(changed("format", "x" * 100_000))


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ManifestError, match="at most 1048576 bytes"):
        manifests.read(path)


def fuzz(seed: int) -> None:
    source = random.Random(seed)
    data = bytearray(MANIFEST.to_json().encode())
    for _ in range(source.randrange(1, 4)):
        at = source.randrange(len(data))
        piece = source.choice(
            [b"", b"{", b"}", b"[", b'"', b",", b"null", b"-", b"1e999", b"\\ud800", source.randbytes(2)]
        )
        data[at : at + source.randrange(4)] = piece
    try:
        parsed = manifests.parse(bytes(data), WHERE)
    except ManifestError as error:
        text = str(error)
    else:
        assert manifests.parse(parsed.to_json().encode(), WHERE) == parsed
        text = ""
    assert "\n" not in text


def test_fuzz_sample() -> None:
    for seed in range(1000):
        fuzz(seed)


@pytest.mark.slow
def test_fuzz() -> None:
    for seed in range(1000, 100_000):
        fuzz(seed)


DISK = {"name": "root", "path": "/srv/root.img", "format": "raw", "size": 512, "mtime_ns": 0, "readonly": False}


def _with_disks(disks: object) -> bytes:
    manifest = json.loads(MANIFEST.to_json())
    manifest["guest"]["disks"] = disks
    return json.dumps(manifest).encode()


def test_a_guest_without_disks_has_no_such_key() -> None:
    assert "disks" not in json.loads(MANIFEST.to_json())["guest"]
    assert manifests.parse(_with_disks([DISK]), WHERE).guest.disks == (Disk(**DISK),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "../up"}, r"guest.disks\[0\].name: expected a name of letters, digits, - and _"),
        ({"path": "relative"}, r"guest.disks\[0\].path: expected an absolute path"),
        ({"path": "/a\nb"}, r"guest.disks\[0\].path: expected an absolute path"),
        ({"path": "/" + "x" * 4096}, r"guest.disks\[0\].path: expected an absolute path"),
        ({"format": "vmdk"}, r"guest.disks\[0\].format: expected raw or qcow2"),
        ({"size": 0}, r"guest.disks\[0\].size: expected a multiple of 512 above 0"),
        ({"size": 700}, r"guest.disks\[0\].size: expected a multiple of 512 above 0"),
        ({"size": True}, r"guest.disks\[0\].size: expected an integer"),
        ({"mtime_ns": 0.5}, r"guest.disks\[0\].mtime_ns: expected a number of nanoseconds"),
        ({"readonly": 1}, r"guest.disks\[0\].readonly: expected true or false"),
        ({"more": 1}, r"guest.disks\[0\].more: expected no such key"),
    ],
)
def test_disks_that_cannot_be(change: dict[str, object], said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        manifests.parse(_with_disks([DISK | change]), WHERE)


@pytest.mark.parametrize("disks", [[], [DISK, DISK], "root", [1], [DISK] * 65])
def test_lists_of_disks_that_cannot_be(disks: object) -> None:
    refused(_with_disks(disks))
