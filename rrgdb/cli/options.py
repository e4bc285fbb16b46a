"""The options that verbs share, as click declares them. Nothing of a guest is imported to say what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from rrgdb.cli.qemu.boot import boot_options
from rrgdb.cli.types import Disk, Number, Parsed, Seconds, Size
from rrgdb.opening.limits import BUDGET, INTERVAL
from rrgdb.snapshots.naming import START
from rrgdb.timeline.options import MEMORY_BUDGET
from rrgdb.workers.jobs import default_jobs


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def apply(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


guest_options = _options(
    click.option(
        "-M",
        "--machine",
        "machines",
        multiple=True,
        metavar="BOARD",
        help="Board, or virt: that of the CPU; default: the one for the image's CPU.",
    ),
    click.option("--cpu", metavar="MODEL", help="CPU model; see `rrgdb machines`."),
    click.option("-m", "--memory", type=Size(), metavar="SIZE", help="RAM, e.g. 64M or 1G."),
    boot_options,
    click.option(
        "--disk",
        "disks",
        type=Disk(),
        multiple=True,
        metavar="[NAME=]FILE[,format=FORMAT][,readonly]",
        help="A disk (virtio): a raw image, or format=qcow2. FILE is never written. May be given again.",
    ),
    click.option(
        "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Recording; default NAME.rrgdb."
    ),
    click.option("--load", type=Number(), metavar="ADDRESS", help="IMAGE is raw bytes for this physical address."),
    click.option("--entry", type=Number(), metavar="ADDRESS", help="Where a raw image starts; default: --load."),
    click.option(
        "--rrsnapshot",
        default=START,
        show_default=True,
        metavar="NAME",
        help="Name of the starting snapshot (QEMU's option of that name).",
    ),
    click.option(
        "--snapshot-interval",
        type=Seconds(0.001),
        default=INTERVAL,
        show_default=True,
        metavar="SECONDS",
        help="Guest time between automatic snapshots; up to four times that where they are costly.",
    ),
    click.option(
        "--snapshot-budget",
        type=Size(),
        default=f"{BUDGET >> 20}",
        metavar="SIZE",
        help="Disk space for snapshots before they are thinned; default 4G.",
    ),
)
memory_option = click.option(
    "--checkpoint-memory",
    type=Size(),
    default=f"{MEMORY_BUDGET >> 20}",
    metavar="SIZE",
    help="Memory for checkpoints around where you work; default 256M.",
)


BACKENDS = "stdio, null, file:PATH, tcp:HOST:PORT[,server], unix:PATH[,server] or pty"
serial_option = click.option(
    "--serial",
    "backend",
    type=Parsed("backend", "rrgdb.backends.serial:parse"),
    default="stdio",
    show_default=True,
    metavar="BACKEND",
    help=f"{BACKENDS}.",
)
serials_option = click.option(
    "--serial",
    "serials",
    multiple=True,
    metavar="BACKEND",
    help=f"{BACKENDS}, or mon:stdio: with Ctrl-A x (end), Ctrl-A c (monitor). Default stdio.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1),
    default=default_jobs,
    metavar="N",
    help="Processes that share long searches; 1: none. Default: the number of processors, at most 8.",
)
strict_option = click.option(
    "--strict", is_flag=True, help="Stop where the guest leaves what is modelled; else it is told, and goes on."
)
stub_options = _options(
    click.option(
        "--gdb",
        "address",
        type=Parsed("address", "rrgdb.rsp.address:parse_address"),
        default="127.0.0.1:1234",
        show_default=True,
        metavar="ADDR",
        help="[HOST]:PORT (port 0: any), unix:PATH or stdio.",
    ),
    click.option("--once", is_flag=True, help="Exit when the first debugger has gone."),
    click.option(
        "--report-exit", is_flag=True, help="Tell the debugger of the guest's exit instead of stopping there."
    ),
    jobs_option,
)

image_argument = click.argument("image", type=click.Path(path_type=Path), required=False)
args_argument = click.argument("args", nargs=-1, type=click.UNPROCESSED)
