"""Experiments on scratch engines that find where Unicorn keeps things.

Small programs raise known exceptions, and the saved CPU context is searched for what they must have left. Done once a
process and family.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from unicorn import unicorn_const as const

from rrgdb.engine.unicorn.probes.layout import Bound, Context, Layout
from rrgdb.engine.unicorn.probes.structure import changed, mappings, scratch

CODE = 0x10000
ENGINES = 3
"""that are compared to tell this process's values from a guest's"""


class Probe:
    """A scratch engine that runs one short program up to its exception."""

    def __init__(self, arch: int, mode: int) -> None:
        self.uc = scratch(arch, mode)
        self.uc.mem_map(CODE, 0x2000)
        self.uc.hook_add(const.UC_HOOK_INTR, lambda uc, _number, _data: uc.emu_stop())
        self.context = Context(self.uc)

    def run(self, code: str, registers: dict[int, int], clear: Iterable[int] = (), count: int = 1) -> bytes:
        """Context behind ``count`` instructions of ``code`` (hex), of which the last may raise an exception, with the
        registers ``clear`` set to 0."""
        program = bytes.fromhex(code)
        self.uc.mem_write(CODE, program)
        self.uc.ctl_flush_tb()
        for register, value in registers.items():
            self.uc.reg_write(register, value)
        self.uc.emu_start(CODE, CODE + 0x800, count=count)
        for register in clear:
            self.uc.reg_write(register, 0)
        return self.context.save()


def found_at(state: bytes, value: bytes) -> set[int]:
    """Places, multiples of 4."""
    found, at = set[int](), state.find(value)
    while at >= 0:
        if at % 4 == 0:
            found.add(at)
        at = state.find(value, at - at % 4 + 4)
    return found


def hosts(arch: int, mode: int, code: str, registers: dict[int, int], count: int = 1) -> tuple[int, ...]:
    """8-byte words that are no guest's: what differs between engines that have done the same is an address in this
    process, or its time. The values themselves say nothing: a guest's may be any."""
    probes = [Probe(arch, mode) for _ in range(ENGINES)]  # at the same time, so at different addresses
    return different([probe.run(code, registers, count=count) for probe in probes])


def different(states: list[bytes]) -> tuple[int, ...]:
    """8-byte words that are not the same in all states."""
    first, size = states[0], len(states[0]) & -8
    return tuple(sorted({at & -8 for other in states[1:] for at in changed(first[:size], other)}))


def words(first: int, shift: int, count: int) -> str:
    """Instruction words (hex) that differ in one field, which counts up from 0."""
    return b"".join(struct.pack("<I", first | n << shift) for n in range(count)).hex()


def written(context: Context, write: Callable[[int], None], values: Iterable[int], size: int) -> tuple[Bound, ...]:
    """Places of ``size`` bytes that hold each of ``values`` when ``write`` has been called with it."""
    found: set[int] | None = None
    for value in values:
        write(value)
        state, wanted = context.save(), value.to_bytes(size, "little")
        here = {at for at in range(0, len(state) - size + 1, size) if state[at : at + size] == wanted}
        found = here if found is None else found & here
    return tuple(Bound(at, size, frozenset(values)) for at in sorted(found or ()))


_ROUNDINGS = frozenset(range(6))
"""softfloat's numbers of rounding modes, also of those that only some instructions use"""


def rounding(context: Context, write: Callable[[int], None]) -> tuple[Bound, ...]:
    """Places of rounding modes; ``write`` chooses one of the four of IEEE 754."""
    states = []
    for mode in range(4):
        write(mode)
        states.append(context.save())
    places = changed(*states[:2])
    return tuple(Bound(at, 1, _ROUNDINGS) for at in places if {state[at] for state in states} == {0, 1, 2, 3})


def common(places: Iterable[set[int]]) -> int | None:
    """The one place that all have in common."""
    common = set.intersection(*places)
    return common.pop() if len(common) == 1 else None


def missing(found: dict[str, int | None]) -> tuple[str, ...]:
    return tuple(name for name, at in found.items() if at is None)


def plain_layout(arch: int, mode: int, models: Iterable[int]) -> Layout:
    """That of a family of which nothing more is known: what in fresh engines is an address of this process, or differs
    between them, is what the engine has made."""
    spans, found = mappings(), set[int]()
    for model in models:
        states = []
        engines = [scratch(arch, mode) for _ in range(ENGINES)]
        for uc in engines:
            uc.ctl_set_cpu_model(model)
            states.append(Context(uc).save())
        found.update(different(states))
        for at in range(0, len(states[0]) - 7, 8):
            value = int.from_bytes(states[0][at : at + 8], "little")
            if any(low <= value < high for low, high in spans):
                found.add(at)
    return Layout(objects=tuple(sorted(found)))
