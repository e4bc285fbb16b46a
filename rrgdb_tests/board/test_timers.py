"""Timers and interrupt lines of a board: what runs out does so at its position, wherever the guest is stopped."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrgdb.arch import ARCHES as FAMILIES
from rrgdb.board.boards import board_of as board_in
from rrgdb.board.firmware.image import Image, load_image, load_raw
from rrgdb.board.lines import MAX_LINES, Lines
from rrgdb.board.machine import Board
from rrgdb.board.spec import BoardSpec
from rrgdb.board.timers import NEVER, Timer, Timers
from rrgdb.engine.base import ExitKind, Stops, Watch
from rrgdb.guest import End
from rrgdb_tests.board.toy import LINE, Toy, toy_board
from rrgdb_tests.engine.unicorn.rig import BOARD_RAM, Saved, assemble, board_of, board_state
from rrgdb_tests.guests import ARCHES, AWKWARD, arch_name, build
from rrgdb_tests.timeline.oracle import symbol

# Periods below and above the distance at which the fast gear is worth its switch; with 1 something runs out behind each
# instruction, traps included.
PERIODS = (1, 3, 97, 700)


@cache
def image_of(family: str, period: int) -> tuple[Image, int]:
    """The guest ``timers``, and where the toy writes."""
    path = build(family, "timers", {"PERIOD": period, "LOOPS": 120})
    return load_image(path.read_bytes(), path.name), symbol(path, "ticked")


def board(family: str, period: int, *, fast: bool = True) -> Board:
    return board_of(image_of(family, period)[0], toy_board(arch_name(family)), fast=fast)


def toy_of(guest: Board) -> Toy:
    return next(device for device in guest.devices if isinstance(device, Toy))


@cache
def straight(family: str, period: int) -> tuple[tuple[tuple[int, str, str], bytes], ...]:
    """State and what the toy has written, at each position; one instruction at a time, in the slow gear."""
    guest = board(family, period, fast=False)
    where = image_of(family, period)[1]
    states = []
    while True:
        before = guest.engine.icount
        states.append((board_state(guest), guest.engine.read_memory(where, 64)))
        guest.run_until(before + 1)
        if guest.engine.icount == before:
            break
        assert guest.engine.icount == before + 1
    assert guest.end is not None
    return tuple(states)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "slow"])
@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("family", ARCHES)
def test_wherever_a_run_stops_the_state_is_that_of_the_position(family: str, period: int, fast: bool) -> None:
    states = straight(family, period)
    random = Random(f"{family} {period} {fast}")
    for longest in (7, 400, 1 << 40):
        guest = board(family, period, fast=fast)
        while guest.end is None:
            target = guest.engine.icount + random.randint(1, longest)
            if random.random() < 0.1:
                guest.engine.interrupt()
            exit_ = guest.run_until(target)
            if exit_.kind is ExitKind.INTERRUPT:
                guest.engine.clear_interrupt()
            else:
                assert guest.end is not None or guest.engine.icount == target
            assert board_state(guest) == states[guest.engine.icount][0]
        assert guest.engine.icount == len(states) - 1
        fired = toy_of(guest).fired
        assert len(fired) > 3
        assert all(due == now for _, due, now in fired)
        if period in (3, 97):
            assert any(a[1] == b[1] for a, b in pairwise(fired)), "none at the same time"
        assert all(a[0] == "tick" for a, b in pairwise(fired) if a[1] == b[1])


def _ticking(family: str, program: str, *, fast: bool) -> tuple[Board, list[int]]:
    """A guest beside which a timer runs out every 37 ns and counts in RAM; and the positions where it did."""
    guest = board_of(image_of_program(family, program), fast=fast)
    where = guest.spec.ram(BOARD_RAM).regions[-1][0] + 0x2F0000
    seen: list[int] = []

    def tick(due: int) -> None:
        seen.append(guest.engine.icount)
        guest.write_physical(where, len(seen).to_bytes(4, "little"))
        timer.at(due + 37)

    timer = guest.timer("t", tick)
    timer.at(37)
    return guest, seen


def image_of_program(family: str, program: str) -> Image:
    return load_image(build(family, program, {"LOOPS": 2}).read_bytes(), program)


@pytest.mark.parametrize(("family", "program"), [(f, p) for f in ARCHES for p in AWKWARD[f] if p != "x86_string"])
def test_timers_run_out_behind_traps_exceptions_and_what_else_is_hard_to_count(family: str, program: str) -> None:
    straight, expected = _ticking(family, program, fast=True)
    straight.run_until(1 << 40)
    end = straight.engine.icount
    assert expected == list(range(37, end + (straight.end == End("signal", 4)), 37))
    for fast in (True, False):
        random = Random(f"{family} {program} {fast}")
        guest, seen = _ticking(family, program, fast=fast)
        while guest.end is None:
            target = guest.engine.icount + random.choice((1, 36, 37, 38, 74, 5000))
            guest.run_until(target)
            assert guest.end is not None or guest.engine.icount == target
        assert seen == expected
        assert board_state(guest) == board_state(straight)


@pytest.mark.parametrize("family", ARCHES)
def test_timers_are_saved_and_loaded(family: str) -> None:
    states = straight(family, 97)
    random = Random(family)
    guest = board(family, 97)
    kept: dict[int, tuple[Saved, int]] = {}
    while guest.end is None:
        guest.run_until(guest.engine.icount + random.randint(1, 900))
        kept[guest.engine.icount] = Saved.of(guest), guest.host.random
    for icount in random.sample(sorted(kept), len(kept)):
        saved, asked = kept[icount]
        saved.load(guest)
        guest.host.random = asked
        assert board_state(guest) == states[icount][0]
        while guest.end is None and random.random() < 0.9:
            guest.run_until(guest.engine.icount + random.randint(1, 300))
            assert board_state(guest) == states[guest.engine.icount][0]


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "slow"])
@pytest.mark.parametrize("family", ARCHES)
def test_a_watch_stops_where_a_timer_has_written(family: str, fast: bool) -> None:
    """Behind the instruction that the timer belongs to, whether the run was to end there or not."""
    states = straight(family, 97)
    where = image_of(family, 97)[1]
    changes = [i + 1 for i in range(len(states) - 1) if states[i][1][:4] != states[i + 1][1][:4]]
    assert len(changes) > 10
    for exactly in (False, True):
        guest = board(family, 97, fast=fast)
        stops = Stops(watches=(Watch(where, 4, "w"),))
        for change in changes:
            guest.engine.arm(stops, guest.engine.icount)
            exit_ = guest.run_until(change if exactly else 1 << 40)
            assert (exit_.kind, guest.engine.icount) == (ExitKind.WATCHPOINT, change)
            assert [(hit.old, hit.new) for hit in exit_.hits] == [(states[change - 1][1][:4], states[change][1][:4])]
            assert board_state(guest) == states[change][0]
        guest.run_until(1 << 40)
        assert guest.end is not None


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "slow"])
@pytest.mark.parametrize("family", ARCHES)
def test_a_breakpoint_stops_behind_what_a_timer_does_there(family: str, fast: bool) -> None:
    states = straight(family, 3)
    guest = board(family, 3, fast=fast)
    pcs = []
    while guest.end is None:
        pcs.append(guest.engine.pc)
        guest.run_until(guest.engine.icount + 1)
    chosen = set(Random(family).sample(sorted(set(pcs[500:])), 5))
    guest = board(family, 3, fast=fast)
    stops = Stops(tuple((pc, None) for pc in chosen))
    for position in [i for i, pc in enumerate(pcs) if pc in chosen and i]:
        guest.engine.arm(stops, guest.engine.icount)
        assert guest.run_until(1 << 40).kind is ExitKind.BREAKPOINT
        assert board_state(guest) == states[position][0]


def quiet() -> BoardSpec:
    """A revision without an interrupt controller, which would hear of all lines."""
    spec = board_in("riscv64-virt", 2)
    assert spec is not None
    return spec


def nops(source: str = "1: j 1b") -> Board:
    """A board that runs 20 plain instructions and then ``source``."""
    image = load_raw(assemble("riscv64", "addi a0, a0, 1\n" * 20 + source), "test", FAMILIES["riscv64"], 0x80000000)
    return board_of(image, replace(quiet(), lines=8))


def test_what_is_set_for_now_runs_out_behind_the_next_instruction() -> None:
    guest = nops()
    seen: list[tuple[int, int]] = []
    timer = guest.timer("t", lambda due: seen.append((due, guest.virtual_ns())))
    guest.run_until(5)
    for when in (5, 3, -7):
        at = guest.engine.icount
        timer.at(when)
        guest.run_until(at)
        guest.engine.interrupt()
        assert guest.run_until(at + 3).kind is ExitKind.INTERRUPT
        guest.engine.clear_interrupt()
        assert seen == [], "no instruction has retired"
        guest.run_until(at + 3)
        assert seen == [(max(when, 0), at + 1)]
        seen.clear()


def test_a_timer_set_again_in_its_own_call_waits_for_the_next_instruction() -> None:
    guest = nops()
    seen: list[int] = []

    def again(due: int) -> None:
        seen.append(guest.virtual_ns())
        timer.at(due)

    timer = guest.timer("t", again)
    timer.at(3)
    guest.run_until(7)
    assert seen == [3, 4, 5, 6, 7]
    timer.cancel()
    timer.cancel()
    guest.run_until(12)
    assert (len(seen), timer.when) == (5, None)


def test_a_run_goes_on_where_a_timer_has_been_cancelled_meanwhile() -> None:
    guest = nops("li t0, 0x10000000\n1: sb a0, 0(t0)\nj 1b")
    timer = guest.timer("t", lambda _due: pytest.fail("it was cancelled"))
    host_output = guest.host.output

    def output(source: str, data: bytes) -> None:
        timer.at(guest.virtual_ns() + 3)
        timer.cancel()
        host_output(source, data)

    guest.host.output = output
    assert guest.run_until(60).kind is ExitKind.LIMIT
    assert guest.engine.icount == 60


@pytest.mark.parametrize(
    ("source", "last"),
    [("li t0, 0x100000\nli t1, 0x5555\nsw t1, 0(t0)\n1: j 1b", 0), ("li t0, 7\n.4byte 0", 1)],
    ids=["power off", "undefined"],
)
def test_the_end_of_the_guest_is_the_end_of_its_timers(source: str, last: int) -> None:
    """An instruction that ends the guest on purpose has retired, behind it nothing runs out; one that kills it has not,
    and what was to happen before it has."""
    guest = nops(source)
    guest.run_until(1000)
    end = guest.engine.icount
    guest = nops(source)
    seen: list[int] = []
    for i in range(3):
        guest.timer(f"t{i}", seen.append).at(end - 1 + i)
    guest.run_until(1000)
    assert guest.end is not None
    assert (guest.engine.icount, seen) == (end, [end - 1, end][: 1 + last])


def test_a_timer_can_end_the_guest() -> None:
    guest = nops()
    seen: list[int] = []
    first, second, third = (guest.timer(name, seen.append) for name in "abc")
    second.callback = lambda _due: guest.power_off(3)
    for timer in (third, second, first):
        timer.at(9)
    assert guest.run_until(1000).kind is ExitKind.LIMIT
    assert (guest.end, guest.engine.icount, seen, third.when) == (End("exit", 3), 9, [9], 9)


def test_timers_run_out_by_time_and_then_in_the_order_in_which_they_were_made() -> None:
    sooner: list[int] = []
    timers = Timers(sooner.append)
    seen: list[tuple[str, int]] = []

    def call(name: str, then: Callable[[], None] = lambda: None) -> Timer:
        return timers.add(name, lambda due: (seen.append((name, due)), then())[0])

    a = call("a", lambda: (b.cancel(), c.at(40), e.at(9))[0])
    b, c, d, e = (call(name) for name in "bcde")
    for timer, when in ((e, 9), (d, 10), (c, 10), (b, 10), (a, 5)):
        timer.at(when)
    assert (timers.next, sooner) == (5, [9, 5])
    assert timers.run_out(10, lambda: False)
    assert seen == [("a", 5), ("e", 9), ("d", 10)]
    assert (timers.next, c.when) == (40, 40)
    assert not timers.run_out(39, lambda: False)
    c.at(NEVER)
    assert (timers.next, c.when) == (NEVER, None)
    with pytest.raises(ValueError, match="timer 'a': expected a name of its own"):
        timers.add("a", lambda _due: None)
    with pytest.raises(ValueError, match="of 1 to 64 bytes"):
        timers.add("x" * 65, lambda _due: None)


def test_the_state_is_of_version_1_while_nothing_is_raised_or_set() -> None:
    guest = nops()
    plain = guest.save_devices()
    assert plain[0] == 1
    timers = [guest.timer(name, lambda _due: None) for name in ("b", "a")]
    assert guest.save_devices() == plain, "that there are timers is no state"
    states = []
    for set_up in (
        lambda: guest.irq(3, True),
        lambda: timers[0].at(1 << 40),
        lambda: timers[1].at(7),
        lambda: guest.irq(0, True),
    ):
        set_up()
        states.append(guest.save_devices())
    assert states[-1][0] == 2
    assert states[-1][1 : len(plain)] == plain[1:]
    lines, first, second = struct.pack("<HH", 0, 3), b"\1b" + (1 << 40).to_bytes(8, "little"), b"\1a" + b"\7" + bytes(7)
    assert states[-1][len(plain) :] == struct.pack("<I", 4) + lines + struct.pack("<I", 20) + first + second
    assert len(set(states)) == 4
    for state in (*reversed(states), plain, *states):
        guest.load_devices(state)
        assert guest.save_devices() == state
        assert (guest.is_raised(3), timers[0].when) == (state[0] == 2, None if state in (plain, states[0]) else 1 << 40)
    for line in (0, 3):
        guest.irq(line, False)
    for timer in timers:
        timer.cancel()
    assert guest.save_devices() == plain, "however it was come to"


def _tail(lines: bytes, timers: bytes) -> bytes:
    return struct.pack("<I", len(lines)) + lines + struct.pack("<I", len(timers)) + timers


_B, _A = b"\1b" + bytes(8), b"\1a" + bytes(8)


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        _tail(b"", b""),
        _tail(b"\1", b""),
        _tail(struct.pack("<H", 8), b""),
        _tail(struct.pack("<HH", 3, 3), b""),
        _tail(struct.pack("<HH", 3, 1), b""),
        _tail(b"\0" * 2000, b""),
        _tail(b"", _A + _B),
        _tail(b"", _A + _A),
        _tail(b"", _B + _A[:-1]),
        _tail(b"", _B + b"\xff"),
        _tail(b"", b"\0" + bytes(8)),
        _tail(b"", b"\1c" + bytes(8)),
        _tail(b"", b"\2\xff\xfe" + bytes(8)),
        _tail(b"", _B) + b"\0",
        _tail(b"", _B)[:-1],
        b"\xff\xff\xff\xff" + bytes(40),
    ],
)
def test_hostile_states_are_refused(tail: bytes) -> None:
    guest = nops()
    for name in "ba":
        guest.timer(name, lambda _due: None)
    plain = guest.save_devices()
    with pytest.raises(ValueError, match=r"board|interrupt lines|timers"):
        guest.load_devices(b"\2" + plain[1:] + tail)
    assert guest.save_devices() == plain
    with pytest.raises(ValueError, match="board"):
        guest.load_devices(b"\3" + plain[1:] + tail)


@settings(max_examples=200, deadline=None)
@given(lines=st.binary(max_size=20), times=st.binary(max_size=40))
def test_any_bytes_are_a_state_or_refused(lines: bytes, times: bytes) -> None:
    guest = (Lines(8), Timers(lambda _ns: None))
    for name in ("", "\0", "\0\0")[1:]:
        guest[1].add(name, lambda _due: None)
    for part, state in zip(guest, (lines, times), strict=True):
        before = part.save()
        try:
            part.load(state)
        except ValueError:
            assert part.save() == before
        else:
            assert part.save() == state


def test_the_receiver_hears_of_changes_alone() -> None:
    lines = Lines(MAX_LINES)
    heard: list[tuple[int, bool]] = []
    lines.set(7, True)
    lines.attach(lambda line, level: heard.append((line, level)))
    for line, level in ((7, True), (3, False), (3, True), (2047, True), (7, False), (7, False)):
        lines.set(line, level)
    assert heard == [(3, True), (2047, True), (7, False)]
    assert [line for line in range(MAX_LINES) if lines.is_high(line)] == [3, 2047]
    state = lines.save()
    lines.set(3, False)
    lines.load(state)
    assert len(heard) == 4, "nobody hears of a state that is loaded"
    assert lines.is_high(3)
    with pytest.raises(ValueError, match="have a receiver already"):
        lines.attach(lambda _line, _level: None)
    for line in (-1, MAX_LINES):
        with pytest.raises(ValueError, match="expected one below 2048"):
            lines.set(line, True)
    with pytest.raises(ValueError, match="2049 interrupt lines"):
        Lines(MAX_LINES + 1)


def test_a_receiver_may_hear_of_lines_that_are_raised_again() -> None:
    lines = Lines(8)
    heard: list[tuple[int, bool]] = []
    lines.attach(lambda line, level: heard.append((line, level)), repeated=True)
    for level in (False, True, True, False, False):
        lines.set(3, level)
    assert heard == [(3, True), (3, True), (3, False)]


def test_a_device_has_the_line_that_the_board_gives_it() -> None:
    guest = board_of(image_of("riscv64", 97)[0], toy_board("riscv64", quiet()))
    heard: list[tuple[int, bool]] = []
    guest.attach_irqs(lambda line, level: heard.append((line, level)))
    guest.run_until(300)
    assert heard == [(LINE, True), (LINE, False)]
    with pytest.raises(ValueError, match="board riscv64-virt gives no interrupt line to rtc"):
        guest.line_of("rtc")
