"""The image loader under random and damaged ELF files, and now and then all of `rrgdb record`."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from rrgdb.board.boards import BOARDS, default_board
from rrgdb.board.firmware.image import Image, load_image, load_raw, place_image
from rrgdb.board.spec import BoardSpec
from rrgdb.errors import Error

NAME = "image.elf"
_RECORDED = 1 / 2000
"""of the cases go through `rrgdb record` as well: a process each"""
_MACHINES = {3: (32, "i386-pc"), 40: (32, "arm-virt"), 62: (64, "x86_64-pc"), 183: (64, "aarch64-virt")}
_RISCV = 243
_WORDS = (0, 1, 2, 3, 4, 7, 8, 0x34, 0x40, 0x7F, 0x80, 0xFF, 0xFFF, 0x1000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000)
_LARGE = (0xFFFFFFFF, 0xFFFFF000, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1)
_TYPES = (*[1] * 40, 4, 4, 4, 6, 2, 3, 0, 7, 0x6474E551, 0x70000003, 0xFFFFFFFF)
_COUNTS = (*[1, 2] * 6, 3, 3, 5, 20, 0)
"""of program headers"""
_MULTIBOOT = 0x1BADB002


@dataclass
class _Segment:
    """A program header."""

    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int = 4096


@dataclass
class _Layout:
    """What is made an ELF file of."""

    bits: int
    machine: int
    board: BoardSpec
    order: str = "<"
    segments: list[_Segment] = field(default_factory=list)
    body: bytes = b""

    @property
    def header_bytes(self) -> int:
        return 64 if self.bits == 64 else 52

    @property
    def entry_bytes(self) -> int:
        return 56 if self.bits == 64 else 32

    @property
    def first(self) -> int:
        """Offset of the body."""
        return self.header_bytes + self.entry_bytes * len(self.segments)


class Elf:
    def __init__(self, work: Path) -> None:
        self._recorder = _Recorder()

    def damage(self, rng: random.Random) -> dict[str, bytes]:
        """An ELF file by its structure, in most cases damaged; now and then any bytes behind a header's beginning."""
        if rng.random() < 0.03:
            return {NAME: rng.choice([b"\x7fELF", b"\x7fELF\x02\x01\x01", b""]) + rng.randbytes(rng.randrange(300))}
        data = bytearray(_file(rng))
        for _ in range(rng.choice([0, 0, 1, 1, 2, 3, 6])):
            _damage(data, rng)
        return {NAME: bytes(data)}

    def exercise(self, directory: Path, rng: random.Random) -> None:
        """Load it as the command line does; raises what is no clear error."""
        load((directory / NAME).read_bytes(), rng)
        if rng.random() < _RECORDED:
            self._recorder.record(directory)


def load(data: bytes, rng: random.Random) -> None:
    """Load an image and place it; AssertionError for a result that no board can start."""
    try:
        image, board = _loaded(data, rng)
        memory = rng.choice([board.default_ram, board.max_ram, 2 << 20])
        placed = place_image(image, board, board.ram(memory), rng.choice(["", "a b", "x" * 3000]))
    except Error as error:
        text = str(error)
        assert text, "an error without a word"
        assert text.isprintable(), f"not one line: {text!r}"
        assert len(text) < 500, f"a long line: {text!r}"
        return
    regions = placed.ram.regions
    assert placed.segments, "nothing was loaded"
    assert sum(len(s.data) for s in image.segments) <= len(data), "more than the file holds"
    last = -1
    for s in sorted(placed.segments, key=lambda s: s.paddr):
        assert last < s.paddr, f"segments overlap at {s.paddr:#x}"
        assert len(s.data) <= s.memsz, f"segment {s.paddr:#x} has more bytes than memory"
        assert any(base <= s.paddr and s.end <= base + size for base, size in regions), f"{s.paddr:#x} is not in RAM"
        last = s.end - 1
    assert any(s.paddr <= placed.entry < s.end for s in placed.segments), f"entry {placed.entry:#x} is nowhere"
    assert placed.left_out.isprintable(), "not one line"


