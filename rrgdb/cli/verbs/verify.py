"""``rrgdb verify``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from rrgdb.cli.terminal import say, tell
from rrgdb.opening.at_rest import replay
from rrgdb.text import shown
from rrgdb.timeline import verify as whole


def verify(recording: Path, jobs: int, disks: tuple[tuple[str, Path], ...], stops: int) -> None:
    with replay(recording, writable=False, disks=dict(disks), jobs=jobs) as opened:
        opened.timeline.say = say
        for message in opened.messages:
            say(message)
        checked = whole.verify(opened.timeline, _progress, opened.workers, stops)
        agreed = "1 state digest agrees" if checked == 1 else f"{checked} state digests agree"
        tell(f"{recording}: {opened.timeline.end} instructions replayed, {agreed}")
        damaged = opened.recording.damage is not None
    if damaged:
        sys.exit(1)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        click.echo(shown(text.rstrip("\n")), err=True)
