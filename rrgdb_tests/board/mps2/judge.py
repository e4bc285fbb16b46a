"""Runs the cases on QEMU: ``python -m rrgdb_tests.board.mps2.judge`` records what it finds."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from rrgdb_tests.board.mps2.cases import CASES, LOG, LOG_BYTES, PRELUDE
from rrgdb_tests.e2e.rsp_client import RspClient

RECORDED = Path(__file__).with_name("recorded.json")
QEMU = "qemu-system-arm"
LOCKUP = "lockup"
_PIECE = 0x400
"""bytes that fit into a packet of QEMU's"""


def build(name: str, directory: Path) -> Path:
    """The ELF file of a case."""
    source, made, linked = directory / "a.s", directory / "a.o", directory / "a.elf"
    source.write_text(f"{PRELUDE}\n{CASES[name]}\n")
    subprocess.run(["arm-none-eabi-as", "-o", made, source], check=True)
    subprocess.run(["arm-none-eabi-ld", "-n", "-Ttext=0", "-e", "_start", "-o", linked, made], check=True)
    return linked


def symbol(elf: Path, name: str) -> int:
    listing = subprocess.run(["arm-none-eabi-nm", elf], check=True, capture_output=True, text=True).stdout
    return next(int(line.split()[0], 16) for line in listing.splitlines() if line.split()[-1] == name)


def outcome(registers: list[int], memory: bytes) -> list[str]:
    """What is compared: r0 to xPSR at ``done``, then the log's words up to its end. ``memory`` begins at LOG - 4."""
    words = [int.from_bytes(memory[at : at + 4], "little") for at in range(0, len(memory), 4)]
    used = (words[0] - LOG) // 4
    return [f"{word:x}" for word in (*registers, *words[1 : 1 + used])]


def ask(name: str) -> list[str] | str:
    """What a case comes to on QEMU; LOCKUP if QEMU gives up."""
    with tempfile.TemporaryDirectory() as directory:
        elf = build(name, Path(directory))
        path = Path(directory) / "gdb"
        command = [
            "timeout",
            "20",
            QEMU,
            "-M",
            "mps2-an385",
            "-S",
            "-kernel",
            elf,
            "-chardev",
            f"socket,path={path},server=on,wait=off,id=gdb",
        ]
        process = subprocess.Popen(
            [*command, "-gdb", "chardev:gdb", "-display", "none", "-serial", "null", "-monitor", "none"],
            stderr=subprocess.DEVNULL,
        )
        try:
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(10)
            for _ in range(200):
                try:
                    link.connect(str(path))
                    break
                except OSError:
                    time.sleep(0.02)
            with RspClient(link) as client:
                client.ask(b"qSupported:xmlRegisters=arm")
                client.ask(b"qXfer:features:read:target.xml:0,fff")
                client.ask(b"Z1,%x,2" % symbol(elf, "done"))
                client.ask(b"c")
                values = bytes.fromhex(client.ask(b"g").decode())
                registers = [
                    int.from_bytes(values[at : at + 4], "little") for at in (*range(0, 64, 4), len(values) - 4)
                ]
                pieces = (client.ask(b"m%x,%x" % (LOG - 4 + at, _PIECE)) for at in range(0, LOG_BYTES, _PIECE))
                return outcome(registers, b"".join(bytes.fromhex(piece.decode()) for piece in pieces))
        except (EOFError, OSError):
            return LOCKUP
        finally:
            process.kill()
            process.wait()


def recorded() -> dict[str, list[str] | str]:
    found: dict[str, list[str] | str] = json.loads(RECORDED.read_text())
    return found


def is_there() -> bool:
    return all(map(shutil.which, (QEMU, "arm-none-eabi-as")))


if __name__ == "__main__":
    RECORDED.write_text("{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(ask(name))}" for name in CASES) + "\n}\n")
