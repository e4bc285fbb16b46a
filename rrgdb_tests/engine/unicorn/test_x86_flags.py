"""x86: the condition flags, which Unicorn computes late, do not depend on where a run was stopped."""

from __future__ import annotations

import pytest

from rrgdb.engine.base import ExitKind
from rrgdb_tests.engine.unicorn.rig import CODE, DATA, HOLE, Bench

FAMILIES = ("i386", "x86_64")
LARGE = 0xF0000000
"""what borrows from a small number without making the difference negative"""
PROGRAMS = {
    "store faults behind a comparison": f"mov esi, {HOLE}\nmov eax, 16\ncmp eax, {LARGE}\nmov [{{si}}], eax\nnop",
    "division faults": f"xor esi, esi\nmov eax, 1\nmov ebx, 3\ncmp eax, {LARGE}\nmov ecx, ebx\ndiv esi\nnop",
    "store into the running block": (
        f"mov edi, {CODE}\nmov eax, 5\nmov ecx, {LARGE}\ncmp eax, ecx\nmov byte ptr [{{di}} + 0x13], 0x90\n"
        "setc bl\nsetc bh\nseto bl\nnop\npushf\npop {dx}\nnop"
    ),
    "cmpxchg8b": (
        f"mov esi, {DATA}\nmov edi, 3\nagain:\nmov eax, 5\nsub eax, {LARGE}\nlock cmpxchg8b [{{si}}]\nsetc bl\n"
        "pushf\npop {cx}\nadd edx, ecx\ndec edi\njnz again\nnop"
    ),
    "cmpxchg8b behind a logical operation": (
        f"mov esi, {DATA}\nmov edi, 3\nagain:\nsub {{sp}}, 0x28\nadd {{sp}}, 0x28\nxor eax, eax\n"
        "lock cmpxchg8b [{si}]\npushf\npop {cx}\nadd edx, ecx\ndec edi\njnz again\nnop"
    ),
    "rep behind a comparison": (
        f"mov edi, {DATA + 0x2000}\nmov esi, {DATA + 0x1000}\nmov ecx, 4\nmov eax, 5\ncmp eax, {LARGE}\nrep movsb\n"
        "setc bl\npushf\npop {dx}\nnop"
    ),
    "pushf behind a comparison": f"mov eax, 5\ncmp eax, {LARGE}\npushf\npop {{dx}}\nsetc bl\nnop",
    "store of a condition": f"mov esi, {DATA}\nmov eax, 5\ncmp eax, {LARGE}\nsetbe [{{si}}]\npushf\npop {{dx}}\nnop",
}
STEPS = 40


def _source(family: str, name: str) -> str:
    letter = "r" if family == "x86_64" else "e"
    source = PROGRAMS[name].format(**{r: letter + r for r in ("cx", "dx", "si", "di", "sp")})
    return f"{source}\nhlt"


def _end(family: str, source: str, slices: list[int]) -> tuple[object, ...]:
    b = Bench.with_code(family, source)
    exit_ = None
    for icount in slices:
        exit_ = b.run(icount)
        if exit_.kind is not ExitKind.LIMIT:
            break
    assert exit_ is not None
    return exit_.kind, exit_.exception, b.engine.icount, hex(b.engine.read("eflags")), b.state()


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_flags_are_the_same_however_a_run_is_sliced(family: str, name: str) -> None:
    source = _source(family, name)
    steps = _end(family, source, list(range(1, STEPS)))
    assert steps[0] in (ExitKind.TRAP, ExitKind.EXCEPTION)
    for first in range(1, STEPS - 1):
        assert _end(family, source, [first, STEPS]) == steps, first


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fault_leaves_the_flags_alone(family: str) -> None:
    b = Bench.with_code(family, _source(family, "store faults behind a comparison"))
    b.to_exception()
    assert b.engine.read("eflags") == 3  # the borrow, and the bit that is always set
