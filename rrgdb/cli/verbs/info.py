"""``rrgdb info``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from rrgdb.cli.terminal import tell
from rrgdb.engine.unicorn.counting import way
from rrgdb.opening.at_rest import replay
from rrgdb.opening.opened import Opened


def info(recording: Path, as_json: bool) -> None:
    with replay(recording, writable=False, disks_needed=False) as opened:
        facts = _facts(opened)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        if isinstance(value, list):
            if value:
                tell(f"{key}:")
            for item in value:
                tell("  " + ", ".join(f"{k} {v}" for k, v in item.items()))
        elif isinstance(value, dict):
            tell(f"{key}: " + (", ".join(f"{k} {v}" for k, v in value.items()) or "none"))
        else:
            tell(f"{key}: {value}")


def _facts(opened: Opened) -> dict[str, Any]:
    recording, timeline = opened.recording, opened.timeline
    manifest, events = recording.manifest, recording.log
    listed = {"answer": events.answers, "input": events.inputs, "digest": events.digests}
    by_source = {f"{kind} {name}": n for kind, each in listed.items() for name, n in each.by_source().items()}
    messages = list(opened.messages)
    sizes = timeline.marks.sizes(messages.append)
    return {
        "recording": str(recording.path),
        "created": manifest.created,
        "board": manifest.guest.board,
        "revision": manifest.guest.revision,
        "cpu": manifest.guest.cpu,
        "ram_bytes": manifest.guest.ram_bytes,
        "images": [{"name": i.name, "bytes": i.size, "sha256": i.sha256} for i in manifest.guest.images],
        "disks": [
            {"name": d.name, "bytes": d.size, "format": d.format, "readonly": d.readonly, "file": d.path}
            for d in manifest.guest.disks
        ],
        "engine": manifest.engine,
        "behaviour": manifest.behaviour,
        "counting": way(),
        "instructions": timeline.end,
        "end": events.end.payload.decode(errors="backslashreplace") if events.end is not None else "open",
        "events": by_source,
        "log_bytes": events.size,
        "log_truncated_bytes": events.truncated_bytes,
        "snapshots": [
            {"name": s.name, "icount": s.icount, "changed_bytes": sizes[s.id]} for s in timeline.marks.stored
        ],
        "snapshot_bytes": opened.store.file_size if opened.store is not None else 0,
        "disk_bytes": opened.store.disk_bytes if opened.store is not None else 0,
        "messages": [{"message": m} for m in messages],
    }
