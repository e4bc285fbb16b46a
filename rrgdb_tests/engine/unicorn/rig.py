"""Guests for the engine's tests: whole boards with test programs, and bare engines with a few instructions."""

from __future__ import annotations

import functools
import hashlib
import random
import struct
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rrgdb.arch import ARCHES
from rrgdb.arch.base import CpuException
from rrgdb.board.boards import default_board
from rrgdb.board.firmware.image import Image, load_image, place_image
from rrgdb.board.machine import Board
from rrgdb.board.spec import BoardSpec
from rrgdb.engine.base import Exit, ExitKind
from rrgdb.engine.memory import PAGE, Ram
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb_tests.board.fakes import FakeHost
from rrgdb_tests.guests import arch_name, build

FAMILIES = ("riscv64", "riscv32", "aarch64", "arm", "thumb", "i386", "x86_64")
CODE, DATA, DATA_SIZE, HOLE, DEVICE = 0x10000, 0x20000, 0x4000, 0x500000, 0x400000
BOARD_RAM = 4 << 20
_ASSEMBLERS = {
    "riscv64": ("riscv64-unknown-elf-", ("-march=rv64imafdc", "-misa-spec=2.2", "-mabi=lp64d")),
    "riscv32": ("riscv64-unknown-elf-", ("-march=rv32imafdc", "-misa-spec=2.2", "-mabi=ilp32d")),
    "aarch64": ("aarch64-linux-gnu-", ("-march=armv8.5-a+rng",)),
    "arm": ("arm-none-eabi-", ("-mcpu=cortex-a15", "-mfpu=neon-vfpv4")),
    "thumb": ("arm-none-eabi-", ("-mcpu=cortex-a15", "-mfpu=neon-vfpv4", "-mthumb")),
    "i386": ("i686-linux-gnu-", ("-msyntax=intel", "-mnaked-reg")),
    "x86_64": ("x86_64-linux-gnu-", ("-msyntax=intel", "-mnaked-reg")),
}


@functools.cache
def assemble(family: str, source: str) -> bytes:
    """Position-independent code out of GNU assembler (Intel syntax on x86)."""
    prefix, flags = _ASSEMBLERS[family]
    if prefix.startswith("arm-"):
        source = f".syntax unified\n.arch_extension virt\n.arch_extension sec\n{source}"
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        command = [f"{prefix}as", *flags, "-o", str(scratch / "a.o"), "-"]
        subprocess.run(command, input=f"{source}\n", text=True, check=True)
        copy = [f"{prefix}objcopy", "-O", "binary", "-j", ".text", str(scratch / "a.o"), str(scratch / "a.bin")]
        subprocess.run(copy, check=True)
        return (scratch / "a.bin").read_bytes()


@dataclass
class Bench:
    """A bare engine: code at CODE (4 pages), DATA of 4 pages, a device that logs its accesses at DEVICE."""

    family: str
    engine: UnicornEngine
    accesses: list[tuple[str, int, int, int]] = field(default_factory=list)
    on_access: Callable[[], None] = lambda: None

    @classmethod
    def with_code(
        cls, family: str, source: str | bytes, at: int = CODE, *, fast: bool = True, ram: Ram | None = None
    ) -> Bench:
        """``ram``: where there is to be more of it."""
        bench = cls(family, UnicornEngine(ARCHES[arch_name(family)], ram or Ram(2 * DATA_SIZE), fast=fast))
        engine = bench.engine
        engine.map_ram(CODE, DATA_SIZE)
        engine.map_ram(DATA, DATA_SIZE)
        engine.map_mmio(DEVICE, PAGE, bench._read, bench._write)
        engine.write_memory(DATA, random.Random(1).randbytes(DATA_SIZE))
        engine.write_memory(at, assemble(family, source) if isinstance(source, str) else source)
        engine.arch.reset(engine, at | (family == "thumb"), DATA + DATA_SIZE - 64)
        return bench

    def _read(self, offset: int, size: int) -> int:
        self.accesses.append(("r", offset, size, 0))
        self.on_access()
        return 0x8877665544332211 >> 8 * (offset % 8) & (1 << 8 * size) - 1

    def _write(self, offset: int, size: int, value: int) -> None:
        self.accesses.append(("w", offset, size, value))
        self.on_access()

    @property
    def pc(self) -> int:
        return self.engine.read(self.engine.arch.pc)

    def run(self, icount: int) -> Exit:
        return self.engine.run_until(icount)

    def to_exception(self) -> CpuException:
        exit_ = self.run(1 << 40)
        assert exit_.kind is ExitKind.EXCEPTION, exit_
        assert exit_.exception is not None
        return exit_.exception

    def state(self) -> str:
        return state_of(self.engine)


