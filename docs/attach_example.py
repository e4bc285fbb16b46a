"""A Unicorn script with a UART behind a Python hook and a system call done in Python.

usage: attach_example.py [ADDRESS]      ADDRESS: where gdb may connect, e.g. :1234
"""

import sys

from unicorn import UC_ARCH_X86, UC_HOOK_INTR, UC_MODE_64, Uc, UcError
from unicorn.x86_const import UC_X86_REG_RSI

import rrgdb

CODE, DATA, UART = 0x100000, 0x200000, 0x300000
PROGRAM = bytes.fromhex(
    "bf00002000"  # 0x100000  mov edi, 0x200000         the buffer
    "8b042500003000"  # 0x100005  mov eax, [0x300000]       the next byte of the UART
    "8807"  # 0x10000c  mov [rdi], al             … goes into the buffer, however long the line is
    "48ffc7"  # 0x10000e  inc rdi
    "84c0"  # 0x100011  test al, al
    "75f0"  # 0x100013  jne 0x100005
    "488b342510002000"  # 0x100015  mov rsi, [0x200010]       the message to say: this pointer is behind the buffer
    "8a16"  # 0x10001d  mov dl, [rsi]
    "cd80"  # 0x10001f  int 0x80                  say it
    "90"
)


class Uart:
    """What the program reads from it, nobody but this script knows."""

    def __init__(self):
        self.waiting = []

    def feed(self, line):
        self.waiting += [*line, 0]

    def read(self, uc, offset, size, data):
        return self.waiting.pop(0)


def system_call(uc, number, data):
    text = bytes(uc.mem_read(uc.reg_read(UC_X86_REG_RSI), 16)).split(b"\0")[0]
    print(f"the program says: {text.decode()}")


uc = Uc(UC_ARCH_X86, UC_MODE_64)
session = rrgdb.attach(uc, serve=sys.argv[1] if len(sys.argv) > 1 else None)

uart = Uart()
uc.mem_map(CODE, 0x1000)
uc.mem_map(DATA, 0x1000)
uc.mmio_map(UART, 0x1000, uart.read, None, None, None)
uc.hook_add(UC_HOOK_INTR, system_call)
uc.mem_write(CODE, PROGRAM)
uc.mem_write(DATA + 0x40, b"thank you\0")

for line in (b"short", b"a line that is too long"):
    uart.feed(line)
    uc.mem_write(DATA + 0x10, (DATA + 0x40).to_bytes(8, "little"))
    try:
        uc.emu_start(CODE, CODE + len(PROGRAM))
    except UcError as error:
        print(f"{line.decode()!r}: {error}")
print(f"recorded in {session.path.name}")
