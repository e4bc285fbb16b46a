"""No instruction may see the real host's time or entropy."""

from __future__ import annotations

import time

import pytest

from rrgdb.arch import ARCHES
from rrgdb.arch.base import Trap
from rrgdb.engine.base import ExitKind
from rrgdb_tests.engine.unicorn.rig import CODE, Bench, assemble

INSTRUCTIONS = [
    *(
        (family, f"csrr a0, {csr}", Trap.COUNTER)
        for family in ("riscv64", "riscv32")
        for csr in ("cycle", "time", "instret", "mcycle", "minstret")
    ),
    *(("riscv32", f"csrr a0, {csr}", Trap.COUNTER) for csr in ("cycleh", "timeh", "instreth", "mcycleh", "minstreth")),
    *(
        ("aarch64", f"mrs x0, {register}", Trap.COUNTER)
        for register in (
            *("cntvct_el0", "cntpct_el0", "cntv_tval_el0", "cntp_tval_el0", "cntv_ctl_el0", "cntp_ctl_el0"),
            *("cntv_cval_el0", "pmccntr_el0", "pmevcntr0_el0", "pmxevcntr_el0", "pmovsclr_el0", "pmovsset_el0"),
        )
    ),
    *(
        (family, source, Trap.COUNTER)
        for family in ("arm", "thumb")
        for source in (
            *(f"mrrc p15, {op}, r0, r1, c14" for op in range(4)),
            *(f"mrc p15, 0, r0, c14, c{timer}, {op}" for timer in (2, 3) for op in (0, 1)),
            "mrc p15, 0, r0, c9, c13, 0",
            *(f"mrc p15, 0, r0, c9, c{crm}, {op}" for crm, op in ((13, 2), (12, 3), (14, 3))),
        )
    ),
    ("aarch64", "mrs x0, rndr", Trap.ENTROPY),
    ("aarch64", "mrs x0, rndrrs", Trap.ENTROPY),
    *(
        (family, source, trap)
        for family in ("i386", "x86_64")
        for source, trap in (
            ("rdtsc", Trap.COUNTER),
            ("rdtscp", Trap.COUNTER),
            ("rdpmc", Trap.COUNTER),
            ("rdrand eax", Trap.ENTROPY),
            ("rdseed ecx", Trap.ENTROPY),
            ("rdrand dx", Trap.ENTROPY),
            (".byte 0x66, 0x3e, 0x0f, 0xc7, 0xf0", Trap.ENTROPY),
        )
    ),
    ("x86_64", "rdrand r12", Trap.ENTROPY),
    ("x86_64", ".byte 0x48, 0x0f, 0x31", Trap.COUNTER),
]


class Numbers:
    """A host of numbers that count up."""

    def __init__(self, icount: int) -> None:
        self.icount = icount

    def entropy(self, length: int) -> bytes:
        return bytes(range(1, length + 1))

    def virtual_ns(self) -> int:
        return self.icount


@pytest.mark.parametrize(("family", "source", "trap"), INSTRUCTIONS, ids=[f"{f}-{s}" for f, s, _ in INSTRUCTIONS])
def test_instructions_that_ask_the_host_are_never_executed_natively(family: str, source: str, trap: Trap) -> None:
    results = []
    for _ in range(2):
        b = Bench.with_code(family, f"nop\n{source}\nnop\nnop")
        exit_ = b.run(10)
        assert (exit_.kind, exit_.trap, b.engine.icount) == (ExitKind.TRAP, trap, 1)
        length = len(assemble(family, source))
        assert exit_.code == b.engine.read_memory(CODE + b.pc - CODE, length)
        b.engine.count_one()
        if source.rsplit(maxsplit=1)[-1] not in ("rndr", "rndrrs"):  # the default model has none
            b.engine.arch.emulate(b.engine, trap, exit_.code, Numbers(b.engine.icount))
            assert b.run(3).kind is ExitKind.LIMIT
        results.append(b.state())
        time.sleep(0.001)
    assert results[0] == results[1]


DETERMINISTIC = [
    ("i386", "cpuid"),
    ("x86_64", "mov eax, 1\ncpuid"),
    ("x86_64", "mov ecx, 0xc0000080\nrdmsr"),
    ("i386", "str ax\nsldt bx\nnop"),
    ("i386", "fldpi\nfsqrt\nfxtract\nfscale"),
    ("aarch64", "mrs x0, midr_el1\nmrs x1, ctr_el0\nmrs x2, cntfrq_el0"),
    ("arm", "mrc p15, 0, r0, c0, c0, 0\nmrc p15, 0, r1, c14, c0, 0\nmrc p15, 0, r2, c0, c0, 5"),
    ("riscv64", "csrr a0, mhartid\ncsrr a1, misa\ncsrr a2, mideleg"),
]


@pytest.mark.parametrize(("family", "source"), DETERMINISTIC, ids=[f"{f}-{s.split()[-1]}" for f, s in DETERMINISTIC])
def test_other_instructions_about_the_machine_answer_alike(family: str, source: str) -> None:
    states = set()
    for _ in range(3):
        b = Bench.with_code(family, f"{source}\n" + "nop\n" * 4)
        exit_ = b.run(4)
        assert exit_.kind is ExitKind.LIMIT
        states.add(b.state())
        time.sleep(0.001)
    assert len(states) == 1


@pytest.mark.parametrize("family", ["i386", "x86_64"])
def test_the_time_stamp_counter_by_msr_is_no_host_time(family: str) -> None:
    values = set()
    for _ in range(3):
        b = Bench.with_code(family, "mov ecx, 0x10\nrdmsr\nnop\nnop")
        exit_ = b.run(3)
        if exit_.kind is ExitKind.TRAP:
            return
        values.add(b.engine.registers_digest())
        time.sleep(0.001)
    assert len(values) == 1


def test_every_family_has_been_thought_of() -> None:
    # The M profile has Thumb's instructions.
    assert {family for family, _, _ in INSTRUCTIONS} | {"armv7m"} == {*ARCHES, "thumb"}
