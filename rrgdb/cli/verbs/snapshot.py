"""``rrgdb snapshot …``: the snapshots of a recording at rest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from rrgdb.cli import terminal
from rrgdb.opening.at_rest import replay
from rrgdb.opening.opened import Opened
from rrgdb.recording.directory import recording_of
from rrgdb.snapshots import naming
from rrgdb.snapshots.entries import Stored
from rrgdb.snapshots.errors import StoreError
from rrgdb.text import shown
from rrgdb.timeline.export import ExportError
from rrgdb.timeline.export import export as exported
from rrgdb.timeline.timeline import TimelineError


def _open(path: Path, *, writable: bool, disks: Sequence[tuple[str, Path]] | None = None) -> Opened:
    """``disks``: where images of disks are; None: the guest does not run."""
    opened = replay(path, writable=writable, disks=dict(disks or ()), disks_needed=disks is not None)
    opened.timeline.say = terminal.say
    for message in opened.messages:
        terminal.say(message)
    return opened


def _known(opened: Opened, names: Sequence[str]) -> list[Stored]:
    """Snapshots by their names, or what is shown of those. StoreError."""
    stored = opened.timeline.marks.stored
    by_name = {shown(s.name): s for s in stored} | {s.name: s for s in stored}
    missing = next((name for name in names if name not in by_name), None)
    if missing is not None:
        raise StoreError(f"{opened.recording.path}: there is no snapshot {missing}")
    return [by_name[name] for name in dict.fromkeys(names)]


def _go(opened: Opened, icount: int) -> None:
    """Go to a position, with progress. TimelineError outside history, and if the user interrupts."""
    timeline = opened.timeline
    with (
        terminal.interrupting(timeline.interrupt),
        terminal.counting("replaying", lambda: timeline.icount, icount),
    ):
        timeline.seek(icount)
    if timeline.interrupted:
        raise TimelineError(f"interrupted at icount {timeline.icount}, on the way to {icount}")


def list_(recording: Path, as_json: bool) -> None:
    with _open(recording, writable=False) as opened:
        rows = _rows(opened)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    click.echo(f"{'icount':>16} {'bytes':>12}  name")
    for row in rows:
        kind = "" if row["kind"] == "named" else f" ({row['kind']})"
        terminal.tell(f"{row['icount']:>16} {row['changed_bytes']:>12}  {row['name']}{kind}")


def _rows(opened: Opened) -> list[dict[str, Any]]:
    marks = opened.timeline.marks
    sizes = marks.sizes(terminal.say)
    return [
        {
            "name": s.name,
            "icount": s.icount,
            "changed_bytes": sizes[s.id],
            "kind": "starting" if s == marks.starting else "automatic" if s.automatic else "named",
        }
        for s in marks.stored
    ]


def create(recording: Path, name: str, icount: int | None, disks: tuple[tuple[str, Path], ...]) -> None:
    problem = naming.problem(name)
    if problem is not None:
        raise click.BadParameter(problem, param_hint="NAME")
    with _open(recording, writable=True, disks=disks) as opened:
        marks = opened.timeline.marks
        if marks.starting is None:
            raise StoreError(f"{recording}: its snapshots cannot be used here: none is taken")
        if any(s.name == name for s in marks.stored):
            raise StoreError(f"{recording}: there is a snapshot {name} already")
        _go(opened, opened.timeline.end if icount is None else icount)
        marks.take_snapshot(name)
        marks.flush()
        terminal.tell(f"snapshot {name} at icount {opened.timeline.icount}")


def delete(recording: Path, names: tuple[str, ...]) -> None:
    with _open(recording, writable=True) as opened:
        marks = opened.timeline.marks
        going = _known(opened, names)
        marks.delete_snapshots(going)
        marks.flush()
        click.echo(f"{len(going)} snapshot{'s' if len(going) != 1 else ''} deleted")


def export(
    recording: Path, where: tuple[str, ...], icount: int | None, format: str, disks: tuple[tuple[str, Path], ...]
) -> None:
    if len(where) != (2 if icount is None else 1):
        raise click.UsageError("expected a snapshot's NAME and FILE, or --at ICOUNT and FILE")
    file = Path(where[-1])
    owner = recording_of(file)
    if owner is not None:
        raise ExportError(f"{file}: it belongs to the recording {owner}, which would be lost: expected another file")
    with _open(recording, writable=False, disks=disks) as opened:
        _go(opened, _known(opened, where[:1])[0].icount if icount is None else icount)
        timeline = opened.timeline
        done = 0

        def progress(pages: int) -> None:
            nonlocal done
            done = pages

        with terminal.interrupting(timeline.interrupt), terminal.counting("writing", lambda: done, unit="pages"):
            exported(opened.guest, file, format, _image(opened), progress, lambda: timeline.interrupted)
        terminal.tell(f"{file}: the state at icount {timeline.icount}")


def _image(opened: Opened) -> bytes:
    images = opened.recording.manifest.guest.images
    return opened.recording.image(images[0].name) if images else b""
