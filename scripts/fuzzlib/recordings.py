"""Whole recordings under damage to each of their files: what opens is right, or says in one line what is wrong."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict, TypeVar

import rrgdb
from fuzzlib import recordings_corpus, recordings_damage
from fuzzlib.recordings_corpus import Seed
from rrgdb.arch.cpu import MemoryFault
from rrgdb.board.firmware.image import ImageError
from rrgdb.cli import main as cli
from rrgdb.engine.base import EngineError
from rrgdb.opening import OptionError
from rrgdb.recording.directory import RecordingError
from rrgdb.recording.door import Divergence
from rrgdb.recording.log import LogError
from rrgdb.recording.manifest import ManifestError
from rrgdb.rsp.packets import encode
from rrgdb.snapshots.errors import StoreError
from rrgdb.timeline.timeline import TimelineError

_T = TypeVar("_T")


_OWN = (Divergence, EngineError, ImageError, LogError, ManifestError, MemoryFault, OptionError, OSError)
_OWN += (RecordingError, StoreError, TimelineError)


class _Case(TypedDict):
    """What a case says of itself; see ``recordings_damage.Damaged``."""

    seed: str
    exact: bool
    opaque: bool
    did: list[str]


_CASE = "case.json"
_FAR = 100_000
"""instructions more than the sound recording has: a history that long is not replayed to its end"""
_PACKETS = (b"QStartNoAckMode", b"?", b"g", b"m80000000,40", b"bs", b"bc", b"s", b"qRcmd,77686572", b"bs", b"c", b"D")


class Recordings:
    def __init__(self, work: Path) -> None:
        self._work = work
        self._seeds = {seed.name: seed for seed in recordings_corpus.build_all(work)}
        gc.freeze()  # what is there now is not looked at again for each case

    def damage(self, rng: random.Random) -> dict[str, bytes]:
        seed = self._seeds[rng.choice(sorted(self._seeds))]
        case = recordings_damage.damage(seed.files, rng)
        about = _Case(seed=seed.name, exact=case.exact, opaque=case.opaque, did=case.did)
        files = {f"r/{name}": content for name, content in case.files.items()}
        return {**files, _CASE: json.dumps(about).encode()}

    def exercise(self, directory: Path, rng: random.Random) -> None:
        """Open it, go about in it, and leave every file as it is; raises what is wrong."""
        about: _Case = json.loads((directory / _CASE).read_text())
        seed = self._seeds[about["seed"]]
        path = directory / "r"
        path.mkdir(exist_ok=True)
        before = _contents(self._work)
        disks = {seed.disk: self._work / recordings_corpus.DISK} if seed.disk and rng.random() < 0.8 else None
        _attempt(lambda: _opened(path, disks, seed, about, rng))
        chance = rng.random()
        if chance < 0.1:
            _command(path, rng)
        self._compare(before, "reading", "")
        if chance > 0.99:
            # It may take snapshots.
            _serve(path)
            self._compare(before, "replay", "case/r/")
        gc.collect()

    def _compare(self, before: dict[str, bytes], what: str, but: str) -> None:
        after = _contents(self._work)
        changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        if any(not but or not name.startswith(but) for name in changed):
            raise AssertionError(f"{what} has changed {changed}")


def _contents(directory: Path) -> dict[str, bytes]:
    """Of what a case may touch, and what is beside it."""
    return {
        str(p.relative_to(directory)): p.read_bytes()
        for p in directory.rglob("*")
        if p.is_file() and "corpus" not in p.parts
    }


def _attempt(action: Callable[[], _T]) -> _T | Exception:
    """The result of ``action``, or rrgdb's own error of one line."""
    try:
        return action()
    except _OWN as error:
        said = str(error)
        if not said or "\n" in said:
            raise AssertionError(f"not one line of rrgdb's own: {error!r}") from error
        return error


def _open(path: Path, disks: dict[str, Path] | None) -> rrgdb.Recording:
    try:
        return rrgdb.open(path, disks=disks)
    except ValueError as error:
        # As it is documented to; of whatever follows it is a fault.
        raise RecordingError(str(error)) from error


def _opened(path: Path, disks: dict[str, Path] | None, seed: Seed, case: _Case, rng: random.Random) -> None:
    with _open(path, disks) as recording:
        if any("\n" in line for line in recording.messages):
            raise AssertionError(f"not one line each: {recording.messages!r}")
        end = max(seed.right)
        if case["exact"] and recording.end != end:
            raise AssertionError(f"history ends at {recording.end}, not at {end}")
        wrong: list[str] = []
        told = len(recording.messages)
        positions = [p for p in seed.right if p <= recording.end]
        rng.shuffle(positions)
        for position in positions[: rng.choice((3, 6, 30))]:
            if isinstance(_attempt(lambda at=position: recording.seek(at)), Exception):
                told += 1
                continue
            if recording.icount == position and recording.state_digest() != seed.right[position]:
                wrong.append(f"another state at {position}")
            if rng.random() < 0.3:
                told += isinstance(_attempt(lambda: recording.reverse_step(rng.randrange(1, 50))), Exception)
        if recording.end > end + _FAR:
            return
        told += isinstance(_attempt(recording.verify), Exception)
        # Another log is another history: its states are right where they agree with its own digests.
        if wrong and not case["opaque"] and "log" not in case["did"] and (case["exact"] or not told):
            raise AssertionError(f"{wrong[0]}, and nothing is told of it")
        pc = recording.registers[recording.arch.pc]
        _attempt(lambda: recording.reverse_continue([pc]))
        _attempt(lambda: recording.memory(pc, 8))


def _command(path: Path, rng: random.Random) -> None:
    """A status, and one line of what is wrong."""
    verb = rng.choice((["info"], ["info", "--json"], ["snapshot", "list"], ["verify", "--jobs", "1"]))
    said, wrong, arguments = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["rrgdb", *verb, str(path)]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
            cli.main()
    except SystemExit as end:
        _one_line(" ".join(verb), end.code, wrong.getvalue())
    finally:
        sys.argv = arguments


def _serve(path: Path) -> None:
    """A debugger on standard input and output."""
    packets = b"".join(map(encode, _PACKETS))
    command = [sys.executable, "-m", "rrgdb", "replay", "--gdb", "stdio", str(path)]
    done = subprocess.run(command, input=b"+" + packets, capture_output=True, timeout=60, check=False)
    _one_line("replay", done.returncode, done.stderr.decode(errors="replace"))


def _one_line(what: str, status: object, said: str) -> None:
    """Besides what is told of a recording that opens."""
    lines = said.splitlines()
    if (
        status not in (None, 0, 1, 2)
        or "Traceback" in said
        or (status and not (lines and lines[-1].startswith("rrgdb: ")))
    ):
        raise AssertionError(f"{what}: status {status}, {said!r}")
