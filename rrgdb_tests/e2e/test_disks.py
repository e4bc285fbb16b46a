"""A guest with disks, recorded and debugged as a user does."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from random import Random

import pytest

from rrgdb_tests import guests
from rrgdb_tests.e2e.harness import debugging, rrgdb
from rrgdb_tests.guests import line_of

DEFINES = {"ROUNDS": 30, "SECTORS": 40, "WORK": 200}
BAD = 0xBAD
BAD_SECTOR, BAD_WORD = 23, 77


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Accounts, one of which is bad."""
    words = [Random(3).getrandbits(32) | 1 << 31 for _ in range(40 * 128)]
    words[BAD_SECTOR * 128 + BAD_WORD] = BAD
    path = tmp_path / "accounts.img"
    path.write_bytes(struct.pack(f"<{len(words)}I", *words))
    path.chmod(0o444)
    return path


@pytest.mark.parametrize("arch", ["riscv64", "aarch64"])
def test_the_user_finds_the_disk_read_that_brought_a_bad_value(arch: str, image: Path, tmp_path: Path) -> None:
    before = hashlib.sha256(image.read_bytes()).digest()
    elf = guests.build(arch, "disks", DEFINES)
    ledger = tmp_path / "ledger.img"
    ledger.write_bytes(bytes(64 * 512))
    recording = tmp_path / "r.rrgdb"
    disks = ("--disk", f"accounts={image},readonly", "--disk", f"ledger={ledger}")
    shown = rrgdb("record", "--snapshot-interval", "0.01", *disks, "-o", recording, elf).stdout
    assert "disks checksum" in shown
    with debugging(elf, "replay", recording) as gdb:
        # Where was the bad value posted?
        gdb.cli(f"break post if value == {BAD}")
        gdb.cont()
        assert gdb.value("value") == BAD
        assert gdb.value("round_number") == BAD_SECTOR
        gdb.delete()
        # It stood in the buffer. What has brought it there?
        gdb.watch(f"buffer[{BAD_WORD}]")
        stop = gdb.cont(reverse=True)
        assert stop["reason"] == "watchpoint-trigger"
        assert int(stop["value"]["old"]) == BAD
        assert stop["frame"]["func"] == "transfer"
        assert int(stop["frame"]["line"]) in range(
            line_of("disks", "/* the notification */") - 1, line_of("disks", "/* the notification */") + 3
        )
        assert gdb.value("d->header.sector") == BAD_SECTOR
        assert gdb.value("type") == 0
        gdb.cli("up")
        assert f"disks.c:{line_of('disks', '/* the read */')}" in gdb.cli("frame")
    assert hashlib.sha256(image.read_bytes()).digest() == before
    assert ledger.read_bytes() == bytes(64 * 512)


def test_a_live_guest_goes_back_over_its_writes_and_on(image: Path, tmp_path: Path) -> None:
    elf = guests.build("riscv64", "disks", DEFINES)
    alone = rrgdb("record", "-o", tmp_path / "alone", "--disk", image, elf).stdout
    with debugging(elf, "run", "-o", tmp_path / "live", "--disk", image, elf) as gdb:
        gdb.cli("break run_round if round_number == 20")
        gdb.cont()
        gdb.cli("monitor savevm here")
        at, sum_ = gdb.icount, gdb.value("sum")
        gdb.cli("monitor seek 100")
        gdb.cli("maintenance flush register-cache")
        gdb.cont()
        assert (gdb.icount, gdb.value("sum")) == (at, sum_)
        gdb.delete()
        gdb.cont()
        assert gdb.value("sum") == int(alone.split()[-1], 16)
    rrgdb("verify", tmp_path / "live")


def test_commands_on_a_recording_with_disks(image: Path, tmp_path: Path) -> None:
    elf = guests.build("riscv64", "disks", DEFINES)
    recording = tmp_path / "r"
    rrgdb("record", "-o", recording, "--disk", f"accounts={image}", elf)
    facts = json.loads(rrgdb("info", "--json", recording).stdout)
    assert facts["disks"] == [
        {"name": "accounts", "bytes": 20480, "format": "raw", "readonly": False, "file": str(image)}
    ]
    moved = image.rename(tmp_path / "elsewhere.img")
    for arguments in (["verify", recording], ["replay", recording], ["snapshot", "create", recording, "x"]):
        said = rrgdb(*arguments, status=1).stderr
        assert said.count("\n") == 1
        assert f"disk accounts: {image}: " in said
        assert "--disk accounts=FILE names another place" in said
    there = f"--disk=accounts={moved}"
    rrgdb("verify", there, recording)
    rrgdb("snapshot", "create", there, "--at", "100000", recording, "x")
    rrgdb("snapshot", "export", there, "--format", "raw", recording, "x", tmp_path / "ram")
    assert "100000" in rrgdb("snapshot", "list", recording).stdout
    rrgdb("snapshot", "delete", recording, "x")
    rrgdb("verify", there, recording)
    assert "no disk of that name" in rrgdb("verify", "--disk=other=x", recording, status=2).stderr
    assert (
        "room for 0 disks"
        in rrgdb("record", "-o", tmp_path / "pc", there, guests.build("i386", "ticker"), status=2).stderr
    )
