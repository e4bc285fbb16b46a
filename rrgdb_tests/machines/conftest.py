"""Fixtures of whole machines: the preemptive kernel recorded once, real guests, and what to do without a network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rrgdb_tests import guests
from rrgdb_tests.e2e.harness import Gdb, debugging, rrgdb
from rrgdb_tests.machines.debian import Unavailable
from rrgdb_tests.machines.driver import ASLEEP, MACHINES, SHORT, Machine

DEFINES = {"ROUNDS": 3000, "WORK": 4, "PERIOD_NS": 2000}
"""the kernel that gdb looks at: some 2 million instructions, lost increments among them"""


@pytest.fixture(params=guests.KERNELS)
def arch(request: pytest.FixtureRequest) -> str:
    """Each family that the kernel is built for in turn."""
    return str(request.param)


@pytest.fixture
def kernel(arch: str) -> Path:
    """The kernel's ELF file."""
    return guests.build_kernel(arch, DEFINES)


@pytest.fixture(scope="session")
def _kernels(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    made: dict[Path, Path] = {}

    def recorded(image: Path) -> Path:
        if image not in made:
            made[image] = tmp_path_factory.mktemp("kernel") / "kernel.rrgdb"
            rrgdb("record", "-o", made[image], "-m", "32M", image)
        return made[image]

    return recorded


@pytest.fixture
def recording(kernel: Path, _kernels: Callable[[Path], Path]) -> Path:
    """The kernel recorded to its power-off."""
    return _kernels(kernel)


@pytest.fixture
def at(kernel: Path, recording: Path) -> Iterator[Gdb]:
    """gdb at the beginning of the recording."""
    with debugging(kernel, "replay", recording) as gdb:
        yield gdb


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[str], Machine]:
    """``machine(name)``: one of ``MACHINES``, ``SHORT`` or ``ASLEEP``. Without its packages the test is skipped; in CI,
    where nothing may be passed over, it fails."""

    def make(name: str) -> Machine:
        try:
            return (MACHINES | SHORT | ASLEEP)[name](tmp_path)
        except Unavailable as e:
            if os.environ.get("RRGDB_CI"):
                pytest.fail(str(e))
            pytest.skip(str(e))

    return make
