"""Whole boots of Debian's Linux, beside QEMU's recording of the same machine where that is installed.

Commands are processes of their own, and what is compared runs in turn. Times are CPU time, user and system, but where a
figure says otherwise: a kernel sleeps, and other work on the machine is no part of it.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from benchlib.bench import Bench
from benchlib.figures import QEMU, RRGDB
from benchlib.guests import Guest
from benchlib.landmarks import Landmarks, find, interrupted_after
from benchlib.processes import Cost, cost, rrgdb
from benchlib.travel import arrive
from rrgdb import opening
from rrgdb.engine.base import Watch
from rrgdb.opening import Opened
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.stop import Points, StopKind
from rrgdb_tests.machines.driver import Machine, linux_arm64, linux_riscv64

GROUP = "kernels"
LINUX: dict[str, Callable[[Path, str], Machine]] = {"aarch64": linux_arm64, "riscv64": linux_riscv64}
ALONE = "md5sum /bin/busybox"
PLACES, QUICK_PLACES, FOLLOWING = 50, 10, 10
PATIENCE = 300.0
"""seconds on the clock for a search"""
RECORDED_BY_QEMU, UNRECORDED = "recorded / QEMU's recording", "recorded / the same guest with recording off"
BY_BLOCKS, REPLAYED, VERIFIED = "counted by blocks", "replay / recorded", "verify with 2 jobs / recorded, in time"
FIRST, FOLLOWING_STEPS = "first reverse-stepi / replay", "following reverse-stepi"
SEARCHES: dict[str, tuple[float, Callable[[Landmarks], Points]]] = {
    "reverse watch of jiffies / replay": (0.1, lambda at: Points({}, (Watch(at.jiffies, 8, "w"),))),
    "reverse watch, last write long ago, busy page / replay": (0.2, lambda at: Points({}, (Watch(at.old, 8, "w"),))),
    "reverse watch, last write long ago, quiet page / replay": (0.2, lambda at: Points({}, (Watch(at.quiet, 8, "w"),))),
    "reverse breakpoint, hit once, early / replay": (0.2, lambda at: Points({at.early: None})),
}
"""from the end of the recording: what it may be at most"""
ARMED, MEMORY, STORE = "replay, breakpoint never hit / without", "memory beyond 1.2 × RAM", "snapshots"


class Boots:
    """One kernel's: what is run, and what it cost."""

    def __init__(self, bench: Bench, guest: Guest) -> None:
        self.bench = bench
        self.name = guest.name
        self.scratch = bench.work / f"{guest.name}-linux"
        self.scratch.mkdir()
        self.machine = LINUX[guest.name](self.scratch, ALONE)
        self.path = self.scratch / "r.rrgdb"

    def record(self) -> Cost:
        shutil.rmtree(self.path, ignore_errors=True)
        command = rrgdb("record", "-o", self.path, *self.machine.options(self.machine.board))
        return self._booted(cost(command, self.scratch))

    def qemu(self) -> Cost:
        """QEMU's recording; the disk that it writes is a copy."""
        disk, log = self.scratch / "qemu.img", self.scratch / "qemu.log"
        shutil.copyfile(self.machine.disk, disk)
        words = [self.machine.emulator, *self.machine.without_disk(), "-no-reboot", "-display", "none", "-nic", "none"]
        words += ["-monitor", "none", "-serial", "stdio"]
        words += ["-icount", f"shift={self.machine.shift},rr=record,rrfile={log}"]
        words += ["-drive", f"file={disk},if=none,id=direct,format=raw"]
        words += ["-drive", "driver=blkreplay,if=none,image=direct,id=disk", "-device", "virtio-blk-device,drive=disk"]
        return self._booted(cost(words, self.scratch))

    def whole(self, way: str, *addresses: int) -> tuple[Cost, dict[str, float]]:
        """See ``benchlib.whole``."""
        script = Path(__file__).with_name("whole.py")
        taken = cost([sys.executable, str(script), way, str(self.path), *map(hex, addresses)], self.scratch)
        return taken, json.loads(taken.said.splitlines()[-1])

    def verify(self) -> Cost:
        return cost(rrgdb("verify", "--jobs", 2, self.path), self.scratch)

    def _booted(self, taken: Cost) -> Cost:
        assert self.machine.end in taken.said, taken.said[-500:]
        return taken

    def add(self, what: str, unit: str, values: Sequence[float], *, who: str = RRGDB, note: str = "") -> None:
        self.bench.figures.add(GROUP, self.name, what, unit, values, who=who, note=note)


