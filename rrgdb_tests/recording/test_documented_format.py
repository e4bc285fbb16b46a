"""docs/formats.md is enough to read a recording: this reader was written from it and uses no code of rrgdb's own.

rrgdb is imported only to make the recording, and for its registers in the state digest.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import pytest
import xxhash
import zstandard

from rrgdb import opening
from rrgdb.opening import GuestOptions
from rrgdb.timeline.stop import Points

MIB = 1 << 20
RAM = 2 * MIB
BASE = 0x80000000
# Reads the real-time clock and a random number, stores the latter to RAM, prints "!", powers off with status 3.
PROGRAM = struct.pack(
    "<15I",
    0x00101537,  # lui a0, 0x101
    0x00052583,  # lw a1, 0(a0)
    0x10200537,  # lui a0, 0x10200
    0x00052603,  # lw a2, 0(a0)
    0x800016B7,  # lui a3, 0x80001
    0x02069693,  # slli a3, a3, 32
    0x0206D693,  # srli a3, a3, 32
    0x00C6A023,  # sw a2, 0(a3)
    0x10000537,  # lui a0, 0x10000
    0x02100693,  # li a3, '!'
    0x00D50023,  # sb a3, 0(a0)
    0x00100537,  # lui a0, 0x100
    0x00033737,  # lui a4, 0x33
    0x33370713,  # addi a4, a4, 0x333
    0x00E52023,  # sw a4, 0(a0)
)


class Event(NamedTuple):
    icount: int
    source: str
    kind: int
    payload: bytes


class Recorded(NamedTuple):
    path: Path
    end: int
    registers: bytes
    ram: dict[str, bytes]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    image = tmp_path_factory.mktemp("image") / "a b.bin"
    image.write_bytes(PROGRAM)
    path = tmp_path_factory.mktemp("format") / "r.rrgdb"
    options = GuestOptions(board="riscv64-virt", memory=RAM, load=BASE, entry=BASE, args="x y")
    ram = {}
    with opening.record(path, image, options, say=lambda _line: None) as opened:
        timeline = opened.timeline

        def snapshot(name: str) -> None:
            assert timeline.recorder is not None
            timeline.recorder.close_chunk()
            timeline.marks.take_snapshot(name)
            ram[name] = b"".join(timeline.engine.read_memory(BASE + n, 4096) for n in range(0, RAM, 4096))

        timeline.run(Points({}), steps=2)
        timeline.write_memory(BASE + 0x1800, b"by hand")
        timeline.write_register(31, 0x1122334455667788)
        opened.door.feed("serial0", b"typed")
        timeline.run(Points({}), steps=7)
        snapshot("middle")
        timeline.run(Points({}))
        snapshot("last")
        registers = timeline.engine.registers_digest()
        end = timeline.icount
    return Recorded(path, end, registers, ram)


# -- the reader ----------------------------------------------------------------------------------


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def chunks(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(first, horizon, events, raw payload) of each chunk, with every checksum checked."""
    crc = struct.unpack_from("<I", data, 28)[0]
    previous, at, expected = crc, 32, 0
    while at < len(data):
        magic, sequence, first, horizon, count, raw_length, stored_length, codec, header_crc, checksum = (
            struct.unpack_from("<4sIQQIIIIIQ", data, at)
        )
        stored = data[at + 52 : at + 52 + stored_length]
        assert (magic, sequence) == (b"RRCH", expected)
        assert header_crc == zlib.crc32(data[at : at + 40], crc)
        assert checksum == xxhash.xxh3_64_intdigest(data[at : at + 44] + stored, seed=previous)
        raw = zstandard.ZstdDecompressor().decompress(stored) if codec else stored
        assert codec in (0, 1)
        assert len(raw) == raw_length <= 32 * (52 + stored_length)
        yield first, horizon, count, raw
        previous, at, expected = checksum, at + 52 + stored_length, expected + 1


def events(data: bytes) -> tuple[list[Event], int]:
    """All events, and the last horizon."""
    found: list[Event] = []
    names: list[str] = []
    horizon = 0
    for first, reached, count, raw in chunks(data):
        horizon, icount, at = reached, first, 0
        for _ in range(count):
            delta, at = varint(raw, at)
            icount += delta
            source, at = raw[at], at + 1
            if source == len(names):
                names.append(raw[at + 1 : at + 1 + raw[at]].decode())
                at += 1 + raw[at]
            kind = raw[at]
            length, at = varint(raw, at + 1)
            found.append(Event(icount, names[source], kind, raw[at : at + length]))
            at += length
        assert at == len(raw)
    return found, horizon


