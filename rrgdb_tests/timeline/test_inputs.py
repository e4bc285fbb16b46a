"""Serial bytes, the clock and the debugger's writes at any moment: replay comes to the same states, from anywhere."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from rrgdb.arch.cpu import MemoryFault
from rrgdb.engine.base import EngineError, Watch
from rrgdb.opening import Opened, record, replay
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.stop import Points, StopKind
from rrgdb.timeline.verify import verify
from rrgdb_tests.guests import ARCHES, build
from rrgdb_tests.timeline.oracle import OPTIONS, digests_straight, symbol

NONE = Points({})
UNUSED = {"riscv64": "t6", "riscv32": "t6", "aarch64": "x28", "x86_64": "r15"}
"""registers that the guest does not use"""


def _type(opened: Opened, random: Random, last: bytes = b"") -> None:
    opened.door.feed("serial0", random.choice((b"a", b"hello", bytes(random.choices(range(97, 113), k=40)))) + last)


def _record(arch: str, path: Path, seed: int, bursts: int) -> dict[int, bytes]:
    """A recording with input at random moments, going back now and then; digests of positions at the present."""
    random = Random(seed)
    seen: dict[int, bytes] = {}
    image = build(arch, "mixer")
    written = symbol(image, "received")
    with record(path, image, OPTIONS, interval=1e-9) as opened:
        t = opened.timeline
        for _ in range(bursts):
            t.run(NONE, steps=random.choice((1, 7, 300, 2000)))
            # What comes now belongs to this position.
            for _ in range(random.randint(0, 3)):
                _type(opened, random)
                if random.random() < 0.3:
                    t.write_memory(written, random.randbytes(4))
                    if arch in UNUSED:
                        t.write_register(t.engine.arch.register_index[UNUSED[arch]], random.getrandbits(31))
                if random.random() < 0.3:
                    t.marks.take_snapshot(f"s{t.icount}-{len(t.marks.stored)}")
            if random.random() < 0.4 and t.icount > 10:
                here = t.icount
                t.seek(random.randrange(here))
                Backward(t).step(NONE, 3)
                t.seek(here)
                assert t.at_present
            t.run(NONE, steps=random.choice((1, 1, 50)))
            seen[t.icount] = t.marks.state_digest()
        t.run(NONE, steps=1)
        _type(opened, random, last=b"q")
        stop = t.run(NONE)
        assert stop.kind is StopKind.EXIT
        seen[t.icount] = t.marks.state_digest()
    return seen


def _judge(path: Path, seen: dict[int, bytes], scratch: Path, seed: int) -> None:
    random = Random(seed)
    with replay(path) as opened:
        assert not opened.messages
        assert verify(opened.timeline) == len(opened.timeline.log.digests)
    with replay(path) as opened:
        t = opened.timeline
        inputs = t.log.inputs
        near = [max(0, inputs.icount(i) + d) for i in range(0, len(inputs), 5) for d in (-1, 0, 1)]
        positions = [*seen, *random.sample(near, min(len(near), 40))]
        positions = [p for p in positions if p <= t.end]
        straight = digests_straight(path, positions, scratch)
        assert {p: straight[p] for p in seen} == seen
        for position in random.sample(positions, len(positions)):
            t.seek(position)
            assert t.marks.state_digest() == straight[position], position
            if position and random.random() < 0.3:
                Backward(t).step(NONE)
                t.run(NONE, steps=1)
                t.seek(position)
                assert t.marks.state_digest() == straight[position], position


@pytest.mark.parametrize("arch", ARCHES)
def test_input_at_random_moments(arch: str, tmp_path: Path) -> None:
    seen = _record(arch, tmp_path / "r", 1, 12)
    _judge(tmp_path / "r", seen, tmp_path / "straight", 2)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHES)
def test_much_input_at_random_moments(arch: str, tmp_path: Path) -> None:
    for seed in range(20):
        seen = _record(arch, tmp_path / str(seed), seed, 60)
        _judge(tmp_path / str(seed), seen, tmp_path / f"straight-{seed}", seed)


def test_input_does_not_stop_a_diversion_or_a_move_in_the_past(tmp_path: Path) -> None:
    image = build("riscv64", "mixer")
    with record(tmp_path / "r", image, OPTIONS) as opened:
        t = opened.timeline
        t.run(NONE, steps=5000)
        t.seek(1000)
        t.write_memory(symbol(image, "sum"), bytes(4))
        opened.door.feed("serial0", b"abc")
        assert t.run(NONE, steps=500).kind is StopKind.STEP
        assert t.icount == 1500
        opened.door.feed("serial0", b"def")
        t.seek(4000)
        assert t.icount == 4000
        t.seek(t.end)
        before = t.log.inputs.index_at(1 << 60)
        t.run(NONE, steps=1)
        assert len(t.log.inputs) > before


def test_a_watch_stops_behind_input_of_the_same_position(tmp_path: Path) -> None:
    """x86 stops behind the write: what the debugger wrote at that position is there already."""
    image = build("x86_64", "mixer")
    watch = Points({}, (Watch(symbol(image, "sum"), 4, "w"),))
    with record(tmp_path / "r", image, OPTIONS) as opened:
        t = opened.timeline
        stop = t.run(watch)
        assert stop.kind is StopKind.WATCHPOINT
        t.write_memory(symbol(image, "received"), b"\1\2\3\4")
        position = t.icount
        t.run(NONE, steps=100)
    with replay(tmp_path / "r") as opened:
        t = opened.timeline
        stop = t.run(watch)
        assert (stop.kind, stop.icount) == (StopKind.WATCHPOINT, position)
        assert t.engine.read_memory(symbol(image, "received"), 4) == b"\1\2\3\4"


def test_a_guest_at_rest_takes_no_snapshots(tmp_path: Path) -> None:
    """Snapshots are spaced by what a replay costs, and rest costs nothing."""
    image = build("riscv64", "ticker", {"TICKS": 1, "WORK": 1})
    with record(tmp_path / "r", image, OPTIONS, interval=0.02) as opened:
        t = opened.timeline
        t.write_memory(0x80000000, bytes.fromhex("730050106ff0dfff"))  # wfi; j .-4
        t.write_register(32, 0x80000000)
        t.run(NONE, steps=200)
        assert len(t.marks.stored) < 6


@pytest.mark.parametrize(("arch", "name", "value"), [("i386", "es", 0x988F), ("i386", "fs", 0x4444)])
def test_a_register_that_takes_no_such_value_spoils_no_recording(
    arch: str, name: str, value: int, tmp_path: Path
) -> None:
    """The debugger is told so, and the guest goes on."""
    with record(tmp_path / "r", build(arch, "mixer"), OPTIONS) as opened:
        t = opened.timeline
        t.run(NONE, steps=100)
        number = t.engine.arch.register_index[name]
        with pytest.raises(EngineError, match=f"register {name}"):
            t.write_register(number, value)
        assert t.icount == 100
        t.run(NONE, steps=1000)
        state = t.marks.state_digest()
    with replay(tmp_path / "r") as opened:
        verify(opened.timeline)
        opened.timeline.seek(1100)
        assert opened.timeline.marks.state_digest() == state


@pytest.mark.parametrize("arch", ["riscv64", "arm"])
def test_writes_at_physical_addresses_are_inputs_as_others_are(arch: str, tmp_path: Path) -> None:
    image = build(arch, "mixer")
    written = symbol(image, "received")
    with record(tmp_path / "r", image, OPTIONS) as opened:
        t = opened.timeline
        t.run(NONE, steps=100)
        t.write_physical(written, b"\xab\xcd")
        with pytest.raises(MemoryFault):
            t.write_physical(0x70000000, b"\0")
        t.run(NONE, steps=50)
        assert t.engine.ram.read(written, 2) == b"\xab\xcd"
        expected = t.marks.state_digest()
        t.seek(20)
        t.write_physical(written, b"\x11")
        assert t.diverted_from == 20
        assert t.engine.read_memory(written, 1) == b"\x11"
        t.seek(150)
        assert t.marks.state_digest() == expected
    with replay(tmp_path / "r", writable=False) as opened:
        opened.timeline.seek(150)
        assert opened.timeline.marks.state_digest() == expected
