"""What the engine on Unicorn must know of a CPU family: names and numbers, and what Unicorn does in its own way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache
from typing import Any, Protocol

import unicorn

from rrgdb.arch.base import ExceptionKind, Protection
from rrgdb.engine.paging import ReadRegister, Translation
from rrgdb.engine.unicorn import _hot
from rrgdb.engine.unicorn.faults import FaultReader
from rrgdb.engine.unicorn.probes.experiments import plain_layout
from rrgdb.engine.unicorn.probes.layout import Context, Layout
from rrgdb.engine.unicorn.registers import Quirk, RegisterFile, RegisterId

Filters = tuple[tuple[int, int], ...]
"""(mask, value) of the first 4 bytes of an instruction, as a number in the family's byte order: ``Arch.classify`` is
asked of those that match one. Shorter instructions have zeros behind"""
Act = Callable[[RegisterFile, Context], None]
"""on a CPU that does not run"""


class Sync(Enum):
    """When the hooks may leave the CPU's state as it is, which Unicorn would bring up to date for each of them."""

    ALWAYS = auto()
    FAST = auto()
    """in an engine with the fast gear"""
    NEVER = auto()


class ProtectionTable(Protocol):
    """Unicorn's own table of protected physical memory, in a saved context."""

    def write(self, state: bytes, protections: Sequence[Protection]) -> bytes:
        """A context with these and no others."""

    def registers(self, state: bytes) -> dict[str, int]:
        """The ``Arch.kept_registers`` in contexts of the time when Unicorn kept them."""


@dataclass(frozen=True, eq=False)
class Family:
    """One family in one width. A family of which Unicorn has nothing odd needs the first six fields alone."""

    name: str
    """``Arch.name``"""
    arch: int
    mode: int
    models: Mapping[str, int]
    """``Arch.models``: Unicorn's numbers for them"""
    registers: Mapping[str, RegisterId]
    """all that are no constants, of ``Arch.registers`` and of ``Arch.system_registers``"""
    kinds: Mapping[int, ExceptionKind]
    """Unicorn's interrupt number -> what it means; the rest is NATIVE"""
    quirks: Mapping[str, Quirk] = field(default_factory=dict)
    filters: Filters = ()
    second_filters: Filters = ()
    """of ``Arch.second_set``"""
    faults: type[FaultReader] = FaultReader
    stale_pc: int = 0
    """how far behind its instruction pc stands at an interrupt, whatever that was"""
    native: str = "plain"
    """its entry in the native half: one of ``_hot.FAMILIES``"""
    places: Callable[[Any, bool], Mapping[str, int]] = lambda _uc, _bare: {}
    """(engine of Unicorn, whether a script drives it) -> what that entry must reach, by its names: Unicorn's numbers of
    registers, and addresses in this process"""
    sync: Sync = Sync.FAST
    page_size: int | None = None
    """that Unicorn is told for its TLB where the fast gear runs"""
    translation: Mapping[str, int] = field(default_factory=dict)
    """registers that decide how addresses are translated -> bits that put translation to use"""
    paging: Callable[[int, ReadRegister], Translation | None] | None = None
    """(bits of the CPU, …) -> the page tables that are in use; None: addresses are physical. Without it Unicorn looks
    them up, and may change what an access would change"""
    regime: Callable[[int], tuple[tuple[str, int], ...]] | None = None
    """address -> (register, its bits) from which, with the tables, its translation follows; hooks can read them. None:
    it is not known"""
    regime_registers: Mapping[str, int] = field(default_factory=dict)
    """registers that decide how addresses are translated, and are no different in another process -> their bits"""
    shared: Callable[[int, Sequence[int]], bool] | None = None
    """(address, the entries of page tables on the way to it) -> whether the address is translated so in all address
    spaces; None: it is not known"""
    entry: tuple[str, ...] = ()
    """registers that an exception reads and changes, as the native half has them in its list; none: it enters none"""
    code_base: tuple[str, ...] = ()
    """registers that say where pc counts from"""
    ports: tuple[int, int] | None = None
    """Unicorn's numbers of the instructions that read and write I/O ports"""
    layout: Callable[[], Layout] | None = None
    """finds what Unicorn hides; None: ``plain_layout`` does"""
    found: Callable[[_hot.Core, Context, Layout], None] | None = None
    """tells the hooks what the layout says. EngineError if they cannot do without what it lacks"""
    protection: Callable[[Layout], ProtectionTable] | None = None
    """for ``Arch.protections``"""
    check: Act | None = None
    """EngineError if no CPU can be in the state that was restored: Unicorn would look things up out of bounds"""
    masks: Callable[[Any], Sequence[tuple[int, int]]] | None = None
    """(engine of Unicorn) -> (address in this process, bytes) of what says which interrupts are masked; an instruction
    that changes it ends its block"""
    clock_ahead: str = ""
    """the kept register that says by how many ticks the guest's clock is ahead of virtual time"""
    refresh: Act | None = None
    """works out anew what Unicorn keeps outside the context that was restored, of a script's machine"""

    def number(self, name: str) -> int:
        """Unicorn's number of a register that has one of its own."""
        id_ = self.registers[name]
        if not isinstance(id_, int):
            raise TypeError(f"{self.name}: {name} is {id_}")
        return id_


@cache
def find_layout(family: Family) -> Layout:
    """Where this build of Unicorn keeps what its interface does not show of the family."""
    try:
        if family.layout is None:
            return plain_layout(family.arch, family.mode, family.models.values())
        return family.layout()
    except unicorn.UcError as e:
        return Layout(missing=(f"anything ({e})",))


def numbers(constants: Any, prefix: str, names: Iterable[str]) -> dict[str, int]:
    """Unicorn's numbers of registers that it calls as we do: ``prefix`` and the name in capitals."""
    return {name: int(getattr(constants, f"{prefix}{name.upper()}")) for name in names}
