"""The tables of boards and the one door to the host."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

import pytest

import rrgdb.board
from rrgdb.arch import ARCHES
from rrgdb.board.boards import BOARDS, board_of, default_board, earlier
from rrgdb.board.device import Console, Slots
from rrgdb.board.devices import DEVICES
from rrgdb.board.devices.intc.gic import Gic
from rrgdb.board.devices.virtio.slots import DenseVirtioMmio, VirtioMmio
from rrgdb.board.spec import GIB, MIB, BoardSpec, Placement, machine_rows
from rrgdb_tests.board.fakes import FakeMachine

# QEMU 7.2: hw/riscv/virt.c, hw/arm/virt.c (start, size of what rrgdb does not model there) and ports of the PC.
_ARM = [
    (0x08001000, 0xF000),
    (0x08020000, 0x00FE0000),
    (0x09021000, 0xF000),
    (0x09040000, 0x60000),
    (0x090A0000, 0x30000),
    (0x0C000000, 0x34000000),
]
QEMU_MAPS: dict[str, list[tuple[int, int]]] = {
    "riscv": [
        (0x0, 0x100),
        (0x02F00000, 0x4000),
        (0x03000000, 0x10000),
        (0x04000000, 0x2000000),
        (0x24000000, 0x5C000000),
    ],
    "mps2": [(0x22000000, 0x02000000), (0x42000000, 0x02000000)],  # bit-band
    "aarch64": _ARM,
    "arm": _ARM,
    "pc": [
        (0x00, 0x70),
        (0x80, 0x60),
        (0xF0, 2),
        (0x170, 0x10),
        (0x1F0, 8),
        (0x2F8, 8),
        (0x376, 2),
        (0x378, 8),
        (0x3B0, 0x30),
        (0x3F0, 8),
        (0x402, 1),
        (0x4D0, 2),
        (0x505, 2),
        (0x510, 12),
        (0x600, 0x80),
        (0xAE00, 0x200),
        (0xCF8, 8),
        (0xB000, 0x5000),
    ],
}


def boards() -> list[BoardSpec]:
    return list(BOARDS.values())


@pytest.mark.parametrize("board", boards(), ids=lambda b: b.name)
def test_devices_have_their_own_names_and_addresses(board: BoardSpec) -> None:
    names = [place.name for place in board.placements]
    assert len(set(names)) == len(names)
    assert board.serial in names
    for space in ("mmio", "port"):
        places = sorted((p for p in board.placements if p.space == space), key=lambda p: p.base)
        assert all(p.factory in DEVICES.values() for p in places)
        assert all(below.end <= above.base for below, above in pairwise(places))
        for place in places:
            assert place.size > 0
            assert space == "port" or (place.base % 4096, place.size % 4096) == (0, 0)
            assert space == "mmio" or place.end <= 0x10000


@pytest.mark.parametrize("board", [*boards(), *earlier()], ids=lambda b: f"{b.name} {b.revision}")
def test_what_the_user_types_comes_to_a_console(board: BoardSpec) -> None:
    place = next(place for place in board.placements if place.name == board.serial)
    assert isinstance(place.factory(place.name, FakeMachine()), Console)
    assert board.semihosting_input == (board in earlier() and board.revision == 1)


def test_boards_are_kept_in_all_revisions() -> None:
    known = [(board.name, board.revision) for board in (*earlier(), *boards())]
    assert len(set(known)) == len(known)
    for board in boards():
        assert [board_of(board.name, n + 1) is not None for n in range(board.revision + 1)] == [
            *(True for _ in range(board.revision)),
            False,
        ]
        assert board_of(board.name, board.revision) is board


@pytest.mark.parametrize("board", boards(), ids=lambda b: b.name)
def test_there_is_a_slot_for_each_disk(board: BoardSpec) -> None:
    stride = {VirtioMmio: 0x1000, DenseVirtioMmio: 0x200}
    assert board.disks == sum(p.size // s for p in board.placements for f, s in stride.items() if p.factory is f)
    for place in board.placements:
        assert isinstance(place.factory(place.name, FakeMachine()), Slots) == bool(place.slots)
        assert list(place.slots) == list(reversed(range(len(place.slots)))), "QEMU fills the last one first"


@pytest.mark.parametrize("board", boards(), ids=lambda b: b.name)
def test_nothing_collides_with_qemus_map(board: BoardSpec) -> None:
    occupied = next(spans for key, spans in QEMU_MAPS.items() if key in board.name)
    for place in board.placements:
        pieces = [(place.base + offset, place.base + offset + length) for offset, length in place.pieces]
        for start, size in occupied:
            assert all(end <= start or start + size <= base for base, end in pieces), place.name


def test_a_device_has_nothing_in_its_gap() -> None:
    board = BOARDS["aarch64-virt"]
    at = {
        address: board.device_at(address, 4) for address in (0x08000FFC, 0x08001000, 0x0800FFFC, 0x08010000, 0x08011FFC)
    }
    assert [place and place.name for place in at.values()] == ["gic", None, None, "gic", "gic"]
    assert board.device_at(0x08000FFC, 8) is board.device_at(0x0800FFFC, 8) is at[0x08010000]
    assert at[0x08010000] is not None
    assert at[0x08010000].pieces == ((0, 0x1000), (0x10000, 0x2000))
    assert Placement(Gic, "gic", 0, 0x12000).pieces == ((0, 0x12000),)


@pytest.mark.parametrize("board", boards(), ids=lambda b: b.name)
def test_devices_build_reset_and_save(board: BoardSpec) -> None:
    machine = FakeMachine()
    for place in board.placements:
        device = place.factory(place.name, machine)
        assert device.name == place.name
        device.load(device.save())


@pytest.mark.parametrize("board", boards(), ids=lambda b: b.name)
@pytest.mark.parametrize("which", ["default_ram", "max_ram"])
def test_ram(board: BoardSpec, which: str) -> None:
    size = getattr(board, which)
    ram = board.ram(size)
    regions = ram.regions
    more = sum(length for _, length in board.banks)
    assert ram.bytes == sum(n for _, n in regions) == size + more - sum(end - hole for hole, end in board.holes)
    assert board.ram_base in {base for base, _ in regions}
    assert list(regions) == sorted(regions)
    assert sum(regions[-1]) == board.ram_base + size
    assert all(board.device_at(base, length) is None for base, length in regions)
    for hole, end in board.holes:
        assert all(end <= base or base + length <= hole for base, length in regions)
    top = ram.stack_top
    assert any(base <= top < base + length for base, length in regions)
    assert top % 16 == 0
    bits = min(ARCHES[name].bits for name in board.arches)
    assert board.ram_base + size <= 1 << bits


@pytest.mark.parametrize("size", [0, 4096, -MIB, MIB + 1, 2 * MIB + 512, 64 * GIB])
def test_ram_size_is_checked(size: int) -> None:
    with pytest.raises(ValueError, match="board i386-pc: RAM of"):
        BOARDS["i386-pc"].ram(size)


def test_every_arch_has_a_board() -> None:
    for name in ARCHES:
        assert default_board(name) is next(board for board in boards() if name in board.arches)
    with pytest.raises(ValueError, match="no board for architecture 'vax'"):
        default_board("vax")


def test_machine_rows() -> None:
    rows = {row[0]: row for row in machine_rows(BOARDS.values())}
    assert rows.keys() == BOARDS.keys()
    assert rows["i386-pc"][1:3] == ("i386", "128 MiB (max 3 GiB)")
    assert "serial0@0x10000000" in rows["riscv64-virt"][3]


def sources() -> list[Path]:
    return sorted(Path(rrgdb.board.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.name)
def test_the_host_is_the_only_door(path: Path) -> None:
    forbidden = {"time", "random", "os", "socket", "secrets", "uuid", "select", "subprocess", "threading"}
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Attribute):
            assert node.attr not in {"now", "utcnow", "today"}, f"{path.name}:{node.lineno}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"open", "__import__", "hash"}, f"{path.name}:{node.lineno}"
        assert not {name.split(".")[0] for name in names} & forbidden, path.name
