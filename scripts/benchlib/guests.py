"""The guests that are measured: rrgdb's ticker for each CPU family, and those of a peer kit."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

from rrgdb.arch.base import Arch
from rrgdb.board.firmware.image import load_image
from rrgdb_tests.guests import ARCHES, build

TICKS = 1000
TICKER_LOOP = {"riscv32": 11, "riscv64": 12, "arm": 9, "aarch64": 9, "i386": 10, "x86_64": 11}
"""instructions of one round of the loop in work()"""
KIT_RV = (
    "riscv64-unknown-elf-gcc -march=rv64imac_zicsr -mabi=lp64 -mcmodel=medany -msmall-data-limit=0 -DNCHUNKS={chunks}u"
)
KIT_A64 = "aarch64-linux-gnu-gcc -mgeneral-regs-only -mstrict-align -static -DNCHUNKS={chunks}u"
KIT_I386 = "i686-linux-gnu-gcc -march=i686 -static -fcf-protection=none -DNCHUNKS={chunks}u"


@dataclass(frozen=True)
class Guest:
    """``hot`` is the function of the loop (its argument: how many rounds); ``early`` runs once, near the beginning;
    ``often`` is entered 1,000 times; ``counter`` is written by ``counts`` alone, ``unwritten`` by nothing
    (rrgdb's own: on the page that ``hot`` writes); ``last`` is what ``counter`` ends with; ``never`` lies
    on the page of ``hot`` and does not run."""

    name: str
    elf: Path
    arch: Arch
    memory: int
    symbols: dict[str, int]
    hot: str
    early: str
    often: str
    counts: str
    last: int
    unwritten: str
    counter: str = "tick_count"
    never: str = "never"
    kit: bool = False

    def at(self, role: str) -> int:
        """Address of the symbol in a role: ``guest.at("never")``."""
        return self.symbols[getattr(self, role)]


def _read(elf: Path) -> tuple[Arch, dict[str, int]]:
    with elf.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        symbols = {s.name: int(s["st_value"]) for s in table.iter_symbols() if s.name}
    return load_image(elf.read_bytes(), elf.name).arch, symbols


def ticker(name: str, instructions: int) -> Guest:
    """rrgdb's own guest of at least so many instructions; ``name`` is the CPU family."""
    work = -(-instructions // (TICKS * TICKER_LOOP[name]))
    elf = build(name, "ticker", {"TICKS": TICKS, "WORK": work})
    arch, symbols = _read(elf)
    return Guest(name, elf, arch, 32 << 20, symbols, "work", "main", "tick", "tick", TICKS, "mirror")


def build_kit(kit: Path, chunks: int) -> None:
    """Build the kit's guests, ``chunks`` million instructions long."""
    words = {"RV": KIT_RV, "A64": KIT_A64, "I386": KIT_I386}
    options = [f"{name}={words.format(chunks=chunks)}" for name, words in words.items()]
    subprocess.run(["make", "-s", "-C", str(kit / "guest"), *options], check=True, stdin=subprocess.DEVNULL)


def kit_guest(kit: Path, name: str, chunks: int) -> Guest:
    """A guest of the kit, built before."""
    elf = kit / "guest" / f"{name}.elf"
    arch, symbols = _read(elf)
    return Guest(
        name, elf, arch, 32 << 20, symbols, "chunk", "at_1e6", "chunk", "tick", chunks // 10, "irq_count", kit=True
    )


def is_own(name: str) -> bool:
    return name in ARCHES
