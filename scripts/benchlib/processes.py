"""Commands as processes of their own: what they cost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SLIM = """\
import resource, subprocess, sys, time
begun = time.perf_counter()
with open(sys.argv[1], "wb") as out:
    status = subprocess.call(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
wall, u = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
print(status, wall, u.ru_utime + u.ru_stime, u.ru_maxrss)
"""
"""What starts a command. A process's peak of memory begins with that of the one that it was forked from, so that must
be a small one."""


@dataclass(frozen=True, slots=True)
class Cost:
    """``cpu``: seconds of user and system time of a process and all that it has waited for; ``wall``: seconds on the
    clock; ``peak``: most resident memory of one of them, bytes; ``said``: what it wrote, to whichever stream."""

    cpu: float
    wall: float
    peak: int
    said: str


def cost(command: Sequence[str], scratch: Path) -> Cost:
    """What a command costs that ends with status 0. AssertionError if it does not."""
    out = scratch / "said"
    slim = [sys.executable, "-I", "-S", "-c", _SLIM, str(out), *command]
    told = subprocess.run(slim, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout.split()
    said = out.read_text(errors="replace")
    if told[0] != "0":
        raise AssertionError(f"{command[0]} ended with status {told[0]}: {said[-500:]}")
    return Cost(float(told[2]), float(told[1]), int(told[3]) << 10, said)


def rrgdb(*words: object) -> list[str]:
    """The command line of rrgdb."""
    return [sys.executable, "-m", "rrgdb", *map(str, words)]
