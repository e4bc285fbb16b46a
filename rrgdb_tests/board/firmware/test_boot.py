"""Kernels, firmware and what goes with them: where QEMU puts them, and one clear line for whatever cannot be."""

from __future__ import annotations

import shutil

import pytest

from rrgdb_tests.board.firmware.placement import CASES, PROGRAMS, agree, recorded


@pytest.mark.parametrize("name", CASES)
def test_all_lies_where_qemu_puts_it(name: str) -> None:
    agree(CASES[name].ours(), recorded()[name])


@pytest.mark.qemu
@pytest.mark.parametrize("name", CASES)
def test_it_is_as_the_qemu_that_is_here(name: str) -> None:
    if shutil.which(PROGRAMS[CASES[name].board][0]) is None:
        pytest.skip("QEMU is not installed")
    agree(CASES[name].ours(), CASES[name].qemus())
