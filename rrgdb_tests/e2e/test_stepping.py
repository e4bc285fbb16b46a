"""stepi, step, next, finish: forward, and back to exactly where they came from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rrgdb_tests.e2e.harness import Gdb, debugging, rrgdb
from rrgdb_tests.guests import build, line_of

Recordings = Callable[[Path], Path]


def _place(stop: dict) -> tuple[str, str]:
    return stop["frame"]["func"], stop["frame"]["line"]


def _depth(gdb: Gdb) -> int:
    return int(gdb.command("-stack-info-depth")["depth"])


def _to_second_tick(gdb: Gdb) -> None:
    number = gdb.break_at("tick")
    gdb.cont()
    gdb.cont()
    gdb.delete(number)


def test_reverse_stepi_undoes_stepi_register_by_register(replay: Gdb) -> None:
    _to_second_tick(replay)
    states = []
    for _ in range(25):
        states.append((replay.icount, replay.registers()))
        assert replay.stepi()["reason"] == "end-stepping-range"
    for icount, registers in reversed(states):
        assert replay.stepi(reverse=True)["reason"] == "end-stepping-range"
        assert replay.icount == icount
        assert replay.registers() == registers


def test_reverse_stepi_while_recording(live: Gdb) -> None:
    _to_second_tick(live)
    states = []
    for _ in range(10):
        states.append((live.icount, live.registers()))
        live.stepi()
    for icount, registers in reversed(states):
        live.stepi(reverse=True)
        assert (live.icount, live.registers()) == (icount, registers)


def test_stepi_moves_by_one_instruction(replay: Gdb) -> None:
    first = replay.icount
    for count in range(1, 6):
        replay.stepi()
        assert replay.icount == first + count


def test_step_walks_through_a_function_and_reverse_step_back(replay: Gdb) -> None:
    _to_second_tick(replay)
    forward = [_place(replay.step()) for _ in range(6)]
    assert any(function == "inner" for function, _ in forward), forward
    backward = [_place(replay.step(reverse=True)) for _ in range(8)]
    assert any(function == "inner" for function, _ in backward), backward
    assert backward[-1][0] in {"tick", "work", "main"}


def test_next_steps_over_a_call_and_reverse_next_back_over_it(replay: Gdb) -> None:
    _to_second_tick(replay)
    places = [_place(replay.next()) for _ in range(3)]
    assert {function for function, _ in places} == {"tick"}
    call = str(line_of("ticker", "u32 sum = inner(before);"))
    back = [_place(replay.next(reverse=True)) for _ in range(3)]
    assert {function for function, _ in back} <= {"tick", "main"}
    assert call in [line for function, line in places + back if function == "tick"]


def test_finish_returns_to_the_caller_and_shows_the_value(replay: Gdb) -> None:
    replay.break_at("leaf")
    replay.cont()
    argument, seed = replay.value("n"), replay.value("seed")
    stop = replay.finish()
    assert stop["reason"] == "function-finished"
    assert stop["frame"]["func"] == "inner"
    assert int(stop["return-value"]) == (argument * 3 + seed) & 0xFFFFFFFF


def test_reverse_finish_goes_back_to_the_call(replay: Gdb) -> None:
    number = replay.break_at("leaf")
    replay.cont()
    replay.delete(number)
    depth = _depth(replay)
    replay.stepi()
    replay.stepi()
    stop = replay.finish(reverse=True)
    assert stop["frame"]["func"] == "inner"
    assert _depth(replay) == depth - 1
    replay.stepi()
    assert replay.command("-stack-info-frame")["frame"]["func"] == "leaf"


def test_reverse_step_enters_a_function_from_its_end(replay: Gdb) -> None:
    replay.break_at("leaf")
    replay.cont()
    replay.finish()
    replay.delete()
    stop = replay.step(reverse=True)
    while stop["frame"]["func"] == "inner":
        stop = replay.step(reverse=True)
    assert stop["frame"]["func"] == "leaf"
    assert int(stop["frame"]["line"]) >= line_of("ticker", "return n * 3u + seed;")


def test_recursion_is_stepped_over_both_ways(replay: Gdb) -> None:
    number = replay.break_at("factorial")
    replay.cont()
    replay.delete(number)
    before = replay.value("n")
    assert before == 6
    replay.next()
    stop = replay.next()
    while stop["frame"]["func"] == "factorial" and int(stop["frame"]["line"]) < line_of("ticker", "factorial(n - 1);"):
        stop = replay.next()
    for _ in range(4):
        stop = replay.next(reverse=True)
        if stop["frame"]["func"] == "tick":
            break
        assert replay.value("n") == before


def test_a_recursive_call_is_finished_and_stepped_over_backwards(replay: Gdb) -> None:
    number = replay.break_at("factorial", "n == 3")
    replay.cont()
    replay.delete(number)
    entry, depth = replay.icount, _depth(replay)
    stop = replay.finish()
    assert (stop["frame"]["func"], int(stop["return-value"]), _depth(replay)) == ("factorial", 6, depth - 1)
    stop = replay.next(reverse=True)
    assert (stop["frame"]["func"], _depth(replay)) == ("factorial", depth - 1)
    assert replay.icount < entry
    assert replay.value("n") == 4


def test_reverse_finish_within_a_recursion(replay: Gdb) -> None:
    number = replay.break_at("factorial", "n == 3")
    replay.cont()
    replay.delete(number)
    entry, depth = replay.icount, _depth(replay)
    replay.stepi()
    replay.stepi()
    stop = replay.finish(reverse=True)
    assert (stop["frame"]["func"], _depth(replay)) == ("factorial", depth - 1)
    assert replay.icount == entry - 1


UNTOLD = "GCC's .debug_frame leaves out that stack was freed before the pop: gdb finds no caller there"
THUMB_RETURNS = {
    "thumb-2": ("ticker", {"TICKS": 10, "WORK": 200}, ["-mtune=cortex-a15"], "inner"),
    "thumb-1": ("hunt", {"FIXED": 1}, ["-mcpu=arm926ej-s", "-mfloat-abi=soft", "-Wa,-mcpu=cortex-a15"], "total"),
}


@pytest.mark.parametrize("code", THUMB_RETURNS)
@pytest.mark.parametrize(
    "helped",
    [pytest.param(False, marks=pytest.mark.xfail(strict=True, raises=AssertionError, reason=UNTOLD)), True],
)
def test_reverse_next_over_a_thumb_function_that_frees_stack_before_it_pops(
    code: str, helped: bool, recordings: Recordings, tmp_path: Path
) -> None:
    program, defines, flags, function = THUMB_RETURNS[code]
    image = build("thumb", program, defines, flags=flags)
    (tmp_path / "rrgdb.py").write_text(rrgdb("gdbinit").stdout)
    with debugging(image, "replay", recordings(image)) as gdb:
        if helped:
            gdb.cli(f"source {tmp_path}/rrgdb.py")
        gdb.break_at(function)
        gdb.cont()
        gdb.cont()
        gdb.delete()
        entry, depth = gdb.icount, _depth(gdb)
        gdb.finish()
        after = gdb.registers()
        gdb.stepi(reverse=True)
        assert _depth(gdb) == depth
        gdb.cli("up")
        assert gdb.value("$pc") == int(after["pc"].split()[0], 0)
        # The unwinder says nothing of system registers, which no function saves.
        outer = {name: value for name, value in gdb.registers().items() if value != "<not saved>"}
        assert outer.keys() >= {*(f"r{n}" for n in range(13)), "sp", "lr", "pc"}
        assert outer | {"r0": ""} == {name: after[name] for name in outer} | {"r0": ""}
        gdb.stepi()
        gdb.next(reverse=True)
        assert gdb.icount < entry
        assert _depth(gdb) == depth - 1


@pytest.mark.parametrize("kind", ["--thread-group i1", ""])
def test_until_the_end_and_back_to_the_start(replay: Gdb, kind: str) -> None:
    """gdb with and without thread groups in its commands, as IDEs send them."""
    first = replay.registers()
    assert replay.run(f"-exec-continue {kind}")["reason"] == "no-history"
    end = replay.icount
    assert replay.run(f"-exec-continue --reverse {kind}")["reason"] == "no-history"
    assert replay.icount == 0
    assert replay.registers() == first
    replay.cont()
    assert replay.icount == end


TRAPS = {
    "riscv64": ("riscv_trap", "trap_entry"),
    "riscv32": ("riscv_trap", "trap_entry"),
    "aarch64": ("aarch64_trap", "sync"),
    "arm": ("arm_trap", "call"),
    "thumb": ("arm_trap", "call"),
    "i386": ("x86_trap", "vector0"),
    "x86_64": ("x86_trap", "vector0"),
}


def test_stepping_onto_a_handlers_first_instruction_and_off_it_again(arch: str, tmp_path: Path) -> None:
    """The exception and the handler's first instruction are two positions in time, from either side."""
    program, entry = TRAPS[arch]
    image = build(arch, program, {"LOOPS": 20})
    with debugging(image, "run", "-o", tmp_path / "r", image) as gdb:
        gdb.break_at(f"*{entry}")
        for _ in range(4):
            assert gdb.cont()["reason"] == "breakpoint-hit"
            handler = (gdb.icount, gdb.registers())
            stop = gdb.stepi(reverse=True)
            assert stop["frame"]["func"] in {"main", "aborts"}
            faulting = (gdb.icount, gdb.registers())
            assert faulting[0] == handler[0] - 1
            gdb.stepi()
            assert (gdb.icount, gdb.registers()) == handler
            gdb.stepi()
            gdb.stepi(reverse=True)
            assert (gdb.icount, gdb.registers()) == handler
            gdb.stepi(reverse=True)
            assert (gdb.icount, gdb.registers()) == faulting
            gdb.stepi()


def test_reverse_continue_to_a_handler_stops_in_the_handler(arch: str, tmp_path: Path) -> None:
    program, entry = TRAPS[arch]
    image = build(arch, program, {"LOOPS": 20})
    with debugging(image, "run", "-o", tmp_path / "r", image) as gdb:
        gdb.break_at(f"*{entry}")
        forward = []
        while gdb.cont()["reason"] == "breakpoint-hit":
            forward.append((gdb.icount, gdb.pc))
        backward = []
        while gdb.cont(reverse=True)["reason"] == "breakpoint-hit":
            backward.append((gdb.icount, gdb.pc))
        assert len(forward) >= 7
        assert {pc for _, pc in forward} == {gdb.value(f"(unsigned long)&{entry}")}
        assert backward == forward[::-1]
