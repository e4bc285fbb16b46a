"""What lies in memory when QEMU starts, as the judge of ours: its list of "ROMs" and what they hold.

``python -m rrgdb_tests.board.firmware.placement`` asks QEMU about all ``CASES`` and stores the answers in
``recorded/placement.json``.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rrgdb.board.boards import BOARDS
from rrgdb.board.firmware.boot import Boot, File, Loader, Placed, boot
from rrgdb.board.firmware.devicetree import Node, decode, encode, raw
from rrgdb.board.spec import MIB
from rrgdb_tests.board.elf_builder import EM_AARCH64, EM_ARM, EM_RISCV, Elf, Seg

RECORDED = Path(__file__).with_name("recorded") / "placement.json"
PROGRAMS = {
    "riscv64-virt": ("qemu-system-riscv64", "virt", "rv64"),
    "riscv32-virt": ("qemu-system-riscv32", "virt", "rv32"),
    "aarch64-virt": ("qemu-system-aarch64", "virt,gic-version=2,dtb-randomness=off", "cortex-a57"),
    "arm-virt": ("qemu-system-arm", "virt,gic-version=2,dtb-randomness=off", "cortex-a15"),
}
TREES = ("fdt", "dtb")
"""QEMU's names of the device tree"""
SEEDS = ("rng-seed", "kaslr-seed")
_ROM = re.compile(r"(?:addr=([0-9a-f]+)|virt\.flash0) size=0x([0-9a-f]+)(?: mem=\w+)? name=\"(.*)\"")


