"""x87's sines and their kind on a board: computed by rrgdb in every gear, with the stack as the guest has it."""

from __future__ import annotations

import pytest

from rrgdb.arch import ARCHES
from rrgdb.board.firmware.image import load_raw
from rrgdb.board.machine import Board
from rrgdb.guest import End
from rrgdb_tests.engine.unicorn.rig import Saved, assemble, board_of, board_state

FAMILIES = ("i386", "x86_64")
BASE, OUT = 0x100000, 0x200000
# Sums over a loop, with pushes and pops that go round the stack; each result is kept.
LOOP = """
fninit
mov ecx, 40
mov {di}, {out}
fld1
again: fld st
fsin
fld st(1)
fcos
fpatan
fld st(1)
fptan
fmulp
fld st
f2xm1
fadd st, st(1)
fld st
fstp tbyte ptr [{di}]
fyl2xp1
fstp tbyte ptr [{di} + 16]
fldpi
fld st(1)
fprem
fstp tbyte ptr [{di} + 32]
fstp st
fld st
fsincos
faddp
fstp tbyte ptr [{di} + 48]
fnstsw word ptr [{di} + 64]
fadd st, st
fld1
fld st(1)
fyl2x
fstp tbyte ptr [{di} + 80]
add {di}, 96
dec ecx
jnz again
hlt
"""


def image(family: str, source: str) -> bytes:
    """A program for BASE that writes from OUT on."""
    return assemble(family, source.format(di="rdi" if family == "x86_64" else "edi", out=OUT))


def _guest(family: str, source: str, *, fast: bool = True) -> Board:
    return board_of(load_raw(image(family, source), "test", ARCHES[family], BASE, None), fast=fast)


@pytest.mark.parametrize("family", FAMILIES)
def test_gears_steps_and_returns_agree(family: str) -> None:
    whole = _guest(family, LOOP)
    whole.run_until(1 << 40)
    end = whole.engine.icount
    assert whole.end == End("halt", 0)
    slow = _guest(family, LOOP, fast=False)
    slow.run_until(1 << 40)
    assert board_state(slow) == board_state(whole)
    cut = _guest(family, LOOP)
    for icount in range(1, end, 3):
        cut.run_until(icount)
        if icount == end // 2 - end // 2 % 3 + 1:
            saved = Saved.of(cut)
    cut.run_until(1 << 40)
    assert board_state(cut) == board_state(whole)
    saved.load(cut)
    cut.run_until(1 << 40)
    assert board_state(cut) == board_state(whole)


@pytest.mark.parametrize("family", FAMILIES)
def test_results_have_all_64_bits(family: str) -> None:
    source = "fninit\nfld1\nfsin\nmov {di}, {out}\nfstp tbyte ptr [{di}]\nfld1\nfsincos\n"
    guest = _guest(family, source + "fstp tbyte ptr [{di} + 16]\nfstp tbyte ptr [{di} + 32]\nfnstsw ax\nhlt")
    guest.run_until(1 << 40)
    sine, cosine = "3ffed76aa47848677021", "3ffe8a51407da8345c92"
    values = [guest.engine.read_memory(OUT + at, 10)[::-1].hex() for at in (0, 16, 32)]
    assert values == [sine, cosine, sine]
    assert guest.engine.read("rax" if family == "x86_64" else "eax") & 0x38FF == 0x20
    assert guest.engine.read("ftag") == 0xFFFF


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bit", [4, 8])  # EM, TS
def test_without_an_fpu_they_fault(family: str, bit: int) -> None:
    a = "rax" if family == "x86_64" else "eax"
    guest = _guest(family, f"fninit\nfld1\nmov {a}, cr0\nor {a}, {bit}\nmov cr0, {a}\nfsin\nhlt")
    guest.run_until(100)
    assert (guest.end, guest.engine.icount) == (End("signal", 8), 5)
