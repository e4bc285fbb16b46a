"""``rrgdb run``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rrgdb.cli import terminal
from rrgdb.cli.qemu.chosen import chosen, serial_backends
from rrgdb.cli.terminal import say
from rrgdb.cli.verbs.consoles import connected
from rrgdb.cli.verbs.live import LEFT, begin, exit_status, how_guest_ended
from rrgdb.cli.verbs.serving import beside_stub, serve
from rrgdb.rsp.address import Address, AddressError


def run(
    image: Path | None,
    args: tuple[str, ...],
    address: Address,
    once: bool,
    report_exit: bool,
    jobs: int,
    running: bool,
    strict: bool,
    **given: Any,
) -> None:
    asked, (backend,) = chosen(image, args, given), serial_backends(given)
    backend = beside_stub(backend, address)
    with (
        terminal.finishing() as working,
        begin(asked, given, jobs) as opened,
        connected(opened, backend, live=True),
        working,
    ):
        say(f"recording to {opened.recording.path}")
        try:
            serve(opened, backend, address, once, report_exit, running, strict=strict)
        except AddressError:
            opened.discard()
            raise
        status = exit_status(opened)
        if strict and opened.guest.notices.left:
            status = status or LEFT
        if opened.guest.end is not None and opened.guest.cause and opened.timeline.at_present:
            say(how_guest_ended(opened.guest))
        if opened.discard():
            say("nothing was executed: no recording is left")
    sys.exit(status)