def contents(length: int, seed: int) -> bytes:
    """Bytes that are the same each time, and look like no format."""
    return bytes((i * i + i // 256 + seed) & 0xFF for i in range(length))


def arm64_image(length: int, offset: int, size: int) -> bytes:
    return struct.pack("<2IQQ32x4sI", 0x14000000, 0, offset, size, b"ARM\x64", 0).ljust(length, b"\x5a")


def zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def u_image(
    data: bytes, load: int, entry: int, *, kind: int = 2, system: int = 5, arch: int = 22, comp: int = 0
) -> bytes:
    head = (0x27051956, 0, 0, len(data), load, entry, 0, system, arch, kind, comp, b"test")
    return struct.pack(">IIIIIIIBBBB32s", *head) + data


def hexadecimal(*records: tuple[int, int, bytes]) -> bytes:
    """Intel HEX of (address, type, data), with its end."""
    lines = []
    for address, kind, data in (*records, (0, 1, b"")):
        line = bytes([len(data)]) + address.to_bytes(2, "big") + bytes([kind]) + data
        lines.append(f":{(line + bytes([-sum(line) & 0xFF])).hex().upper()}\r\n")
    return "".join(lines).encode()


def elf(machine: int, bits: int, *segments: Seg, entry: int | None = None) -> bytes:
    return Elf(list(segments), segments[0].vaddr if entry is None else entry, machine, bits).build()


def tree(cells: int, name: str = "memory") -> bytes:
    """A user's, with memory and calls of another machine."""
    children = [
        Node("a"),
        Node(f"{name}@1000", {"reg": (1, 2), "device_type": "memory"}),
        Node("psci", {"method": "smc"}),
        Node("chosen", {"x": "y", "bootargs": "old"}),
    ]
    return encode(Node("", {"#address-cells": cells, "#size-cells": cells, "model": "users"}, children), ((16, 32),))


@dataclass(frozen=True)
class Case:
    """``loaders``: QEMU's options of ``-device loader``, without the file, and that."""

    board: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    append: str = ""
    memory: int = 128
    loaders: tuple[tuple[Mapping[str, int | str], bytes | None], ...] = ()

    def ours(self) -> Placed:
        board = BOARDS[self.board]
        loaders = tuple(self._loader(words, data) for words, data in self.loaders)
        files: dict[str, Any] = {name: File(name, data) for name, data in self.files.items()}
        cpu = PROGRAMS[self.board][2]
        return boot(Boot(**files, append=self.append, loaders=loaders), board, board.ram(self.memory * MIB), cpu)

    @staticmethod
    def _loader(words: Mapping[str, int | str], file: bytes | None) -> Loader:
        data = int(words.get("data", 0)).to_bytes(8, "little")[: int(words.get("data-len", 0))]
        named = None if file is None else File("loaded", file)
        raw_file = words.get("force-raw") == "on"
        return Loader(int(words.get("addr", 0)), named, raw=raw_file, data=data, start="cpu-num" in words)

    def qemus(self) -> dict[str, Any]:
        """QEMU's answer, as ``described`` gives ours."""
        program, machine, cpu = PROGRAMS[self.board]
        with TemporaryDirectory() as directory:
            where = Path(directory)
            words = [program, "-M", machine, "-cpu", cpu, "-m", str(self.memory), "-S", "-nographic"]
            words += ["-serial", "null", "-monitor", "stdio"]
            for name, data in self.files.items():
                (where / name).write_bytes(data)
                words += [f"-{name}", str(where / name)]
            if "bios" not in self.files:
                words += ["-bios", "none"] if "riscv" in self.board else []
            words += ["-append", self.append] if self.append else []
            for number, (options, file) in enumerate(self.loaders):
                parts = ["loader", *(f"{key}={value}" for key, value in options.items())]
                if file is not None:
                    (where / f"loaded{number}").write_bytes(file)
                    parts.append(f"file={where / f'loaded{number}'}")
                words += ["-device", ",".join(parts)]
            said = _monitor(words, ["info roms", "info registers"])
            roms = [(int(at or "0", 16), int(size, 16), name) for at, size, name in _ROM.findall(said)]
            roms += [
                (int(options["addr"]), int(options["data-len"]), "number")
                for options, _ in self.loaders
                if "data" in options
            ]
            saves = [f'pmemsave 0x{at:x} 0x{size:x} "{where / f"part{n}"}"' for n, (at, size, _) in enumerate(roms)]
            _monitor(words, saves)
            parts = [[at, (where / f"part{n}").read_bytes(), name in TREES] for n, (at, _, name) in enumerate(roms)]
            pc = re.search(r"(?:\bpc +|PC=|R15=)([0-9a-f]+)", said)
            assert pc is not None, said
            return _described(int(pc[1], 16), parts)


def _monitor(words: list[str], commands: list[str]) -> str:
    typed = "".join(f"{command}\n" for command in (*commands, "quit"))
    done = subprocess.run(["timeout", "30", *words], input=typed, capture_output=True, text=True, check=False)
    assert "quit" in done.stdout, done.stderr
    return done.stdout


def _described(pc: int, parts: list[Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"pc": pc, "parts": [], "tree": None}
    for at, data, is_tree in parts:
        if not is_tree:
            told["parts"].append([at, len(data), sha256(data).hexdigest()[:16]])
            continue
        root, length = decode(data), int.from_bytes(data[4:8], "big")
        nodes = {
            child.name: {key: raw(value).hex() for key, value in child.properties.items() if key not in SEEDS}
            for child in root.children
            if child.name.partition("@")[0] in ("chosen", "memory", "psci")
        }
        order = [child.name for child in root.children if child.name in nodes]
        told["tree"] = {"at": at, "room": len(data), "nodes": nodes, "order": order}
        if length == len(data):
            told["tree"]["length"] = length
    return told


def agree(placed: Placed, told: dict[str, Any]) -> None:
    """Assert that ours is QEMU's."""
    at = None if told["tree"] is None else told["tree"]["at"]
    trees = [s for s in placed.segments if s.paddr == at and s.data[:4] == b"\xd0\x0d\xfe\xed"]
    ours = _described(placed.entry, [[s.paddr, s.data.ljust(s.memsz, b"\0"), True] for s in trees])
    assert ours["tree"] == told["tree"]
    assert placed.entry == told["pc"]
    for address, size, digest in told["parts"]:
        assert sha256(memory(placed, address, size)).hexdigest()[:16] == digest, f"{address:#x}"
    for segment in placed.segments:
        assert segment in trees or _covered(segment.paddr, segment.end, told["parts"]), f"{segment.paddr:#x}"


def _covered(start: int, end: int, parts: list[Any]) -> bool:
    for address, size, _ in sorted(parts):
        if address <= start < address + size:
            start = address + size
    return start >= end


def memory(placed: Placed, address: int, size: int) -> bytes:
    """What the machine reads there when it starts."""
    held = bytearray(size)
    for segment in placed.segments:
        data = segment.data.ljust(segment.memsz, b"\0")
        low, high = max(segment.paddr, address), min(segment.end, address + size)
        if low < high:
            held[low - address : high - address] = data[low - segment.paddr : high - segment.paddr]
    return bytes(held)


INITRD, KERNEL, BIOS = contents(5000, 1), contents(70000, 2), contents(9000, 3)
RV, A64, A32 = 0x80000000, 0x40000000, 0x40000000
CASES: dict[str, Case] = {
    **{
        f"riscv{bits} {name}": Case(f"riscv{bits}-virt", *rest)
        for bits, memory_ in ((64, 512), (32, 64))
        for name, *rest in (
            ("firmware", {"bios": BIOS}),
            ("firmware ELF", {"bios": elf(EM_RISCV, bits, Seg(RV, BIOS, memsz=0x300000)), "kernel": KERNEL}),
            ("kernel", {"bios": BIOS, "kernel": KERNEL}, "a=b"),
            ("kernel alone", {"kernel": KERNEL, "initrd": INITRD}, "console=ttyS0 x", memory_),
            ("ELF", {"kernel": elf(EM_RISCV, bits, Seg(RV + 0x1000, KERNEL), Seg(RV, INITRD[:64]), entry=RV + 0x1008)}),
            ("uImage", {"kernel": u_image(zipped(KERNEL), RV + 0x300000, RV + 0x300100, arch=26, comp=1)}),
            ("RAM disk", {"bios": BIOS, "kernel": KERNEL, "initrd": u_image(INITRD, 0, 0, kind=3)}, "", memory_),
            ("tree", {"bios": BIOS, "kernel": KERNEL, "dtb": tree(2), "initrd": INITRD}, "new"),
            ("much memory", {"bios": BIOS, "kernel": KERNEL, "initrd": INITRD}, "", 1536),
        )
    },
    **{
        f"{board} {name}": Case(f"{board}-virt", *rest)
        for board, machine, bits, number in (("aarch64", EM_AARCH64, 64, 22), ("arm", EM_ARM, 32, 2))
        for name, *rest in (
            ("nothing", {"bios": BIOS}),
            ("firmware and kernel", {"bios": BIOS, "kernel": KERNEL, "initrd": INITRD}, "a=b"),
            ("raw", {"kernel": KERNEL}, "a=b"),
            ("raw with initrd", {"kernel": KERNEL, "initrd": INITRD}, "", 512),
            ("little memory", {"kernel": KERNEL, "initrd": INITRD}, "", 32),
            ("RAM disk", {"kernel": KERNEL, "initrd": u_image(INITRD, 0, 0, kind=3, arch=number)}),
            ("low ELF", {"kernel": elf(machine, bits, Seg(A64, KERNEL, memsz=0x20000))}, "a=b"),
            ("ELF near", {"kernel": elf(machine, bits, Seg(A64 + 0x80000, KERNEL))}, "a=b"),
            ("ELF", {"kernel": elf(machine, bits, Seg(A64 + 0x400000, KERNEL), entry=A64 + 0x400004)}, "a=b"),
            ("uImage", {"kernel": u_image(KERNEL, A64 + 0x8000, A64 + 0x8040, arch=number), "initrd": INITRD}),
            ("uImage of another", {"kernel": u_image(KERNEL, A64 + 0x8000, A64 + 0x8040, arch=number, system=1)}),
            ("uImage without place", {"kernel": u_image(zipped(KERNEL), 0, 64, kind=14, arch=number, comp=1)}),
            ("tree", {"kernel": KERNEL, "dtb": tree(2), "initrd": INITRD}, "new"),
            ("small tree", {"kernel": KERNEL, "dtb": tree(1)}),
        )
    },
    "aarch64 Image": Case("aarch64-virt", {"kernel": arm64_image(90000, 0, 0x3000000), "initrd": INITRD}, "a=b", 256),
    "aarch64 Image large": Case(
        "aarch64-virt", {"kernel": arm64_image(90000, 0, 0x9000000), "initrd": INITRD}, "", 256
    ),
    "aarch64 old Image": Case("aarch64-virt", {"kernel": arm64_image(90000, 0x1234000, 0)}),
    "aarch64 Image at": Case("aarch64-virt", {"kernel": arm64_image(90000, 0x80000, 0x200000)}),
    "aarch64 Image.gz": Case("aarch64-virt", {"kernel": zipped(arm64_image(90000, 0, 0x300000))}),
    "riscv64 loaders": Case(
        "riscv64-virt",
        {"bios": BIOS},
        loaders=(
            ({"addr": RV + 0x100000}, KERNEL),
            ({"addr": RV + 0x200000, "force-raw": "on"}, elf(EM_RISCV, 64, Seg(RV, KERNEL))),
            ({"cpu-num": 0}, elf(EM_RISCV, 64, Seg(RV + 0x300000, INITRD))),
            ({"addr": RV + 0x400000, "data": 0x1234567890, "data-len": 8}, None),
            ({"addr": RV + 4, "data": 0x12345678, "data-len": 4}, None),
        ),
    ),
    "aarch64 Intel HEX": Case(
        "aarch64-virt",
        {"kernel": KERNEL},
        loaders=(
            (
                {"cpu-num": 0},
                hexadecimal(
                    (0, 4, b"\x40\x40"),
                    (0xFFF0, 0, bytes(range(16))),
                    (0, 0, b"over"),
                    (0x100, 0, b"apart"),
                    (0, 4, b"\x40\x50"),
                    (8, 0, b"more"),
                    (0, 5, b"\x40\x40\0\4"),
                ),
            ),
        ),
    ),
    "aarch64 loaders": Case(
        "aarch64-virt",
        {"kernel": KERNEL},
        loaders=(
            ({"addr": A64 + 0x3000000}, u_image(KERNEL, A64 + 0x200000, A64 + 0x200010)),
            ({"addr": A64 + 0x12345, "cpu-num": 0}, None),
        ),
    ),
}


def recorded() -> Mapping[str, Any]:
    answers: Mapping[str, Any] = json.loads(RECORDED.read_text())
    return answers


def main(ask: Callable[[Case], dict[str, Any]] = Case.qemus) -> None:
    """Record QEMU's answers anew."""
    RECORDED.parent.mkdir(exist_ok=True)
    answers = {name: ask(case) for name, case in CASES.items()}
    RECORDED.write_text("{\n" + ",\n".join(f'"{n}": {json.dumps(a)}' for n, a in answers.items()) + "\n}\n")


if __name__ == "__main__":
    main()
