"""How the host's threads round, and whether they flush small numbers to zero, is nothing to a guest."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator

import pytest

from rrgdb_tests.engine.unicorn.rig import board, board_state

PROGRAMS = {
    **dict.fromkeys(("i386", "x86_64"), "x86_fp"),
    **dict.fromkeys(("arm", "thumb"), "arm_fp"),
    "aarch64": "aarch64_fp",
    **dict.fromkeys(("riscv32", "riscv64"), "riscv_fp"),
}
# fenv.h: (macro's value of each direction, where the environment has the flag by which small numbers are flushed)
HOSTS = {
    "x86_64": ((0x400, 0x800, 0xC00), (28, 1 << 15 | 1 << 6)),
    "aarch64": ((0x800000, 0x400000, 0xC00000), (0, 1 << 24)),
}
LIBM = ctypes.CDLL("libm.so.6")


@pytest.fixture
def set_arithmetic() -> Iterator[Callable[[int], None]]:
    """Change how this thread computes: 0 to 2 round otherwise than to the nearest, 3 flushes small numbers to zero."""
    kept = ctypes.create_string_buffer(256)
    LIBM.fegetenv(kept)
    directions, (place, flush) = HOSTS[platform.machine()]

    def change(number: int) -> None:
        LIBM.fesetenv(kept)
        if number < 3:
            assert LIBM.fesetround(directions[number]) == 0
            return
        changed = ctypes.create_string_buffer(kept.raw, 256)
        word = ctypes.c_uint32.from_buffer(changed, place)
        word.value |= flush
        LIBM.fesetenv(changed)

    yield change
    LIBM.fesetenv(kept)


@pytest.mark.parametrize("family", PROGRAMS)
def test_guests_compute_as_if_the_host_rounded_to_the_nearest(
    family: str, set_arithmetic: Callable[[int], None]
) -> None:
    ends = set()
    for number in (None, 0, 1, 2, 3):
        guest = board(family, PROGRAMS[family], LOOPS=2)
        if number is not None:
            set_arithmetic(number)
        while guest.end is None:
            guest.run_until(guest.engine.icount + 500)
        ends.add(board_state(guest))
    assert len(ends) == 1
