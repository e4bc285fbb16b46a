"""Interrupts come at the same position in every gear, from wherever a run was begun; and sleep passes virtual time."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from rrgdb.arch import ARCHES
from rrgdb.board.boards import default_board
from rrgdb.board.device import Machine
from rrgdb.board.devices.state import Field, StatefulDevice
from rrgdb.board.firmware.image import load_raw, place_image
from rrgdb.board.machine import Board
from rrgdb.board.spec import BoardSpec, Clock, Placement
from rrgdb.engine.memory import Ram
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb_tests.board.fakes import FakeHost
from rrgdb_tests.engine.unicorn.rig import BOARD_RAM, assemble, goes_every_way, stepped
from rrgdb_tests.guests import arch_name

PULSES = {"riscv": 0x10202000, "arm": 0x0B003000, "aarch64": 0x0B003000}
LENGTH = 3000
SAMPLE = 40
INPUTS = {"riscv": ("meip", "seip"), "arm": ("irq", "fiq"), "aarch64": ("irq", "fiq")}


class Pulse(StatefulDevice):
    """0x0: period in virtual nanoseconds; 0x4: lower the inputs. Each time the one or the other input of the CPU is
    raised."""

    FIELDS = (Field("period", 32), Field("count", 32))

    period: int
    count: int
    inputs: tuple[str, str]

    def __init__(self, name: str, machine: Machine) -> None:
        self._timer = machine.timer(name, self._raise)
        super().__init__(name, machine)

    def reset(self) -> None:
        super().reset()
        self._timer.cancel()

    def _raise(self, due: int) -> None:
        self.count += 1
        self.machine.interrupt(self.inputs[self.count % 3 == 0], level=True)
        self._timer.at(due + self.period)

    def read(self, offset: int, size: int) -> int:
        return self.count

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == 0:
            self.period = value
            self._timer.at(self.machine.virtual_ns() + value)
        elif offset == 8:
            self.machine.restart()
        else:
            for line in self.inputs:
                self.machine.interrupt(line, level=False)


RISCV_MACHINE = """
    li t0, 0x80000200
    csrw mtvec, t0
    li t0, 0xa00
    csrw mie, t0
    li s0, 0x10202000
    li t0, 61
    sw t0, 0(s0)
1:  csrsi mstatus, 8
    addi s1, s1, 1
    mul s2, s1, s1
    csrci mstatus, 8
    xor s3, s3, s2
    csrr t3, mip
    add s6, s6, t3
    andi t1, s1, 15
    bnez t1, 1b
    wfi
    j 1b
    .org 0x200
    csrr t1, mepc
    xor s5, s5, t1
    csrr t2, mcause
    add s6, s6, t2
    addi s4, s4, 1
    sw zero, 4(s0)
    mret
"""
RISCV_SUPERVISOR = """
    li t0, 0x80000200
    csrw stvec, t0
    li t0, 0x80000300
    csrw mtvec, t0
    li t0, 0xa02
    csrw mie, t0
    li t0, 0x202
    csrw mideleg, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    li t0, -1
    csrw pmpaddr0, t0
    li t0, 0x800
    csrs mstatus, t0
    auipc t0, 0
    addi t0, t0, 28
    csrw mepc, t0
    li s0, 0x10202000
    li t0, 61
    sw t0, 0(s0)
    mret
0:  csrsi sstatus, 2
    addi s1, s1, 1
    mul s2, s1, s1
    csrci sstatus, 2
    andi t1, s1, 7
    bnez t1, 0b
    csrsi sip, 2
    andi t1, s1, 31
    bnez t1, 0b
    wfi
    j 0b
    .org 0x200
    csrr t1, sepc
    xor s5, s5, t1
    csrr t2, scause
    add s6, s6, t2
    csrci sip, 2
    sw zero, 4(s0)
    sret
    .org 0x300
    csrr t1, mepc
    xor s7, s7, t1
    csrr t2, mip
    add s8, s8, t2
    sw zero, 4(s0)
    mret
"""
AARCH64 = """
    adr x0, vectors
    msr vbar_el1, x0
    mov x20, #0x0b000000
    movk x20, #0x3000
    mov w0, #61
    str w0, [x20]
1:  msr daifclr, #3
    add x1, x1, #1
    mul x2, x1, x1
    msr daifset, #2
    eor x3, x3, x2
    add x3, x3, x2
    msr daifset, #1
    eor x3, x3, x2
    tst x1, #15
    b.ne 1b
    wfi
    b 1b
    .balign 2048
