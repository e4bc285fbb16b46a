"""A guest that sleeps and does everything in interrupts: characters and sectors come at the same instruction in both
gears, live and in replay, forwards and backwards; the output is QEMU's."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest

from rrgdb.engine.base import Watch
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb.opening import NewDisk, Opened, guests, record, replay
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.stop import Points, StopKind
from rrgdb.timeline.verify import verify
from rrgdb_tests.guests import build
from rrgdb_tests.timeline.oracle import OPTIONS, digests_straight, symbol, whole_state

NONE = Points({})
ARCHES = ("riscv64", "aarch64")
TYPED = (b"ab\n", b"c\n", b"q")
SHOWN = b"ready\nab\n9e3779b1\nc\n3c6ef362\nqinterrupts checksum f4613a5b\n"
"""by QEMU 7.2, with both versions of the registers"""
SLOTS = {
    "--disk": OPTIONS,
    "version 2": replace(OPTIONS, virtio=("rng", "disk")),
    "version 1": replace(OPTIONS, virtio=("disk", "console"), legacy=True),
}


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def gear(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "UnicornEngine", partial(UnicornEngine, fast=request.param))


def _disk(path: Path) -> NewDisk:
    path.write_bytes(b"".join((n * 2654435761 & 0xFFFFFFFF).to_bytes(4, "little") * 128 for n in range(1, 65)))
    return NewDisk(path, "ledger")


def _word(opened: Opened, address: int) -> int:
    return int.from_bytes(opened.guest.engine.read_memory(address, 4), "little")


@pytest.mark.usefixtures("gear")
@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("arch", ARCHES)
def test_characters_and_sectors_come_by_interrupts(arch: str, slots: str, tmp_path: Path) -> None:
    image, options, random = build(arch, "interrupts"), replace(SLOTS[slots], sleep=False), Random(arch)
    shown, seen, typed = bytearray(), {}, list(TYPED)
    with record(tmp_path / "r", image, options, disks=[_disk(tmp_path / "ledger")], interval=1e-9) as opened:
        t = opened.timeline
        opened.door.set_output("serial0", shown.extend)
        while b"ready\n" not in shown:
            t.run(NONE, steps=100)
            t.recorder.close_chunk()
        while opened.guest.end is None:
            answered = len(TYPED) - len(typed) == _word(opened, symbol(image, "sectors"))
            if typed and answered and random.random() < 0.1:
                opened.door.feed("serial0", typed.pop(0))
                # It comes at this position, whose state is the one behind it.
                seen.pop(t.icount, None)
            t.run(NONE, steps=random.choice((1, 2, 90, 600)))
            seen[t.icount] = whole_state(opened)
        assert (opened.guest.end.kind, opened.guest.end.value) == ("exit", 0)
        t.recorder.close_chunk()
    assert bytes(shown) == SHOWN
    with replay(tmp_path / "r") as opened:
        t = opened.timeline
        verify(t, stops=3)
        assert digests_straight(tmp_path / "r", seen, tmp_path / "straight") == seen
        for position in random.choices(sorted(seen), k=20):
            t.seek(position)
            assert whole_state(opened) == seen[position]
        watch = Points({}, (Watch(symbol(image, "sectors"), 4, "w"), Watch(symbol(image, "buffer"), 4, "w")))
        t.seek(0)
        forward = []
        while (stop := t.run(watch)).kind is StopKind.WATCHPOINT:
            forward.append((stop.icount, stop.address, stop.old, stop.new))
        assert [new for _, _, _, new in forward] == [
            *(b"\xb1\x79\x37\x9e", b"\1\0\0\0"),
            *(b"\x62\xf3\x6e\x3c", b"\2\0\0\0"),
        ]
        back = []
        while (stop := Backward(t).run(watch)).kind is StopKind.WATCHPOINT:
            back.append((stop.icount + 1, stop.address, stop.old, stop.new))
        assert back == forward[::-1]
        # Over the entries of handlers and out of them, an instruction at a time.
        handler = next(position for position, _, _, _ in forward)
        straight = digests_straight(tmp_path / "r", range(handler - 60, handler + 60), tmp_path / "straight again")
        t.seek(handler + 59)
        for position in reversed(range(handler - 60, handler + 59)):
            Backward(t).step(NONE)
            assert (t.icount, whole_state(opened)) == (position, straight[position])