class Snapshot(NamedTuple):
    name: str
    icount: int
    size: int
    read: Callable[[int, int], bytes]


def snapshots(data: bytes) -> list[Snapshot]:
    (magic, version, _, _, bits, size, crypt, _, _, _, _, count, table) = struct.unpack_from(">4sIQIIQIIQQIIQ", data)
    assert (magic, version, bits, size, crypt) == (b"QFI\xfb", 3, 12, 0, 0)
    found = []
    for _ in range(count):
        l1, entries, id_len, name_len, _, _, clock, _, extra = struct.unpack_from(">QIHHIIQII", data, table)
        vm_size, _, icount = struct.unpack_from(">QQQ", data, table + 40)
        name = data[table + 40 + extra + id_len :][:name_len].decode()
        assert clock == icount
        found.append(
            Snapshot(name, icount, vm_size, lambda n, length, l1=l1, e=entries: vm_state(data, l1, e, n, length))
        )
        table += -(-(40 + extra + id_len + name_len) // 8) * 8
    return found


def vm_state(data: bytes, l1: int, entries: int, start: int, length: int) -> bytes:
    mask = (1 << 56) - 512
    out = bytearray()
    for cluster in range(start >> 12, start + length + 4095 >> 12):
        l2 = struct.unpack_from(">Q", data, l1 + 8 * (cluster >> 9))[0] & mask if cluster >> 9 < entries else 0
        entry = struct.unpack_from(">Q", data, l2 + 8 * (cluster & 511))[0] if l2 else 0
        host = 0 if entry & 1 else entry & mask
        out += data[host : host + 4096] if host else bytes(4096)
    return bytes(out[start & 4095 : (start & 4095) + length])


def state(snapshot: Snapshot) -> list[bytes]:
    (length,) = struct.unpack("<I", snapshot.read(0, 4))
    blob = snapshot.read(4, length)
    assert xxhash.xxh3_64_digest(blob[:-8]) == blob[-8:]
    assert struct.unpack_from("<4sHH", blob) == (b"RRST", 1, 6)
    parts, at = [], 8
    for _ in range(6):
        (n,) = struct.unpack_from("<I", blob, at)
        parts.append(blob[at + 4 : at + 4 + n])
        at += 4 + n
    assert at == len(blob) - 8
    return parts


def ram_digest(ram: bytes) -> int:
    pages = [ram[n : n + 4096] for n in range(0, len(ram), 4096)]
    return sum(xxhash.xxh3_64_intdigest(p, seed=n + 1) for n, p in enumerate(pages) if any(p)) & (1 << 64) - 1


class Span(NamedTuple):
    begin: int
    end: int
    log: int
    code: list[list[int]]
    pages: list[list[int]]


def entries(data: bytes) -> Iterator[Span]:
    """The spans of an index, with every checksum checked."""
    previous, at, expected = struct.unpack_from("<I", data, 28)[0], 32, 0
    while at < len(data):
        magic, sequence, begin, end, log, code, pages, length, zero, checksum = struct.unpack_from(
            "<4sIQQQIIIIQ", data, at
        )
        stored = data[at + 56 : at + 56 + length]
        assert (magic, sequence, zero) == (b"RRIX", expected, 0)
        assert checksum == xxhash.xxh3_64_intdigest(data[at : at + 48] + stored, seed=previous)
        raw = zstandard.ZstdDecompressor().decompress(stored) if code + pages else b""
        count = len(raw) // 8
        assert count == 2 * (code + pages)
        steps = [int.from_bytes(raw[i::count], "little") for i in range(count)]
        yield Span(begin, end, log, pairs(steps[: 2 * code]), pairs(steps[2 * code :]))
        previous, at, expected = checksum, at + 56 + length, expected + 1


def pairs(steps: list[int]) -> list[list[int]]:
    flat = list(accumulate(steps))
    return [flat[i : i + 2] for i in range(0, len(flat), 2)]


def checksums(log: bytes, horizon: int) -> list[int]:
    """Those of the log's chunks that have this horizon."""
    at, found = 32, []
    while at < len(log):
        fields = struct.unpack_from("<4sIQQIIIIIQ", log, at)
        if fields[3] == horizon:
            found.append(fields[9])
        at += 52 + fields[6]
    return found


# -- what it must find ---------------------------------------------------------------------------


def test_directory_and_manifest(recorded: Recorded) -> None:
    manifest = json.loads((recorded.path / "manifest.json").read_text())
    digest = sha256(PROGRAM).hexdigest()
    assert {p.name for p in recorded.path.iterdir()} == {
        "manifest.json", "images", "events.log", "snapshots.qcow2", "history.index", "lock",
    }  # fmt: skip
    assert (recorded.path / "images" / f"{digest[:16]}-a_b.bin").read_bytes() == PROGRAM
    assert (recorded.path / "lock").read_bytes() == b""
    assert set(manifest) == {
        "format", "version", "created", "recording_id", "rrgdb", "engine", "behaviour", "log_bytes", "guest",
    }  # fmt: skip
    assert manifest["log_bytes"] == (recorded.path / "events.log").stat().st_size
    assert (manifest["format"], manifest["version"]) == ("rrgdb-recording", 2)
    assert manifest["guest"] == {
        "kind": "board",
        "board": "riscv64-virt",
        "revision": 3,
        "cpu": "sifive-u54",
        "ram_bytes": RAM,
        "images": [{"name": "a b.bin", "role": "kernel", "load_address": BASE, "size": len(PROGRAM), "sha256": digest}],
        "options": {"args": "x y", "entry": BASE},
    }


def test_the_event_log(recorded: Recorded) -> None:
    data = (recorded.path / "events.log").read_bytes()
    manifest = json.loads((recorded.path / "manifest.json").read_text())
    assert struct.unpack_from("<8sHH", data) == (b"RRGDBLOG", 1, 0)
    assert data[12:28].hex() == manifest["recording_id"]
    assert struct.unpack_from("<I", data, 28)[0] == zlib.crc32(data[:28])
    found, horizon = events(data)
    assert horizon == recorded.end == 15
    kinds = [(e.icount, e.source, e.kind) for e in found if e.kind != 2]
    assert kinds == [
        (1, "rtc", 0),
        (2, "debugger", 1),
        (2, "debugger", 1),
        (2, "serial0", 1),
        (3, "entropy", 0),
        (15, "guest", 3),
    ]
    clock, memory, register, typed, random, end = (e.payload for e in found if e.kind != 2)
    assert clock[:1] == b"W"
    assert len(clock) == 9
    assert memory == b"\1" + struct.pack("<Q", BASE + 0x1800) + b"by hand"
    assert register == b"\0" + struct.pack("<I", 31) + (0x1122334455667788).to_bytes(64, "little")
    assert (typed, end) == (b"typed", b"exit:3")
    assert (random[:1], random[1:]) == (b"E", recorded.ram["last"][0x1000:0x1004])


def test_the_index(recorded: Recorded) -> None:
    data = (recorded.path / "history.index").read_bytes()
    log = (recorded.path / "events.log").read_bytes()
    assert struct.unpack_from("<8sHH", data) == (b"RRGDBIDX", 1, 1)
    assert data[12:28] == log[12:28]
    assert struct.unpack_from("<I", data, 28)[0] == zlib.crc32(data[:28])
    spans = list(entries(data))
    assert (spans[0].begin, spans[-1].end) == (0, recorded.end)
    assert all(span.log in checksums(log, span.end) for span in spans)
    pcs = {BASE + 4 * n for n in range(len(PROGRAM) // 4)}
    assert pcs <= {pc for span in spans for first, last in span.code for pc in range(first, last + 1)}
    assert [1, 1] in [pages for span in spans for pages in span.pages]


def test_the_snapshots(recorded: Recorded) -> None:
    image = recorded.path / "snapshots.qcow2"
    found = {s.name: s for s in snapshots(image.read_bytes())}
    assert {name: s.icount for name, s in found.items() if not name.startswith("auto-")} == {
        "start": 0,
        "middle": 9,
        "last": recorded.end,
    }
    listed = subprocess.run(["qemu-img", "snapshot", "-l", str(image)], capture_output=True, text=True, check=True)
    for name, snapshot in found.items():
        assert snapshot.size == 8 * MIB + RAM + documented_memory("riscv64-virt")
        assert any(name in line.split() and line.endswith(str(snapshot.icount)) for line in listed.stdout.splitlines())
    for name, expected in recorded.ram.items():
        ram = found[name].read(8 * MIB, len(expected))
        assert ram == expected
        assert state(found[name])[5] == ram_digest(ram).to_bytes(8, "little")


def test_ram_with_a_hole(tmp_path: Path) -> None:
    """Where a physical address stands in the VM state follows from the table of boards."""
    image = tmp_path / "a.bin"
    image.write_bytes(b"\xeb\xfe here")  # jmp .
    options = GuestOptions(board="i386-pc", memory=RAM, load=MIB, entry=MIB)
    with opening.record(tmp_path / "r.rrgdb", image, options, say=lambda _line: None) as opened:
        opened.timeline.run(Points({}), steps=1)
    base, start, end = documented_ram("i386-pc")
    manifest = json.loads((tmp_path / "r.rrgdb/manifest.json").read_text())
    held = manifest["guest"]["ram_bytes"] - (end - start)
    (first, *_) = snapshots((tmp_path / "r.rrgdb/snapshots.qcow2").read_bytes())
    assert first.size == 8 * MIB + held
    assert state(first)[4] == struct.pack("<Q", held)
    assert first.read(8 * MIB + MIB - base - (end - start), 7) == b"\xeb\xfe here"


def documented_ram(board: str) -> tuple[int, int, int]:
    """Where RAM and its one hole begin, and where the hole ends."""
    text = (Path(__file__).parents[2] / "docs/formats.md").read_text()
    match = re.search(rf"^\| `{board}` \| (0x\w+) \| (0x\w+) to (0x\w+) \| [^|]+ \|$", text, re.MULTILINE)
    assert match is not None
    return int(match[1], 16), int(match[2], 16), int(match[3], 16)


def test_the_state_blob(recorded: Recorded) -> None:
    found = {s.name: s for s in snapshots((recorded.path / "snapshots.qcow2").read_bytes())}
    manifest = json.loads((recorded.path / "manifest.json").read_text())
    for name, (icount, sent) in {"middle": (9, 0), "last": (recorded.end, 1)}.items():
        build, cpu, devices, door, size, _ = state(found[name])
        assert build.decode() == manifest["engine"]
        assert struct.unpack_from("<QQ", cpu) == (icount, 0)
        assert size == struct.pack("<Q", RAM + documented_memory("riscv64-virt"))
        assert devices[:3] == (b"\1\1\3" if name == "last" else b"\1\0\0")
        at, parts = 3, []
        while at < len(devices):
            (length,) = struct.unpack_from("<I", devices, at)
            parts.append(devices[at + 4 : at + 4 + length])
            at += 4 + length
        assert at == len(devices)
        documented = documented_devices("riscv64-virt")
        told = {name: device_state(table, part) for (name, table), part in zip(documented, parts, strict=True)}
        assert told["serial0"]["rx"] == b"t"  # one byte, no FIFO
        assert told["serial0"]["line"] == b"yped"
        assert told["counter"]["icount_high"] == 0
        sources = b"\7serial0" + struct.pack("<Q", sent) if sent else b""
        assert door == struct.pack("<BQQB", 1, 2, 3, sent) + sources


def documented_memory(board: str) -> int:
    """Bytes of memory of devices."""
    text = (Path(__file__).parents[2] / "docs/formats.md").read_text()
    match = re.search(rf"^\| `{board}` \| 0x\w+ \| [^|]+ \| (.+) \|$", text, re.MULTILINE)
    assert match is not None
    return sum(int(size, 16) for size in re.findall(r"` (0x\w+) at", match[1]))


def documented_devices(board: str) -> list[tuple[str, dict[str, int]]]:
    """The table of device states: of each device its name, and the bits of its fields, 0 for a buffer."""
    found = []
    text = (Path(__file__).parents[2] / "docs/formats.md").read_text()
    for line in text.partition("generated: device-states")[2].partition("<!-- end -->")[0].splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 4 and cells[0] in (f"`{board}`", "with semihosting"):
            fields = {name: int(bits) for name, bits in re.findall(r"`(\w+)` (\d+)", cells[2])}
            buffers = dict.fromkeys(re.findall(r"`(\w+)`", cells[3]), 0)
            found.append((cells[1].strip("`"), fields | buffers))
    return found


def device_state(table: dict[str, int], raw: bytes) -> dict[str, int | bytes]:
    found: dict[str, int | bytes] = {}
    for name, bits in table.items():
        if bits:
            found[name], raw = int.from_bytes(raw[: bits // 8], "little"), raw[bits // 8 :]
        else:
            (length,) = struct.unpack_from("<I", raw)
            found[name], raw = raw[4 : 4 + length], raw[4 + length :]
    assert raw == b""
    return found


def test_the_state_digest(recorded: Recorded) -> None:
    found = {s.name: s for s in snapshots((recorded.path / "snapshots.qcow2").read_bytes())}
    _, _, devices, door, _, ram = state(found["last"])
    hasher = xxhash.xxh3_128()
    for part in (struct.pack("<Q", recorded.end), ram, recorded.registers, devices, door):
        hasher.update(struct.pack("<I", len(part)) + part)
    digests = [e for e in events((recorded.path / "events.log").read_bytes())[0] if e.kind == 2]
    assert digests[-1].icount == recorded.end
    assert digests[-1].payload == hasher.digest()