vectors:
    .space 0x280
    mrs x9, elr_el1
    add x11, x11, x9
    mrs x9, spsr_el1
    eor x12, x12, x9
    add x13, x13, #1
    str wzr, [x20, #4]
    eret
    .balign 128
    add x14, x14, #1
    str wzr, [x20, #4]
    eret
"""
ARM = """
    adr r0, vectors
    mcr p15, 0, r0, c12, c0, 0
    movw r8, #0x3000
    movt r8, #0x0b00
    mov r0, #61
    str r0, [r8]
    mov r1, #0
1:  cpsie if
    add r1, r1, #1
    mul r2, r1, r1
    cpsid i
    eors r3, r3, r2
    it ne
    addne r3, r3, r2
    cpsid f
    eor r3, r3, r2
    tst r1, #15
    bne 1b
    wfi
    b 1b
    .balign 32
vectors:
    .space 24
    b.w irq
    b.w irq
irq:
    add r4, r4, r14
    mrs r5, spsr
    eor r6, r6, r5
    mov r7, #0
    movw r9, #0x3000
    movt r9, #0x0b00
    str r7, [r9, #4]
    subs pc, lr, #4
"""
# What unmasks goes on where nothing can be fetched: which of the two comes first does not depend on where a run ends.
RISCV_NOWHERE = """
    li t0, 0x80000200
    csrw mtvec, t0
    li t0, 0xa00
    csrw mie, t0
    li s0, 0x10202000
    li t0, 61
    sw t0, 0(s0)
    li s7, 0x30000000
    li s8, 0x1880
1:  csrw mepc, s7
    csrs mstatus, s8
    addi s1, s1, 1
    mul s2, s1, s1
    mret
    .org 0x200
    csrr t1, mepc
    xor s5, s5, t1
    csrr t2, mcause
    add s6, s6, t2
    bgez t2, 1b
    sw zero, 4(s0)
    mret
"""
AARCH64_NOWHERE = """
    adr x0, vectors
    msr vbar_el1, x0
    mov x20, #0x0b000000
    movk x20, #0x3000
    mov w0, #61
    str w0, [x20]
    mov x21, #0x30000000
    mov x22, #5
1:  msr elr_el1, x21
    msr spsr_el1, x22
    add x1, x1, #1
    mul x2, x1, x1
    eret
    .balign 2048
vectors:
    .space 0x200
    mrs x9, esr_el1
    add x11, x11, x9
    b 1b
    .balign 128
    mrs x9, elr_el1
    add x12, x12, x9
    str wzr, [x20, #4]
    eret
    .balign 128
    add x14, x14, #1
    str wzr, [x20, #4]
    eret
"""
ARM_NOWHERE = """
    adr r0, vectors
    mcr p15, 0, r0, c12, c0, 0
    movw r8, #0x3000
    movt r8, #0x0b00
    mov r0, #61
    str r0, [r8]
    mov r1, #0
    mov r7, #0
    mov r10, #0x30000000
    mov r11, #0x13
1:  mov lr, r10
    msr spsr_cxsf, r11
    add r1, r1, #1
    mul r2, r1, r1
    subs pc, lr, #0
    .balign 32
vectors:
    .space 12
    b.w abort
    .space 8
    b.w irq
    b.w irq
abort:
    add r4, r4, r14
    cpsid if, #0x13
    b 1b
irq:
    add r5, r5, r14
    movw r9, #0x3000
    movt r9, #0x0b00
    str r7, [r9, #4]
    subs pc, lr, #4
"""
PROGRAMS = [
    ("riscv64", RISCV_NOWHERE),
    ("riscv32", RISCV_NOWHERE),
    ("aarch64", AARCH64_NOWHERE),
    ("arm", ARM_NOWHERE.replace("b.w", "b")),
    ("thumb", f".thumb\n{ARM_NOWHERE.replace('mov r7, #0', 'movs r7, #0').replace('r11, #0x13', 'r11, #0x33')}"),
    ("riscv64", RISCV_MACHINE),
    ("riscv32", RISCV_MACHINE),
    ("riscv64", RISCV_SUPERVISOR),
    ("riscv32", RISCV_SUPERVISOR),
    ("aarch64", AARCH64),
    ("arm", ARM.replace("b.w", "b")),
    ("thumb", f".thumb\n{ARM.replace('mov r7, #0', 'movs r7, #0')}"),
]


def pulsed(arch: str, **changes: object) -> BoardSpec:
    kind = arch.rstrip("3264") if arch.startswith("riscv") else arch
    device = type("TestedPulse", (Pulse,), {"inputs": INPUTS[kind]})
    spec = default_board(arch)
    place = Placement(device, "pulse", PULSES[kind], 0x1000)
    return replace(spec, placements=(*spec.placements, place), sleeps=True, restarts=True, **changes)  # type: ignore[arg-type]


def machine(family: str, program: str, *, fast: bool = True, clock: Clock = Clock(sleep=False)) -> Board:  # noqa: B008
    spec = pulsed(arch_name(family))
    thumb = family == "thumb"
    if thumb:
        # Exceptions are entered in Thumb state: SCTLR.TE.
        program = program.replace(
            "    adr r0, vectors",
            "    mrc p15,0,r0,c1,c0,0\n orr r0,r0,#0x40000000\n mcr p15,0,r0,c1,c0,0\n adr r0, vectors",
            1,
        )
    image = load_raw(assemble(family, program), "program", ARCHES[arch_name(family)], spec.ram_base, spec.ram_base)
    placed = place_image(image, spec, spec.ram(BOARD_RAM))
    placed = replace(placed, entry=placed.entry | thumb)
    return Board(
        spec, UnicornEngine(placed.arch, Ram(spec.memory_bytes(placed.ram)), fast=fast), placed, FakeHost(), clock=clock
    )


@pytest.mark.parametrize(("family", "program"), PROGRAMS)
def test_interrupts_come_at_the_same_position_every_way(family: str, program: str) -> None:
    guest = machine(family, program, fast=False)
    states, saved = stepped(guest, LENGTH)
    assert guest.end is None
    assert len({state[1] for state in states}) > LENGTH // 2
    taken = sum(device.count for device in guest.devices if isinstance(device, Pulse))
    assert taken > 20
    goes_every_way(lambda fast: machine(family, program, fast=fast), states, saved, SAMPLE, random.Random(family))
