"""The door: what was recorded comes back at the same icounts, and anything else is noticed."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rrgdb.recording import door as doors
from rrgdb.recording.door import INBOX, Divergence, Door, HistoryEnd, Mode
from rrgdb.recording.log import Event, EventKind, EventLog
from rrgdb_tests.recording.logs import RECORDING, opened

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.log"


@pytest.fixture
def log(path: Path) -> Iterator[EventLog]:
    log = EventLog.create(path, RECORDING)
    yield log
    log.close()


class Guest:
    """A guest whose next instruction depends on everything that entered before."""

    def __init__(self, log: EventLog, seed: int = 0) -> None:
        world = random.Random(seed)
        times = itertools.count(1_700_000_000_000_000_000, 12_345)
        self.icount = 0
        self.state = 12345
        self.shown: dict[str, bytearray] = {"uart0": bytearray(), "uart1": bytearray()}
        self.door = Door(
            log,
            lambda: self.icount,
            virtual_ns=lambda icount: icount * 10,
            clock=lambda: next(times),
            random=world.randbytes,
        )
        for source in ("uart0", "debugger"):
            self.door.attach_input(source, self.mix)
        for source, shown in self.shown.items():
            self.door.set_output(source, shown.extend)

    def mix(self, data: bytes) -> None:
        for byte in data:
            self.state = (self.state * 1_000_003 + byte + 1) % (1 << 61)

    def step(self) -> None:
        match self.state % 6:
            case 0:
                self.mix(self.door.wall_clock_ns("rtc").to_bytes(8, "little"))
            case 1:
                self.mix(self.door.entropy("rng", self.state % 37))
            case 2:
                self.door.output(f"uart{self.state // 6 % 2}", self.state.to_bytes(8, "little")[: self.state // 12 % 5])
        self.mix(b"-")
        self.icount += 1

    def save(self) -> tuple[int, int, bytes]:
        return self.icount, self.state, self.door.save()

    def load(self, saved: tuple[int, int, bytes]) -> None:
        self.icount, self.state, door = saved
        self.door.load(door)

    def replay_to(self, icount: int) -> None:
        self.door.deliver(self.icount)
        while self.icount < icount:
            self.step()
            self.door.deliver(self.icount)


actions = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.integers(1, 40)),
        st.tuples(st.just("run ahead"), st.integers(1, 40)),
        st.tuples(st.just("feed"), st.binary(min_size=1, max_size=5)),
        st.tuples(st.just("take"), st.none()),
        st.tuples(st.just("inject"), st.binary(max_size=5)),
        st.tuples(st.just("close chunk"), st.none()),
    ),
    max_size=40,
)


def record(path: Path, script: list[tuple[str, object]]) -> tuple[Guest, dict[int, int]]:
    """Record a guest; returns it and its state at every position."""
    path.unlink(missing_ok=True)
    log = EventLog.create(path, RECORDING)
    guest = Guest(log)
    guest.door.mode = Mode.RECORD
    states = {0: guest.state}
    for action, value in [*script, ("close chunk", None)]:
        if action == "run ahead":
            saved = guest.save()
            for _ in range(int(str(value))):
                guest.step()
            guest.load(saved)
        elif action == "run":
            for _ in range(int(str(value))):
                guest.step()
                states[guest.icount] = guest.state
        elif action == "feed":
            assert isinstance(value, bytes)
            assert guest.door.feed("uart0", value) == len(value)
        elif action == "take":
            guest.door.take_inputs(guest.icount)
            assert not guest.door.has_pending_input
        elif action == "inject":
            assert isinstance(value, bytes)
            guest.door.inject("debugger", guest.icount, value)
        else:
            # Answers of a guest that ran ahead lie behind the position; they are asked for again.
            guest.door.forget_future()
            log.close_chunk(guest.icount)
            guest.door.flush_output()
        states[guest.icount] = guest.state
    log.close()
    return guest, states


@relaxed
@given(actions)
def test_replay_equals_the_recording(path: Path, script: list[tuple[str, object]]) -> None:
    recorded, states = record(path, script)
    with opened(path) as log:
        guest = Guest(log, seed=99)
        guest.door.deliver(0)
        assert guest.state == states[0]
        while guest.icount < log.horizon:
            guest.replay_to(guest.icount + 1)
            assert guest.state == states[guest.icount]
        assert guest.save() == recorded.save()
        assert guest.door.next_input() is None
        guest.door.flush_output()
        assert guest.shown == recorded.shown


@relaxed
@given(actions, st.data())
def test_seeks_lead_to_the_same_states_and_show_output_once(
    path: Path, script: list[tuple[str, object]], data: st.DataObject
) -> None:
    recorded, states = record(path, script)
    with opened(path) as log:
        guest = Guest(log, seed=99)
        guest.door.deliver(0)
        saves = [guest.save()]
        for _ in range(8):
            guest.load(data.draw(st.sampled_from(saves)))
            guest.replay_to(data.draw(st.integers(guest.icount, log.horizon)))
            assert guest.state == states[guest.icount]
            if data.draw(st.booleans()):
                guest.door.flush_output()
            saves.append(guest.save())
        guest.replay_to(log.horizon)
        guest.door.flush_output()
        assert not guest.door.output_pending
        assert guest.shown == recorded.shown


def test_recording_goes_on_after_a_replay(path: Path) -> None:
    script: list[tuple[str, object]] = [("run", 30), ("feed", b"ab"), ("take", None), ("run", 30)]
    _, states = record(path, script)
    with opened(path, writable=True) as log:
        guest = Guest(log, seed=5)
        guest.replay_to(60)
        guest.door.mode = Mode.RECORD
        guest.door.feed("uart0", b"more")
        assert guest.door.take_inputs(60) == 1
        for _ in range(60):
            guest.step()
        log.close_chunk(120)
        end = guest.save()
    assert states[60] != guest.state
    with opened(path) as log:
        again = Guest(log, seed=6)
        again.replay_to(120)
        assert again.save() == end


def test_a_guest_that_ran_ahead_takes_the_other_way_after_an_input(log: EventLog) -> None:
    guest = Guest(log)
    guest.door.mode = Mode.RECORD
    before = guest.save()
    for _ in range(200):
        guest.step()
    ahead = len(log.answers)
    assert ahead
    assert guest.door.output_pending
    guest.load(before)
    guest.door.inject("debugger", 0, b"\1")
    assert len(log.answers) == 0
    assert not guest.door.output_pending
    for _ in range(200):
        guest.step()
    log.close_chunk(200)
    guest.door.flush_output()
    replayed = Guest(log, seed=3)
    replayed.replay_to(200)
    replayed.door.flush_output()
    assert replayed.save() == guest.save()
    assert replayed.shown == guest.shown
    guest.load(before)
    with pytest.raises(ValueError, match="expected to keep"):
        guest.door.inject("debugger", 200, b"")


# Divergence


def recorded_door(log: EventLog, position: Callable[[], int]) -> Door:
    """A door in replay: the wall clock at 10, four random bytes at 12, inputs at 15; complete up to 20."""
    log.append(Event(10, EventKind.ANSWER, "rtc", b"W" + (77).to_bytes(8, "little")))
    log.append(Event(12, EventKind.ANSWER, "rng", b"E1234"))
    log.append(Event(15, EventKind.INPUT, "uart0", b"x"))
    log.append(Event(15, EventKind.INPUT, "uart0", b"y"))
    log.close_chunk(20)
    return Door(log, position)


def test_answers_are_checked(log: EventLog) -> None:
    icount = 10
    door = recorded_door(log, lambda: icount)
    start = door.save()
    wrong = [
        lambda: door.entropy("rtc", 8),
        lambda: door.wall_clock_ns("other"),
    ]
    for ask in wrong:
        with pytest.raises(Divergence, match="replay diverges at icount 10: the recording has a question for the wall"):
            ask()
    icount = 9
    with pytest.raises(Divergence, match=r"icount 9: .*\(rtc\) at icount 10, the guest asks for the wall clock"):
        door.wall_clock_ns("rtc")
    icount = 10
    assert door.save() == start
    assert door.wall_clock_ns("rtc") == 77
    icount = 12
    with pytest.raises(
        Divergence, match=r"4 random bytes \(rng\) at icount 12, the guest asks for 5 random bytes"
    ) as it:
        door.entropy("rng", 5)
    assert it.value.icount == 12
    assert "\n" not in str(it.value)
    assert door.entropy("rng", 4) == b"1234"
    icount = 19
    with pytest.raises(Divergence, match="no further question"):
        door.entropy("rng", 4)
    icount = 20
    with pytest.raises(HistoryEnd, match="ends at icount 20") as end:
        door.entropy("rng", 4)
    assert end.value.icount == 20


def test_an_answer_not_asked_for_is_noticed(log: EventLog) -> None:
    door = recorded_door(log, lambda: 0)
    assert door.deliver(10) == 0
    with pytest.raises(Divergence, match=r"icount 11: the recording has a question .*, the guest did not ask it"):
        door.deliver(11)


def test_inputs_are_delivered_in_time_or_not_at_all(log: EventLog) -> None:
    icount = 10
    door = recorded_door(log, lambda: icount)
    got: list[bytes] = []
    assert door.next_input() == 15
    door.wall_clock_ns("rtc")
    icount = 12
    door.entropy("rng", 4)
    with pytest.raises(Divergence, match="does not listen"):
        door.deliver(15)
    door.attach_input("uart0", got.append)
    with pytest.raises(Divergence, match="ran past it"):
        door.deliver(16)
    assert door.deliver(14) == 0
    assert got == []
    assert door.deliver(15) == 2
    assert got == [b"x", b"y"]
    assert door.next_input() is None
    assert door.deliver(20) == 0


# Live input


def test_back_pressure(log: EventLog) -> None:
    door = Door(log, lambda: 0)
    door.mode = Mode.RECORD
    woken: list[int] = []
    got = bytearray()
    door.wake = lambda: woken.append(1)
    door.attach_input("uart0", got.extend)
    assert not door.has_pending_input
    assert door.feed("uart0", b"a" * (INBOX - 1)) == INBOX - 1
    assert door.feed("uart0", b"bc") == 1
    assert door.feed("uart0", b"c") == 0
    assert door.has_pending_input
    assert len(woken) == 2
    assert door.take_inputs(5) == 2
    assert got == b"a" * (INBOX - 1) + b"b"
    assert [event.icount for event in log.inputs] == [5, 5]
    assert door.feed("uart0", b"c") == 1


def test_feeding_threads(log: EventLog) -> None:
    door = Door(log, lambda: 0)
    door.mode = Mode.RECORD
    got = {source: bytearray() for source in ("uart0", "net")}
    sent = {source: random.Random(source).randbytes(5 << 19) for source in got}
    arrived = threading.Event()
    door.wake = arrived.set
    threads = []
    for source, data in sent.items():
        door.attach_input(source, got[source].extend)
        threads.append(threading.Thread(target=door.feed_all, args=(source, data), daemon=True))
        threads[-1].start()
    icount = 0
    while got != sent:
        assert arrived.wait(30)
        arrived.clear()
        icount += 1
        door.take_inputs(icount)
    for thread in threads:
        thread.join(30)
    for source, data in sent.items():
        assert b"".join(event.payload for event in log.inputs if event.source == source) == data


def test_what_waits_is_not_copied_for_each_bit_of_room(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door(log, lambda: 0)
    door.mode = Mode.RECORD
    got = bytearray()
    door.attach_input("uart0", got.extend)
    taken: list[int] = []
    feed = door.feed

    def counting(source: str, data: bytes | memoryview) -> int:
        if isinstance(data, bytes):
            taken.append(len(data))
        return feed(source, data)

    monkeypatch.setattr(door, "feed", counting)
    monkeypatch.setattr(doors, "INBOX", 1 << 10)
    data = bytes(range(256)) * 256
    arrived = threading.Event()
    door.wake = arrived.set
    thread = threading.Thread(target=door.feed_all, args=("uart0", data), daemon=True)
    thread.start()
    while got != data:
        assert arrived.wait(30)
        arrived.clear()
        door.take_inputs(0)
    thread.join(30)
    assert sum(taken) <= 2 * len(data)


def test_close_lets_waiting_threads_go(log: EventLog) -> None:
    door = Door(log, lambda: 0)
    door.attach_input("uart0", lambda data: None)
    full = threading.Event()
    door.wake = full.set
    thread = threading.Thread(target=door.feed_all, args=("uart0", bytes(INBOX + 1)), daemon=True)
    thread.start()
    assert full.wait(30)
    door.close()
    door.close()
    thread.join(30)
    assert not thread.is_alive()


def test_misuse(log: EventLog) -> None:
    door = Door(log, lambda: 0)
    door.attach_input("uart0", lambda data: None)
    with pytest.raises(ValueError, match="a receiver already"):
        door.attach_input("uart0", lambda data: None)
    with pytest.raises(ValueError, match="no input source"):
        door.feed("uart1", b"")
    with pytest.raises(ValueError, match="4096"):
        door.entropy("rng", 4097)
    door.feed("uart0", b"kept")
    for mode in (Mode.REPLAY, Mode.DIVERT):
        door.mode = mode
        with pytest.raises(ValueError, match="live present"):
            door.take_inputs(0)
    door.mode = Mode.RECORD
    with pytest.raises(ValueError, match="no input source"):
        door.inject("uart1", 0, b"")
    with pytest.raises(ValueError, match="1048576"):
        door.inject("uart0", 0, bytes((1 << 20) + 1))
    assert len(log.inputs) == 0
    assert door.take_inputs(0) == 1


# Diversions


def test_a_diversion_is_a_function_of_the_position(log: EventLog) -> None:
    guest = Guest(log)
    door = guest.door
    door.mode = Mode.RECORD
    icount = guest.icount = 100
    seen = door.wall_clock_ns("rtc")
    door.output("uart0", b"before")
    log.close_chunk(101)
    door.flush_output()
    saved = door.save()
    size = log.size
    door.mode = Mode.DIVERT
    runs = []
    for _ in range(2):
        guest.icount = icount + 50
        door.output("uart0", b"never shown")
        runs.append((door.wall_clock_ns("rtc"), door.entropy("rng", 20), door.save()))
        door.load(saved)
    assert runs[0] == runs[1]
    assert runs[0][0] == seen + 500
    guest.icount += 1
    assert door.entropy("rng", 20) != runs[0][1] != door.entropy("rng2", 20)
    assert not log.pending
    assert log.size == size
    door.mode = Mode.RECORD
    door.output("uart0", b" after")
    door.flush_output()
    assert guest.shown["uart0"] == b"before after"


def test_a_diversion_without_a_clock_uses_virtual_time(log: EventLog) -> None:
    door = Door(log, lambda: 30, virtual_ns=lambda icount: icount * 7)
    log.append(Event(1, EventKind.ANSWER, "rng", b"E12"))
    door.mode = Mode.RECORD
    door.load(Door(log, lambda: 0).save())
    door.mode = Mode.DIVERT
    assert door.wall_clock_ns("rtc") == 210


# Output


def test_output_behind_a_seek_is_shown_though_what_was_skipped_was_not(log: EventLog) -> None:
    shown = bytearray()
    door = Door(log, lambda: 0)
    door.set_output("uart0", shown.extend)
    door.output("uart0", b"01234")
    middle = door.save()
    door.output("uart0", b"56789")
    fresh = Door(log, lambda: 0)
    fresh.set_output("uart0", shown.extend)
    fresh.load(middle)
    fresh.output("uart0", b"56")
    fresh.load(Door(log, lambda: 0).save())
    fresh.output("uart0", b"0123")
    assert shown == b""
    fresh.flush_output()
    assert shown == b"56"
    fresh.output("uart0", b"4567")
    assert fresh.output_pending
    fresh.flush_output()
    assert shown == b"567"


def test_what_was_shown_cannot_be_forgotten(log: EventLog) -> None:
    shown = bytearray()
    door = Door(log, lambda: 0)
    door.set_output("uart0", shown.extend)
    start = door.save()
    door.output("uart0", b"abc")
    door.flush_output()
    door.output("uart0", b"not this")
    door.load(start)
    door.forget_future()
    door.output("uart0", b"abcdef")
    door.flush_output()
    assert shown == b"abcdef"


def test_output_without_a_backend_is_counted_only(log: EventLog) -> None:
    door = Door(log, lambda: 0)
    door.output("uart0", b"lost")
    assert not door.output_pending
    shown = bytearray()
    door.set_output("uart0", shown.extend)
    door.output("uart0", b"seen")
    door.flush_output()
    assert shown == b"seen"
    door.set_output("uart0", None)
    door.output("uart0", b"lost")
    door.flush_output()
    assert shown == b"seen"
    assert door.save().endswith(b"\x05uart0" + (12).to_bytes(8, "little"))


# State


def test_the_state_does_not_depend_on_who_listens(log: EventLog) -> None:
    plain, wired = Door(log, lambda: 0), Door(log, lambda: 0)
    wired.set_output("zzz", lambda data: None)
    wired.output("b", b"1")
    for door in (plain, wired):
        door.output("a", b"22")
    plain.output("b", b"1")
    assert plain.save() == wired.save()


@relaxed
@given(st.data())
def test_load_refuses_what_save_did_not_make(path: Path, data: st.DataObject) -> None:
    path.unlink(missing_ok=True)
    log = EventLog.create(path, RECORDING)
    door = Door(log, lambda: 0)
    door.output("uart0", b"1")
    door.output("uart1", b"22")
    state = bytearray(door.save())
    at = data.draw(st.integers(0, len(state)))
    state[at : data.draw(st.integers(at, len(state)))] = data.draw(st.binary(max_size=9))
    try:
        door.load(bytes(state))
    except ValueError:
        assert state != door.save()
    else:
        assert door.save() == state
    log.close()


def test_load_does_not_go_beyond_the_log(log: EventLog) -> None:
    guest = Guest(log)
    guest.door.mode = Mode.RECORD
    guest.door.inject("debugger", 0, b"x")
    state = guest.door.save()
    log.drop_pending(0, 0)
    with pytest.raises(ValueError, match="fewer than 0 answers or 1 inputs"):
        guest.door.load(state)
