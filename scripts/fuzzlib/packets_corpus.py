"""Small guests, a recording of each, and the sessions of debuggers with them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rrgdb.opening import GuestOptions, record, replay
from rrgdb.timeline.stop import Points

_SESSIONS = Path(__file__).with_name("sessions.txt")
_MEMORY = 4 << 20
_STEPS = 3000
_DIGESTS = 97
"""instructions between two positions whose state is known"""


@dataclass(frozen=True)
class Program:
    """Raw code for a board: a loop that calls, stores, prints, and on RISC-V reads a clock and switches off."""

    board: str
    base: int
    code: bytes

    @property
    def options(self) -> GuestOptions:
        return GuestOptions(board=self.board, memory=_MEMORY, load=self.base)


PROGRAMS = {
    "riscv64": Program(
        "riscv64-virt",
        0x8000_0000,
        bytes.fromhex(
            "37040800052432049304800737090010b7191000ef00200308c093f2f400639a0200130380072300690003ae0900"
            "2334c401fd14e5f0b702100015631b03535523a0620001a00d05832304008280"
        ),
    ),
    "i386": Program(
        "i386-pc",
        0x10_0000,
        bytes.fromhex("bc00201000bb0010100031c0e8170000008903884308a90f00000075095066baf803b078ee58ebe483c0038b0bc3"),
    ),
    "aarch64": Program(
        "aarch64-virt",
        0x4000_0000,
        bytes.fromhex(
            "1300a8d2730640911420a1d2000080d208000094600200b9600600f91f0c007261000054010f8052810200b9f9ffff17"
            "000c0011620240b9c0035fd6"
        ),
    ),
}


@dataclass(frozen=True)
class Seed:
    """``digests``: position -> digest of the state there."""

    family: str
    program: Program
    image: Path
    recording: Path
    digests: dict[int, bytes]
    sessions: list[list[bytes]]


def build(directory: Path) -> dict[str, Seed]:
    """Make all recordings below ``directory``."""
    directory.mkdir(parents=True)
    sessions = _read_sessions()
    seeds = {}
    for family, program in PROGRAMS.items():
        image, recording = directory / f"{family}.bin", directory / f"{family}.rrgdb"
        image.write_bytes(program.code)
        with record(recording, image, program.options, interval=1e-6) as opened:
            opened.timeline.run(Points({}), steps=_STEPS)
        seeds[family] = Seed(family, program, image, recording, _digests(recording), sessions[family] + sessions["any"])
    return seeds


def _digests(recording: Path) -> dict[int, bytes]:
    found = {}
    with replay(recording, writable=False) as opened:
        timeline = opened.timeline
        for icount in (*range(0, timeline.end, _DIGESTS), timeline.end):
            timeline.seek(icount)
            found[icount] = timeline.marks.state_digest()
    return found


def _read_sessions() -> dict[str, list[list[bytes]]]:
    """family -> its sessions."""
    sessions: dict[str, list[list[bytes]]] = {}
    for block in _SESSIONS.read_text().split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith("#")]
        if lines:
            family = lines[0][1:].partition("]")[0]
            sessions.setdefault(family, []).append([_packet(line) for line in lines[1:]])
    return sessions


def _packet(line: str) -> bytes:
    return re.sub(rb"\\x(..)", lambda match: bytes.fromhex(match[1].decode()), line.encode())
