"""A script sees in the fast gear, and leaves in its recording, what it does in the slow one: the specification."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unicorn import UcError, x86_const
from unicorn import unicorn_const as const

import rrgdb
from rrgdb.engine.unicorn import _hot
from rrgdb.engine.unicorn.counting import INLINE
from rrgdb.engine.unicorn.scripted import ScriptEngine
from rrgdb.opening import scripts
from rrgdb_tests.script.random_programs import FAMILIES, Script
from rrgdb_tests.script.rig import CODE, DATA, DEVICE, PAGE, assemble, new_uc

Gear = Callable[[bool], None]
Run = Callable[[Any, Callable[[], int]], Any]
"""a script: a Uc, and what tells the position, to what the script sees"""


@pytest.fixture
def gear(monkeypatch: pytest.MonkeyPatch) -> Gear:
    """Choose the gear of scripts' engines that are made next."""

    def choose(fast: bool) -> None:
        monkeypatch.setattr(scripts, "ScriptEngine", functools.partial(ScriptEngine, fast=fast))

    return choose


def attached(family: str, script: Run, path: Path) -> Any:
    uc = new_uc(family)
    with rrgdb.attach(uc, path, memory=1 << 20) as session:
        return script(uc, lambda: session.icount)


def digests(path: Path, positions: list[int]) -> list[bytes]:
    with rrgdb.open(path) as recording:
        assert recording.verify() > 0
        found = []
        for icount in positions:
            recording.seek(icount)
            found.append(recording.state_digest())
        return found


