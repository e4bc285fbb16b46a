"""``rrgdb replay``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rrgdb.backends.base import Backend
from rrgdb.cli import terminal
from rrgdb.cli.terminal import say
from rrgdb.cli.verbs.consoles import connected
from rrgdb.cli.verbs.serving import beside_stub, serve
from rrgdb.opening import at_rest
from rrgdb.opening.opened import Opened
from rrgdb.recording.directory import RecordingBusyError
from rrgdb.rsp.address import Address


def replay(
    recording: Path,
    checkpoint_memory: int,
    disks: tuple[tuple[str, Path], ...],
    backend: Backend,
    address: Address,
    once: bool,
    report_exit: bool,
    jobs: int,
) -> None:
    backend = beside_stub(backend, address)
    with (
        terminal.finishing() as working,
        _open(recording, checkpoint_memory, dict(disks), jobs) as opened,
        connected(opened, backend, live=False),
        working,
    ):
        serve(opened, backend, address, once, report_exit, False)


def _open(path: Path, checkpoint_memory: int, disks: dict[str, Path], jobs: int) -> Opened:
    replay = partial(at_rest.replay, path, checkpoint_memory=checkpoint_memory, disks=disks, jobs=jobs)
    try:
        opened = replay()
    except RecordingBusyError as e:
        opened = replay(writable=False)
        say(f"{e}; opened for reading: no new snapshots")
    for message in opened.messages:
        say(message)
    return opened
