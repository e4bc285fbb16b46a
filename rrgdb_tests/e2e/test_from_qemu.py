"""Command lines as they were typed for QEMU."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from rrgdb.board.boards import default_board
from rrgdb_tests import guests
from rrgdb_tests.e2e.harness import Server, batch, rrgdb


def test_options_of_qemu_beside_an_image(arch: str, tmp_path: Path) -> None:
    """The board is named as QEMU names it, where it does."""
    board = default_board(guests.arch_name(arch)).name
    board = "virt" if board.endswith("-virt") else board
    words = f"-M {board} -m 256M -smp 1 -accel tcg -display none -monitor none -nic none -serial stdio -icount shift=2"
    image = guests.build(arch, "ticker")
    rrgdb("record", *words.split(), "-o", tmp_path / "r", image, status=guests.exit_status(arch, 0))
    rrgdb("verify", tmp_path / "r")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-smp 2 IMAGE", "rrgdb: -smp 2: expected -smp 1: the boards have one CPU"),
        ("-M virt,gic-version=3 IMAGE", "rrgdb: -M gic-version=3: the board has a GICv2"),
        ("-M q35 IMAGE", "rrgdb: -M q35: expected one of virt, "),
        ("-cpu host IMAGE", "rrgdb: --cpu host: riscv64 has "),
        ("-kernel IMAGE IMAGE", "expected no IMAGE together with -kernel"),
        ("-append x IMAGE", "expected no IMAGE together with -append"),
        ("-M virt", "rrgdb: expected an IMAGE, or -kernel FILE, or -bios FILE; see --help"),
        ("-bios none", "rrgdb: expected an IMAGE, or -kernel FILE, or -bios FILE; see --help"),
        ("-initrd x -bios IMAGE", "rrgdb: -initrd: expected together with -kernel"),
        ("-serial null -serial null IMAGE", "rrgdb: -serial null: the boards have 1 serial port"),
        ("-serial nonsense IMAGE", "rrgdb: serial nonsense: expected stdio, mon:stdio"),
        ("-m lots IMAGE", "'lots': expected a size"),
        ("-kernell x", "rrgdb: -kernell: no such option; the nearest one is -kernel"),
        ("-M virt,dtb-randomness=on IMAGE", "rrgdb: -M dtb-randomness=on: expected with -kernel or -bios"),
        ("--disk x -device virtio-rng-device IMAGE", "expected disks by one of the two"),
        ("-icount 3,rrfile=a -o b IMAGE", "rrgdb: -icount rrfile=: expected once, as -o"),
    ],
)
def test_mistakes_are_told_in_one_line(words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = str(guests.build("riscv64", "status"))
    done = rrgdb("record", *[image if word == "IMAGE" else word for word in words.split()], status=2)
    assert said in done.stderr
    assert done.stderr.startswith("rrgdb: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["run -c --gdb 127.0.0.1:0", "record"])
def test_the_monitor_on_the_serial_line(verb: str, tmp_path: Path, start: Callable[..., Server]) -> None:
    server = start(*verb.split(), "-o", tmp_path / "r", "-nographic", guests.build("riscv64", "echo"), stdin=True)
    server.wait_for("echo: ready")
    server.send(b"a\x01cinfo registers\r")
    server.wait_for(r"a1 +0x[0-9a-f]{16}")
    server.send(b"savevm here\rseek 0\rnonsense\r")
    server.wait_for("snapshot here at icount")
    server.wait_for("`seek` moves the guest: it is for a debugger")
    server.wait_for("unknown command 'nonsense'")
    server.send(b"\x01cb")
    server.wait_for("B")
    server.send(b"\x01x")
    assert server.wait_exit() == 0
    assert "A" in server.console
    rrgdb("verify", tmp_path / "r")
    assert "here" in rrgdb("snapshot", "list", tmp_path / "r").stdout


def test_quit_is_a_command_of_the_monitor(tmp_path: Path, start: Callable[..., Server]) -> None:
    server = start("record", "-o", tmp_path / "r", "-nographic", guests.build("riscv64", "echo"), stdin=True)
    server.send(b"\x01cquit\n")
    assert server.wait_exit() == 0


def test_a_debugger_beside_the_keys(tmp_path: Path, start: Callable[..., Server]) -> None:
    """Without ``-c`` the guest stands, with and without ``-S``; the keys work all the same."""
    image = guests.build("riscv64", "echo")
    server = start("run", "-S", "-gdb", "tcp:127.0.0.1:0", "-nographic", "-o", tmp_path / "r", image, stdin=True)
    assert "main" in batch(image, server.address, ["break main", "continue", "detach"])
    server.send(b"\x01x")
    assert server.wait_exit() == 0


def test_a_terminal_is_raw_meanwhile_and_as_it_was_afterwards(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    command = [sys.executable, "-P", "-m", "rrgdb", "record", "-o", str(tmp_path / "r"), "-nographic"]
    process = subprocess.Popen([*command, str(guests.build("riscv64", "echo"))], stdin=slave, stdout=slave)
    seen = b""
    while b"ready" not in seen:
        seen += os.read(master, 100)
    during = termios.tcgetattr(slave)
    os.write(master, b"\x03\x01x")
    assert process.wait(60) == 0
    assert termios.tcgetattr(slave) == before
    assert not during[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize("family", ["riscv64", "riscv32", "aarch64", "arm"])
def test_a_kernel_is_recorded_with_all_that_it_boots_from(family: str, tmp_path: Path) -> None:
    kernel = tmp_path / "kernel.elf"
    kernel.write_bytes(guests.build(family, "status").read_bytes())
    words = ["-M", "virt", "-nographic", "-bios", "none", "-kernel", str(kernel), "-append", "a=b", "-icount", "3"]
    rrgdb("record", "-o", tmp_path / "r", *words, status=guests.exit_status(family, 3))
    kernel.unlink()
    shutil.move(tmp_path / "r", tmp_path / "moved")
    rrgdb("verify", tmp_path / "moved")
    assert "kernel.elf" in rrgdb("info", tmp_path / "moved").stdout
