"""A real gdb against a real ``python -m rrgdb``, both started as a user starts them.

Every wait is for an event. A wait that takes longer than ``PATIENCE`` seconds fails with what was said until then.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pygdbmi.constants import GdbTimeoutError
from pygdbmi.gdbcontroller import GdbController

PATIENCE = 120.0
LISTENING = re.compile(r"Listening on (\S+):(\d+)")
QUIET = (
    "set pagination off",
    "set confirm off",
    "set width 0",
    "set style enabled off",
    "set debuginfod enabled off",
    "set history save off",
    "set remotetimeout 60",
)
NO_HISTORY = ("No more reverse-execution history", "Reached end of recorded history")
Record = dict[str, Any]


def gdb_path() -> str:
    """The gdb under test: ``RRGDB_TEST_GDB`` or gdb-multiarch."""
    path = shutil.which(os.environ.get("RRGDB_TEST_GDB", "gdb-multiarch"))
    if path is None:
        raise AssertionError("gdb-multiarch is not installed; run scripts/test")
    return path


def rrgdb_command(*arguments: object) -> list[str]:
    return [sys.executable, "-P", "-m", "rrgdb", *map(str, arguments)]


def rrgdb(*arguments: object, status: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run rrgdb to its end; another exit status than ``status`` fails the test, None takes any."""
    done = subprocess.run(
        rrgdb_command(*arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if status is not None and done.returncode != status:
        raise AssertionError(f"{' '.join(done.args)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class Server:
    """``rrgdb run`` or ``rrgdb replay`` as a subprocess, or another ``command``; a context manager that kills it.

    ``console`` is what it has written to stdout (the guest's serial output among it), ``log`` to stderr.
    """

    def __init__(self, *arguments: object, stdin: bool = False, command: Sequence[str] | None = None) -> None:
        self.arguments = arguments
        self._changed = threading.Condition()
        self._text = {"stdout": "", "stderr": ""}
        self._open = 2
        self.process = subprocess.Popen(
            command or rrgdb_command(*arguments),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(name, stream), daemon=True)
            for name, stream in (("stdout", self.process.stdout), ("stderr", self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, stream: Any) -> None:
        while data := stream.read(65536):
            with self._changed:
                self._text[name] += data.decode(errors="replace")
                self._changed.notify_all()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    @property
    def console(self) -> str:
        with self._changed:
            return self._text["stdout"]

    @property
    def log(self) -> str:
        with self._changed:
            return self._text["stderr"]

    def wait_for(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        """The first match in either stream; fails if the server ends without one."""
        compiled = re.compile(pattern)

        def found() -> re.Match[str] | None:
            return compiled.search(self._text["stdout"]) or compiled.search(self._text["stderr"])

        with self._changed:
            self._changed.wait_for(lambda: found() or self._open == 0, PATIENCE)
            match = found()
            if match is None:
                ended = "ended" if self._open == 0 else f"did not say in {PATIENCE} s"
                raise AssertionError(f"rrgdb {' '.join(map(str, self.arguments))} {ended}: {pattern!r}\n{self._text}")
            return match

    @property
    def address(self) -> str:
        """``HOST:PORT`` of the stub, waited for."""
        match = self.wait_for(LISTENING)
        return f"{match[1]}:{match[2]}"

    def wait_refused(self) -> str:
        """What it says when it ends without ever listening; fails if it listens."""
        with self._changed:
            self._changed.wait_for(lambda: LISTENING.search(self._text["stderr"]) or self._open == 0, PATIENCE)
        if self._open or self.wait_exit() == 0:
            raise AssertionError(f"rrgdb {' '.join(map(str, self.arguments))} was not refused\n{self._text}")
        return self.console + self.log

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def connect(self) -> socket.socket:
        host, port = self.address.rsplit(":", 1)
        return socket.create_connection((host, int(port)), timeout=PATIENCE)

    def wait_exit(self) -> int:
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"rrgdb did not end within {PATIENCE} s\n{self._text}") from None
        for reader in self._readers:
            reader.join(PATIENCE)
        return status

    def stop(self) -> int:
        """End it as a user at the terminal does; the recording is then complete."""
        self.process.send_signal(signal.SIGINT)
        return self.wait_exit()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class GdbError(Exception):
    """gdb answered a command with ``^error``; the text is gdb's message."""


class Gdb:
    """gdb in MI mode, driven with pygdbmi; a context manager that ends it."""

    def __init__(self, image: Path | None, *, commands: Sequence[str] = ()) -> None:
        early = [word for line in (*QUIET, *commands) for word in ("-iex", line)]
        command = [gdb_path(), "--nx", "--quiet", "--interpreter=mi3", *early]
        if image is not None:
            command.append(str(image))
        self._controller = GdbController(command, time_to_check_for_additional_output_sec=1e-6)
        self._seen: list[Record] = []
        self._read_to = 0
        self._token = 0

    @property
    def pid(self) -> int:
        return int(self._controller.gdb_process.pid)

    @property
    def transcript(self) -> str:
        return "\n".join(
            f"{r['type']:8} {r.get('token') or ''} {r['message'] or ''} {r['payload']}" for r in self._seen
        )

    def _wait(self, start: int, wanted: Callable[[Record], bool], what: str) -> Record:
        """The first record from index ``start`` on for which ``wanted`` holds."""
        at = start
        end = time.monotonic() + PATIENCE
        while True:
            while at < len(self._seen):
                if wanted(self._seen[at]):
                    self._read_to = max(self._read_to, at + 1)
                    return self._seen[at]
                at += 1
            left = end - time.monotonic()
            if left <= 0 or self._controller.gdb_process.poll() is not None:
                state = "is gone" if left > 0 else f"was silent for {PATIENCE} s"
                raise AssertionError(f"gdb {state}; waited for {what}\n{self.transcript}")
            with contextlib.suppress(GdbTimeoutError):
                self._seen += self._controller.get_gdb_response(min(left, 1.0), raise_error_on_timeout=False)

    def send(self, command: str) -> int:
        """Send an MI command; returns the index of the first record that can be its answer."""
        self._token += 1
        start = len(self._seen)
        self._controller.write(f"{self._token}{command}", read_response=False)
        return start

    def command(self, command: str) -> Record:
        """Send an MI command and return the payload of its result; raises GdbError for ``^error``."""
        start = self.send(command)
        token = self._token
        record = self._wait(start, lambda r: r["type"] == "result" and r["token"] == token, f"the result of {command}")
        if record["message"] == "error":
            raise GdbError(record["payload"]["msg"])
        return record["payload"] or {}

    def cli(self, line: str) -> str:
        """A command of gdb's command line; returns what it prints, the target's ``monitor`` texts among it."""
        quoted = line.replace("\\", "\\\\").replace('"', '\\"')
        start = len(self._seen)
        self.command(f'-interpreter-exec console "{quoted}"')
        return "".join(r["payload"] for r in self._seen[start:] if r["type"] in {"console", "target"} and r["payload"])

    def connect(self, address: str) -> None:
        self.command(f"-target-select remote {address}")

    def run(self, command: str) -> Record:
        """An ``-exec-…`` command; returns the payload of the ``*stopped`` that ends it."""
        start = self.send(command)
        token = self._token
        result = self._wait(start, lambda r: r["type"] == "result" and r["token"] == token, f"the result of {command}")
        if result["message"] == "error":
            raise GdbError(result["payload"]["msg"])
        return self.wait_stopped(start)

    def wait_stopped(self, start: int) -> Record:
        """The payload of the first ``*stopped`` from index ``start`` on.

        gdb before 15 tells the end of history only in its console text; ``reason`` is then filled in from that.
        """
        record = self._wait(start, lambda r: r["type"] == "notify" and r["message"] == "stopped", "*stopped")
        payload: Record = record["payload"] or {}
        if "reason" not in payload:
            said = "".join(r["payload"] or "" for r in self._seen[start:] if r["type"] == "console")
            if not any(text in said for text in NO_HISTORY):
                raise AssertionError(f"gdb stopped for no reason\n{self.transcript}")
            payload["reason"] = "no-history"
        return payload

    def wait_running(self, start: int) -> None:
        self._wait(start, lambda r: r["type"] == "notify" and r["message"] == "running", "*running")

    def cont(self, reverse: bool = False) -> Record:
        return self.run("-exec-continue" + " --reverse" * reverse)

    def step(self, reverse: bool = False) -> Record:
        return self.run("-exec-step" + " --reverse" * reverse)

    def next(self, reverse: bool = False) -> Record:
        return self.run("-exec-next" + " --reverse" * reverse)

    def stepi(self, reverse: bool = False) -> Record:
        return self.run("-exec-step-instruction" + " --reverse" * reverse)

    def finish(self, reverse: bool = False) -> Record:
        return self.run("-exec-finish" + " --reverse" * reverse)

    def interrupted(self, command: str) -> Record:
        """Send an ``-exec-…`` command, press Ctrl-C once its packet is out, and return the ``*stopped``.

        Earlier gdb itself would swallow the Ctrl-C, so its packet log is the event to wait for.
        """
        self.cli("set debug remote 1")
        start = self.send(command)
        packet = re.compile(r"Sending packet: \$(vCont;c|c|bc)\b")
        self._wait(start, lambda r: r["type"] == "log" and bool(packet.search(r["payload"] or "")), "the packet")
        os.kill(self.pid, signal.SIGINT)
        stop = self.wait_stopped(start)
        self.cli("set debug remote 0")
        return stop

    def break_at(self, where: str, condition: str = "", *, hardware: bool = False) -> str:
        """Number of the new breakpoint."""
        options = "-h " * hardware + (f'-c "{condition}" ' if condition else "")
        return str(self.command(f"-break-insert {options}{where}")["bkpt"]["number"])

    def watch(self, expression: str, kind: str = "") -> str:
        """``kind``: '' for writes, '-r' for reads, '-a' for both."""
        payload = self.command(f'-break-watch {kind} "{expression}"')
        return str(next(iter(payload.values()))["number"])

    def delete(self, number: str = "") -> None:
        self.command(f"-break-delete {number}".rstrip())

    def value(self, expression: str) -> int:
        """An integer expression, evaluated by gdb."""
        text = self.command(f'-data-evaluate-expression "(unsigned long)({expression})"')["value"]
        return int(text.split()[0], 0)

    @property
    def pc(self) -> int:
        return self.value("$pc")

    @property
    def icount(self) -> int:
        """Where the guest stands in time, asked with ``monitor when``."""
        return self.when()[0]

    def when(self) -> tuple[int, int, int, str]:
        """icount, both ends of history, and the mode."""
        text = self.cli("monitor when")
        match = re.search(r"icount (\d+) of (\d+)\.\.(\d+), (\w+)", text)
        if match is None:
            raise AssertionError(f"monitor when said {text!r}\n{self.transcript}")
        return int(match[1]), int(match[2]), int(match[3]), match[4]

    def registers(self) -> dict[str, str]:
        """All registers of gdb's ``info registers`` as text."""
        lines = self.cli("info registers").splitlines()
        return {words[0]: words[1] for line in lines if len(words := line.split(maxsplit=1)) == 2}

    def close(self) -> None:
        process = self._controller.gdb_process
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def __enter__(self) -> Gdb:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def batch(image: Path | None, address: str | None, commands: Sequence[str], *, tail: Sequence[str] = ()) -> str:
    """Run gdb's command line over ``commands`` (after connecting to ``address``); returns all that it prints."""
    lines = [*QUIET, *([f"target remote {address}"] if address else []), *commands, *tail]
    arguments = [gdb_path(), "--nx", "--quiet", "--batch"]
    if image is not None:
        arguments.append(str(image))
    for line in lines:
        arguments += ["-ex", line]
    try:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        said = (late.stdout or b"").decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout
        raise AssertionError(f"gdb did not end within {PATIENCE} s\n{said}") from None
    return done.stdout


@contextlib.contextmanager
def debugging(image: Path, *arguments: object, commands: Sequence[str] = ()) -> Iterator[Gdb]:
    """``rrgdb ARGUMENTS --gdb 127.0.0.1:0`` with a connected gdb, both ended afterwards."""
    verb, *rest = arguments
    with Server(verb, "--gdb", "127.0.0.1:0", *rest) as server, Gdb(image, commands=commands) as gdb:
        gdb.connect(server.address)
        yield gdb
