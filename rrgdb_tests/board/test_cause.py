"""What is told of a guest that died, or that waits for what never comes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rrgdb.cli import main as cli

BASES = {"riscv64-virt": 0x80000000, "arm-virt": 0x40000000, "aarch64-virt": 0x40000000, "i386-pc": 0x100000}
Heard = Callable[..., list[str]]


def words(*code: int) -> bytes:
    return b"".join(word.to_bytes(4, "little") for word in code)


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Heard:
    """``heard(board, code, options)``: the lines that ``rrgdb record`` says of raw code."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)

    def run(board: str, code: bytes, *options: str) -> list[str]:
        (tmp_path / "x.bin").write_bytes(code)
        arguments = ["-m", "2", "-M", board, "--load", hex(BASES[board]), "-o", str(tmp_path / "r")]
        monkeypatch.setattr(sys, "argv", ["rrgdb", "record", *options, *arguments, str(tmp_path / "x.bin")])
        with pytest.raises(SystemExit):
            cli.main()
        return capfd.readouterr().err.splitlines()[1:]

    return run


DEATHS = {
    "riscv load": ("riscv64-virt", words(0x13, 0x00002583), 11, "0x80000004: load of 0x0, where nothing is mapped"),
    "riscv store": ("riscv64-virt", words(0x00B02023), 11, "0x80000000: store to 0x0, where nothing is mapped"),
    "riscv jump": ("riscv64-virt", words(0x00000067), 11, "0x0: fetch from 0x0, where nothing is mapped"),
    "riscv device": (
        "riscv64-virt",
        words(0x10000537, 0x00050067),
        11,
        "0x10000000: fetch from 0x10000000, where device serial0 is",
    ),
    "riscv undefined": ("riscv64-virt", words(0xFFFFFFFF), 4, "0x80000000: undefined instruction ff ff"),
    "riscv call": ("riscv64-virt", words(0x00000073), 12, "0x80000000: a system call"),
    "riscv break": ("riscv64-virt", words(0x00100073), 5, "0x80000000: a breakpoint instruction"),
    "arm load": (
        "arm-virt",
        words(0xE3A00202, 0xE5901000),
        11,
        "0x40000004: load of 0x20000000, where nothing is mapped",
    ),
    "aarch64 store": (
        "aarch64-virt",
        words(0xD2A40000, 0xF9000001),
        11,
        "0x40000004: store to 0x20000000, where nothing is mapped",
    ),
    "pc load": (
        "i386-pc",
        b"\x90\xa1\xf0\xff\xff\xff",
        11,
        "0x100001: load of 0xfffffff0, where nothing is mapped",
    ),
}


@pytest.mark.parametrize("case", DEATHS)
def test_a_death_names_pc_address_and_what_is_there(case: str, heard: Heard) -> None:
    board, code, signal, what = DEATHS[case]
    (line,) = heard(board, code)
    assert line.startswith(f"rrgdb: guest died of an unhandled exception (signal {signal}) at pc {what}")
    assert ", after " in line


WAITS = {
    "riscv wfi": ("riscv64-virt", words(0x10500073, 0xFFDFF06F), "wfi at pc 0x80000000"),
    "arm wfi": ("arm-virt", words(0xE320F003, 0xEAFFFFFD), "wfi at pc 0x40000000"),
    "aarch64 wfi": ("aarch64-virt", words(0xD503207F, 0x17FFFFFF), "wfi at pc 0x40000000"),
    "aarch64 wfe": ("aarch64-virt", words(0xD503205F, 0x17FFFFFF), "wfe at pc 0x40000000"),
}


@pytest.mark.parametrize("case", WAITS)
def test_a_wait_for_an_interrupt_that_never_comes_is_told_once(case: str, heard: Heard) -> None:
    board, code, what = WAITS[case]
    first, *rest = heard(board, code, "--max-icount", "20")
    assert first == f"rrgdb: {what} waits for an interrupt, and no timer is set: the guest goes on"
    assert len(rest) == 1


@pytest.mark.parametrize(
    ("board", "code"),
    [("arm-virt", words(0xE320F001, 0xEAFFFFFD)), ("aarch64-virt", words(0xD503203F, 0x17FFFFFF))],
)
def test_giving_way_is_no_wait(board: str, code: bytes, heard: Heard) -> None:
    assert len(heard(board, code, "--max-icount", "20")) == 1


def test_a_pc_that_halts(heard: Heard) -> None:
    (line,) = heard("i386-pc", b"\x90\xf4")
    told = "hlt at pc 0x100001 waits for an interrupt, and board i386-pc raises none"
    assert line.startswith(f"rrgdb: guest halted for good: {told}, after 1 ")
