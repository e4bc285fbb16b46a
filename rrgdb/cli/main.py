"""The command line: parse, call, print."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

import rrgdb
from rrgdb import opening
from rrgdb.backends.base import Backend
from rrgdb.backends.serial import SerialError
from rrgdb.backends.serial import parse as parse_serial
from rrgdb.board.boards import BOARDS
from rrgdb.board.spec import machine_rows
from rrgdb.cli import failures, monitored, terminal
from rrgdb.cli.qemu import boot as qemu
from rrgdb.cli.qemu.boot import Booting, Chosen, boot_options
from rrgdb.cli.snapshot import snapshot
from rrgdb.cli.terminal import say, tell
from rrgdb.cli.types import Disk, Number, Parsed, Seconds, Size, moved_disks_option, recording_argument
from rrgdb.guest import Guest
from rrgdb.opening import Opened
from rrgdb.recording.directory import RecordingBusyError
from rrgdb.rsp import gdbinit as gdb_file
from rrgdb.rsp import server
from rrgdb.rsp.address import Address, AddressError, StdioAddress, parse_address
from rrgdb.serving.calls import EngineThread
from rrgdb.snapshots.naming import START
from rrgdb.target import Target
from rrgdb.text import shown
from rrgdb.timeline.stop import Points, Stop, StopKind
from rrgdb.timeline.verify import verify as verify_recording
from rrgdb.workers.pool import default_jobs

log = logging.getLogger("rrgdb")


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
        default=opening.INTERVAL,
        show_default=True,
        metavar="SECONDS",
        help="Guest time between automatic snapshots.",
    ),
    click.option(
        "--snapshot-budget",
        type=Size(),
        default=f"{opening.BUDGET >> 20}",
        metavar="SIZE",
        help="Disk space for snapshots before they are thinned; default 4G.",
    ),
)
memory_option = click.option(
    "--checkpoint-memory",
    type=Size(),
    default=f"{opening.MEMORY_BUDGET >> 20}",
    metavar="SIZE",
    help="Memory for checkpoints around where you work; default 256M.",
)
BACKENDS = "stdio, null, file:PATH, tcp:HOST:PORT[,server], unix:PATH[,server] or pty"
serial_option = click.option(
    "--serial",
    "backend",
    type=Parsed("backend", parse_serial, SerialError),
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
        type=Parsed("address", parse_address, AddressError),
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


class _Verbs(click.Group):
    """Whatever goes wrong in a verb is one line; see ``failures``."""

    def invoke(self, ctx: click.Context) -> Any:
        debug = ctx.params["debug"]
        threading.excepthook = partial(failures.tell_of_thread, debug=debug)
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as e:
            sys.exit(failures.tell(e, debug=debug))


def _version(ctx: click.Context, _param: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    from rrgdb.engine.unicorn.counting import way  # noqa: PLC0415 - the engine takes time to import

    click.echo(f"rrgdb, version {rrgdb.__version__}\n{way()}")
    ctx.exit()


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Run a guest, record it, and go backwards in it with plain GDB."""
    logging.basicConfig(format="rrgdb: %(message)s", level=logging.DEBUG if debug else logging.WARNING)


@contextlib.contextmanager
def _serial(opened: Opened, backend: Backend, *, live: bool) -> Iterator[None]:
    """Connect the guest's consoles to a backend: output always, input while live."""
    door, consoles = opened.door, opened.guest.consoles

    def feed(data: bytes) -> None:
        door.feed_all(consoles[0], data)

    try:
        backend.start(feed if live else lambda _data: None)
        described = backend.describe()
        if described not in ("stdio", "mon:stdio", "null"):
            say(f"serial port is {described}")
        for source in consoles:
            door.set_output(source, backend.write)
        yield
    finally:
        door.close()
        backend.close()


def _beside_stub(backend: Backend, address: Address) -> Backend:
    """The serial backend beside a stub that may itself need standard input and output."""
    if isinstance(address, StdioAddress) and backend.describe() in ("stdio", "mon:stdio"):
        say("--gdb stdio takes standard input and output: the serial port goes to null")
        return parse_serial("null")
    return backend