def _loaded(data: bytes, rng: random.Random) -> tuple[Image, BoardSpec]:
    if rng.random() < 0.02:
        board = rng.choice(list(BOARDS.values()))
        arch = load_image(_plain(board), NAME).arch
        at = rng.choice([board.ram_base, *_WORDS, *_LARGE])
        return load_raw(data, NAME, arch, at, rng.choice([None, at, *_WORDS])), board
    image = load_image(data, NAME)
    return image, default_board(image.arch.name) if rng.random() < 0.9 else rng.choice(list(BOARDS.values()))


def _plain(board: BoardSpec) -> bytes:
    machine = next((m for m, (_, name) in _MACHINES.items() if name == board.name), _RISCV)
    layout = _Layout(64 if "64" in board.name else 32, machine, board)
    at = _start(board)
    layout.segments = [_Segment(1, 7, 0, at, at, 4, 4)]
    return _build(layout, at, random.Random(0))


def _start(board: BoardSpec) -> int:
    """Where images begin: on a PC behind the hole in RAM."""
    return max((end for _, end in board.holes), default=board.ram_base)


def _file(rng: random.Random) -> bytes:
    machine = rng.choice([*_MACHINES, _RISCV, _RISCV])
    bits, name = _MACHINES.get(machine, (0, ""))
    if machine == _RISCV:
        bits = rng.choice([32, 64])
        name = f"riscv{bits}-virt"
    layout = _Layout(bits, machine, BOARDS[name])
    layout.segments = [
        _segment(layout, rng) for _ in range(rng.choice([1, 1, 1, 2, 2, 2, 3, 3, 5, 20 * (rng.random() < 0.5)]))
    ]
    layout.body = _body(rng)
    loadable = [s for s in layout.segments if s.type == 1]
    _arrange(layout, loadable, rng)
    chosen = rng.choice(loadable) if loadable else None
    entry = rng.choice(_WORDS) if chosen is None else chosen.vaddr + 4 * rng.choice([0, 0, 0, 1, 4])
    return _build(layout, entry, rng)


def _body(rng: random.Random) -> bytes:
    body = bytearray(rng.choice([bytes(4096), rng.randbytes(rng.randrange(1, 600)), b"\x90" * 64]))
    if rng.random() < 0.2:
        flags = rng.choice([0, 3, 4, 0x10000, 0x10003, 0x80])
        fields = [rng.choice([0x100000, 0x100010, 0, 0x10000, 0xFFFFFFFF, 0x90000]) for _ in range(5)]
        total = -(_MULTIBOOT + flags) & 0xFFFFFFFF
        at = rng.choice([0, 4, 8, 61])
        body[at:at] = struct.pack("<8I", _MULTIBOOT, flags, total, *fields)
    return bytes(body)


def _segment(layout: _Layout, rng: random.Random) -> _Segment:
    """One in RAM, mostly; its place in the file comes later."""
    base = _start(layout.board)
    paddr = base + rng.choice([0, 0, 4, 64, 4096, 8192, 1 << 16, (1 << 20) - 64, -4096, -64])
    if rng.random() < 0.1:
        paddr = rng.choice([*_WORDS, *_LARGE, *(place.base for place in layout.board.placements)])
    vaddr = paddr if rng.random() < 0.7 else rng.choice([base + (1 << 20), 0, 0xFFFF0000, *_LARGE])
    filesz = rng.choice([0, 1, 4, 64, 64, 300])
    memsz = filesz + rng.choice([0, 0, 0, 1, 64, 4096, 1 << 20])
    return _Segment(rng.choice(_TYPES), rng.choice([7, 7, 5, 6, 4, 0]), 0, vaddr, paddr & (1 << 64) - 1, filesz, memsz)


