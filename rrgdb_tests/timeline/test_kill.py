"""SIGKILL at any moment: the recording opens, replays, verifies, and covers all output that left the process."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from rrgdb.opening import replay
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.stop import Points, StopKind
from rrgdb.timeline.verify import verify
from rrgdb_tests.guests import build


def _record_and_kill(arch: str, scratch: Path, delay: float) -> bool:
    """Whether there was something to judge: the manifest is written last."""
    path, shown = scratch / "r", scratch / "out"
    image = build(arch, "mixer", {"READ_CLOCK": 5000})
    command = [sys.executable, "-m", "rrgdb", "record", "--snapshot-interval", "0.01", "-m", "8M"]
    with shown.open("wb") as out, (scratch / "err").open("wb") as err:
        process = subprocess.Popen(
            [*command, "-o", str(path), str(image)], stdin=subprocess.PIPE, stdout=out, stderr=err
        )
        assert process.stdin is not None
        try:
            # A negative delay kills while the recording is being made.
            while delay >= 0 and not (path / "manifest.json").exists() and process.poll() is None:
                time.sleep(0.01)
            killed_at = time.monotonic() + abs(delay)
            number = 0
            while time.monotonic() < killed_at and process.poll() is None:
                process.stdin.write(b"%d," % number)
                process.stdin.flush()
                number += 1
                time.sleep(0.003)
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
    if not (path / "manifest.json").exists():
        return False
    _judge(path, shown.read_bytes())
    return True


def _judge(path: Path, shown: bytes) -> None:
    sent = bytearray()
    with replay(path) as opened:
        assert all("\n" not in m for m in opened.messages)
        opened.door.set_output("serial0", sent.extend)
        t = opened.timeline
        verify(t)
        assert t.icount == t.end
        assert bytes(sent).startswith(shown)
        spans = t.index.spans
        assert [end for _, end in spans[:-1]] == [begin for begin, _ in spans[1:]]
        assert not spans or (spans[0][0], spans[-1][1] <= t.end) == (0, True)
        assert Backward(t).run(Points({1: None})).kind is StopKind.HISTORY_BEGIN
        for stored in t.marks.stored[:: max(1, len(t.marks.stored) // 5)]:
            t.seek(stored.icount)
            assert t.icount == stored.icount
        assert t.marks.stored or opened.messages  # killed before the store was made
        made = bool(t.marks.stored)
    if made and shutil.which("qemu-img"):
        check = subprocess.run(
            ["qemu-img", "check", str(path / "snapshots.qcow2")], capture_output=True, text=True, check=False
        )
        assert check.returncode in (0, 3), check.stdout + check.stderr


def _kill_many(scratch: Path, wanted: int, seed: int, delays: tuple[float, float]) -> None:
    random = Random(seed)
    judged = number = 0
    while judged < wanted:
        number += 1
        assert number < 4 * wanted + 10, "hardly any recording began before it was killed"
        here = scratch / str(number)
        here.mkdir()
        arch = random.choice(("riscv64", "x86_64", "aarch64"))
        judged += _record_and_kill(arch, here, random.uniform(*delays))
        shutil.rmtree(here)


def test_killed_recorders(tmp_path: Path) -> None:
    _kill_many(tmp_path, 5, 1, (0.0, 0.4))


@pytest.mark.slow
def test_many_killed_recorders(tmp_path: Path) -> None:
    _kill_many(tmp_path, 100, 2, (-0.6, 1.2))
