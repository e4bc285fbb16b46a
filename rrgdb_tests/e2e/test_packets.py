"""How many packets a stop costs gdb: a packet is a turn of two processes, and what a step through gdb takes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from rrgdb_tests.e2e.harness import PATIENCE, QUIET, Server, gdb_path

STEP = {"riscv32": 2, "riscv64": 2, "i386": 3, "x86_64": 3, "thumb": 5, "arm": 5, "aarch64": 5}
"""packets of stepi: to go on, and the list of threads; then what gdb reads of code (on Arm and AArch64), and of the
stack where its unwinder needs that"""
NEEDLESS = re.compile(r"g$|p|qC|qL|T|Hg|q[fs]ThreadInfo|qXfer:(?!threads)|\?")
"""what the stop reply has told, or the greeting"""
COMMANDS = ("stepi", "stepi", "step", "next", "reverse-stepi", "reverse-stepi", "finish", "continue")


def packets_of(gdb: str, elf: Path, address: str) -> list[tuple[str, list[str]]]:
    """(command, packets that gdb has sent) of each of ``COMMANDS``, from an instruction of work() on."""
    script = [*QUIET, f"file {elf}", f"target remote {address}", "break work", "continue", "stepi", "delete"]
    for number, command in enumerate(COMMANDS):
        if command == "continue":
            script.append("break tick")
        script += [f"python print('@@{number}', flush=True)", "set debug remote 1", command, "set debug remote 0"]
    arguments = [argument for line in script for argument in ("-ex", line)]
    done = subprocess.run(
        [gdb, "-nx", "-batch", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    told = re.split(r"^@@\d+$", done.stdout, flags=re.MULTILINE)[1:]
    assert len(told) == len(COMMANDS), done.stdout
    found = [re.findall(r"Sending packet: \$(.*?)#[0-9a-f]{2}", text) for text in told]
    return list(zip(COMMANDS, found, strict=True))


@pytest.fixture
def asked(recording: Path, ticker: Path) -> list[tuple[str, list[str]]]:
    with Server("replay", recording, "--gdb", "127.0.0.1:0", "--once") as server:
        return packets_of(gdb_path(), ticker, server.address)


def test_a_stop_costs_no_packet_that_its_reply_could_save(asked: list[tuple[str, list[str]]], arch: str) -> None:
    for command, packets in asked:
        assert packets, command
        assert [packet for packet in packets if NEEDLESS.match(packet)] == [], command
        assert sum(packet.startswith("qXfer:threads") for packet in packets) == 1, command
        if command.endswith("stepi"):
            # gdb says once that all threads are meant.
            assert len([packet for packet in packets if not packet.startswith("Hc")]) <= STEP[arch], packets
