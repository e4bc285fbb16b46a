"""Build attributes of Arm's ELF files: what the assembler writes, and what hostile files hold."""

from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random

import pytest

from rrgdb.board.firmware.arm_attributes import is_m_profile


def made(cpu: str, directory: Path) -> bytes:
    source = f".syntax unified\n.cpu {cpu}\n.thumb\nnop\n"
    made, linked = directory / "a.o", directory / "a.elf"
    subprocess.run(["arm-none-eabi-as", "-o", made, "-"], input=source, text=True, check=True)
    subprocess.run(["arm-none-eabi-ld", "-e", "0", "-o", linked, made], check=True)
    return linked.read_bytes()


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        *((f"cortex-m{n}", True) for n in (0, 3, 4, 33)),
        *((name, False) for name in ("cortex-a15", "cortex-r5", "arm926ej-s")),
    ],
)
def test_the_profile_is_told(cpu: str, expected: bool, tmp_path: Path) -> None:
    assert is_m_profile(made(cpu, tmp_path)) == expected


def test_what_is_malformed_says_nothing(tmp_path: Path) -> None:
    whole = made("cortex-m3", tmp_path)
    random = Random(1)
    assert not is_m_profile(b"")
    for end in range(0, len(whole), 7):
        assert is_m_profile(whole[:end]) in (False, True)
    for _ in range(2000):
        damaged = bytearray(whole)
        for _ in range(random.randrange(1, 8)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        assert is_m_profile(bytes(damaged)) in (False, True)
