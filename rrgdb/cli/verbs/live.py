"""A guest that runs for the first time, for ``rrgdb run`` and ``rrgdb record``: how it begins, and how it ended."""

from __future__ import annotations

from typing import Any

from rrgdb.cli.qemu.chosen import Chosen
from rrgdb.cli.terminal import say
from rrgdb.guest import Guest
from rrgdb.opening.live import record
from rrgdb.opening.opened import Opened
from rrgdb.timeline.options import MEMORY_BUDGET

LEFT = 1
"""status where --strict has stopped the guest"""


def exit_status(opened: Opened) -> int:
    end = opened.timeline.guest.end
    if end is None or opened.timeline.diverted_from is not None:
        return 0
    return end.value if end.kind == "exit" else 128 + end.value if end.kind == "signal" else 0


def begin(chosen: Chosen, given: dict[str, Any], jobs: int = 1) -> Opened:
    return record(
        chosen.output,
        chosen.image,
        chosen.options,
        interval=given["snapshot_interval"],
        budget=given["snapshot_budget"],
        checkpoint_memory=given.get("checkpoint_memory", MEMORY_BUDGET),
        starting=chosen.starting,
        disks=chosen.disks,
        jobs=jobs,
        say=say,
    )


def how_guest_ended(guest: Guest) -> str:
    """Empty: it has not."""
    if guest.end is None:
        return ""
    if guest.end.kind == "exit":
        return f"guest exited with status {guest.end.value}"
    if guest.end.kind == "signal":
        return f"guest died of an unhandled exception (signal {guest.end.value}) {guest.cause}"
    return f"guest halted for good: {guest.cause}"
