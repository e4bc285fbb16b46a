"""Scripts under test: small programs, and the ways a recording of one must agree with itself and with the live run."""

from __future__ import annotations

import importlib
import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from unicorn import Uc

import rrgdb
from rrgdb.engine.unicorn.families import FAMILIES
from rrgdb_tests import guests

CODE, DATA, DEVICE = 0x10_0000, 0x20_0000, 0x30_0000
PAGE = 0x1000


@cache
def assemble(arch: str, text: str, address: int = CODE) -> bytes:
    """Machine code of a few lines of GNU assembler."""
    tools = guests.TOOLCHAINS[arch]
    with TemporaryDirectory() as scratch:
        source, elf, flat = (Path(scratch) / name for name in ("a.S", "a.elf", "a.bin"))
        source.write_text(f".globl _start\n_start:\n{text}\n")
        flags = ("-nostdlib", "-static", f"-Wl,-Ttext={address:#x}", "-Wl,--build-id=none")
        subprocess.run([tools.compiler, *tools.flags, *flags, "-o", elf, source], check=True)
        copy = tools.compiler.removesuffix("gcc") + "objcopy"
        subprocess.run([copy, "-O", "binary", "-j", ".text", elf, flat], check=True)
        return flat.read_bytes()


def new_uc(arch: str) -> Any:
    family = FAMILIES[arch]
    return Uc(family.arch, family.mode)


def all_models(arch: str) -> list[tuple[str, int]]:
    """(name, number) of every CPU model of this family that Unicorn has."""
    family = {"aarch64": "ARM64", "arm": "ARM", "x86_64": "X86", "i386": "X86"}.get(arch, arch.upper())
    names = vars(importlib.import_module(f"unicorn.{family.rstrip('3264' if 'RISCV' in family else '').lower()}_const"))
    prefix = f"UC_CPU_{family}_"
    return [(n.removeprefix(prefix), v) for n, v in names.items() if n.startswith(prefix) and "ENDING" not in n]


def register(arch: str, name: str) -> int:
    """Unicorn's id of a register by GDB's name."""
    return FAMILIES[arch].number(name)


@dataclass
class Trace:
    """What the script's own code hook saw, attempt by attempt."""

    pcs: list[int] = field(default_factory=list)

    def __call__(self, _uc: Any, address: int, _size: int, _data: Any) -> None:
        self.pcs.append(address)


def states(recording: rrgdb.Recording) -> list[bytes]:
    """The digest of the state at every position."""
    found = []
    recording.seek(0)
    for icount in range(recording.end + 1):
        recording.seek(icount)
        found.append(recording.state_digest())
    return found


def check(path: Path, pcs: list[int] | None = None, *, moves: int = 150, seed: int = 1) -> list[bytes]:
    """The recording at ``path`` verifies, executes what the script's code hook saw, and is the same whichever way one
    goes; returns the digests of all positions."""
    with rrgdb.open(path) as recording:
        assert recording.verify() > 0
        straight = states(recording)
        if pcs is not None:
            assert len(pcs) == recording.end
            for icount, pc in enumerate(pcs):
                recording.seek(icount)
                assert recording.registers[recording.arch.pc] == pc, icount
    with rrgdb.open(path) as recording:
        walk(recording, straight, random.Random(seed), moves)
    return straight


def walk(recording: rrgdb.Recording, straight: list[bytes], rng: random.Random, moves: int) -> None:
    end = len(straight) - 1
    for _ in range(moves):
        here = recording.icount
        move = rng.randrange(4)
        if move == 0:
            recording.seek(rng.randrange(end + 1))
        elif move == 1:
            recording.reverse_step(rng.randrange(1, 20))
            assert recording.icount <= here
        elif move == 2 and here < end:
            recording.step(rng.randrange(1, 20))
            assert recording.icount > here
        else:
            recording.seek(max(0, here - 1))
        assert recording.state_digest() == straight[recording.icount], recording.icount


def plain_and_recorded(tmp_path: Path, script: Callable[[Any], Any], arch: str) -> tuple[Any, Any, Path]:
    """What ``script`` returns on a plain Uc and on a recorded one, and the recording."""
    expected = script(new_uc(arch))
    uc = new_uc(arch)
    path = tmp_path / "r.rrgdb"
    with rrgdb.attach(uc, path):
        got = script(uc)
    return expected, got, path
