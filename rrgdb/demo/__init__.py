"""``rrgdb demo``: record a small program that crashes, and let a real gdb find the line that is to blame.

The program is ``race.c`` beside this file, prebuilt as ``race.elf`` by ``scripts/build-demo``. Nothing here knows
where its bug is: the last line of the transcript is read from what gdb prints.
"""

from __future__ import annotations

import contextlib
import queue
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rrgdb.errors import Error

HERE = Path(__file__).resolve().parent
IMAGE = HERE / "race.elf"
ARCHITECTURE = "i386:x86-64"
SERVER_SECONDS = 60
GDB_SECONDS = 180

SETTINGS = (
    "set pagination off",
    "set confirm off",
    "set width 0",
    "set style enabled off",
    "set debuginfod enabled off",
)
HUNT = (
    "continue",
    "backtrace",
    "print *before",
    "watch -location before->next",
    "reverse-continue",
    "backtrace",
    "list",
    "info locals",
)

NEWER_SOURCE = "warning: Source file is more recent than executable."
LISTENING = re.compile(r"Listening on (\S+:\d+)")
FRAME = re.compile(r"#0 +(?:0x[0-9a-f]+ in )?(\w+) \(.*\) at (\S+):(\d+)$")
WATCHED = re.compile(r"(?:Hardware w|W)atchpoint \d+: -location ")


class DemoError(Error):
    """The demo cannot go on; one line for the user."""


def run_demo(serve: bool = False) -> int:
    """Run the demo and return the exit status: 0 only if gdb found the culprit.

    ``serve`` leaves the recording at a stub and prints what to type instead of driving gdb.
    """
    try:
        return _serve() if serve else _hunt()
    except DemoError as error:
        print(f"rrgdb demo: {error}", file=sys.stderr)
        return 1


def find_gdb() -> str:
    """Path of a gdb that knows the demo's CPU; raises DemoError."""
    found = [path for name in ("gdb-multiarch", "gdb") if (path := shutil.which(name))]
    for gdb in found:
        asked = subprocess.run(
            [gdb, "-nx", "-batch", "-ex", f"set architecture {ARCHITECTURE}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GDB_SECONDS,
            check=False,
        )
        if f'set to "{ARCHITECTURE}"' in asked.stdout:
            return gdb
    if found:
        raise DemoError(f"{found[0]} does not know {ARCHITECTURE}; install gdb-multiarch")
    raise DemoError("no gdb found on PATH; install gdb-multiarch or gdb")


def find_culprit(transcript: Sequence[str]) -> str | None:
    """``file:line`` at which gdb stopped last, if a watchpoint took it away from where the program had crashed."""
    frames = [(number, match) for number, line in enumerate(transcript) if (match := FRAME.match(line))]
    watched = [number for number, line in enumerate(transcript) if WATCHED.match(line)]
    if len(frames) < 2 or not watched:
        return None
    (_, crash), (last, stop) = frames[0], frames[-1]
    if not watched[-1] < last or stop.groups() == crash.groups():
        return None
    return f"{stop[2].removeprefix('./')}:{stop[3]} in {stop[1]}()"


def _hunt() -> int:
    gdb = find_gdb()
    with (
        tempfile.TemporaryDirectory(prefix="rrgdb-demo-") as scratch,
        _server(Path(scratch), "--once") as (address, output),
    ):
        print(f"Recording {IMAGE.name}; its stub listens on {address}. Now {Path(gdb).name} looks for the bug.\n")
        transcript = _drive(gdb, address)
        printed = output()
    if printed:
        print("\nWhat the program printed:")
        print("".join(f"    {line}\n" for line in printed), end="")
    culprit = find_culprit(transcript)
    if culprit is None:
        raise DemoError("gdb did not find what ruined the pointer; its transcript is above")
    print(f"\nThe program died in one place, the culprit is in another: {culprit}")
    return 0


def _drive(gdb: str, address: str) -> list[str]:
    commands = (*SETTINGS, f"directory {HERE}", f"target remote {address}", "set trace-commands on", *HUNT)
    arguments = [gdb, "-nx", "-batch", str(IMAGE)]
    for command in commands:
        arguments += ["-ex", command]
    transcript: list[str] = []
    with subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        late = threading.Timer(GDB_SECONDS, process.kill)
        late.start()
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.rstrip("\n")
            transcript.append(line)
            if line == NEWER_SOURCE:  # true of files that were copied or checked out, and of no interest
                continue
            if not line.startswith("+"):
                print(line, flush=True)
            elif line[1:] in HUNT:  # gdb traces the commands inside a command too
                print(f"(gdb) {line[1:]}", flush=True)
        process.wait()
        late.cancel()
    if process.returncode < 0:
        raise DemoError(f"gdb did not finish within {GDB_SECONDS} s")
    return transcript


def _serve() -> int:
    with tempfile.TemporaryDirectory(prefix="rrgdb-demo-") as scratch, _server(Path(scratch)) as (address, output):
        print("The race waits at its first instruction. In another terminal, type:\n")
        words = ["gdb-multiarch", "-ex", f"directory {HERE}", "-ex", f"target remote {address}", str(IMAGE)]
        print("    " + shlex.join(words))
        print("\nand there: " + ", ".join(HUNT[:5]) + ". Ctrl-C here ends it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            output(wait=True)
    return 0


@contextlib.contextmanager
def _server(scratch: Path, *options: str) -> Iterator[tuple[str, Callable[..., list[str]]]]:
    """Start ``rrgdb run`` as a user does; yields its address and a function that returns what it printed since."""
    recording = str(scratch / "race.rrgdb")
    # -P: the installed rrgdb, not a source tree that happens to be the current directory and is not built.
    command = [
        sys.executable,
        "-P",
        "-m",
        "rrgdb",
        "run",
        *options,
        "-o",
        recording,
        "--gdb",
        "127.0.0.1:0",
        str(IMAGE),
    ]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line.rstrip("\r\n"))
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()

    def output(wait: bool = False) -> list[str]:
        if wait:
            reader.join()
        else:
            reader.join(SERVER_SECONDS)
        found: list[str] = []
        while not lines.empty():
            line = lines.get()
            if line is not None:
                found.append(line)
        return found

    try:
        yield _listening(lines), output
    finally:
        process.terminate()
        try:
            process.wait(SERVER_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(SERVER_SECONDS)
        if process.stdout is not None:
            process.stdout.close()


def _listening(lines: queue.SimpleQueue[str | None]) -> str:
    seen: list[str] = []
    while True:
        try:
            line = lines.get(timeout=SERVER_SECONDS)
        except queue.Empty:
            raise DemoError(f"rrgdb run did not start listening within {SERVER_SECONDS} s") from None
        if line is None:
            raise DemoError("rrgdb run ended at once: " + (seen[-1] if seen else "it printed nothing"))
        if match := LISTENING.search(line):
            return match[1]
        seen.append(line)
