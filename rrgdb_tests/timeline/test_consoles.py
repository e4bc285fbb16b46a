"""What the user types comes to one console, once; semihosting reads from it. Older boards have a second input."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from rrgdb.arch import ARCHES
from rrgdb.board.boards import board_of, default_board
from rrgdb.engine.unicorn.build import build_id
from rrgdb.opening import record, replay
from rrgdb.recording.directory import NewImage, Recording
from rrgdb.recording.door import Divergence
from rrgdb.recording.events import Event, EventKind
from rrgdb.timeline.backward import Backward
from rrgdb.timeline.stop import Points, StopKind
from rrgdb.timeline.timeline import Timeline
from rrgdb.timeline.verify import verify
from rrgdb_tests.guests import arch_name, build
from rrgdb_tests.timeline.oracle import MEMORY, OPTIONS, digests_straight, symbol

NONE = Points({})
FAMILIES = ("riscv64", "riscv32", "aarch64", "arm", "thumb")


def _numbers(timeline: Timeline, image: Path) -> tuple[int, int]:
    """Bytes read by the UART and by semihosting."""
    by_uart, by_semihosting = (
        int.from_bytes(timeline.engine.read_memory(symbol(image, name), 4), "little")
        for name in ("by_uart", "by_semihosting")
    )
    return by_uart, by_semihosting


@pytest.mark.parametrize("family", FAMILIES)
def test_each_byte_is_logged_once_and_read_once(family: str, tmp_path: Path) -> None:
    image = build(family, "consoles")
    random = Random(family)
    typed, seen = 0, {}
    with record(tmp_path / "r", image, OPTIONS, interval=1e-9) as opened:
        t = opened.timeline
        first, *others = opened.guest.consoles
        assert (first, others) == ("serial0", ["semihosting"])
        with pytest.raises(ValueError, match="no input source 'semihosting'"):
            opened.door.feed("semihosting", b"x")
        for _ in range(15):
            t.run(NONE, steps=random.choice((1, 50, 900, 3000)))
            data = bytes(random.choices(range(97, 113), k=random.choice((1, 2, 30))))
            typed += opened.door.feed(first, data)
            if random.random() < 0.3 and t.icount > 50:
                here = t.icount
                Backward(t).step(NONE, 40)
                t.seek(here)
            t.run(NONE, steps=1)
            seen[t.icount] = t.marks.state_digest()
        t.run(NONE, steps=1)
        typed += opened.door.feed(first, b"q")
        assert t.run(NONE).kind is StopKind.EXIT
        by_uart, by_semihosting = _numbers(t, image)
        assert by_uart + by_semihosting == typed
        assert min(by_uart, by_semihosting) > typed // 8
        assert [event.source for event in t.log.inputs] == ["serial0"] * 16
        assert sum(len(event.payload) for event in t.log.inputs) == typed
        assert opened.recording.manifest.guest.revision == 3
    with replay(tmp_path / "r") as opened:
        t = opened.timeline
        verify(t, stops=3)
        assert digests_straight(tmp_path / "r", seen, tmp_path / "straight") == seen
        for position in random.sample(sorted(seen), len(seen)):
            t.seek(position)
            assert t.marks.state_digest() == seen[position]


def _made_by_hand(path: Path, family: str, revision: int, inputs: list[tuple[int, str, bytes]], end: int) -> Path:
    """A recording of that guest whose log holds these inputs, and nothing else."""
    spec = board_of(default_board(arch_name(family)).name, revision)
    assert spec is not None
    image = build(family, "consoles")
    recording = Recording.create(
        path,
        board=spec.name,
        cpu=ARCHES[arch_name(family)].models[0],
        ram_bytes=MEMORY,
        images=[NewImage(image.name, "kernel", image.read_bytes(), None)],
        engine=build_id(),
        options={"args": ""},
        revision=revision,
    )
    for icount, source, data in inputs:
        recording.log.append(Event(icount, EventKind.INPUT, source, data))
    recording.log.close_chunk(end)
    recording.close()
    return image


@pytest.mark.parametrize("family", FAMILIES)
def test_a_log_with_inputs_for_both_is_replayed_as_it_was_recorded(family: str, tmp_path: Path) -> None:
    """On the board of that time each reads what came to it, however they are apart."""
    inputs = [
        (400, "serial0", b"abcd"),
        (400, "semihosting", b"abcd"),
        (3000, "serial0", b"efg"),
        (3007, "semihosting", b"efg"),
        (6000, "semihosting", b"hijklm"),
        (9000, "serial0", b"nop"),
    ]
    image = _made_by_hand(tmp_path / "old", family, 1, inputs, 15000)
    with replay(tmp_path / "old", writable=False) as opened:
        t = opened.timeline
        for position, expected in ((2990, (4, 4)), (5990, (7, 7)), (8990, (7, 13)), (15000, (10, 13)), (5990, (7, 7))):
            t.seek(position)
            assert _numbers(t, image) == expected, position
    _made_by_hand(tmp_path / "new", family, 2, inputs, 15000)
    with replay(tmp_path / "new", writable=False) as opened, pytest.raises(Divergence, match="does not listen to it"):
        opened.timeline.seek(15000)
    only = [each for each in inputs if each[1] == "serial0"]
    _made_by_hand(tmp_path / "one", family, 2, only, 15000)
    with replay(tmp_path / "one", writable=False) as opened:
        opened.timeline.seek(15000)
        assert sum(_numbers(opened.timeline, image)) == 10
    _made_by_hand(tmp_path / "apart", family, 1, only, 15000)
    with replay(tmp_path / "apart", writable=False) as opened:
        opened.timeline.seek(15000)
        assert _numbers(opened.timeline, image) == (10, 0)
