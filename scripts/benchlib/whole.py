"""One recording, run from its first instruction to its last in a process of its own: ``python whole.py WAY RECORDING``.

The way is ``unrecorded``: the same guest once more, with nothing written down; ``replay``; or ``armed ADDRESS``: replay
with a breakpoint that is never hit. What came of it goes to stdout as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

# As scripts/bench does.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from rrgdb.board.machine import Board
from rrgdb.engine.memory import Ram
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb.opening.at_rest import replay
from rrgdb.opening.disks import disks_of
from rrgdb.opening.images import plan_recorded
from rrgdb.recording.directory import Recording
from rrgdb.timeline.disks import Disks
from rrgdb.timeline.forward import FOREVER
from rrgdb.timeline.stop import Points
from rrgdb_tests.board.fakes import FakeHost


def _unrecorded(path: Path) -> UnicornEngine:
    with Recording.open(path) as recording:
        plan, (images, _) = plan_recorded(recording), disks_of(recording, {}, needed=True)
        engine = UnicornEngine(plan.arch, Ram(plan.ram_bytes), plan.cpu)
        board = Board(
            plan.spec,
            engine,
            plan.placed,
            FakeHost(),
            Disks(images, None, None).disks,
            plan.clock,
            reboot=plan.reboot,
            slots=plan.slots,
            legacy=plan.legacy,
        )
        board.run_until(FOREVER)
        return engine


def main(way: str, path: Path, *addresses: str) -> None:
    """Raises AssertionError if the guest stops before its end."""
    if way == "unrecorded":
        engine = _unrecorded(path)
        taken = time.process_time()
    else:
        with replay(path, writable=False) as opened:
            began = time.process_time()
            opened.timeline.run(Points(dict.fromkeys(int(address, 0) for address in addresses)))
            taken = time.process_time() - began
            if opened.timeline.icount != opened.timeline.end:
                raise AssertionError(f"stopped at {opened.timeline.icount} of {opened.timeline.end}")
            engine = opened.timeline.engine
    counts = engine.counts
    print(json.dumps({"cpu": taken, "icount": engine.icount, "executed": counts.executed, "single": counts.single}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