def _arrange(layout: _Layout, loadable: list[_Segment], rng: random.Random) -> None:
    """Lay the segments behind one another in the file and in memory, or let some overlap."""
    at, address = layout.first, None
    for s in loadable:
        s.offset = rng.choice([at, at, at, at, 0, layout.first])
        s.filesz = max(0, min(s.filesz, layout.first + len(layout.body) - s.offset))
        s.memsz = max(s.memsz, s.filesz)
        at += s.filesz
        if address is not None and rng.random() < 0.6:
            same = s.vaddr == s.paddr
            s.paddr = address
            s.vaddr = address if same else s.vaddr
        address = s.paddr + s.memsz if rng.random() < 0.7 else s.paddr + s.filesz
    if loadable and rng.random() < 0.15:
        # The headers in the first segment, a page below the code.
        s = loadable[0]
        s.offset, s.paddr, s.filesz = 0, _start(layout.board) - 4096, min(4096 + 64, layout.first + len(layout.body))
        s.vaddr, s.memsz = s.paddr, max(s.filesz, 4096 + 64)


def _build(layout: _Layout, entry: int, rng: random.Random) -> bytes:
    wide, order = layout.bits == 64, layout.order
    mask = (1 << layout.bits) - 1
    headers = b""
    for s in layout.segments:
        places = [v & mask for v in (s.offset, s.vaddr, s.paddr, s.filesz, s.memsz)]
        if wide:
            headers += struct.pack(order + "IIQQQQQQ", s.type, s.flags, *places, s.align)
        else:
            headers += struct.pack(order + "8I", s.type, *places, s.flags, s.align)
    body = layout.body or bytes(4)
    sections = rng.choice([0, 0, 3])
    tables = b"".join(rng.randbytes(64 if wide else 40) for _ in range(sections))
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    head = struct.pack(order + "HHI", 2, layout.machine, 1)
    behind = layout.first + len(body)
    head += struct.pack(order + ("QQQ" if wide else "III"), entry & mask, layout.header_bytes, sections and behind)
    counts = (layout.header_bytes, layout.entry_bytes, len(layout.segments), 64 if wide else 40, sections, 0)
    head += struct.pack(order + "I6H", 0, *counts)
    return ident + head + headers + body + tables


def _damage(data: bytearray, rng: random.Random) -> None:
    """Change a field of the headers, some byte, or the length."""
    what = rng.randrange(10)
    if what < 6 and data:
        near = min(len(data), 64 + 56 * 3)
        at = rng.randrange(near) & ~rng.choice([0, 1, 3, 3, 7, 7])
        width = rng.choice([1, 2, 4, 8])
        value = rng.choice([*_WORDS, *_LARGE, rng.getrandbits(64), len(data), len(data) + 1])
        data[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
    elif what < 8 and data:
        data[rng.randrange(len(data))] = rng.randrange(256)
    elif what == 8:
        del data[rng.randrange(len(data) + 1) :]
    else:
        data += bytes(rng.choice([1, 4096]))


_SERVER = """
import subprocess, sys
for line in sys.stdin:
    token, path = line.split(" ", 1)
    path = path.rstrip("\\n")
    command = [sys.executable, "-P", "-m", "rrgdb", "record", "--serial", "null", "--max-icount", "5000"]
    limits = ["--timeout", "10", "-o", path + "/recording", path + "/image.elf"]
    try:
        done = subprocess.run(command + limits, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
        status, said = done.returncode, done.stderr
    except subprocess.TimeoutExpired:
        status, said = 999, b"takes more than two minutes"
    print(token, status, said.hex(), flush=True)
"""


class _Recorder:
    """`rrgdb record` as processes of a process of its own: the one that runs the cases has little memory."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._asked = 0

    def record(self, directory: Path) -> None:
        """Raises AssertionError unless the image in ``directory`` runs, or is refused in one line."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        token = f"{random.SystemRandom().getrandbits(64):x}"
        self._process.stdin.write(f"{token} {directory}\n")
        self._process.stdin.flush()
        answer = ""
        # The answer to a case that was killed may still be on its way.
        while not answer.startswith(token):
            answer = self._process.stdout.readline()
            assert answer, "the process that records has ended"
        _, status, *said = answer.split()
        text = bytes.fromhex("".join(said)).decode(errors="replace")
        assert "Traceback" not in text, text
        assert "internal error" not in text, text
        assert 0 <= int(status) <= 255, f"status {status}: {text}"
        assert text.startswith("rrgdb: "), text
        if "recording to" not in text:
            assert text.count("\n") == 1, f"more than one line: {text}"
            assert int(status) in (1, 2), f"status {status}: {text}"
