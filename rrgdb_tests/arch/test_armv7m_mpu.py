"""The memory protection unit of the M profile by itself; with programs it is in ``board.mps2``."""

from __future__ import annotations

import pytest

from rrgdb.arch import armv7m_mpu as mpu
from rrgdb.arch import armv7m_nvic as nvic

READ_ONLY = mpu.READ | mpu.EXECUTE
ALL = READ_ONLY | mpu.WRITE


class Registers(dict[str, int]):
    """All that are not named are 0."""

    def read(self, name: str) -> int:
        return self.get(name, 0)

    def write(self, name: str, value: int) -> None:
        self[name] = value


def attributes(bits: int, access: int, *, off: int = 0, never: bool = False) -> int:
    return never << 28 | access << 24 | off << 8 | bits - 1 << 1 | 1


def test_the_higher_region_comes_first_and_subregions_may_be_off() -> None:
    cpu = Registers(
        mpu_rbar1=0x20000000,
        mpu_rasr1=attributes(12, 3),
        mpu_rbar6=0x20000800,
        mpu_rasr6=attributes(8, 2, off=0b11111010, never=True),
    )
    assert mpu.regions(cpu) == (
        (0x20000800, 0x2000081F, mpu.READ | mpu.WRITE, mpu.READ),
        (0x20000840, 0x2000085F, mpu.READ | mpu.WRITE, mpu.READ),
        *((0x20000000 + 512 * n, 0x200001FF + 512 * n, ALL, ALL) for n in range(8)),
    )


@pytest.mark.parametrize(("base", "bits"), [(0x20000020, 12), (0x20000000, 1)])
def test_a_region_that_is_not_aligned_or_too_small_is_none(base: int, bits: int) -> None:
    assert mpu.regions(Registers(mpu_rbar0=base, mpu_rasr0=attributes(bits, 3))) == ()


def test_all_of_memory_may_be_one_region() -> None:
    cpu = Registers(mpu_ctrl=mpu.ENABLE, mpu_rasr0=attributes(32, 6))
    assert [mpu.allows(cpu, at, False) for at in (0, 0x40000000, 0xFFFFFFFC)] == [READ_ONLY, READ_ONLY, mpu.READ]


@pytest.mark.parametrize(
    ("control", "state", "allowed"),
    [
        (0, {}, ALL),
        (mpu.ENABLE, {}, 0),
        (mpu.ENABLE, {"faultmask": 1}, ALL),
        (mpu.ENABLE, {"nvic_active": 1 << nvic.HARD_FAULT}, ALL),
        (mpu.ENABLE, {"nvic_active": 1 << nvic.MEM_MANAGE}, 0),
        (mpu.ENABLE | mpu.HFNMIENA, {"nvic_active": 1 << nvic.NMI}, 0),
        (mpu.HFNMIENA, {}, ALL),
    ],
)
def test_when_it_has_a_say(control: int, state: dict[str, int], allowed: int) -> None:
    cpu = Registers(mpu_ctrl=control, mpu_rbar0=0x20000000, mpu_rasr0=attributes(12, 0), **state)
    assert mpu.allows(cpu, 0x20000010, True) == allowed


def test_the_default_map_is_for_privilege_alone() -> None:
    cpu = Registers(mpu_ctrl=mpu.ENABLE | mpu.PRIVDEFENA)
    assert [mpu.allows(cpu, 0x21000000, privileged) for privileged in (True, False)] == [ALL, 0]
    assert mpu.allows(cpu, 0xE000ED00, False) == mpu.READ | mpu.WRITE


def test_words_before_the_first_that_is_denied() -> None:
    cpu = Registers(
        mpu_ctrl=mpu.ENABLE | mpu.PRIVDEFENA, mpu_rbar0=0x20000020, mpu_rasr0=attributes(5, 6), nvic_active=0
    )
    assert mpu.words_allowed(cpu, 0x20000010, 8, mpu.WRITE, True) == 4
    assert mpu.words_allowed(cpu, 0x20000010, 8, mpu.READ, True) == 8
