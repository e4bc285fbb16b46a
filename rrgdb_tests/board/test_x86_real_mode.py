"""A PC whose guest goes to real mode: interrupts and exceptions through the vector table, code in another segment."""

from __future__ import annotations

import pytest

from rrgdb.arch import ARCHES
from rrgdb.board.firmware.image import load_raw
from rrgdb.board.machine import Board
from rrgdb.engine.base import ExitKind, Stops
from rrgdb.guest import End
from rrgdb_tests.engine.unicorn.rig import Saved, assemble, board_of, board_state

BASE = 0x8000
FAULTS, CALLS, STATUS = 0x500, 0x502, 0x504
# Through a 16-bit code segment to real mode at 0x800:…, with the vectors of {vectors} in place.
START = f"""
start: lgdt [{BASE} + (pointer - start)]
.byte 0xea
.long code16 - start
.word 8
.p2align 3
gdt: .quad 0, 0x00009b008000ffff, 0x000093000000ffff
pointer: .word 23
.long {BASE} + (gdt - start)
.code16
code16: mov ax, 16
mov ds, ax
mov ss, ax
mov eax, cr0
and al, 0xfe
mov cr0, eax
.byte 0xea
.word real - start, {BASE >> 4}
real: xor ax, ax
mov ds, ax
mov ss, ax
mov sp, 0x7000
"""
HANDLERS = f"""
to_fault: push bp
mov bp, sp
add word ptr [bp + 2], 2
pop bp
inc word ptr [{FAULTS}]
iret
to_call: inc word ptr [{CALLS}]
iret
"""
DEBUGGED = f"""
mov eax, {BASE} + (target - start)
mov dr0, eax
mov cx, 4
round: mov eax, 1
mov dr7, eax
nop
target: nop
loop round
hlt
to_call: xor eax, eax
mov dr7, eax
inc word ptr [{CALLS}]
iret
"""
VECTORS = {0: "to_fault", 1: "to_call", 3: "to_call", 4: "to_call", 6: "to_fault", 0x21: "to_call", 0xFF: "to_call"}
SET_UP = "".join(
    f"mov word ptr [{4 * n}], offset {handler} - start\nmov word ptr [{4 * n + 2}], {BASE >> 4}\n"
    for n, handler in VECTORS.items()
)
BODY = f"""
sti
int 0x21
int 0xff
int3
mov al, 0x7f
add al, 1
into
ud2
xor bx, bx
div bx
rdtsc
.byte 0x66, 0x0f, 0x01, 0xe1
mov [{STATUS}], ecx
pushf
pop ax
or ax, 0x100
push ax
popf
rdtsc
nop
pushf
pop ax
and ax, 0xfeff
push ax
popf
again: loop again
hlt
"""


def image(body: str) -> bytes:
    """A program that begins in protected mode at BASE."""
    handlers = HANDLERS if "to_call:" not in body else HANDLERS.replace("to_call:", "other:")
    return assemble("i386", START + SET_UP + "mov cx, 300\n" + body + handlers)


def _guest(body: str) -> Board:
    return board_of(load_raw(image(body), "test", ARCHES["i386"], BASE, None))


def _words(guest: Board) -> tuple[int, int]:
    faults, calls = (int.from_bytes(guest.engine.read_memory(at, 2), "little") for at in (FAULTS, CALLS))
    return faults, calls


def test_interrupts_and_exceptions_go_through_the_vector_table() -> None:
    guest = _guest(BODY)
    guest.run_until(1 << 40)
    assert guest.end == End("halt", 0)
    # ud2, div; int 0x21, int 0xff, int3, into, and steps behind seven instructions
    assert _words(guest) == (2, 4 + 7)
    status = int.from_bytes(guest.engine.read_memory(STATUS, 4), "little")
    assert status == guest.engine.read("cr0")
    assert guest.engine.read("cs") == BASE >> 4


@pytest.mark.parametrize("body", [BODY, DEBUGGED])
def test_steps_cuts_and_returns_agree(body: str) -> None:
    whole = _guest(body)
    whole.run_until(1 << 40)
    end = whole.engine.icount
    stepped, states = _guest(body), []
    while stepped.end is None:
        states.append((board_state(stepped), stepped.engine.pc))
        stepped.run_until(len(states))
    assert board_state(stepped) == board_state(whole)
    for icount in range(0, end, 7):
        cut = _guest(body)
        cut.run_until(icount)
        assert (board_state(cut), cut.engine.pc) == states[icount]
        saved = Saved.of(cut)
        cut.run_until(end)
        assert board_state(cut)[1] == board_state(whole)[1]
        saved.load(cut)
        assert (board_state(cut), cut.engine.pc) == states[icount]
        cut.run_until(end)
        assert board_state(cut)[1] == board_state(whole)[1]


def test_a_breakpoint_of_the_guests_own_is_hit_each_time() -> None:
    guest = _guest(DEBUGGED)
    guest.run_until(1 << 40)
    assert (guest.end, _words(guest)) == (End("halt", 0), (0, 4))
    assert guest.engine.read("dr6") & 15 == 1


def test_a_breakpoint_stands_at_a_linear_address() -> None:
    guest = _guest(BODY)
    guest.run_until(1 << 40)
    at = guest.engine.pc - 2  # the loop
    again = _guest(BODY)
    again.engine.arm(Stops(((at, None),)))
    assert again.run_until(1 << 40).kind is ExitKind.BREAKPOINT
    assert (again.engine.pc, again.engine.read("eip")) == (at, at - BASE)


def test_an_interrupt_beyond_the_table_ends_the_guest() -> None:
    guest = _guest(f"lidt [zero - start + {BASE}]\nint 0x21\nzero: .word 3\n.long 0\n")
    guest.run_until(1 << 20)
    assert guest.end == End("signal", 11)