def compare(gear: Gear, tmp_path: Path, family: str, script: Callable[[], Run], seed: int = 1) -> Any:
    """What the script sees in both gears; each recording is replayed in both."""
    seen, ends = {}, {}
    for fast in (True, False):
        gear(fast)
        seen[fast] = attached(family, script(), tmp_path / f"{fast}")
        with rrgdb.open(tmp_path / f"{fast}") as recording:
            ends[fast] = recording.end
    assert seen[True] == seen[False]
    assert ends[True] == ends[False]
    rng, end = random.Random(seed), ends[True]
    positions = [*sorted(rng.randrange(end + 1) for _ in range(12)), end, 0, end // 2]
    found = []
    for made in (True, False):
        for fast in (True, False):
            gear(fast)
            found.append(digests(tmp_path / f"{made}", positions))
    assert found[1:] == found[:1] * 3
    return seen[True]


def compare_random(gear: Gear, tmp_path: Path, family: str, seed: int) -> None:
    compare(gear, tmp_path, Script(family, seed).arch, lambda: Script(family, seed).run, seed)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("family", FAMILIES)
def test_random_scripts_do_the_same_in_both_gears(family: str, seed: int, tmp_path: Path, gear: Gear) -> None:
    compare_random(gear, tmp_path, family, seed)


@pytest.mark.parametrize("family", FAMILIES)
def test_they_do_the_same_where_blocks_are_counted_by_hooks(
    family: str, tmp_path: Path, gear: Gear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(INLINE, "0")
    compare_random(gear, tmp_path, family, seed=4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5, 60))
@pytest.mark.parametrize("family", FAMILIES)
def test_many_more_random_scripts(family: str, seed: int, tmp_path: Path, gear: Gear) -> None:
    compare_random(gear, tmp_path, family, seed)


LOOP = (
    f"mov $3000,%ecx; mov ${DATA:#x},%esi; mov ${DEVICE:#x},%edi; 1: inc %eax; mov %eax,(%rsi);"
    "test $1023,%ecx; jnz 2f; mov (%rdi),%ebx; int $0x80; 2: dec %ecx; jnz 1b; nop"
)
CALL = CODE + 0x1D
"""where the loop makes a system call"""


def looping(
    hook: Callable[[Any], Any], text: str = LOOP, call: Callable[[], object] = lambda: None
) -> Callable[[Any], None]:
    """``call``: what the system call does."""

    def run(uc: Any) -> None:
        code = assemble("x86_64", text)
        uc.mem_map(CODE, PAGE)
        uc.mem_map(DATA, PAGE)
        uc.mem_write(CODE, code)
        uc.mmio_map(DEVICE, PAGE, lambda *_: 7, None, None, None)
        uc.hook_add(const.UC_HOOK_INTR, lambda *_: call())
        hook(uc)
        uc.emu_start(CODE, CODE + len(code))

    return run


def nothing(*_: Any) -> None:
    """A hook."""


BOUNDED = {
    "none": lambda _uc: None,
    "code": lambda uc: uc.hook_add(const.UC_HOOK_CODE, nothing, None, CALL, CALL),
    "block": lambda uc: uc.hook_add(const.UC_HOOK_BLOCK, nothing, None, CODE, CODE),
    "accesses": lambda uc: uc.hook_add(const.UC_HOOK_MEM_VALID, nothing, None, DATA + 64, DATA + 127),
    "invalid": lambda uc: uc.hook_add(const.UC_HOOK_MEM_INVALID, lambda *_: False),
    "instruction": lambda uc: uc.hook_add(const.UC_HOOK_INSN, nothing, None, 1, 0, x86_const.UC_X86_INS_SYSCALL),
}
UNBOUNDED = (const.UC_HOOK_CODE, const.UC_HOOK_BLOCK, const.UC_HOOK_MEM_WRITE, const.UC_HOOK_MEM_READ)


def phases(hook: Callable[[Any], Any], path: Path) -> set[int]:
    """In which phases system calls are made."""
    uc, found = new_uc("x86_64"), set[int]()
    with rrgdb.attach(uc, path) as session:
        looping(hook, call=lambda: found.add(session._engine._core.phase))(uc)
    return found


@pytest.mark.parametrize("hook", BOUNDED)
def test_hooks_with_bounds_leave_the_fast_gear_to_the_rest(hook: str, tmp_path: Path) -> None:
    assert phases(BOUNDED[hook], tmp_path / "r") != {_hot.SLOW}


@pytest.mark.parametrize("kind", UNBOUNDED)
def test_hooks_over_everything_do_not(kind: int, tmp_path: Path) -> None:
    assert phases(lambda uc: uc.hook_add(kind, nothing), tmp_path / "r") == {_hot.SLOW}


def test_many_hooks_are_called_as_in_the_slow_gear(tmp_path: Path, gear: Gear) -> None:
    """More than there are companions for; some are deleted again while they run."""

    def script() -> Run:
        seen: list[Any] = []

        def run(uc: Any, icount: Callable[[], int]) -> Any:
            handles: list[int] = []

            def called(uc: Any, address: int, *_: Any) -> None:
                seen.append((address, icount()))
                if len(seen) % 100 == 0 and handles:
                    uc.hook_del(handles.pop(0))

            def hook(uc: Any) -> None:
                for n in range(50):
                    at = CODE + n % 25
                    handles.append(uc.hook_add(const.UC_HOOK_CODE, called, None, at, at))

            looping(hook)(uc)
            return seen

        return run

    assert len(compare(gear, tmp_path, "x86_64", script)) >= 4000


def test_the_gear_follows_hooks_that_come_and_go(tmp_path: Path, gear: Gear) -> None:
    """From within a hook; the positions are those of the slow gear, and so is what history does."""

    def script() -> Run:
        seen: list[Any] = []

        def run(uc: Any, icount: Callable[[], int]) -> Any:
            handles: list[int] = []

            def called(uc: Any, *_: Any) -> None:
                seen.append(icount())
                if handles:
                    uc.hook_del(handles.pop())
                elif len(seen) < 8:
                    handles.append(uc.hook_add(const.UC_HOOK_CODE, lambda *_: seen.append(icount()), None, CALL + 2))

            looping(lambda uc: uc.hook_add(const.UC_HOOK_CODE, called, None, CALL, CALL))(uc)
            return seen

        return run

    seen = compare(gear, tmp_path, "x86_64", script)
    assert len(seen) > 1000


def test_a_fetch_hook_is_called_at_the_end_of_what_ran(tmp_path: Path, gear: Gear) -> None:
    there = 0x70_0000

    def script() -> Run:
        def run(uc: Any, icount: Callable[[], int]) -> Any:
            seen: list[Any] = []

            def fetched(uc: Any, *told: Any) -> bool:
                seen.append((told[:-1], icount()))
                if len(seen) == 1:
                    return False
                uc.mem_map(there, PAGE)
                uc.mem_write(there, b"\xff\xc3\xf4")
                return True

            def hook(uc: Any) -> None:
                uc.hook_add(const.UC_HOOK_MEM_FETCH_UNMAPPED, fetched)

            with pytest.raises(UcError):
                looping(hook, f"mov $1000,%ecx; 1: inc %eax; loop 1b; mov ${there:#x},%edx; jmp *%rdx")(uc)
            seen.append((uc.reg_read(x86_const.UC_X86_REG_RIP), icount()))
            uc.emu_start(there, 0)
            return [*seen, uc.reg_read(x86_const.UC_X86_REG_EBX), icount()]

        return run

    seen = compare(gear, tmp_path, "x86_64", script)
    assert [position for _, position in seen[:2]] == [2003, 2003]
    assert seen[-2] == 1


def test_an_access_hook_hears_of_what_a_helper_does_behind_a_stop(tmp_path: Path, gear: Gear) -> None:
    """DC ZVA goes on to its end; then the slow gear has counted the next instruction."""

    def script() -> Run:
        def run(uc: Any, icount: Callable[[], int]) -> Any:
            seen: list[int] = []

            def stored(uc: Any, _access: int, address: int, *_: Any) -> None:
                seen.append(address)
                if len(seen) == 3:
                    uc.emu_stop()

            code = assemble(
                "aarch64", f"mov x4,#{DATA:#x}; mov x1,#2000; 1: subs x1,x1,#1; b.ne 1b; dc zva,x4; nop; nop"
            )
            uc.mem_map(CODE, PAGE)
            uc.mem_map(DATA, PAGE)
            uc.mem_write(CODE, code)
            uc.hook_add(const.UC_HOOK_MEM_WRITE, stored, None, DATA, DATA + 63)
            uc.emu_start(CODE, CODE + len(code))
            return seen, icount()

        return run

    seen, position = compare(gear, tmp_path, "aarch64", script)
    assert len(set(seen)) == 64
    assert position == 4004


def test_a_run_that_a_hook_stops_at_once_is_nothing_in_history_either(tmp_path: Path) -> None:
    uc = new_uc("x86_64")
    with rrgdb.attach(uc, tmp_path / "r") as session:
        uc.mem_map(CODE, PAGE)
        uc.mem_write(CODE, b"\x90" * 8)
        uc.emu_start(CODE, CODE + 4)
        uc.hook_add(const.UC_HOOK_BLOCK, lambda uc, *_: uc.emu_stop())
        uc.emu_start(CODE, CODE + 4)
        assert session.icount == 4
    digests(tmp_path / "r", [4, 0, 4, 2])
