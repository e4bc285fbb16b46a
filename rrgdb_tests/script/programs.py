"""One script for every family: a device behind a hook, system calls done in Python, pokes between two runs."""

from __future__ import annotations

from typing import Any

from unicorn import unicorn_const as const

from rrgdb_tests.script.rig import CODE, DATA, DEVICE, PAGE, Trace, assemble, register

# Reads the device, keeps what it reads, makes a system call with it, ten times.
LOOP = {
    "x86_64": "mov $10,%ebx; 1: mov 0x300000,%eax; mov %eax,0x200000(,%rbx,4); int $0x80; mov %eax,0x300004; "
    "dec %ebx; jnz 1b; nop",
    "i386": "mov $10,%ebx; 1: mov 0x300000,%eax; mov %eax,0x200000(,%ebx,4); int $0x80; mov %eax,0x300004; "
    "dec %ebx; jnz 1b; nop",
    "aarch64": "mov x1,#10; mov x2,#0x300000; mov x3,#0x200000; 1: ldr w0,[x2]; str w0,[x3,x1,lsl #2]; svc #0; "
    "str w0,[x2,#4]; subs x1,x1,#1; b.ne 1b; nop",
    "arm": "mov r1,#10; mov r2,#0x300000; mov r3,#0x200000; 1: ldr r0,[r2]; str r0,[r3,r1,lsl #2]; svc #0; "
    "str r0,[r2,#4]; subs r1,r1,#1; bne 1b; nop",
    "riscv64": "li s1,10; li s2,0x300000; li s3,0x200000; 1: lw a0,0(s2); sw a0,0(s3); addi s3,s3,4; ecall; "
    "sw a0,4(s2); addi s1,s1,-1; bnez s1,1b; nop",
}
LOOP["riscv32"] = LOOP["riscv64"]
ACCUMULATOR = {"x86_64": "rax", "i386": "eax", "aarch64": "x0", "arm": "r0", "riscv64": "a0", "riscv32": "a0"}


class Uart:
    """Hands out bytes that only it knows, and keeps what it is sent."""

    def __init__(self) -> None:
        self.given = 0
        self.sent: list[int] = []

    def read(self, _uc: Any, offset: int, _size: int, _data: Any) -> int:
        assert offset == 0
        self.given += 1
        return self.given * 0x1234567 & 0x7FFFFFFF

    def write(self, _uc: Any, offset: int, _size: int, value: int, _data: Any) -> None:
        assert offset == 4
        self.sent.append(value)


def run(uc: Any, arch: str, trace: Trace) -> tuple[Any, ...]:
    """The script; returns everything that it can see at its end."""
    program = assemble(arch, LOOP[arch])
    uart, calls = Uart(), []
    accumulator = register(arch, ACCUMULATOR[arch])
    uc.mem_map(CODE, PAGE)
    uc.mem_map(DATA, PAGE)
    uc.mem_write(CODE, program)
    uc.mmio_map(DEVICE, PAGE, uart.read, None, uart.write, None)

    def system_call(uc: Any, _number: int, _data: Any) -> None:
        value = uc.reg_read(accumulator)
        calls.append(value)
        uc.mem_write(DATA + 0x800, b"call %8d" % len(calls))
        uc.reg_write(accumulator, (value ^ 0x55) & 0x7FFFFFFF)

    uc.hook_add(const.UC_HOOK_INTR, system_call)
    uc.hook_add(const.UC_HOOK_CODE, trace)
    uc.emu_start(CODE, CODE + len(program))
    uc.mem_write(DATA + 0x900, b"between")
    uc.reg_write(accumulator, 77)
    uc.emu_start(CODE, CODE + len(program))
    return uart.given, uart.sent, calls, uc.reg_read(accumulator), bytes(uc.mem_read(DATA, PAGE)), list(trace.pcs)