def _serve(
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


LEFT = 1
"""status where --strict has stopped the guest"""


def _exit_status(opened: Opened) -> int:
    end = opened.timeline.guest.end
    if end is None or opened.timeline.diverted_from is not None:
        return 0
    return end.value if end.kind == "exit" else 128 + end.value if end.kind == "signal" else 0


def _begin(chosen: Chosen, given: dict[str, Any], jobs: int = 1) -> Opened:
    return opening.record(
        chosen.output,
        chosen.image,
        chosen.options,
        interval=given["snapshot_interval"],
        budget=given["snapshot_budget"],
        checkpoint_memory=given.get("checkpoint_memory", opening.MEMORY_BUDGET),
        starting=chosen.starting,
        disks=chosen.disks,
        jobs=jobs,
        say=say,
    )


image_argument = click.argument("image", type=click.Path(path_type=Path), required=False)
args_argument = click.argument("args", nargs=-1, type=click.UNPROCESSED)
PASS_ARGS = {"allow_interspersed_args": False}


@cli.command(cls=Booting, context_settings=PASS_ARGS)
@guest_options
@memory_option
@serials_option
@strict_option
@stub_options
@click.option("-c", "--continue", "running", is_flag=True, help="Start at once; do not wait for a debugger.")
@image_argument
@args_argument
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
    """Record IMAGE from its first instruction, with a stub for a debugger."""
    chosen, (backend,) = qemu.chosen(image, args, given), qemu.serial_backends(given)
    backend = _beside_stub(backend, address)
    with (
        terminal.finishing() as working,
        _begin(chosen, given, jobs) as opened,
        _serial(opened, backend, live=True),
        working,
    ):
        say(f"recording to {opened.recording.path}")
        try:
            _serve(opened, backend, address, once, report_exit, running, strict=strict)
        except AddressError:
            opened.discard()
            raise
        status = _exit_status(opened)
        if strict and opened.guest.notices.left:
            status = status or LEFT
        if opened.guest.end is not None and opened.guest.cause and opened.timeline.at_present:
            say(_how_guest_ended(opened.guest))
        if opened.discard():
            say("nothing was executed: no recording is left")
    sys.exit(status)


@cli.command(cls=Booting, context_settings=PASS_ARGS)
@guest_options
@serials_option
@strict_option
@click.option("--max-icount", type=Number(), metavar="N", help="Stop after N instructions.")
@click.option("--timeout", type=Seconds(0, min_open=True), metavar="S", help="Stop after S seconds.")
@image_argument
@args_argument
def record(
    image: Path | None,
    args: tuple[str, ...],
    max_icount: int | None,
    timeout: float | None,
    strict: bool,
    **given: Any,
) -> None:
    """Record IMAGE without a stub, until it ends, Ctrl-C, or a limit."""
    chosen, (backend,) = qemu.chosen(image, args, given), qemu.serial_backends(given)
    with (
        terminal.finishing() as working,
        _begin(chosen, given) as opened,
        _serial(opened, backend, live=True),
        working,
    ):
        timeline = opened.timeline
        say(f"recording to {opened.recording.path}")
        stop = _run_to_end(opened, backend, max_icount, timeout, strict)
        left = strict and opened.guest.notices.left
        status = _exit_status(opened) or (LEFT if left else 0)
        count = len(timeline.marks.stored)
        how = "stopped by --strict" if left else _how_it_ended(opened, stop, timeout)
        how += "," if opened.guest.cause else ""
        say(f"{how} after {timeline.icount} instructions; {count} snapshot{'s' if count != 1 else ''}")
    sys.exit(status)


def _run_to_end(opened: Opened, backend: Backend, steps: int | None, timeout: float | None, strict: bool) -> Stop:
    timeline = opened.timeline
    over = threading.Event()
    posted = monitored.Posted(timeline.interrupt)

    def end() -> None:
        over.set()
        timeline.interrupt()

    if strict:
        opened.guest.notices.added = end
    timer = threading.Timer(timeout, end) if timeout is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        with terminal.interrupting(end), _status(opened):
            monitored.connect(backend, Target(opened), posted.post)
            while True:
                stop = timeline.run(Points({}), steps=None if steps is None else steps - timeline.icount)
                if stop.kind is not StopKind.INTERRUPT or over.is_set():
                    return stop
                posted.serve()
    finally:
        if timer is not None:
            timer.cancel()


@contextlib.contextmanager
def _status(opened: Opened) -> Iterator[None]:
    """A line on a terminal that shows how far the recording is."""
    if sys.stdout.isatty():
        # The guest's own output is on this terminal: a status line would tear it.
        yield
        return
    with terminal.counting("recording", lambda: opened.timeline.icount):
        yield


def _how_guest_ended(guest: Guest) -> str:
    """Empty: it has not."""
    if guest.end is None:
        return ""
    if guest.end.kind == "exit":
        return f"guest exited with status {guest.end.value}"
    if guest.end.kind == "signal":
        return f"guest died of an unhandled exception (signal {guest.end.value}) {guest.cause}"
    return f"guest halted for good: {guest.cause}"


def _how_it_ended(opened: Opened, stop: Stop, timeout: float | None) -> str:
    ended = _how_guest_ended(opened.guest)
    if ended:
        return ended
    if stop.kind is not StopKind.INTERRUPT:
        return "stopped by --max-icount"
    return "interrupted" if timeout is None else f"interrupted, or stopped by --timeout {timeout:g},"


@cli.command()
@memory_option
@moved_disks_option
@serial_option
@stub_options
@recording_argument
def replay(
    recording: Path,
    checkpoint_memory: int,
    disks: tuple[tuple[str, Path], ...],
    backend: Backend,
    address: Address,
    once: bool,
    report_exit: bool,
    jobs: int,
) -> None:
    """Serve a recording to a debugger."""
    backend = _beside_stub(backend, address)
    with (
        terminal.finishing() as working,
        _open(recording, checkpoint_memory, dict(disks), jobs) as opened,
        _serial(opened, backend, live=False),
        working,
    ):
        _serve(opened, backend, address, once, report_exit, False)


def _open(path: Path, checkpoint_memory: int, disks: dict[str, Path], jobs: int) -> Opened:
    replay = partial(opening.replay, path, checkpoint_memory=checkpoint_memory, disks=disks, jobs=jobs)
    try:
        opened = replay()
    except RecordingBusyError as e:
        opened = replay(writable=False)
        say(f"{e}; opened for reading: no new snapshots")
    for message in opened.messages:
        say(message)
    return opened


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@recording_argument
def info(recording: Path, as_json: bool) -> None:
    """Tell what a recording holds."""
    with opening.replay(recording, writable=False, disks_needed=False) as opened:
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


cli.add_command(snapshot)


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
def verify(recording: Path, jobs: int, disks: tuple[tuple[str, Path], ...], stops: int) -> None:
    """Replay a whole recording and compare every state digest."""
    with opening.replay(recording, writable=False, disks=dict(disks), jobs=jobs) as opened:
        opened.timeline.say = say
        for message in opened.messages:
            say(message)
        checked = verify_recording(opened.timeline, _progress, opened.workers, stops)
        agreed = "1 state digest agrees" if checked == 1 else f"{checked} state digests agree"
        tell(f"{recording}: {opened.timeline.end} instructions replayed, {agreed}")
        damaged = opened.recording.damage is not None
    if damaged:
        sys.exit(1)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        click.echo(shown(text.rstrip("\n")), err=True)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def machines(as_json: bool) -> None:
    """List boards and CPU models."""
    rows = machine_rows(BOARDS.values())
    models = {name: list(rrgdb.ARCHES[name].models) for row in rows for name in row[1].split()}
    if as_json:
        keys = ("board", "arches", "ram", "devices", "description")
        listed = [dict(zip(keys, row, strict=True)) for row in rows]
        click.echo(json.dumps({"boards": listed, "cpus": models}, indent=2))
        return
    for name, arches, ram, devices, description in rows:
        click.echo(f"{name}: {description}\n  CPU {arches}; RAM {ram}\n  {devices}")
    for name, known in models.items():
        click.echo(f"--cpu for {name}: {', '.join(known)} (default {known[0]})")


@cli.command()
@click.option("--serve", is_flag=True, help="Leave the stub open for your own gdb.")
def demo(serve: bool) -> None:
    """Find a planted memory corruption by going backwards."""
    from rrgdb.demo import run_demo  # noqa: PLC0415 - only this command needs it

    sys.exit(run_demo(serve=serve))


@cli.command()
def gdbinit() -> None:
    """Print a GDB-Python file that makes the time commands real ones: save it as NAME.py and `source` it."""
    click.echo(gdb_file.text(), nl=False)


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
