"""Forward speed: plain Unicorn, the engine alone, recording, replaying, verifying; the size of what is recorded."""

from __future__ import annotations

import shutil
from typing import Any

import unicorn

from benchlib.bench import Bench
from benchlib.figures import seconds, timed
from benchlib.guests import Guest
from benchlib.processes import cost, rrgdb
from rrgdb.board.boards import default_board
from rrgdb.board.firmware.image import load_image, place_image
from rrgdb.board.machine import Board
from rrgdb.engine.base import Watch
from rrgdb.engine.memory import Ram
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb.engine.unicorn.families import FAMILIES
from rrgdb.timeline.forward import FOREVER
from rrgdb.timeline.stop import Points
from rrgdb.timeline.verify import verify
from rrgdb_tests.board.fakes import FakeHost

GROUP = "speed"
ARGUMENT = {"riscv32": "a0", "riscv64": "a0", "arm": "r0", "aarch64": "x0", "x86_64": "rdi"}
"""where a function's first argument goes; i386: on the stack"""
ROUNDS = (1 << 31) - 1
RAM = 32 << 20
REACHED = 10_000
"""the measured replay begins behind start-up, which clears what is watched"""


def _call(guest: Guest) -> tuple[int, bytes, dict[str, int]]:
    """RAM (base and bytes) and registers of a call of the hot loop that does not return."""
    image = load_image(guest.elf.read_bytes(), guest.elf.name)
    base = min(s.paddr for s in image.segments) & ~0xFFFFF
    ram = bytearray(RAM)
    for s in image.segments:
        ram[s.paddr - base : s.paddr - base + len(s.data)] = s.data
    stack = RAM - 64
    registers = {guest.arch.pc: guest.at("hot"), guest.arch.sp: base + stack}
    if guest.arch.name in ARGUMENT:
        registers[ARGUMENT[guest.arch.name]] = ROUNDS
    else:
        ram[stack + 4 : stack + 8] = ROUNDS.to_bytes(4, "little")
    return base, bytes(ram), registers


def _plain_unicorn(guest: Guest, instructions: int, repeat: int) -> list[float]:
    arch = guest.arch
    base, ram, registers = _call(guest)
    family = FAMILIES[arch.name]
    uc: Any = unicorn.Uc(family.arch, family.mode)
    uc.ctl_set_cpu_model(family.models[arch.models[0]])
    uc.mem_map(base, RAM)

    def prepare() -> None:
        uc.mem_write(base, ram)
        for name, value in registers.items():
            uc.reg_write(family.number(name), value)

    return seconds(lambda: uc.emu_start(guest.at("hot"), 0, count=instructions), repeat=repeat, before=prepare)


def _engine_alone(guest: Guest, instructions: int, repeat: int) -> list[float]:
    base, data, registers = _call(guest)
    ram = Ram(RAM)
    engine = UnicornEngine(guest.arch, ram)
    engine.map_ram(base, RAM)

    def prepare() -> None:
        engine.write_memory(base, data)
        for name, value in registers.items():
            engine.write(name, value)

    return seconds(lambda: engine.run_until(engine.icount + instructions), repeat=repeat, before=prepare)


def _off(guest: Guest) -> float:
    """The whole guest on its board, with nothing written down: seconds."""
    image = load_image(guest.elf.read_bytes(), guest.elf.name)
    spec = default_board(image.arch.name)
    placed = place_image(image, spec, spec.ram(guest.memory))
    engine = UnicornEngine(image.arch, Ram(spec.memory_bytes(placed.ram)))
    board = Board(spec, engine, placed, FakeHost())
    return timed(board.run_until, FOREVER)[0]


def _record(bench: Bench, guest: Guest) -> None:
    """With recording off and on in turn: the two are compared, and the machine's speed varies."""
    without, taken = [], []
    for _ in range(bench.repeat):
        without.append(_off(guest))
        with bench.new_recording(guest) as opened:
            timeline = opened.timeline
            taken += seconds(timeline.run, Points({}))
            icount = timeline.icount
            snapshots = len(timeline.marks.stored)
            store = opened.store.file_size if opened.store is not None else 0
            log = opened.recording.log.size
            path = opened.recording.path
    bench.recordings[guest.name] = path
    figures = bench.figures
    figures.mips(GROUP, guest.name, "recording off", without, icount)
    figures.mips(GROUP, guest.name, "recording, with snapshots", taken, icount)
    figures.add(GROUP, guest.name, "instructions recorded", "", [icount])
    figures.add(GROUP, guest.name, "event log per 1,000 instructions", "bytes", [1000 * log / icount])
    figures.add(GROUP, guest.name, "snapshots taken", "", [snapshots])
    figures.add(GROUP, guest.name, "snapshot store", "KiB", [store / 1024])


def _memory(bench: Bench, guest: Guest) -> None:
    """`rrgdb record` as a process of its own."""
    path = bench.work / f"{guest.name}-memory.rrgdb"
    words = ("record", "--serial", "null", "-m", f"{guest.memory >> 20}", "-o", path, guest.elf)
    peak = cost(rrgdb(*words), bench.work).peak
    shutil.rmtree(path, ignore_errors=True)
    bench.figures.add(GROUP, guest.name, "memory of `rrgdb record`", "MiB", [peak / (1 << 20)], note="peak")


def _armed(guest: Guest) -> list[tuple[str, Points]]:
    """Points that are never hit, away from and amid what the loop uses."""
    quiet = default_board(guest.arch.name).ram_base + guest.memory // 2
    armed = [
        ("breakpoint on the loop's page", Points({guest.at("never"): None})),
        ("watch", Points({}, (Watch(quiet, 4, "w"),))),
    ]
    if not guest.kit:
        hot = Watch(guest.at("unwritten"), 4, "w")
        armed.append(("watch on a page that the loop writes", Points({}, (hot,))))
    return armed


def _replay(bench: Bench, guest: Guest) -> None:
    replayed, verified = [], []
    for _ in range(bench.repeat):
        with bench.replay(guest) as opened:
            timeline = opened.timeline
            replayed += seconds(timeline.run, Points({}))
        with bench.replay(guest) as opened:
            timeline = opened.timeline
            verified += seconds(verify, timeline)
            icount = timeline.end
    bench.figures.mips(GROUP, guest.name, "replay", replayed, icount)
    for name, points in _armed(guest):
        passed = []
        for _ in range(bench.repeat):
            with bench.replay(guest) as opened:
                opened.timeline.seek(min(REACHED, icount))
                start = opened.timeline.icount
                passed += seconds(opened.timeline.run, points)
                if opened.timeline.icount != icount:
                    raise AssertionError(f"{guest.name}: {name}: stopped at {opened.timeline.icount}")
        bench.figures.mips(GROUP, guest.name, f"replay, {name}", passed, icount - start)
    bench.figures.mips(GROUP, guest.name, "verify", verified, icount)


def measure(bench: Bench, guest: Guest) -> None:
    """All of this group for one guest."""
    loop = 10_000_000 if bench.quick else 50_000_000
    plain = _plain_unicorn(guest, loop, bench.repeat)
    bench.figures.mips(GROUP, guest.name, "hot loop: plain Unicorn with count=", plain, loop)
    alone = _engine_alone(guest, loop, bench.repeat)
    bench.figures.mips(GROUP, guest.name, "hot loop: the engine alone", alone, loop)
    _record(bench, guest)
    _memory(bench, guest)
    _replay(bench, guest)
