"""Where in a CPU's structure its registers are, for code that reads them without Unicorn's interface."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import unicorn

from rrgdb.engine.unicorn.probes.layout import Context
from rrgdb.engine.unicorn.probes.structure import scratch


@cache
def places(arch: int, mode: int, registers: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Of each (Unicorn's number, bytes): distance from the beginning of the structure to the register's value, in the
    host's byte order; -1 where it is not simply there."""
    uc = scratch(arch, mode)
    uc.reg_read(registers[0][0])  # makes the CPU
    context = Context(uc)
    found = []
    for number, size in registers:
        states = []
        values = [bytes(first + n for n in range(size)) for first in (0x11, 0x51)]
        try:
            for value in values:
                uc.reg_write(number, int.from_bytes(value, "little"))
                states.append(np.frombuffer(context.save(), dtype=np.uint8))
        except unicorn.UcError:
            found.append(-1)
            continue
        changed = np.flatnonzero(states[0] != states[1])
        at = int(changed[0]) if len(changed) else 0
        simple = len(changed) == size and all(
            s[at : at + size].tobytes() == v for s, v in zip(states, values, strict=True)
        )
        found.append(at if simple else -1)
    return tuple(found)
