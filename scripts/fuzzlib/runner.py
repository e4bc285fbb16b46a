"""Cases run in a child whose time and memory are bounded; what goes wrong is saved.

A case is a function of (seed, number) and of the sound files that the target made. A child runs case after case, and
tells the number of each before it begins: so the parent knows what killed it, and goes on behind that with a new one.
"""

from __future__ import annotations

import os
import random
import resource
import select
import shutil
import signal
import struct
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_QUIET = 20
"""how often a case may take its CPU seconds in wall-clock time before it counts as stuck"""
_NUMBER = struct.Struct("<qq")  # case, findings of this child so far


class Target(Protocol):
    """What is fuzzed."""

    def __init__(self, work: Path) -> None:
        """Make the sound files; ``work`` is a scratch directory."""

    def damage(self, rng: random.Random) -> dict[str, bytes]:
        """Path in the case's directory, and content, of the files of one case."""

    def exercise(self, directory: Path, rng: random.Random) -> None:
        """Use the files in ``directory``; raises what is a finding."""


@dataclass(frozen=True)
class Limits:
    """Of one case: CPU seconds, and bytes of memory above what the process has at its start."""

    seconds: float
    memory: int


@dataclass
class Result:
    cases: int
    findings: int
    seconds: float
    seed: int

    def __str__(self) -> str:
        return f"{self.cases} cases in {self.seconds:.0f} s, seed {self.seed}: {self.findings} findings"


class Runner:
    def __init__(self, target: Target, work: Path, limits: Limits, seed: int, findings: Path) -> None:
        self._target = target
        self._directory = work / "case"
        self._limits = limits
        self._seed = seed
        self._findings = findings

    def run(self, seconds: float, first: int) -> Result:
        """Run cases until the time is over."""
        start = told = time.monotonic()
        case, findings = first, 0
        while (left := start + seconds - time.monotonic()) > 0:
            pid, pipe = self._spawn(case, left)
            before, last, found = case, case - 1, 0
            stuck = False
            while True:
                ready, _, _ = select.select([pipe], [], [], _QUIET * self._limits.seconds)
                if not ready:
                    stuck = True
                    os.kill(pid, signal.SIGKILL)
                    break
                record = os.read(pipe, _NUMBER.size)
                if not record:
                    break
                last, found = _NUMBER.unpack(record)
                if time.monotonic() - told > 10:
                    told = time.monotonic()
                    print(Result(last - first, findings + found, told - start, self._seed), file=sys.stderr, flush=True)
            os.close(pipe)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            findings += found
            case = last + 1
            if status:
                findings += 1
                self._save(last, f"case {last}: {'no progress' if stuck else _end_of(status)}\n")
            if case == before:
                raise SystemExit("scripts/fuzz: the child does not start")
        return Result(case - first, findings, time.monotonic() - start, self._seed)

    def again(self, finding: Path) -> str | None:
        """Run the files of a finding in this process; returns what was found."""
        found = [path for path in finding.rglob("*") if path.is_file() and path.name != "what.txt"]
        files = {str(path.relative_to(finding)): path.read_bytes() for path in found}
        return self._run(files, int(finding.name.rpartition("-")[2]))

    def _spawn(self, case: int, seconds: float) -> tuple[int, int]:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writing)
            return pid, reading
        status = 99
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.close(reading)
            self._bound_memory()
            self._child(case, time.monotonic() + seconds, writing)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _bound_memory(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + self._limits.memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    def _child(self, case: int, end: float, pipe: int) -> None:
        found = 0
        while time.monotonic() < end:
            os.write(pipe, _NUMBER.pack(case, found))
            # Its default action ends the process wherever it is, also in native code.
            signal.setitimer(signal.ITIMER_PROF, self._limits.seconds)
            said = self._run(self._files(case), case)
            signal.setitimer(signal.ITIMER_PROF, 0)
            if said is not None:
                found += 1
                self._save(case, said)
            case += 1
        os.write(pipe, _NUMBER.pack(case - 1, found))

    def _files(self, case: int) -> dict[str, bytes]:
        return self._target.damage(random.Random(f"{self._seed}:{case}"))

    def _run(self, files: dict[str, bytes], case: int) -> str | None:
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir()
        _write(self._directory, files)
        try:
            self._target.exercise(self._directory, random.Random(case))
        except Exception:
            return f"case {case}:\n{traceback.format_exc()}"
        return None

    def _save(self, case: int, said: str) -> None:
        where = self._findings / f"{self._seed}-{case}"
        where.mkdir(parents=True, exist_ok=True)
        _write(where, self._files(case))
        (where / "what.txt").write_text(said)
        print(f"{where}: {said.strip().splitlines()[-1]}", file=sys.stderr, flush=True)


def _write(directory: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _end_of(status: int) -> str:
    if -status == signal.SIGPROF:
        return "takes more CPU time than the limit"
    return f"the process ended with signal {-status}" if status < 0 else f"the process ended with status {status}"
