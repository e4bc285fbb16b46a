"""Behaviour: the number of what guests compute. Each change of it has a number of its own, so that a recording whose
replay goes another way can be told from a damaged one."""

from __future__ import annotations

from dataclasses import dataclass

from rrgdb.recording.manifest import Manifest

BEHAVIOUR = 3
"""of this rrgdb"""


@dataclass(frozen=True, slots=True)
class Change:
    """What is otherwise ``since`` a number, on guests whose CPU (``Arch.name``) is one of ``arches``; ``text`` is a
    clause of a sentence."""

    since: int
    arches: tuple[str, ...]
    text: str


CHANGES = (
    Change(3, ("riscv32", "riscv64"), "interrupts of supervisor mode are steps of their own"),
    Change(2, ("riscv32", "riscv64"), "PMP is enforced"),
    Change(2, ("i386", "x86_64"), "x87 functions have all their bits, and real mode, RF and debug registers work"),
    Change(2, ("arm", "aarch64"), "performance monitors and unknown calls to the firmware answer otherwise"),
)
"""The most important one stands for all of a number: docs/formats.md lists them."""


def difference(manifest: Manifest, arch: str) -> str:
    """Why a replay may go another way than the recording did, in one clause; empty where there is no reason."""
    recorded = manifest.behaviour
    if recorded == BEHAVIOUR:
        return ""
    made = f"recorded with behaviour {recorded} (rrgdb {manifest.rrgdb})"
    if recorded > BEHAVIOUR:
        return f"{made}, this rrgdb has {BEHAVIOUR}"
    known = [f"{c.text} since {c.since}" for c in CHANGES if c.since > recorded and arch in c.arches]
    return "; ".join((made, *known))
