"""``rrgdb gdbinit``."""

from __future__ import annotations

import click

from rrgdb.rsp.gdbinit import text


def gdbinit() -> None:
    click.echo(text(), nl=False)
