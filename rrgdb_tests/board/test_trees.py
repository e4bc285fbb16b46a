"""The device trees of the boards, node by node as QEMU's."""

from __future__ import annotations

import lzma
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rrgdb.arch import ARCHES
from rrgdb.board.boards import BOARDS
from rrgdb.board.firmware.devicetree import Node, TreeFacts, decode, encode, raw
from rrgdb.board.spec import MIB, BoardSpec

RECORDED = Path(__file__).with_name("recorded")
QEMU = {
    "aarch64-virt": ("qemu-system-aarch64", "virt,gic-version=2", "cortex-a57"),
    "arm-virt": ("qemu-system-arm", "virt,gic-version=2", "cortex-a15"),
    "riscv32-virt": ("qemu-system-riscv32", "virt", "sifive-u34"),
    "riscv64-virt": ("qemu-system-riscv64", "virt", "sifive-u54"),
}
"""board -> binary, machine, CPU"""
ABSENT = (
    "/pcie@10000000",
    "/pmu",
    "/intc@8000000/v2m@8020000",
    "/platform-bus@4000000",
    "/soc/pci@30000000",
)
"""what rrgdb's boards lack"""
SEEDS = ("rng-seed", "kaslr-seed")
OPTIONAL = {
    "/fw-cfg@9020000": "fw-cfg",
    "/fw-cfg@10100000": "fw-cfg",
    "/flash@0": "flash0",
    "/flash@20000000": "flash0",
}
"""nodes of devices that a board may have, and the devices' names"""


def ask(board: str, where: Path, cpu: str | None = None) -> bytes:
    """QEMU's own blob."""
    binary, kind, default = QEMU[board]
    machine = f"{kind},dumpdtb={where / 'blob'}"
    command = ["timeout", "20", binary, "-M", machine, "-cpu", cpu or default, "-display", "none"]
    firmware = ["-bios", "none"] if "riscv" in binary else []
    subprocess.run([*command, *firmware], check=True, capture_output=True)
    return (where / "blob").read_bytes()


def pruned(board: BoardSpec, blob: bytes) -> Node:
    """QEMU's tree without what the board lacks."""
    root = decode(blob)
    names = {place.name for place in board.placements}
    absent = {*ABSENT, *(path for path, name in OPTIONAL.items() if name not in names)}
    for path, node in list(root.walk()):
        node.children = [child for child in node.children if f"{path.rstrip('/')}/{child.name}" not in absent]
        for seed in SEEDS:
            node.properties.pop(seed, None)
    return root


def ours(board: BoardSpec, cpu: str, megabytes: int = 128) -> Node:
    assert board.tree is not None
    return decode(encode(board.tree(TreeFacts(board, board.ram(megabytes * MIB), cpu, 0))))


def listed(root: Node) -> list[tuple[str, list[tuple[str, bytes]]]]:
    return [(path, [(name, raw(value)) for name, value in node.properties.items()]) for path, node in root.walk()]


@pytest.mark.parametrize("name", QEMU)
def test_it_is_qemus(name: str) -> None:
    with lzma.open(RECORDED / f"{name}.dtb.xz") as file:
        blob = file.read()
    assert listed(ours(BOARDS[name], QEMU[name][2])) == listed(pruned(BOARDS[name], blob))


@pytest.mark.qemu
@pytest.mark.skipif(any(shutil.which(binary) is None for binary, *_ in QEMU.values()), reason="QEMU is not installed")
@pytest.mark.parametrize(
    ("name", "cpu"),
    [
        (name, cpu)
        for name in QEMU
        for cpu in ARCHES[BOARDS[name].arches[0]].models
        if cpu not in ("cortex-a8", "cortex-a9")
    ],
)
def test_it_is_that_of_the_qemu_that_is_here(name: str, cpu: str, tmp_path: Path) -> None:
    """Cortex-A8 and A9 are none of its virt machine's."""
    assert listed(ours(BOARDS[name], cpu)) == listed(pruned(BOARDS[name], ask(name, tmp_path, cpu)))


@pytest.mark.parametrize(("name", "reg"), [("aarch64-virt", 0x40000000), ("riscv32-virt", 0x80000000)])
def test_memory_is_the_boards(name: str, reg: int) -> None:
    memory = ours(BOARDS[name], QEMU[name][2], 2048).child("memory")
    assert memory is not None
    assert memory.properties["reg"] == reg.to_bytes(8) + (2 << 30).to_bytes(8)


def main() -> None:
    """Record QEMU's trees anew, without their random numbers' places in it being compared."""
    RECORDED.mkdir(exist_ok=True)
    for name in QEMU:
        blob = ask(name, Path(sys.argv[1]))
        (RECORDED / f"{name}.dtb.xz").write_bytes(lzma.compress(blob, preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main()
