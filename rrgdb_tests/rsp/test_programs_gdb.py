"""The faces of programs, as a real gdb sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rrgdb_tests.rsp.program import ANOTHER, ANOTHER_R_DEBUG, Program
from rrgdb_tests.rsp.test_gdb import GDB, after, gdb
from rrgdb_tests.rsp.test_server import serving

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(GDB is None, reason="gdb-multiarch is not installed")]
LINUX = "GNU/Linux"


async def test_auxiliary_vector() -> None:
    async with serving(Program()) as running:
        text = await gdb(running, "info auxv", osabi=LINUX)
    lines = [line.split() for line in after(text, "info auxv").splitlines()]
    assert [(line[1], line[-1]) for line in lines] == [
        ("AT_PAGESZ", "4096"), ("AT_ENTRY", "0x80000000"), ("AT_NULL", "0x0"),
    ]  # fmt: skip


async def test_libraries() -> None:
    program = Program()
    program.chains[ANOTHER_R_DEBUG] = ANOTHER
    async with serving(program) as running:
        text = await gdb(running, "info sharedlibrary", osabi=LINUX)
    found = after(text, "info sharedlibrary")
    names = [line.partition("/")[2] for line in found.splitlines() if ".so" in line and line.startswith(" ")]
    assert names == ['lib/a "quoted" & <odd>\ufffd\ufffd.so', "lib/ld-linux.so", "lib/other.so"], text


async def test_system_calls_are_caught() -> None:
    program = Program()
    async with serving(program) as running:
        text = await gdb(
            running, "catch syscall write", "continue", "continue 1", "delete", "catch syscall", "c", "c 1", "fg",
            "delete 2", "fg 1", osabi=LINUX,
        )  # fmt: skip
    for command, expected in (
        ("continue", "Catchpoint 1 (call to syscall write), 0x0000000080000008"),
        ("continue 1", "Catchpoint 1 (returned from syscall write), 0x0000000080000000"),
        ("c", "Catchpoint 2 (call to syscall read), 0x0000000080000008"),
        ("c 1", "Catchpoint 2 (returned from syscall read), 0x0000000080000000"),
        ("fg", "Catchpoint 2 (call to syscall write), 0x0000000080000008"),
        ("fg 1", "No more reverse-execution history"),
    ):
        assert expected in after(text, command), command
    assert program.caught == frozenset()


async def test_files(tmp_path: Path) -> None:
    program = Program()
    before = dict(program.content)
    there = tmp_path / "there"
    there.write_bytes(b"x")
    commands = (
        f"remote get /etc/motd {tmp_path}/motd", f"remote get /empty {tmp_path}/empty",
        f"remote get /nowhere {tmp_path}/nowhere", "remote delete /etc/motd", f"remote put {there} /etc/motd",
    )  # fmt: skip
    async with serving(program) as running:
        text = await gdb(running, *commands)
    assert (tmp_path / "motd").read_bytes() == program.content[b"/etc/motd"]
    assert (tmp_path / "empty").read_bytes() == b""
    errors = [after(text, command) for command in commands]
    assert errors == [
        "", "", "Remote I/O error: No such file or directory", *2 * ["Remote I/O error: Read-only file system"],
    ]  # fmt: skip
    assert program.content == before
    assert program.open_files == 0


async def test_executable_is_looked_for_among_the_files() -> None:
    program = Program()
    program.image = "/bin/program"
    async with serving(program) as running:
        text = await gdb(running, osabi=LINUX)
    assert "Reading /bin/program from remote target" in text
    assert "No such file or directory" in text
    program.content[b"/bin/program"] = b"#!/bin/sh"
    async with serving(program) as running:
        text = await gdb(running, osabi=LINUX)
    assert "not in executable format" in text
