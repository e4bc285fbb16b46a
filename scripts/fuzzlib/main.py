"""The command line of scripts/fuzz."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from fuzzlib import elf, packets, qcow2, recordings
from fuzzlib.runner import Limits, Runner, Target

TARGETS: dict[str, type[Target]] = {
    "elf": elf.Elf,
    "packets": packets.Packets,
    "qcow2": qcow2.Qcow2,
    "recordings": recordings.Recordings,
}

MEMORY = {"packets": 4096}
"""MiB of address space, where it is not the usual: each guest and each thread reserves more than it uses"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description="Damage sound input at random and use it: disk images (qcow2), programs (elf), what debuggers send "
        "(packets), whole recordings. Every error but a clear one is a finding. The status is 1 if there was one.",
    )
    parser.add_argument("--seconds", type=float, default=60, metavar="N", help="how long (60)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the random damage (1)")
    parser.add_argument("--first", type=int, default=0, metavar="CASE", help="number of the first case (0)")
    parser.add_argument("--limit", type=float, default=10, metavar="N", help="CPU seconds that a case may take (10)")
    parser.add_argument(
        "--memory", type=int, metavar="MIB", help="address space that a case may take (1024; packets: 4096)"
    )
    parser.add_argument(
        "--findings", type=Path, default=Path("fuzz-findings"), metavar="DIR", help="where findings go (fuzz-findings)"
    )
    parser.add_argument("--again", type=Path, metavar="DIR", help="run the one finding that was saved in DIR")
    parser.add_argument("target", choices=sorted(TARGETS))
    chosen = parser.parse_args()
    if chosen.memory is None:
        chosen.memory = MEMORY.get(chosen.target, 1024)
    if chosen.seconds <= 0 or chosen.limit <= 0 or chosen.memory <= 0:
        parser.error("--seconds, --limit and --memory must be positive")
    return chosen


def main() -> int:
    """Fuzz, telling the progress on stderr and the result on stdout."""
    chosen = _arguments()
    # Cases are written and synced all the time, and nothing of them is worth a disk.
    memory = Path("/dev/shm")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the way that cleans up
    work = Path(tempfile.mkdtemp(prefix="rrgdb-fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        limits = Limits(chosen.limit, chosen.memory << 20)
        target = TARGETS[chosen.target](work)
        runner = Runner(target, work, limits, chosen.seed, chosen.findings / chosen.target)
        if chosen.again is not None:
            said = runner.again(chosen.again)
            print(said or "nothing was found")
            return int(said is not None)
        result = runner.run(chosen.seconds, chosen.first)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(result)
    return int(result.findings > 0)
