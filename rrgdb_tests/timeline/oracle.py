"""What a guest does, found out the plain way: one instruction at a time, forward only."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from elftools.elf.elffile import ELFFile
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from rrgdb.board.machine import Board
from rrgdb.opening import GuestOptions, NewDisk, Opened, record, replay
from rrgdb.snapshots.errors import StoreError
from rrgdb.snapshots.overlays import BLOCK
from rrgdb_tests.guests import build, build_kernel

MEMORY = 4 << 20
OPTIONS = GuestOptions(memory=MEMORY)
VALUES: Mapping[str, tuple[str, int]] = {
    "ticker": ("tick_count", 4),
    "hunt": ("random_state", 4),
    "disks": ("buffer", 4),
    "timers": ("ticked", 4),
    "kernel": ("switches", 4),
}
"""guest -> (global variable, bytes) that the tests watch"""


@dataclass(frozen=True)
class Oracle:
    """``pcs[i]`` and ``values[i]``: pc and the watched bytes at position i; ``dies``: the last instruction kills the
    guest, so that the last position is before and after its end; ``interrupted``: positions at which an interrupt is
    taken, and not the instruction at pc."""

    image: Path
    pcs: tuple[int, ...]
    values: tuple[bytes, ...]
    watched: tuple[int, int] | None
    dies: bool
    disks: tuple[NewDisk, ...] = ()
    options: GuestOptions = OPTIONS
    interrupted: frozenset[int] = frozenset()

    @property
    def end(self) -> int:
        return len(self.pcs) - 1

    def attempts(self, position: int) -> int | None:
        """Address of the instruction that is tried at ``position``: where a breakpoint stops."""
        return None if position in self.interrupted else self.pcs[position]

    def writers(self) -> list[int]:
        """Instructions that change the watched bytes."""
        return [i for i in range(self.end) if self.values[i] != self.values[i + 1]]


def symbol(image: Path, name: str) -> int:
    with image.open("rb") as f:
        return int(ELFFile(f).get_section_by_name(".symtab").get_symbol_by_name(name)[0]["st_value"])


@cache
def oracle(arch: str, guest: str, defines: tuple[tuple[str, int], ...] = (), disks: tuple[NewDisk, ...] = ()) -> Oracle:
    """Runs the guest without input to its end."""
    image = build_kernel(arch, dict(defines)) if guest == "kernel" else build(arch, guest, dict(defines))
    return observe(image, VALUES.get(guest), OPTIONS, disks)


def observe(
    image: Path, value: tuple[str, int] | None, options: GuestOptions, disks: tuple[NewDisk, ...] = ()
) -> Oracle:
    """The same of any image; ``value``: see ``VALUES``."""
    watched = None if value is None else (symbol(image, value[0]), value[1])
    with TemporaryDirectory() as scratch, record(Path(scratch) / "r", image, options, disks=disks) as opened:
        board, engine = opened.guest, opened.guest.engine
        pcs, values = [], []
        interrupted = _notes_interrupts(board)
        while True:
            before = engine.icount
            pcs.append(engine.read(engine.arch.pc))
            values.append(engine.read_memory(*watched) if watched else b"")
            board.run_until(before + 1)
            if engine.icount == before:
                break
            assert engine.icount == before + 1
        assert board.end is not None
        dies = board.end.kind == "signal"
        return Oracle(image, tuple(pcs), tuple(values), watched, dies, disks, options, frozenset(interrupted))


def _notes_interrupts(board: Board) -> list[int]:
    """Positions at which ``board`` will have taken interrupts."""
    positions: list[int] = []
    take = board._take_interrupt

    def noted() -> bool:
        here = board.engine.icount
        taken = take()
        if taken:
            positions.append(here)
        return taken

    board._take_interrupt = noted  # type: ignore[method-assign]
    return positions


def whole_state(opened: Opened) -> bytes:
    """The state's digest, with what really stands on the disks; checks the digests of those."""
    digest = opened.timeline.marks.state_digest()
    disks = opened.timeline.marks.disks
    for number, image in enumerate(disks.images):
        count = -(-image.size // BLOCK)
        now, first = disks.blocks(number, 0, count), image.read(0, count * BLOCK)
        change = 0
        for i, block in enumerate(now):
            before = first[i * BLOCK : i * BLOCK + BLOCK]
            change += xxh3_64_intdigest(block, i + 1) - xxh3_64_intdigest(before, i + 1)
        assert isinstance(opened.guest, Board)
        assert opened.guest.disks[number].content == change % 2**64
        digest += xxh3_64_digest(b"".join(now))
    return digest


def without_store(recording: Path, to: Path) -> Path:
    """A copy of a recording that has no snapshots: it can only be replayed from the images."""
    shutil.copytree(recording, to, ignore=shutil.ignore_patterns("snapshots.qcow2"))
    return to


def digests_straight(recording: Path, positions: Iterable[int], scratch: Path) -> dict[int, bytes]:
    """State digests of positions, from one pass from the first instruction on, without any snapshot."""
    found = {}
    with replay(without_store(recording, scratch), writable=False) as opened:
        timeline = opened.timeline
        for position in sorted(set(positions)):
            assert position <= timeline.end
            while timeline.icount < position:
                timeline.advance(position)
            if position == timeline.end:
                timeline.seek(position)
            found[position] = whole_state(opened)
    return found


def assert_disarmed(opened: Opened) -> None:
    """Nothing that a move arms is left behind: running on is not stopped by anything."""
    core = opened.timeline.engine._core
    assert core.skip == (1 << 64) - 1
    assert not opened.timeline.engine._watches
    assert (core.bp_last, core.watch_last) == ((1 << 64) - 1, (1 << 64) - 1)
    assert not opened.timeline.interrupted


__all__ = ["OPTIONS", "Oracle", "StoreError", "assert_disarmed", "digests_straight", "oracle", "symbol"]
