"""A board as a guest: traps, exceptions, ends, and its whole state."""

from __future__ import annotations

import pytest

from rrgdb.arch import ARCHES
from rrgdb.board.boards import default_board
from rrgdb.board.firmware.image import load_raw
from rrgdb.board.machine import Board
from rrgdb.engine.base import ExitKind
from rrgdb.guest import End
from rrgdb_tests.engine.unicorn.rig import Saved, assemble, board, board_of, board_state

FAMILIES = tuple(name for name in ARCHES if name != "armv7m")
"""of which a board starts an image anywhere; the M profile has tests of its own, in ``board.mps2``"""


def raw(family: str, source: str) -> Board:
    """A board that runs a few instructions from the second MiB of its RAM."""
    entry = default_board(family).ram_base + (1 << 20)
    return board_of(load_raw(assemble(family, source), "test", ARCHES[family], entry, None))


UNDEFINED = {"riscv64": ".word 0xffffffff", "riscv32": ".word 0xffffffff", "aarch64": "udf #1", "arm": "udf #1"}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exception_without_a_handler_ends_the_guest_before_it(family: str) -> None:
    guest = raw(family, f"nop\n{UNDEFINED.get(family, 'ud2')}\nnop")
    assert guest.run_until(100).kind is ExitKind.LIMIT
    assert (guest.end, guest.engine.icount) == (End("signal", 4), 1)
    assert guest.run_until(100).kind is ExitKind.LIMIT, "an ended guest stays where it is"
    guest.resurrect()
    guest.run_until(100)
    assert (guest.end, guest.engine.icount) == (End("signal", 4), 1)


def test_hlt_with_nothing_to_wake_it_ends_the_guest() -> None:
    for family in ("i386", "x86_64"):
        guest = raw(family, "nop\nhlt\nnop")
        guest.run_until(100)
        assert (guest.end, guest.engine.icount) == (End("halt", 0), 1)


@pytest.mark.parametrize("family", ["riscv64", "riscv32", "aarch64", "arm"])
def test_wfi_goes_on_and_lets_the_host_rest(family: str) -> None:
    guest = raw(family, "nop\nwfi\nnop\nwfi\nnop\nnop")
    rests: list[int] = []
    guest.idle = lambda: rests.append(guest.engine.icount)
    assert guest.run_until(5).kind is ExitKind.LIMIT
    assert (guest.engine.icount, rests, guest.end) == (5, [1, 3], None)


@pytest.mark.parametrize("conduit", ["hvc", "smc"])
@pytest.mark.parametrize("function", [0, 0x80000000, 0x84000050, 0xC4000050, 0xFFFFFFFF])
@pytest.mark.parametrize(("family", "word"), [("aarch64", "ldr x0, ={0}"), ("arm", "ldr r0, ={0}")])
def test_a_call_that_no_firmware_knows_returns(family: str, word: str, function: int, conduit: str) -> None:
    extensions = "" if family == "aarch64" else ".arch_extension sec\n.arch_extension virt\n"
    guest = raw(family, f"{extensions}{word.format(function)}\n{conduit} #0\nnop\nnop")
    guest.run_until(3)
    assert (guest.end, guest.engine.icount) == (None, 3)
    assert guest.engine.read("x0" if family == "aarch64" else "r0") == (1 << guest.arch.bits) - 1


@pytest.mark.parametrize("family", ["aarch64", "arm"])
def test_a_call_from_user_mode_is_undefined(family: str) -> None:
    user = "mov x0, #0x3c0\nmsr spsr_el1, x0\nadr x0, 1f\nmsr elr_el1, x0\neret\n1: hvc #0"
    if family == "arm":
        user = ".arch_extension virt\ncps #0x10\nhvc #0"
    guest = raw(family, user)
    guest.run_until(100)
    assert guest.end == End("signal", 4)


@pytest.mark.parametrize("family", ["i386", "x86_64"])
def test_entering_a_handler_is_a_step_of_its_own(family: str) -> None:
    guest = board(family, "x86_trap", LOOPS=2)
    whole = board(family, "x86_trap", LOOPS=2)
    whole.run_until(1 << 40)
    entered = []
    while guest.end is None:
        pc, icount = guest.engine.read(guest.arch.pc), guest.engine.icount
        guest.run_until(icount + 1)
        assert guest.engine.icount in (icount, icount + 1)
        if guest.engine.read_memory(pc, 2) == b"\x0f\x0b":  # ud2
            entered.append((pc, guest.engine.read(guest.arch.pc)))
    assert len(entered) == 1
    assert entered[0][0] != entered[0][1]
    assert board_state(guest) == board_state(whole)


def test_a_system_call_of_a_guest_without_kernel_is_no_silent_nop() -> None:
    guest = raw("x86_64", "nop\nsyscall\nnop")
    guest.run_until(10)
    assert (guest.end, guest.engine.icount) == (End("signal", 4), 1)
    for set_up, signal in (("nop", 11), ("mov ecx, 0x174\nmov eax, 8\nxor edx, edx\nwrmsr", 12)):
        guest = raw("i386", f"{set_up}\nsysenter\nnop")
        guest.run_until(10)
        assert guest.end == End("signal", signal)


def test_random_numbers_come_through_the_host_with_the_number_of_their_instruction() -> None:
    guest = raw("x86_64", "nop\nrdrand eax\nrdrand rcx\nnop\nnop")
    asked: list[int] = []
    answer = guest.host.entropy
    guest.host.entropy = lambda source, length: (asked.append(guest.icount), answer(source, length))[1]
    guest.run_until(4)
    assert asked == [1, 2]


@pytest.mark.parametrize("family", FAMILIES)
def test_whole_boards_go_back_and_forth(family: str) -> None:
    program = {"i386": "x86_string", "x86_64": "x86_string", "aarch64": "aarch64_trap", "arm": "arm_trap"}.get(
        family, "riscv_trap"
    )
    guest = board(family, program, LOOPS=2)
    guest.run_until(1 << 40)
    end = guest.engine.icount
    last = board_state(guest)
    finished = guest.end
    guest = board(family, program, LOOPS=2)
    guest.run_until(end // 2)
    middle, saved = board_state(guest), Saved.of(guest)
    guest.run_until(1 << 40)
    assert board_state(guest) == last
    saved.load(guest)
    assert (board_state(guest), guest.end) == (middle, None)
    guest.run_until(1 << 40)
    assert (board_state(guest), guest.end) == (last, finished)


def test_damaged_device_states_are_refused() -> None:
    guest = raw("riscv64", "nop")
    state = guest.save_devices()
    for bad in (b"", state[:2], state[:-1], state + b"\0", b"\x09" + state[1:], state[:1] + b"\x77" + state[2:]):
        with pytest.raises(ValueError, match=r"board|serial0|entropy|state"):
            guest.load_devices(bad)
    guest.load_devices(state)
    assert guest.save_devices() == state
