"""Which board is meant."""

from __future__ import annotations

import pytest

from rrgdb.opening import OptionError
from rrgdb.opening.boards import board_for


@pytest.mark.parametrize(
    ("name", "cpu", "arch", "board"),
    [
        ("virt", None, "aarch64", "aarch64-virt"),
        ("virt", None, "riscv32", "riscv32-virt"),
        ("virt", "cortex-a15", None, "arm-virt"),
        ("virt", "cortex-a53", "aarch64", "aarch64-virt"),
        ("virt", "sifive-u34", "riscv64", "riscv32-virt"),
        (None, None, "x86_64", "x86_64-pc"),
        (None, "cortex-a57", None, "aarch64-virt"),
        ("riscv64-virt", None, None, "riscv64-virt"),
    ],
)
def test_boards(name: str | None, cpu: str | None, arch: str | None, board: str) -> None:
    assert board_for(name, cpu, arch).name == board


@pytest.mark.parametrize(
    ("name", "cpu", "arch", "reason"),
    [
        ("virt", None, None, "-M: the image does not say which CPU it is for: expected one of aarch64-virt, arm-virt"),
        (None, "no-such", None, "-M: the image does not say"),
        ("virt", None, "i386", "-M virt: there is none for i386: expected i386-pc"),
        ("q35", None, "i386", "-M q35: expected one of virt, "),
    ],
)
def test_boards_that_are_none(name: str | None, cpu: str | None, arch: str | None, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        board_for(name, cpu, arch)