def _ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def _forward(boots: Boots) -> None:
    """Recorded, by both, and run otherwise, in turn."""
    has_qemu = shutil.which(boots.machine.emulator) is not None
    recorded, peer, bare, replayed, verified = ([] for _ in range(5))
    for _ in range(boots.bench.repeat):
        recorded.append(boots.record())
        peer += [boots.qemu()] if has_qemu else []
        bare.append(boots.whole("unrecorded"))
        replayed.append(boots.whole("replay"))
        verified.append(boots.verify())
    cpu = [c.cpu for c in recorded]
    boots.add("instructions recorded", "", [replayed[0][1]["icount"]])
    boots.add("recorded, with snapshots", "s", cpu)
    if peer:
        boots.add("recorded, with snapshots", "s", [c.cpu for c in peer], who=QEMU)
        boots.add(RECORDED_BY_QEMU, "", _ratios(cpu, [c.cpu for c in peer]))
    boots.add("recording off", "s", [c.cpu for c, _ in bare])
    boots.add(UNRECORDED, "", _ratios(cpu, [c.cpu for c, _ in bare]))
    boots.add(BY_BLOCKS, "%", [100 * (1 - told["single"] / told["executed"]) for _, told in replayed])
    boots.add("replay", "s", [c.cpu for c, _ in replayed])
    boots.add(REPLAYED, "", _ratios([c.cpu for c, _ in replayed], cpu))
    boots.add("recorded, in time", "s", [c.wall for c in recorded])
    boots.add("verify with 2 jobs, in time", "s", [c.wall for c in verified])
    boots.add(VERIFIED, "", _ratios([c.wall for c in verified], [c.wall for c in recorded]))
    beyond = [(c.peak - 1.2 * (boots.machine.memory << 20)) / (1 << 20) for c in recorded]
    boots.add("memory of `rrgdb record`", "MiB", [c.peak / (1 << 20) for c in recorded], note="peak")
    boots.add(MEMORY, "MiB", beyond)
    with opening.replay(boots.path, writable=False) as opened:
        assert opened.store is not None
        boots.add(STORE, "MiB", [opened.store.file_size / (1 << 20)])
        boots.add("event log", "KiB", [opened.recording.log.size / 1024])


def _armed(boots: Boots, never: int) -> float:
    """With a breakpoint and without, in turn; seconds that one replay takes, without its start."""
    alone, armed = [], []
    for _ in range(boots.bench.repeat):
        alone.append(boots.whole("replay"))
        armed.append(boots.whole("armed", never))
    boots.add(ARMED, "", _ratios([c.cpu for c, _ in armed], [c.cpu for c, _ in alone]))
    taken = sorted(told["cpu"] for _, told in alone)
    return taken[len(taken) // 2]


def _cpu(call: Callable[..., object], *arguments: object) -> float:
    began = time.process_time()
    call(*arguments)
    return time.process_time() - began


def _steps(boots: Boots, opened: Opened, replay: float) -> None:
    """Places are reached by running forward, so nothing is near."""
    random, timeline = Random(boots.name), opened.timeline
    first, following = [], []
    for _ in range(QUICK_PLACES if boots.bench.quick else PLACES):
        place = random.randrange(timeline.end // 100, timeline.end)
        arrive(timeline, place)
        backward = Backward(timeline)
        first.append(_cpu(backward.step, Points({})))
        following += [_cpu(backward.step, Points({})) for _ in range(FOLLOWING)]
        assert timeline.icount == place - 1 - FOLLOWING
    boots.add("first reverse-stepi", "ms", [1e3 * s for s in first])
    boots.add(FIRST, "", [s / replay for s in first])
    boots.add(FOLLOWING_STEPS, "ms", [1e3 * s for s in following])


def _searches(boots: Boots, at: Landmarks, replay: float) -> None:
    for what, (_, points) in SEARCHES.items():
        taken, back = [], ""
        for _ in range(boots.bench.repeat):
            with opening.replay(boots.path, writable=False) as opened:
                timeline = opened.timeline
                arrive(timeline, timeline.end)
                with interrupted_after(timeline, PATIENCE):
                    began, stop = time.process_time(), Backward(timeline).run(points(at))
                    taken.append(time.process_time() - began)
                assert timeline.icount > timeline.start, what
                over = "" if stop.kind is not StopKind.INTERRUPT else ", and not over"
                back = f"{timeline.end - timeline.icount:,} back{over}"
        boots.add(what.removesuffix(" / replay"), "s", taken, note=back)
        boots.add(what, "", [s / replay for s in taken])


def measure(bench: Bench, guest: Guest) -> None:
    """All of this group for the Linux of one CPU family. Its packages are fetched if they are not there."""
    boots = Boots(bench, guest)
    _forward(boots)
    with opening.replay(boots.path, writable=False) as opened:
        at = find(opened)
    replay = _armed(boots, at.never)
    with opening.replay(boots.path, writable=False) as opened:
        _steps(boots, opened, replay)
    _searches(boots, at, replay)
