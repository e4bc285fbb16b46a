"""The command line: what its verbs and their options are. What they do is in ``rrgdb.cli.verbs``.

To ask for help, or to be told that an option is wrong, must not take the time that a guest's modules take to import:
nothing of them is imported here, and each verb's module when it is called.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from rrgdb.cli import failures
from rrgdb.cli.early import importing
from rrgdb.cli.options import (
    args_argument,
    guest_options,
    image_argument,
    jobs_option,
    json_option,
    memory_option,
    serial_option,
    serials_option,
    strict_option,
    stub_options,
)
from rrgdb.cli.qemu.boot import Booting
from rrgdb.cli.terminal import say
from rrgdb.cli.types import Number, Seconds, moved_disks_option, recording_argument
from rrgdb.lazy import imported
from rrgdb.timeline.options import EXPORTED

PASS_ARGS = {"allow_interspersed_args": False}


def _work(module: str, function: str = "") -> Callable[..., None]:
    """What a verb does: a function of a module of ``rrgdb.cli.verbs``, of the same name unless told."""
    with importing():
        work: Callable[..., None] = imported(f"rrgdb.cli.verbs.{module}:{function or module}")
    return work


class _Verbs(click.Group):
    """Whatever goes wrong in a verb is one line; see ``failures``."""

    def invoke(self, ctx: click.Context) -> Any:
        debug = ctx.params["debug"]
        threading.excepthook = partial(failures.tell_of_thread, debug=debug)
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError, ImportError):
            raise
        except Exception as e:
            sys.exit(failures.tell(e, debug=debug))


def _version(ctx: click.Context, _param: click.Parameter, asked: bool) -> None:
    if asked:
        _work("version")()
        ctx.exit()


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Run a guest, record it, and go backwards in it with plain GDB."""
    logging.basicConfig(format="rrgdb: %(message)s", level=logging.DEBUG if debug else logging.WARNING)


@cli.command(cls=Booting, context_settings=PASS_ARGS)
@guest_options
@memory_option
@serials_option
@strict_option
@stub_options
@click.option("-c", "--continue", "running", is_flag=True, help="Start at once; do not wait for a debugger.")
@image_argument
@args_argument
def run(**given: Any) -> None:
    """Record IMAGE from its first instruction, with a stub for a debugger."""
    _work("run")(**given)


@cli.command(cls=Booting, context_settings=PASS_ARGS)
@guest_options
@serials_option
@strict_option
@click.option("--max-icount", type=Number(), metavar="N", help="Stop after N instructions.")
@click.option("--timeout", type=Seconds(0, min_open=True), metavar="S", help="Stop after S seconds.")
@image_argument
@args_argument
def record(**given: Any) -> None:
    """Record IMAGE without a stub, until it ends, Ctrl-C, or a limit."""
    _work("record")(**given)


@cli.command()
@memory_option
@moved_disks_option
@serial_option
@stub_options
@recording_argument
def replay(**given: Any) -> None:
    """Serve a recording to a debugger."""
    _work("replay")(**given)


@cli.command()
@json_option
@recording_argument
def info(**given: Any) -> None:
    """Tell what a recording holds."""
    _work("info")(**given)


@cli.group()
def snapshot() -> None:
    """List, create, delete and export the snapshots of a recording."""


@snapshot.command(name="list")
@json_option
@recording_argument
def snapshot_list(**given: Any) -> None:
    """List snapshots: the icount, the bytes of RAM that differ from the one before, the name."""
    _work("snapshot", "list_")(**given)


@snapshot.command(name="create")
@click.option("--at", "icount", type=Number(), metavar="ICOUNT", help="Where; default: the end of history.")
@moved_disks_option
@recording_argument
@click.argument("name")
def snapshot_create(**given: Any) -> None:
    """Take a snapshot called NAME. It is never thinned out."""
    _work("snapshot", "create")(**given)


@snapshot.command(name="delete")
@recording_argument
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def snapshot_delete(**given: Any) -> None:
    """Delete snapshots. History stays as it is; going there takes longer."""
    _work("snapshot", "delete")(**given)


@snapshot.command(name="export")
@click.option("--at", "icount", type=Number(), metavar="ICOUNT", help="The state at this icount, instead of NAME.")
@click.option("--format", type=click.Choice(EXPORTED), default="core", show_default=True, help="What to write.")
@moved_disks_option
@recording_argument
@click.argument("where", metavar="[NAME] FILE", nargs=-1, required=True)
def snapshot_export(**given: Any) -> None:
    """Write the state of a snapshot to FILE, as an ELF core for GDB or as the plain bytes of RAM."""
    _work("snapshot", "export")(**given)


@cli.command()
@jobs_option
@moved_disks_option
@click.option(
    "--stops",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Stop so often between two snapshots: it must change nothing.",
)
@recording_argument
def verify(**given: Any) -> None:
    """Replay a whole recording and compare every state digest."""
    _work("verify")(**given)


@cli.command()
@json_option
def machines(**given: Any) -> None:
    """List boards and CPU models."""
    _work("machines")(**given)


@cli.command()
@click.option("--serve", is_flag=True, help="Leave the stub open for your own gdb.")
def demo(**given: Any) -> None:
    """Find a planted memory corruption by going backwards."""
    _work("demo")(**given)


@cli.command()
def gdbinit() -> None:
    """Print a GDB-Python file that makes the time commands real ones: save it as NAME.py and `source` it."""
    _work("gdbinit")()


def main() -> None:
    """Entry point: 2 for usage, 1 for failure, 130 for an interrupt, or the guest's own status."""
    try:
        sys.exit(cli.main(standalone_mode=False))
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except click.Abort:
        say("interrupted")
        sys.exit(128 + signal.SIGINT)