def riscv_supervisor(source: str) -> Bench:
    """RV64 with Sv39, before the MRET to supervisor mode at 0x40000000: there is ``source``, and on the
    next page DATA, which was not accessed yet. The tables are in DATA, from its second page on."""
    virtual, root, middle, leaf = 0x40000000, DATA + 0x1000, DATA + 0x2000, DATA + 0x3000
    bench = Bench.with_code("riscv64", source)
    engine = bench.engine
    engine.write_memory(root, bytes(0x2800))
    for at, target, flags in (
        (root + 8, middle, 0x01),
        (middle, leaf, 0x01),
        (leaf, CODE, 0xCF),
        (leaf + 8, DATA, 0x07),
    ):
        engine.write_memory(at, struct.pack("<Q", target >> 12 << 10 | flags))
    engine.write_memory(CODE + 0x800, assemble("riscv64", "mret"))
    satp = 8 << 60 | root >> 12
    for name, value in (("satp", satp), ("mstatus", 1 << 11), ("mepc", virtual), ("pc", CODE + 0x800)):
        engine.write(name, value)
    return bench


def state_of(engine: UnicornEngine) -> str:
    """Digest of registers and of all RAM."""
    h = hashlib.sha256(engine.registers_digest())
    for number in engine.ram.populated().tolist():
        content = engine.ram.page(number)
        if content.strip(b"\0"):
            h.update(number.to_bytes(8, "little") + content)
    return h.hexdigest()[:24]


def board(family: str, program: str, **defines: int) -> Board:
    """A board with 4 MiB that stands before the first instruction of a test guest."""
    return board_with(build(family, program, defines or None))


def board_with(path: Path, *, fast: bool = True) -> Board:
    """A board with 4 MiB that stands before the first instruction of an ELF file."""
    return board_of(load_image(path.read_bytes(), str(path)), fast=fast)


def board_of(image: Image, spec: BoardSpec | None = None, *, fast: bool = True) -> Board:
    """A board with 4 MiB, or its only size, the default one for the image unless ``spec`` is given."""
    spec = spec or default_board(image.arch.name)
    placed = place_image(image, spec, spec.ram(spec.default_ram if spec.banks else BOARD_RAM))
    return Board(spec, UnicornEngine(placed.arch, Ram(spec.memory_bytes(placed.ram)), fast=fast), placed, FakeHost())


def board_state(guest: Board) -> tuple[int, str, str]:
    engine = guest.engine
    assert isinstance(engine, UnicornEngine)
    devices = hashlib.sha256(guest.save_devices()).hexdigest()[:16]
    return engine.icount, state_of(engine), devices


@dataclass
class Saved:
    """All of a board at one position."""

    cpu: bytes
    devices: bytes
    pages: dict[int, bytes]

    @classmethod
    def of(cls, guest: Board) -> Saved:
        ram = guest.engine.ram
        return cls(guest.engine.save(), guest.save_devices(), {n: ram.page(n) for n in ram.populated().tolist()})

    def load(self, guest: Board) -> None:
        ram = guest.engine.ram
        dirty = ram.dirty()
        now = set(ram.populated().tolist())
        pages = [(n, self.pages.get(n, bytes(PAGE))) for n in sorted(now | set(self.pages))]
        changed = [(n, content) for n, content in pages if n in dirty or ram.page(n) != content]
        ram.set_clean(np.array([n for n, _ in changed], dtype=np.int64), [c for _, c in changed], dirty)
        guest.engine.pages_changed([n for n, _ in changed])
        guest.engine.load(self.cpu)
        guest.load_devices(self.devices)


State = tuple[int, str, str]


def stepped(guest: Board, length: int) -> tuple[list[State], list[Saved]]:
    """States of a guest at the positions up to ``length``, reached one by one, and what is saved there."""
    states, saved = [], []
    for position in range(length + 1):
        guest.run_until(position)
        states.append(board_state(guest))
        saved.append(Saved.of(guest))
    return states, saved


def goes_there(guest: Board, position: int, states: list[State], how: str) -> None:
    """Run to a position, where the state must be the one that is known."""
    guest.run_until(position)
    assert board_state(guest) == states[position], f"{how}, at {position}"


def goes_every_way(
    make: Callable[[bool], Board], states: list[State], saved: list[Saved], sample: int, chosen: random.Random
) -> None:
    """In both gears, a guest comes to the same states: not stopped at all, stopped at some positions, and loaded there.
    ``make(fast)`` makes it anew."""
    length = len(states) - 1
    positions = sorted(chosen.sample(range(length), sample))
    for fast in (False, True):
        goes_there(make(fast), length, states, "not stopped at all")
        guest = make(fast)
        for position in positions:
            goes_there(guest, position, states, "stopped at some")
        for position in chosen.sample(positions, sample):
            saved[position].load(guest)
            assert board_state(guest) == states[position], f"loaded at {position}"
            goes_there(guest, length, states, f"from {position} to the end")


def pass_by(engine: UnicornEngine) -> None:
    """Breakpoints where it stands do not stop the next run."""
    engine.arm(engine.stops, ignored_at=engine.icount)
