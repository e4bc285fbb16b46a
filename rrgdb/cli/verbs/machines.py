"""``rrgdb machines``."""

from __future__ import annotations

import json

import click

from rrgdb.arch import ARCHES
from rrgdb.board.boards import BOARDS
from rrgdb.board.spec import machine_rows


def machines(as_json: bool) -> None:
    rows = machine_rows(BOARDS.values())
    models = {name: list(ARCHES[name].models) for row in rows for name in row[1].split()}
    if as_json:
        keys = ("board", "arches", "ram", "devices", "description")
        listed = [dict(zip(keys, row, strict=True)) for row in rows]
        click.echo(json.dumps({"boards": listed, "cpus": models}, indent=2))
        return
    for name, arches, ram, devices, description in rows:
        click.echo(f"{name}: {description}\n  CPU {arches}; RAM {ram}\n  {devices}")
    for name, known in models.items():
        click.echo(f"--cpu for {name}: {', '.join(known)} (default {known[0]})")
