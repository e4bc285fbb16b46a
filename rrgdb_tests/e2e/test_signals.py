"""What ends rrgdb from outside finishes the recording."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from rrgdb.opening import replay
from rrgdb_tests import guests
from rrgdb_tests.e2e.harness import PATIENCE, Server, rrgdb_command


def _image() -> Path:
    return guests.build("riscv64", "ticker", {"TICKS": 10_000_000, "WORK": 1})


def _finished(path: Path) -> bool:
    """Whether the recording was brought to its end, with a digest there."""
    with replay(path, writable=False) as opened:
        digests = opened.recording.log.digests
        return bool(opened.recording.manifest.log_bytes) and digests.icount(-1) == opened.timeline.end > 0


def _stdout_is_full(pid: int) -> bool:
    """Whether a pipe takes no more."""
    fd = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK)
    try:
        return not select.select([], [fd], [], 0)[1]
    finally:
        os.close(fd)


def _verb(verb: str, path: Path) -> list[object]:
    running = ["-c", "--gdb", "127.0.0.1:0"] if verb == "run" else []
    return [verb, *running, "-o", path, _image()]


def test_run_is_finished(tmp_path: Path) -> None:
    with Server(*_verb("run", tmp_path / "r")) as server:
        server.wait_for("tick")
        server.process.send_signal(signal.SIGHUP)
        assert server.wait_exit() == 0
    assert _finished(tmp_path / "r")


def _catches_hangups(pid: int) -> bool:
    (caught,) = re.findall(r"SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(caught, 16) >> signal.SIGHUP - 1 & 1)


def test_record_is_finished_although_a_second_hangup_comes(tmp_path: Path) -> None:
    """A shell and the kernel both send one when a terminal goes."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(rrgdb_command(*_verb("record", tmp_path / "r")), **pipes) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        late = threading.Timer(PATIENCE, process.kill)
        late.start()
        assert b"tick" in process.stdout.readline() + process.stdout.readline()
        while not _stdout_is_full(process.pid):
            time.sleep(0.01)
        process.send_signal(signal.SIGHUP)
        assert any(b"interrupted" in line for line in process.stderr)
        # The recording ends, but what was shown waits in the pipe that nobody reads.
        while not _catches_hangups(process.pid):
            time.sleep(0.01)
        process.send_signal(signal.SIGHUP)
        process.stdout.read()
        assert process.wait(PATIENCE) == 0
        late.cancel()
    assert _finished(tmp_path / "r")


@pytest.mark.parametrize("verb", ["record", "run"])
def test_nohup(verb: str, tmp_path: Path) -> None:
    command = ["bash", "-c", "trap '' HUP; exec \"$@\"", "bash", *rrgdb_command(*_verb(verb, tmp_path / "r"))]
    with Server(command=command) as server:
        server.wait_for("tick")
        server.process.send_signal(signal.SIGHUP)
        before = len(server.console)
        server.wait_for(f"(?s).{{{before + 2000}}}")
        assert server.stop() == 0
    assert _finished(tmp_path / "r")


def test_the_terminal_goes(tmp_path: Path) -> None:
    """SIGHUP comes, and whatever is said then goes nowhere: each write fails."""
    pid, master = pty.fork()
    if not pid:
        command = rrgdb_command(*_verb("record", tmp_path / "r"))
        os.execv(command[0], command)
    seen = b""
    while seen.count(b"tick") < 3:
        seen += os.read(master, 4096)
    os.close(master)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert _finished(tmp_path / "r")
