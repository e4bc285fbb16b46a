"""QEMU beside rrgdb: the kit's scripts drive both servers over the same ELF files, one after the other."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchlib.bench import Bench
from benchlib.figures import QEMU, RRGDB
from benchlib.guests import Guest
from rrgdb_tests.e2e.harness import Server

GROUP = "gdb"
RAW = "packets"
SPEED = "speed"
GROUPS = ("fwd,step", "rsi100", "watch", "fwatch", "lines", "start", "hotpage", "rc", "cond")
"""of the kit's gdb script; each begins with a server that stands at the start"""
QUICK_GROUPS = ("fwd,step", "rsi100", "start")
MARKS, QUICK_MARKS = "1e6,1e7,1e8,1e9", "1e6,1e7,1e8"
PATIENCE = 240.0
"""seconds after which a group counts as hung"""
STARTED = 20.0
"""seconds that QEMU may take until its stub listens"""
SPEED_MODES = {"plain": "plain run", "record": "recording, with snapshots", "replay": "replay"}


def _python(bench: Bench, *arguments: str, patience: float = PATIENCE, **environment: str) -> str | None:
    """Run a script of the kit; its output, or None if it hangs. All that it started ends with it."""
    assert bench.kit is not None
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=bench.kit,
        env={key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        return process.communicate(timeout=patience)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return None


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def _rrgdb(bench: Bench, guest: Guest) -> Iterator[str]:
    with Server("replay", "--gdb", "127.0.0.1:0", "--serial", "null", bench.recording(guest)) as server:
        yield server.address


@contextlib.contextmanager
def _qemu(bench: Bench, guest: Guest) -> Iterator[str]:
    assert bench.kit is not None
    address = f"127.0.0.1:{_free_port()}"
    command = ["qemu_rr.py", "replay", guest.name, "--gdb", address, "--print"]
    line = _python(bench, *command) or ""
    with subprocess.Popen(
        line, shell=True, executable="/bin/sh", cwd=bench.kit, stdin=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            _wait_listening(int(address.rsplit(":", 1)[1]), process)
            yield address
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)


def _wait_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until the kernel's table shows a listener: QEMU answers its first connection only."""
    wanted = re.compile(rf"^\s*\d+: 0100007F:{port:04X} \S+ 0A ", re.MULTILINE)
    end = time.monotonic() + STARTED
    while not wanted.search(Path("/proc/net/tcp").read_text()):
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError("QEMU does not listen")
        time.sleep(0.02)


SERVERS = {RRGDB: _rrgdb, QEMU: _qemu}


def _gdb(bench: Bench, guest: Guest, who: str, group: str) -> None:
    """One group of the gdb script against a fresh server."""
    assert bench.kit is not None
    out = bench.kit / "results" / f"{who}-{guest.name}.jsonl"
    before = len(_rows(out))
    with SERVERS[who](bench, guest) as address:
        arguments = ["bench.py", guest.name, "--target", address, "--label", who, "--tests", group, "--repeat", "2"]
        arguments += ["--marks", QUICK_MARKS if bench.quick else MARKS, "--timeout", str(PATIENCE)]
        said = _python(bench, *arguments, patience=PATIENCE + 30, RR_ICOUNT="0")
    rows = _rows(out)[before:]
    for row in rows:
        if row["test"] == "end":
            continue
        wrong = "" if row.get("ok", True) else f"WRONG {row.get('error') or row.get('note') or ''}".strip()
        bench.figures.ms(GROUP, guest.name, f"{row['test']}: {row['what']}", row.get("s", ()), who=who, note=wrong)
    if not rows or rows[-1]["test"] != "end":
        hung = said is None or "RESULT TIMEOUT" in said
        bench.figures.ms(GROUP, guest.name, f"{group}: whole group", (), who=who, note="hang" if hung else "broke off")


def _raw(bench: Bench, guest: Guest, who: str) -> None:
    """The kit's raw packets, no debugger between."""
    assert bench.kit is not None
    with SERVERS[who](bench, guest) as address:
        said = _python(bench, "rsp_bench.py", address, f"guest/{guest.elf.name}", who)
    for row in _rows(bench.kit / "results" / f"{who}-raw-{guest.elf.name}.jsonl"):
        values = [row["min_ms"], row["med_ms"], row["max_ms"]] if row["n"] > 1 else [row["med_ms"]]
        bench.figures.add(RAW, guest.name, row["what"], "ms", values, who=who)
    if said is None:
        bench.figures.ms(RAW, guest.name, "whole script", (), who=who, note="hang")


def _speed(bench: Bench, guest: Guest) -> None:
    """QEMU's own speeds: the kit takes the best of its runs."""
    assert bench.kit is not None
    results = bench.kit / "results"
    with bench.replay(guest) as opened:
        icount = opened.timeline.end
    (results / "insns.json").write_text(json.dumps({guest.name: icount}))
    said = _python(bench, "speed.py", guest.name, REP=str(bench.repeat))
    if said is None:
        bench.figures.add(SPEED, guest.name, "recording, with snapshots", "MIPS", (), who=QEMU, note="hang")
    for row in _rows(results / "speed.jsonl"):
        if row["guest"] == guest.name and row["mode"] in SPEED_MODES and row["shift"] in (None, "auto"):
            name = SPEED_MODES[row["mode"]]
            bench.figures.add(SPEED, guest.name, name, "MIPS", row["all_mips"], who=QEMU)
            if row["mode"] == "record":
                log = 1000 * row["log_bytes"] / icount
                bench.figures.add(SPEED, guest.name, "event log per 1,000 instructions", "bytes", [log], who=QEMU)


def _record(bench: Bench, guest: Guest) -> bool:
    return _python(bench, "qemu_rr.py", "record", guest.name) is not None


def measure(bench: Bench, guest: Guest) -> None:
    """Everything that the kit measures, for one of its guests."""
    assert bench.kit is not None
    for name in ("work", "results"):
        (bench.kit / name).mkdir(exist_ok=True)
    _speed(bench, guest)
    servers: Sequence[str] = (RRGDB, QEMU)
    if not _record(bench, guest):
        bench.figures.ms(GROUP, guest.name, "recording for gdb", (), who=QEMU, note="hang")
        servers = (RRGDB,)
    for group in QUICK_GROUPS if bench.quick else GROUPS:
        for who in servers:
            _gdb(bench, guest, who, group)
    if not bench.quick:
        for who in servers:
            _raw(bench, guest, who)
