"""The event log: what is written comes back, and damage never passes for events."""

from __future__ import annotations

import errno
import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rrgdb.recording.log import MAX_RAW, Event, EventKind, EventLog, LogError
from rrgdb_tests.recording.logs import (
    RECORDING,
    ZSTD,
    Chunk,
    HandMade,
    all_events,
    chunk_lists,
    expected_events,
    opened,
    write_log,
)

ANSWER, INPUT, DIGEST, END = EventKind
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)

SAMPLE: list[Chunk] = [
    ([Event(3, ANSWER, "rtc", b"W12345678"), Event(7, INPUT, "uart0", b"ls\n")], 10),
    ([], 1000),
    ([Event(2000 + i, ANSWER, "rng", b"E" + bytes(16)) for i in range(40)], 3000),
    ([Event(3000, DIGEST, "state", b"d" * 16), Event(3001, INPUT, "net", b"\0" * 50)], 1 << 40),
    ([Event(1 << 41, END, "guest", b"\x05")], 1 << 41),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.log"


def refused(path: Path, data: bytes | None = None) -> str:
    """The one line that opening the log is refused with."""
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(LogError) as caught:
        EventLog.open(path, RECORDING)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def load(path: Path) -> tuple[list[list[Event]], int] | None:
    """The events by kind and the number of bytes left out; None if the log is refused, in one line."""
    try:
        with opened(path) as log:
            return all_events(log), log.truncated_bytes
    except LogError as error:
        text = str(error)
    assert "\n" not in text
    return None


# Round trip


@relaxed
@given(chunk_lists())
def test_round_trip(path: Path, chunks: list[Chunk]) -> None:
    write_log(path, chunks)
    with opened(path) as log:
        assert all_events(log) == expected_events(chunks)
        assert log.horizon == (chunks[-1][1] if chunks else 0)
        assert log.truncated_bytes == 0
        assert log.size == path.stat().st_size
        assert log.recording_id == RECORDING


@relaxed
@given(chunk_lists(), chunk_lists())
def test_a_reopened_log_goes_on(path: Path, chunks: list[Chunk], more: list[Chunk]) -> None:
    chunks = [([event for event in events if event.kind != END], horizon) for events, horizon in chunks]
    write_log(path, chunks)
    shift = chunks[-1][1] if chunks else 0
    more = [([event._replace(icount=event.icount + shift) for event in events], end + shift) for events, end in more]
    with opened(path, writable=True) as log:
        for events, horizon in more:
            for event in events:
                log.append(event)
            log.close_chunk(horizon)
        live = all_events(log)
    with opened(path) as log:
        assert all_events(log) == live == expected_events(chunks + more)


def test_events_are_seen_before_they_are_written(path: Path) -> None:
    log = EventLog.create(path, RECORDING)
    log.append(Event(5, INPUT, "uart0", b"x"))
    assert log.inputs[0] == Event(5, INPUT, "uart0", b"x")
    assert log.pending
    assert log.horizon == 0
    written = log.close_chunk(6)
    assert written == log.size - 32 == path.stat().st_size - 32
    assert not log.pending
    assert log.horizon == 6
    assert log.sources == ("uart0",)
    log.close()


def test_events_of_one_chunk_are_written_in_time_order(path: Path) -> None:
    log = EventLog.create(path, RECORDING)
    ahead, back, digest = Event(9, ANSWER, "rtc", b"a"), Event(4, INPUT, "uart0", b"b"), Event(4, DIGEST, "s", b"c")
    for event in (ahead, digest, back):
        log.append(event)
    log.close_chunk(9)
    log.close()
    data = path.read_bytes()
    assert data.index(b"\x01b") < data.index(b"\x01c") < data.index(b"\x01a")
    with opened(path) as log:
        assert all_events(log) == [[ahead], [back], [digest], []]


def test_small_chunks_stay_small(path: Path) -> None:
    log = EventLog.create(path, RECORDING)
    assert log.close_chunk(1 << 60) < 64
    log.append(Event((1 << 60) + 1, ANSWER, "rtc", b"W12345678"))
    assert log.close_chunk(1 << 61) - 9 < 64
    log.close()


def test_zstd_only_where_it_shortens(path: Path) -> None:
    log = EventLog.create(path, RECORDING)
    noise = random.Random(1).randbytes(5000)
    log.append(Event(0, INPUT, "net", noise))
    assert log.close_chunk(0) < len(noise) + 64
    log.append(Event(0, INPUT, "net", b"the same again " * 100))
    assert log.close_chunk(0) < 150
    log.close()
    with opened(path) as log:
        assert [event.payload for event in log.inputs] == [noise, b"the same again " * 100]


def test_more_than_a_chunk_holds_becomes_several(path: Path) -> None:
    log = EventLog.create(path, RECORDING)
    source = random.Random(2)
    payloads = [source.randbytes(1 << 20) for _ in range(20)]
    for icount, payload in enumerate(payloads):
        log.append(Event(icount, INPUT, f"net{icount % 3}", payload))
    log.close_chunk(50)
    log.close()
    assert path.read_bytes().count(b"RRCH") == 2
    with opened(path) as log:
        assert [event.payload for event in log.inputs] == payloads
        assert log.horizon == 50


def test_event_list_is_a_sequence(path: Path) -> None:
    write_log(path, SAMPLE)
    with opened(path) as log:
        answers = log.answers
        assert len(answers) == 41
        assert answers[-1] == answers[40] == Event(2039, ANSWER, "rng", b"E" + bytes(16))
        assert answers[1:3] == [answers[1], answers[2]]
        assert answers.icount(1) == 2000
        assert [answers.index_at(icount) for icount in (0, 3, 4, 2000, 2001, 9999)] == [0, 0, 1, 1, 2, 41]
        for index in (41, -42):
            with pytest.raises(IndexError):
                answers[index]


# Misuse


def test_what_cannot_be_appended(path: Path) -> None:
    log = EventLog.create(path, RECORDING)
    log.append(Event(10, INPUT, "uart0", b""))
    log.close_chunk(20)
    log.append(Event(30, INPUT, "uart0", b""))
    bad = [
        Event(19, INPUT, "uart0", b""),
        Event(29, INPUT, "uart0", b""),
        Event(1 << 64, INPUT, "uart0", b""),
        Event(30, INPUT, "", b""),
        Event(30, INPUT, "ü" * 33, b""),
        Event(30, INPUT, "uart0", bytes((1 << 20) + 1)),
    ]
    for event in bad:
        with pytest.raises(ValueError, match="expected"):
            log.append(event)
    for horizon in (19, 29, 1 << 64):
        with pytest.raises(ValueError, match="expected a horizon"):
            log.close_chunk(horizon)
    log.append(Event(30, END, "guest", b""))
    with pytest.raises(ValueError, match="end of the guest"):
        log.append(Event(31, INPUT, "uart0", b""))
    log.close_chunk(30)
    log.close()
    with opened(path) as log:
        assert [event.icount for event in log.inputs] == [10, 30]


def test_no_more_than_255_sources(path: Path) -> None:
    log = EventLog.create(path, RECORDING)
    for number in range(255):
        log.append(Event(0, INPUT, f"s{number}", b""))
    with pytest.raises(LogError, match="255"):
        log.append(Event(0, INPUT, "one more", b""))
    log.close_chunk(0)
    log.close()
    with opened(path) as log:
        assert [event.source for event in log.inputs] == [f"s{number}" for number in range(255)]


def test_a_log_opened_for_reading_is_not_written(path: Path) -> None:
    write_log(path, SAMPLE[:1])
    with opened(path) as log, pytest.raises(LogError, match="reading only"):
        log.close_chunk(50)


def test_create_does_not_overwrite(path: Path) -> None:
    write_log(path, SAMPLE)
    with pytest.raises(LogError, match="File exists"):
        EventLog.create(path, RECORDING)


def test_drop_pending(path: Path) -> None:
    log = EventLog.create(path, RECORDING)
    for icount in (1, 2):
        log.append(Event(icount, ANSWER, "rtc", bytes(icount)))
    log.close_chunk(2)
    for icount in (3, 4, 5):
        log.append(Event(icount, ANSWER, "rtc", bytes(icount)))
    log.drop_pending(3, 0)
    with pytest.raises(ValueError, match="expected to keep 2"):
        log.drop_pending(1, 0)
    log.append(Event(3, ANSWER, "other", b"new"))
    log.close_chunk(9)
    log.close()
    with opened(path) as log:
        assert [(event.icount, event.payload) for event in log.answers] == [
            (1, bytes(1)),
            (2, bytes(2)),
            (3, bytes(3)),
            (3, b"new"),
        ]


# Damage


@relaxed
@given(chunk_lists(), st.data())
def test_any_truncation_keeps_whole_chunks(path: Path, chunks: list[Chunk], data: st.DataObject) -> None:
    sizes = write_log(path, chunks)
    cut = data.draw(st.integers(32, sizes[-1]))
    os.truncate(path, cut)
    kept = sum(size <= cut for size in sizes) - 1
    with opened(path) as log:
        assert all_events(log) == expected_events(chunks[:kept])
        assert log.horizon == (chunks[kept - 1][1] if kept else 0)
        assert log.truncated_bytes == cut - sizes[kept]
    with opened(path, writable=True) as log:
        assert path.stat().st_size == sizes[kept]
        if log.end is None:
            log.append(Event(log.horizon, INPUT, "after", b"!"))
            log.close_chunk(log.horizon)
    with opened(path) as log:
        assert log.truncated_bytes == 0


def check_flip(path: Path, whole: bytes, bit: int, sizes: list[int]) -> None:
    """A flip is refused, unless it hits the last chunk: that may pass for a torn tail."""
    data = bytearray(whole)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    loaded = load(path)
    if loaded is None:
        return
    events, truncated = loaded
    assert bit // 8 >= sizes[-2]
    assert events == expected_events(SAMPLE[:-1])
    assert truncated == sizes[-1] - sizes[-2]


def test_bit_flips_sample(path: Path) -> None:
    sizes = write_log(path, SAMPLE)
    whole = path.read_bytes()
    for bit in random.Random(3).sample(range(len(whole) * 8), 1000):
        check_flip(path, whole, bit, sizes)


@pytest.mark.slow
def test_every_bit_flip(path: Path) -> None:
    sizes = write_log(path, SAMPLE)
    whole = path.read_bytes()
    for bit in range(len(whole) * 8):
        check_flip(path, whole, bit, sizes)


@relaxed
@given(chunk_lists(), st.data())
def test_any_flip_in_any_log_gives_a_prefix_or_an_error(path: Path, chunks: list[Chunk], data: st.DataObject) -> None:
    sizes = write_log(path, chunks)
    damaged = bytearray(path.read_bytes())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    loaded = load(path)
    if loaded is not None:
        assert loaded == (expected_events(chunks[:-1]), sizes[-1] - sizes[-2])


def test_moved_chunks_are_noticed(path: Path) -> None:
    sizes = write_log(path, SAMPLE)
    whole = path.read_bytes()
    head = whole[: sizes[0]]
    chunks = [whole[start:end] for start, end in itertools.pairwise(sizes)]
    for order in ([0, 2, 3, 4], [1, 2, 3, 4], [0, 1, 3, 2, 4], [0, 0, 1, 2, 3, 4], [0, 1, 2, 4]):
        assert "expected chunk number" in refused(path, head + b"".join(chunks[index] for index in order))


def test_a_chunk_of_another_recording_is_noticed(path: Path, tmp_path: Path) -> None:
    sizes = write_log(path, SAMPLE)
    other = tmp_path / "other.log"
    log = EventLog.create(other, bytes(16))
    for events, horizon in SAMPLE:
        for event in events:
            log.append(event)
        log.close_chunk(horizon)
    log.close()
    ours, theirs = path.read_bytes(), other.read_bytes()
    assert "log goes on" in refused(path, ours[: sizes[1]] + theirs[sizes[1] : sizes[2]] + ours[sizes[2] :])


def test_zeros_at_the_end_are_a_torn_tail(path: Path) -> None:
    """What a file system may leave after a power failure."""
    write_log(path, SAMPLE)
    path.write_bytes(path.read_bytes() + bytes(3_000_000))
    with opened(path) as log:
        assert all_events(log) == expected_events(SAMPLE)
        assert log.truncated_bytes == 3_000_000


def test_damage_far_before_the_next_chunk_is_corruption(path: Path) -> None:
    noise = random.Random(4).randbytes(1 << 20)
    write_log(path, [([Event(0, INPUT, "net", noise)] * 3, 0), ([], 1)])
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    assert f"offset 32: expected a chunk header; the log goes on at offset {len(data) - 52}" in refused(path, data)


def test_the_next_chunk_is_found_wherever_it_stands(path: Path) -> None:
    """The search reads blocks of 1 MiB from the byte behind the damaged chunk's first: headers across a boundary."""
    for shift in range(-4, 2):
        length = (1 << 20) + shift + 1 - 52
        data = bytearray(HandMade().add(bytes(length), count=1).add(b"", count=0, first=100).data)
        data[32] ^= 1
        assert f"the log goes on at offset {32 + 52 + length}" in refused(path, data)


# Files that are no log of ours


def test_foreign_files_are_refused(path: Path, tmp_path: Path) -> None:
    for data in (b"", b"RRGDBLOG", b"\x7fELF" + bytes(100), bytes(5000)):
        assert "expected the header of an rrgdb event log" in refused(path, data)
    assert "cannot open" in refused(tmp_path / "missing")
    assert "not a regular file" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refused(tmp_path / "pipe")


def test_versions(path: Path) -> None:
    assert "expected log version 1.0, got 2.0" in refused(path, HandMade(major=2).data)
    assert "expected log version 1.0, got 0.9" in refused(path, HandMade(major=0, minor=9).data)
    path.write_bytes(HandMade(minor=3).add(b"", count=0).data)
    with opened(path) as log:
        assert log.horizon == 100
    with pytest.raises(LogError, match=r"expected log version 1.0, got 1.3"):
        EventLog.open(path, RECORDING, writable=True)


def test_another_recording_is_refused(path: Path) -> None:
    write_log(path, SAMPLE)
    with pytest.raises(LogError, match=f"expected recording {'ff' * 16}, got {RECORDING.hex()}"):
        EventLog.open(path, b"\xff" * 16)
    with opened(path, None) as log:
        assert log.recording_id == RECORDING


EVENT = b"\0\0\3rtc\0\1x"


@pytest.mark.parametrize(
    ("raw", "count", "what"),
    [
        (EVENT[:-1], 1, "expected an event of at most 0 bytes"),
        (EVENT[:3], 0, "expected 0 events in 3 bytes"),
        (EVENT + b"\0", 1, "expected 1 events in 10 bytes, they take 9"),
        (EVENT[:6] + b"\x09\0", 1, "event kind 9 is unknown"),
        (b"\1" + EVENT[1:], 1, "expected delta 0"),
        (b"\0\1\3rtc\0\0", 1, "expected a source index up to 0, got 1"),
        (b"\0\0\0\0\0", 1, "expected a source name of 1 to 64 bytes, got 0"),
        (b"\0\0\x41" + b"a" * 65 + b"\0\0", 1, "expected a source name of 1 to 64 bytes, got 65"),
        (b"\0\0\1\xff\0\0", 1, "expected a source name in UTF-8"),
        (EVENT + b"\0\1\3rtc\0\0", 2, "'rtc' is defined twice"),
        (EVENT + b"\x65\0\0\0", 2, "expected icounts up to 100, got 0 and 101 more"),
        (EVENT + b"\x80\0\0\0\0", 2, "expected a varint"),
        (EVENT + b"\xff" * 9 + b"\x7f\0\0\0", 2, "expected a varint"),
        (EVENT + b"\xff" * 12, 2, "expected a varint"),
        (b"\0\0\3rtc\3\0" + b"\0\0\0\0", 2, "expected no event behind the end"),
        (b"\0\0\1x\0\xff\xff\xff\x7f" + b"\0", 1, "expected an event of at most 1 bytes"),
    ],
)
def test_hand_made_chunks(path: Path, raw: bytes, count: int, what: str) -> None:
    text = refused(path, HandMade().add(raw, count=count).data)
    assert "offset 32: " in text
    assert what in text


def test_hand_made_headers(path: Path) -> None:
    assert "a count that fits" in refused(path, HandMade().add(EVENT, count=3).data)
    assert "icounts from 0 on" in refused(path, HandMade().add(EVENT, count=1, first=101).data)
    twice = HandMade().add(b"", count=0, first=100, horizon=100)
    assert "icounts from 100 on" in refused(path, twice.add(EVENT, count=1, first=99).data)
    assert "lengths that fit" in refused(path, HandMade().add(EVENT, count=1, raw_length=8).data)
    assert "lengths that fit" in refused(path, HandMade().add(EVENT, count=1, raw_length=20, codec=7).data)
    assert "valid zstd frame" in refused(path, HandMade().add(EVENT, count=1, raw_length=20, codec=ZSTD).data)
    big = HandMade().add(bytes(MAX_RAW + 1), count=1)
    assert "lengths that fit" in refused(path, big.data)


def test_bombs(path: Path) -> None:
    bomb = zstandard.compress(bytes(MAX_RAW))
    text = refused(path, HandMade().add(bomb, count=MAX_RAW // 4, raw_length=MAX_RAW, codec=ZSTD).data)
    assert "lengths that fit" in text
    raw_length = (52 + len(bomb)) * 32
    assert "expected a zstd frame of" in refused(
        path, HandMade().add(bomb, count=1, raw_length=raw_length, codec=ZSTD).data
    )
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(5000))
    assert "zstd frame" in refused(path, HandMade().add(unsized, count=1, raw_length=1500, codec=ZSTD).data)
    frame = zstandard.compress(EVENT + b"\0\0\0\0" * 100)
    trailing = HandMade().add(frame + b"junk", count=101, raw_length=409, codec=ZSTD)
    assert "valid zstd frame" in refused(path, trailing.data)


def fuzz(path: Path, seed: int) -> None:
    """Random bytes where a writer puts events, under right checksums; a valid log with random bytes put over it."""
    source = random.Random(seed)
    raw = bytearray(EVENT + b"".join(bytes((source.randrange(3), 0, source.randrange(4), 1, 65)) for _ in range(20)))
    for _ in range(source.randrange(4)):
        raw[source.randrange(len(raw))] = source.randrange(256)
    hand_made = HandMade().add(bytes(raw), count=source.choice([21, 21, 21, source.randrange(30)])).data
    damaged = bytearray(hand_made)
    at = source.randrange(len(damaged))
    damaged[at : at + source.randrange(9)] = source.randbytes(source.randrange(9))
    for data in (hand_made, bytes(damaged), source.randbytes(source.randrange(300)), hand_made[:32] + bytes(raw)):
        path.write_bytes(data)
        loaded = load(path)
        if loaded is not None:
            events, truncated = loaded
            assert sum(map(len, events)) <= 30
            assert 0 <= truncated <= len(data) - 32


def test_fuzz_sample(path: Path) -> None:
    for seed in range(300):
        fuzz(path, seed)


@pytest.mark.slow
def test_fuzz(path: Path) -> None:
    for seed in range(300, 30_000):
        fuzz(path, seed)


# Writers that die, disks that fill

WRITER = textwrap.dedent(
    """
    import random, sys
    from pathlib import Path
    from rrgdb.recording.log import Event, EventKind, EventLog
    source = random.Random(int(sys.argv[2]))
    log = EventLog.create(Path(sys.argv[1]), bytes(range(16)))
    icount = 0
    while True:
        for _ in range(source.randrange(5)):
            icount += source.randrange(100)
            log.append(Event(icount, EventKind(source.randrange(3)), "s%d" % source.randrange(9),
                             source.randbytes(source.choice([1, 8, 5000, 60000]))))
        icount += 1
        log.close_chunk(icount)
        sys.stdout.write("%d\\n" % icount)
        sys.stdout.flush()
    """
)


def written_up_to(seed: int, horizon: int) -> list[list[Event]]:
    """What WRITER has appended when it closes the chunk of this horizon."""
    source = random.Random(seed)
    events: list[Event] = []
    icount = 0
    while icount < horizon:
        for _ in range(source.randrange(5)):
            icount += source.randrange(100)
            kind, name = EventKind(source.randrange(3)), f"s{source.randrange(9)}"
            events.append(Event(icount, kind, name, source.randbytes(source.choice([1, 8, 5000, 60000]))))
        icount += 1
    assert icount == horizon
    return [[event for event in events if event.kind == kind] for kind in EventKind]


def kill_writer(path: Path, seed: int) -> None:
    path.unlink(missing_ok=True)
    with subprocess.Popen([sys.executable, "-c", WRITER, path, str(seed)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        reported = 0
        for _ in range(random.Random(seed).randrange(1, 150)):
            reported = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        reported = max([reported, *(int(line) for line in writer.stdout.read().split(b"\n")[:-1])])
    with opened(path, writable=True) as log:
        assert log.horizon >= reported
        assert all_events(log) == written_up_to(seed, log.horizon)


def test_a_killed_writer_sample(path: Path) -> None:
    for seed in range(4):
        kill_writer(path, seed)


@pytest.mark.slow
def test_a_killed_writer(path: Path) -> None:
    for seed in range(4, 104):
        kill_writer(path, seed)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_full_disk_keeps_earlier_chunks(path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """The write comes back short first, as a real one does, and then fails; later there is room again."""
    write = os.write
    room = 0

    def short_write(fd: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(code, os.strerror(code))
        room, count = 0, min(room, len(data))
        return write(fd, data[:count])

    log = EventLog.create(path, RECORDING)
    log.append(Event(1, INPUT, "uart0", b"first"))
    log.close_chunk(5)
    size = log.size
    log.append(Event(6, INPUT, "uart1", b"second" * 50))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short_write)
        for room in (0, 1, 51, 60):  # noqa: B007 - short_write takes from it
            with pytest.raises(LogError, match="the recording ends at icount 5") as caught:
                log.close_chunk(9)
            assert ("disk full" if code == errno.ENOSPC else os.strerror(code)) in str(caught.value)
            assert path.stat().st_size == log.size == size
            assert log.horizon == 5
            assert log.pending
    log.close_chunk(9)
    log.close()
    with opened(path) as log:
        assert [event.payload for event in log.inputs] == [b"first", b"second" * 50]
        assert log.truncated_bytes == 0


def test_a_tail_that_cannot_be_cut_ends_writing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "broken")

    log = EventLog.create(path, RECORDING)
    log.close_chunk(5)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        patch.setattr(os, "ftruncate", fail)
        with pytest.raises(LogError, match="broken"):
            log.close_chunk(6)
    with pytest.raises(LogError, match="earlier write failed: the recording ends at icount 5"):
        log.close_chunk(7)
    log.close()
    with opened(path) as log:
        assert log.horizon == 5


def test_a_file_size_limit(path: Path) -> None:
    code = WRITER.replace("import random", "import resource, random").replace(
        "log =", f"resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, {resource.RLIM_INFINITY}))\nlog ="
    )
    run = subprocess.run(
        [sys.executable, "-c", code, path, "7"], capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 1
    with opened(path) as log:
        assert f"{path}: File too large: the recording ends at icount {log.horizon}\n" in run.stderr
        assert log.truncated_bytes == 0
        assert log.horizon == int(run.stdout.split()[-1])
        assert all_events(log) == written_up_to(7, log.horizon)
