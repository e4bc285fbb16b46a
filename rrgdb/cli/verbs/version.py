"""``rrgdb --version``."""

from __future__ import annotations

import click

from rrgdb.engine.unicorn.counting import way
from rrgdb.version import VERSION


def version() -> None:
    click.echo(f"rrgdb, version {VERSION}\n{way()}")
