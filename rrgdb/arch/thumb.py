"""Thumb, as all profiles of the Arm architecture have it: conditions, IT blocks, instructions of two lengths.

Source: DDI 0406, sections A2.5.2, A6.1, A8.3; in the program status registers of A, R and M profile ITSTATE has the
same bits.
"""

from __future__ import annotations

from collections.abc import Callable

IT = 0x0600FC00
"""the bits of ITSTATE in CPSR and xPSR"""


def word_of(code: bytes) -> int:
    """A 32-bit Thumb instruction as the manual writes it: first halfword first."""
    return int.from_bytes(code[:2], "little") << 16 | int.from_bytes(code[2:4], "little")


def holds(condition: int, status: int) -> bool:
    """Whether a condition (0 to 15) holds (section A8.3)."""
    n, z, c, v = (bool(status >> bit & 1) for bit in (31, 30, 29, 28))
    tests: tuple[Callable[[], bool], ...] = (
        lambda: z,
        lambda: c,
        lambda: n,
        lambda: v,
        lambda: c and not z,
        lambda: n == v,
        lambda: n == v and not z,
        lambda: True,
    )
    result = tests[condition >> 1]()
    return result if condition >= 14 or not condition & 1 else not result


def it_state(status: int) -> int:
    return status >> 25 & 3 | status >> 8 & 0xFC


def with_it_state(status: int, state: int) -> int:
    return status & ~IT | (state & 3) << 25 | (state & 0xFC) << 8


def after(status: int) -> int:
    """The status behind one more instruction: ITSTATE has moved on (section A2.5.2)."""
    state = it_state(status)
    return with_it_state(status, state & 0xE0 | state << 1 & 0x1F if state & 7 else 0) if state else status
