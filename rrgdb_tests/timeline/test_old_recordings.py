"""Recordings of earlier versions: they open, verify, and go to any position; where guests compute otherwise now, the
divergence says since when."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from unittest.mock import patch

import pytest

from rrgdb.board.boards import BOARDS, board_of, earlier
from rrgdb.opening import replay
from rrgdb.recording import behaviour
from rrgdb.recording.behaviour import BEHAVIOUR, CHANGES
from rrgdb.recording.door import Divergence
from rrgdb.recording.manifest import ManifestError
from rrgdb.timeline.verify import verify
from rrgdb_tests import recordings

# Never changed: sha256 of the packed recordings, and the length of history.
KEPT: Mapping[str, tuple[str, int]] = {
    "aarch64-ticker": ("f0475245f47095e37b06d09bdf3105785ac1700a574e3bd6b1658001d430cb2d", 87579),
    "i386-string": ("c075936e9cf5e8a2f3f8952a3558fc9c157ace57d5c32e6c0086a163f8ce92e1", 279674),
    "riscv32-trap": ("c5ba5d8994dad7d99a49f16c1298f521dffa8023645c91da0fb8d3079eb6f213", 107097),
    "riscv64-consoles": ("4fd4436f86eef6db89c1068ee097dcbfbe669db94b2f2341c23f566398c26012", 26196),
    "riscv64-disk": ("781a0365a8c35da9e6afa6d71771b7d846b2d034e9c42caca84936a22abaa375", 202184),
    "thumb-it": ("1b2c486726bc6ac91c2aa8fb5db7d44a61131b133be6a51aa1233ba46c5558cc", 1452187),
    "x86_64-echo": ("4fa6c7c05d0ab4939770fdf151ab1e8f132385a0f3851cf5450bc40851efb26e", 7735),
    "x86_64-script": ("3f30c4ccb841cbd18f5dff3c60bc5bd96e55d976f5c62c588e355b0e1c404faf", 158),
}
PMP = ("794f316d79a694d6f4b55782b836c08d26c39252319291f904ed9bed5b41a066", 31)
LARGEST = 60 << 10
"""bytes of a packed recording"""


def unpack(name: str, digest: str, where: Path) -> Path:
    packed = Path(recordings.__file__).with_name(f"{name}.tar.xz")
    data = packed.read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest
    assert len(data) <= LARGEST
    with tarfile.open(packed) as archive:
        archive.extractall(where, filter="data")
    return where / name


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """The disk of riscv64-disk."""
    path = tmp_path / "ledger.raw"
    path.write_bytes(b"".join((n * 2654435761 & 0xFFFFFFFF).to_bytes(4, "little") for n in range(2048)))
    os.utime(path, (0, 0))
    return path


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("whole", [True, False], ids=["with snapshots", "from the images"])
def test_an_old_recording_verifies_and_goes_anywhere(name: str, whole: bool, tmp_path: Path, ledger: Path) -> None:
    digest, end = KEPT[name]
    path = unpack(name, digest, tmp_path)
    if not whole:
        (path / "snapshots.qcow2").unlink()
    disks = {"ledger": ledger} if name == "riscv64-disk" else {}
    random = Random(name)
    with replay(path, disks=disks) as opened:
        timeline = opened.timeline
        assert whole == (opened.messages == ())
        assert timeline.end == end
        assert verify(timeline) == len(timeline.log.digests) > 0
        timeline.seek(end)
        last = timeline.marks.state_digest()
        for position in random.sample(range(end), 5):
            timeline.seek(position)
            timeline.seek(end)
            assert timeline.marks.state_digest() == last


def test_a_divergence_of_an_old_recording_says_since_when_guests_compute_otherwise(tmp_path: Path) -> None:
    path = unpack("riscv64-pmp", PMP[0], tmp_path)
    with replay(path) as opened, pytest.raises(Divergence) as caught:
        verify(opened.timeline)
    assert "(recorded with behaviour 1 (rrgdb 0.1.0)" in str(caught.value)
    assert str(caught.value).endswith("PMP is enforced since 2)")


def test_nothing_is_said_of_changes_on_other_cpus(tmp_path: Path) -> None:
    path = unpack("x86_64-script", KEPT["x86_64-script"][0], tmp_path)
    with replay(path) as opened, patch.object(behaviour, "CHANGES", [c for c in CHANGES if "x86_64" not in c.arches]):
        reason = behaviour.difference(opened.recording.manifest, "x86_64")
        newer = behaviour.difference(replace(opened.recording.manifest, behaviour=BEHAVIOUR + 1), "x86_64")
    assert reason == "recorded with behaviour 1 (rrgdb 0.1.0)"
    assert newer == f"recorded with behaviour {BEHAVIOUR + 1} (rrgdb 0.1.0), this rrgdb has {BEHAVIOUR}"


def test_a_board_is_kept_in_the_revision_of_the_recording(tmp_path: Path) -> None:
    path = unpack("aarch64-ticker", KEPT["aarch64-ticker"][0], tmp_path)
    first = board_of("aarch64-virt", 1)
    assert first in earlier()
    latest = replace(BOARDS[first.name], revision=3, placements=())
    with patch.dict(BOARDS, {first.name: latest}):
        assert board_of(first.name, 1) is first
        with replay(path) as opened:
            assert opened.guest.spec is first
            verify(opened.timeline)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest |= {"version": 2, "behaviour": BEHAVIOUR}
    manifest["guest"]["revision"] = 7
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ManifestError, match=r"guest\.revision: expected one of aarch64-virt that this .*, got 7"):
        replay(path)
