"""Where Unicorn keeps what its interface does not show of the M profile: as in ``probes.arm``, and what LDREX marks."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from typing import Any

from unicorn import arm_const
from unicorn import unicorn_const as const

from rrgdb.engine.unicorn.probes import arm, thumb
from rrgdb.engine.unicorn.probes.cpu import Cpus
from rrgdb.engine.unicorn.probes.experiments import CODE, Probe, common, found_at, missing
from rrgdb.engine.unicorn.probes.layout import Layout
from rrgdb.engine.unicorn.probes.structure import scratch

_MASKS = {"PRIMASK": (0, 1), "BASEPRI": (0, 0x40), "FAULTMASK": (0, 1)}
_STATE = {"CONTROL": (0, 1), "IPSR": (0, 5)}
"""register -> two values that differ in its lowest byte"""
_LDREX = "9f1f90e1"
"""ldrex r1, [r0]"""


def layout() -> Layout:
    found = arm.layout()
    exclusive = _exclusive()
    return replace(
        found,
        hidden={} if exclusive is None else {"exclusive": (exclusive, 8)},
        missing=found.missing + missing({"exclusive monitor": exclusive}),
    )


def _exclusive() -> int | None:
    """The address that LDREX has marked; all ones: none."""
    r0 = arm_const.UC_ARM_REG_R0
    probe = Probe(const.UC_ARCH_ARM, const.UC_MODE_ARM)
    places = []
    for address in (CODE + 0x1010, CODE + 0x1018):
        state = probe.run(_LDREX, {r0: address}, {r0: 0})
        places.append(found_at(state, address.to_bytes(8, "little")))
    return common(places)


def _scratch() -> Any:
    uc = scratch(const.UC_ARCH_ARM, const.UC_MODE_THUMB)
    uc.ctl_set_cpu_model(arm_const.UC_CPU_ARM_CORTEX_M3)
    uc.mem_map(CODE, 0x1000)
    return uc


CPUS = Cpus("Armv7-M", _scratch, tuple(arm_const.UC_ARM_REG_R0 + n for n in range(13)), 4)


@cache
def _offset(name: str) -> int:
    register, (first, second) = getattr(arm_const, f"UC_ARM_REG_{name}"), (_MASKS | _STATE)[name]
    return CPUS.offset(lambda uc, value: uc.reg_write(register, value), first, second, f"its {name}")


def find_masks(uc: Any) -> tuple[tuple[int, int], ...]:
    """(address, bytes) of PRIMASK, BASEPRI and FAULTMASK, for an engine that is not running."""
    registers = CPUS.address(uc)
    return tuple((registers + _offset(name), 1) for name in _MASKS)


def find_addresses(uc: Any) -> dict[str, int]:
    """As ``thumb.find_addresses``, and of CONTROL, FAULTMASK and the number of the exception that is handled the lowest
    bytes."""
    registers = CPUS.address(uc)
    places = {"control": "CONTROL", "number": "IPSR", "faultmask": "FAULTMASK"}
    return asdict(thumb.find_addresses(uc)) | {place: registers + _offset(name) for place, name in places.items()}
