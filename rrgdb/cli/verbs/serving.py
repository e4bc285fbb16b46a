"""A guest and a stub beside it, for ``rrgdb run`` and ``rrgdb replay``."""

from __future__ import annotations

from collections.abc import Callable

import click

from rrgdb.backends.base import Backend
from rrgdb.backends.keys import Monitored
from rrgdb.backends.serial import parse as parse_serial
from rrgdb.cli.terminal import say
from rrgdb.opening.opened import Opened
from rrgdb.rsp import server
from rrgdb.rsp.address import Address, StdioAddress
from rrgdb.serving.calls import EngineThread
from rrgdb.target import Target
from rrgdb.text import shown


def beside_stub(backend: Backend, address: Address) -> Backend:
    """The serial backend beside a stub that may itself need standard input and output."""
    if isinstance(address, StdioAddress) and backend.describe() in ("stdio", "mon:stdio"):
        say("--gdb stdio takes standard input and output: the serial port goes to null")
        return parse_serial("null")
    return backend


def serve(
    opened: Opened,
    backend: Backend,
    address: Address,
    once: bool,
    report_exit: bool,
    running: bool,
    *,
    strict: bool = False,
) -> None:
    target = Target(opened, report_exit=report_exit, running=running, strict=strict)

    def ready(finish: Callable[[], None]) -> None:
        """A guest that ends with no debugger attached ends rrgdb; it may have done so before the server was up."""
        target.on_end = finish
        if isinstance(backend, Monitored):
            from rrgdb.cli import monitored  # noqa: PLC0415 - where there is somebody to type

            monitored.connect(backend, target, engine.post)
        if target.ended_alone:
            finish()

    with EngineThread(target.interrupt, target.idle) as engine:
        server.run(
            target,
            address,
            engine=engine,
            once=once,
            on_listening=lambda line: click.echo(shown(line), err=True),
            on_ready=ready,
        )
