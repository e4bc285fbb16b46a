"""The door: the one implementation of the host. It records what enters a guest, replays it, or diverts the guest.

Payload of an answer: one byte question, then the answer: ``W`` wall clock, 8 bytes nanoseconds (unsigned,
little-endian); ``E`` entropy, the random bytes; ``S`` sleep that was cut short, 8 bytes nanoseconds. So a replayed
guest that asks something else is noticed. Payload of an input: the bytes delivered, as they are.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from rrgdb.errors import Error
from rrgdb.host import Journal
from rrgdb.recording.events import MAX_PAYLOAD, MAX_SOURCES, Event, EventKind, check_source_name
from rrgdb.recording.log import EventLog
from rrgdb.recording.output import OutputStream

MAX_ENTROPY = 4096
"""bytes of one request"""
INBOX = 1 << 20
"""bytes of live input that may wait, for each source"""
DEBUGGER = "debugger"
"""source of the memory and register writes that a debugger makes at the live present"""

_STATE = struct.Struct("<BQQB")
_STATE_VERSION = 1


class Mode(Enum):
    """RECORD: answers come from the world and are logged; what the log already holds behind the position is answered
    from it first. REPLAY: from the log. DIVERT: made up, a function of the position; nothing is logged or shown."""

    RECORD = auto()
    REPLAY = auto()
    DIVERT = auto()


class Divergence(Error):
    """The replayed guest does not do what the log says; one line. ``reason`` is a clause that says why it may be so."""

    def __init__(self, icount: int, expected: str, got: str, reason: str = "") -> None:
        line = f"replay diverges at icount {icount}: the recording has {expected}, the guest {got}"
        super().__init__(f"{line} ({reason})" if reason else line)
        self.icount = icount
        self.expected = expected
        self.got = got
        self.reason = reason

    def __reduce__(self) -> tuple[type[Divergence], tuple[int, str, str, str]]:
        return type(self), (self.icount, self.expected, self.got, self.reason)


class HistoryEnd(Error):
    """Replay needs an answer that lies behind the end of the log; ``icount`` is the executing instruction."""

    def __init__(self, icount: int) -> None:
        super().__init__(f"the recording ends at icount {icount}")
        self.icount = icount


def _describe(payload: bytes) -> str:
    kinds = {b"W": "the wall clock", b"S": "the end of a sleep"}
    return kinds.get(payload[:1], f"{len(payload) - 1} random bytes")


class Door(Journal):
    """One guest's door. Everything but ``feed``, ``feed_all``, ``has_pending_input`` and ``close`` belongs to the
    engine thread.

    ``position``: number of the executing instruction. ``virtual_ns``: icount to virtual time in nanoseconds, for the
    wall clock of diversions. ``reason``: why a replay may diverge, for ``Divergence``. ``wake`` is called, on the
    feeding thread, when live input has arrived.
    """

    def __init__(
        self,
        log: EventLog,
        position: Callable[[], int],
        *,
        virtual_ns: Callable[[int], int] = lambda icount: icount,
        clock: Callable[[], int] = time.time_ns,
        random: Callable[[int], bytes] = os.urandom,
        reason: str = "",
    ) -> None:
        self.log = log
        self.recording, self.replaying = False, True
        self.wake: Callable[[], None] = lambda: None
        self.rest: Callable[[int | None], int] = lambda ns: ns or 0
        """at the live present: sleep, as ``Host.sleep`` says"""
        self.reason = reason
        self.woken = threading.Event()
        """set, on whatever thread, when a sleep is to end"""
        self._position = position
        self._virtual_ns = virtual_ns
        self._clock = clock
        self._random = random
        self._answered = 0
        self._delivered = 0
        self._sinks: dict[str, Callable[[bytes], None]] = {}
        self._streams: dict[str, OutputStream] = {}
        self._inbox: deque[tuple[str, bytes]] = deque()
        self._waiting: dict[str, int] = {}
        self._room = threading.Condition()
        self._closed = False

    def divergence(self, icount: int, expected: str, got: str) -> Divergence:
        return Divergence(icount, expected, got, self.reason)

    # Answers

    def wall_clock_ns(self, source: str) -> int:
        """See ``Host``; raises Divergence or HistoryEnd in replay."""
        icount = self._position()
        if self.mode is Mode.DIVERT:
            return self._diverted_clock(icount)
        payload = self._logged_answer(icount, source, b"W", 8)
        if payload is None:
            payload = self._record_answer(icount, source, b"W" + self._clock().to_bytes(8, "little"))
        return int.from_bytes(payload[1:], "little")

    def entropy(self, source: str, length: int) -> bytes:
        """See ``Host``; raises Divergence or HistoryEnd in replay, ValueError for more than 4096 bytes."""
        if not 0 <= length <= MAX_ENTROPY:
            raise ValueError(f"expected a length of 0 to {MAX_ENTROPY} bytes, got {length}")
        icount = self._position()
        if self.mode is Mode.DIVERT:
            seed = self.log.recording_id + icount.to_bytes(8, "little") + source.encode()
            return hashlib.shake_256(seed).digest(length)
        payload = self._logged_answer(icount, source, b"E", length)
        if payload is None:
            payload = self._record_answer(icount, source, b"E" + self._random(length))
        return payload[1:]

    def sleep(self, source: str, icount: int, ns: int | None) -> int:
        """See ``Host``; raises Divergence in replay."""
        if self.mode is Mode.DIVERT:
            return ns or 0
        if self._answered < len(self.log.answers):
            event = self.log.answers[self._answered]
            if event.icount == icount and event.source == source and event.payload[:1] == b"S":
                slept = int.from_bytes(event.payload[1:], "little")
                if len(event.payload) != 9 or (ns is not None and slept >= ns):
                    raise self.divergence(icount, f"a sleep of {slept} ns", f"sleeps {ns} ns at most")
                self._answered += 1
                return slept
        if self.mode is not Mode.RECORD or self._answered < len(self.log.answers):
            return ns or 0
        slept = self.rest(ns)
        if slept != (ns or 0):
            self._record_answer(icount, source, b"S" + slept.to_bytes(8, "little"))
        return slept

    def _logged_answer(self, icount: int, source: str, question: bytes, length: int) -> bytes | None:
        """The next answer in the log, checked against the question; None if it is to be asked of the world."""
        if self._answered == len(self.log.answers):
            if self.mode is Mode.RECORD:
                return None
            if icount >= self.log.horizon:
                raise HistoryEnd(icount)
            raise self.divergence(
                icount, "no further question", f"asks for {_describe(question + bytes(length))} ({source})"
            )
        event = self.log.answers[self._answered]
        payload = event.payload
        same_question = payload[:1] == question and len(payload) == 1 + length
        if event.icount != icount or event.source != source or not same_question:
            expected = f"a question for {_describe(payload)} ({event.source}) at icount {event.icount}"
            raise self.divergence(icount, expected, f"asks for {_describe(question + bytes(length))} ({source})")
        self._answered += 1
        return payload

    def _record_answer(self, icount: int, source: str, payload: bytes) -> bytes:
        self.log.append(Event(icount, EventKind.ANSWER, source, payload))
        self._answered += 1
        return payload

    def _diverted_clock(self, icount: int) -> int:
        """The last wall clock that the guest saw, plus the virtual time since."""
        for index in range(self._answered - 1, -1, -1):
            event = self.log.answers[index]
            if event.payload[:1] == b"W":
                last = int.from_bytes(event.payload[1:], "little")
                return last + self._virtual_ns(icount) - self._virtual_ns(event.icount)
        return self._virtual_ns(icount)

    # What somebody outside does to the guest: see ``Journal``

    @property
    def mode(self) -> Mode:
        return Mode.RECORD if self.recording else Mode.REPLAY if self.replaying else Mode.DIVERT

    @mode.setter
    def mode(self, mode: Mode) -> None:
        # Hooks of scripts ask for these all the time.
        self.recording, self.replaying = mode is Mode.RECORD, mode is Mode.REPLAY

    def noted(self, source: str, icount: int, data: bytes) -> None:
        self._expect_record()
        self.forget_future()
        self.log.append(Event(icount, EventKind.INPUT, source, data))
        self._delivered += 1

    def answered(self, source: str, icount: int, payload: bytes) -> None:
        if not self.recording:
            self._expect_record()
        self.log.append(Event(icount, EventKind.ANSWER, source, payload))
        self._answered += 1

    def next_answer(self, source: str) -> tuple[int, bytes] | None:
        if self._answered == len(self.log.answers):
            return None
        event = self.log.answers[self._answered]
        return (event.icount, event.payload) if event.source == source else None

    def take_answer(self) -> None:
        self._answered += 1

    # Inputs

    def attach_input(self, source: str, sink: Callable[[bytes], None]) -> None:
        check_source_name(source)
        if source in self._sinks:
            raise ValueError(f"input source {source!r} has a receiver already")
        with self._room:
            self._sinks[source] = sink
            self._waiting[source] = 0

    def feed(self, source: str, data: bytes | memoryview) -> int:
        """Live bytes arrived (thread-safe). Returns how many were taken: those beyond 1 MiB waiting are not.
        ValueError if the guest does not listen to ``source``."""
        with self._room:
            if source not in self._waiting:
                raise ValueError(f"the guest has no input source {source!r}")
            taken = bytes(data[: INBOX - self._waiting[source]])
            if taken:
                self._inbox.append((source, taken))
                self._waiting[source] += len(taken)
        if taken:
            self.wake()
            self.woken.set()
        return len(taken)

    def feed_all(self, source: str, data: bytes) -> None:
        """As ``feed``, but waits for room until all is taken or the door is closed (thread-safe; never on the engine
        thread): back-pressure for a backend's reader."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.feed(source, rest) :]
            with self._room:
                self._room.wait_for(lambda: self._closed or self._waiting[source] < INBOX)
                if self._closed:
                    return

    def close(self) -> None:
        """Let go of those who wait in ``feed_all`` (thread-safe, idempotent)."""
        with self._room:
            self._closed = True
            self._room.notify_all()

    @property
    def has_pending_input(self) -> bool:
        """Whether live input waits for ``take_inputs`` (thread-safe, cheap)."""
        return bool(self._inbox)

    def take_inputs(self, icount: int) -> int:
        """RECORD: log and deliver what has arrived, at position ``icount``; returns the number of inputs."""
        self._expect_record()
        count = 0
        while self._inbox:
            with self._room:
                source, data = self._inbox.popleft()
                self._waiting[source] -= len(data)
                self._room.notify_all()
            self.inject(source, icount, data)
            count += 1
        return count

    def inject(self, source: str, icount: int, data: bytes) -> None:
        """RECORD: log one input and deliver it at position ``icount``, past the inbox (a debugger's write).

        What a guest that ran ahead and was brought back has logged behind this position, is forgotten. ValueError if
        that is written already: the position is not the present."""
        self._expect_record()
        if source not in self._sinks:
            raise ValueError(f"the guest has no input source {source!r}")
        if len(data) > MAX_PAYLOAD:
            raise ValueError(f"expected at most {MAX_PAYLOAD} bytes, got {len(data)}")
        self.forget_future()
        self.log.append(Event(icount, EventKind.INPUT, source, data))
        self._delivered += 1
        self._sinks[source](data)

    def _expect_record(self) -> None:
        if not self.recording:
            raise ValueError("inputs can be recorded at the live present only")

    def forget_future(self) -> None:
        """Drop events that are logged but not written, and output that is not shown, of a guest that ran ahead and was
        brought back with ``load``. ValueError if such events are written."""
        if self._answered < len(self.log.answers) or self._delivered < len(self.log.inputs):
            self.log.drop_pending(self._answered, self._delivered)
        for stream in self._streams.values():
            stream.forget_future()

    def next_input(self) -> int | None:
        """REPLAY: icount of the next input that is not delivered yet."""
        if self._delivered == len(self.log.inputs):
            return None
        return self.log.inputs.icount(self._delivered)

    @property
    def next_event(self) -> Event | None:
        """REPLAY: the next input that is not delivered yet."""
        return None if self._delivered == len(self.log.inputs) else self.log.inputs[self._delivered]

    def deliver(self, icount: int, most: int | None = None) -> int:
        """REPLAY: deliver the inputs of position ``icount``, at most so many; returns their number.

        Divergence if the guest came past an input, or past an answer that it did not ask for."""
        if self._answered < len(self.log.answers) and self.log.answers.icount(self._answered) < icount:
            event = self.log.answers[self._answered]
            expected = f"a question for {_describe(event.payload)} ({event.source}) at icount {event.icount}"
            raise self.divergence(icount, expected, "did not ask it")
        count = 0
        while count != most and (due := self.next_input()) is not None and due <= icount:
            event = self.log.inputs[self._delivered]
            if due < icount:
                raise self.divergence(icount, f"an input ({event.source}) at icount {due}", "ran past it")
            if event.source not in self._sinks:
                raise self.divergence(icount, f"an input for {event.source!r}", "does not listen to it")
            self._delivered += 1
            self._sinks[event.source](event.payload)
            count += 1
        return count

    # Output

    def output(self, source: str, data: bytes) -> None:
        self._stream(source).emit(data, show=self.mode is not Mode.DIVERT)

    def _stream(self, source: str) -> OutputStream:
        stream = self._streams.get(source)
        if stream is None:
            check_source_name(source)
            if len(self._streams) == MAX_SOURCES:
                raise ValueError(f"output source {source!r} is one more than the {MAX_SOURCES} that fit")
            stream = self._streams[source] = OutputStream()
        return stream

    def set_output(self, source: str, write: Callable[[bytes], None] | None) -> None:
        """Where bytes of ``source`` go from now on; None: nowhere."""
        self._stream(source).write = write

    @property
    def all_told(self) -> bool:
        """Whether all output up to the present position has been taken for showing."""
        return all(stream.emitted <= stream.furthest for stream in self._streams.values())

    @property
    def output_pending(self) -> bool:
        """Whether ``flush_output`` has something to show."""
        return any(stream.pending for stream in self._streams.values())

    def flush_output(self) -> None:
        """Hand buffered output to the backends; in RECORD the caller has closed the log chunk that covers it."""
        for stream in self._streams.values():
            stream.flush()

    # State

    def save(self) -> bytes:
        """The door's part of the guest's state: cursors into the log and the bytes emitted by each source."""
        emitted = {name: stream.emitted for name, stream in self._streams.items() if stream.emitted}
        state = [_STATE.pack(_STATE_VERSION, self._answered, self._delivered, len(emitted))]
        for name in sorted(emitted):
            encoded = name.encode()
            state.append(bytes((len(encoded),)) + encoded + emitted[name].to_bytes(8, "little"))
        return b"".join(state)

    def load(self, state: bytes) -> None:
        """Go where ``save`` was called; ValueError if it is no such state or does not fit this log."""
        if len(state) < _STATE.size:
            raise ValueError(f"door: expected a state of at least {_STATE.size} bytes, got {len(state)}")
        version, answered, delivered, count = _STATE.unpack_from(state)
        if version != _STATE_VERSION:
            raise ValueError(f"door: expected state version {_STATE_VERSION}, got {version}")
        if answered > len(self.log.answers) or delivered > len(self.log.inputs):
            raise ValueError(f"door: the log has fewer than {answered} answers or {delivered} inputs")
        emitted: dict[str, int] = {}
        at = _STATE.size
        for _ in range(count):
            end = at + 1 + state[at] if at < len(state) else at
            if len(state) < end + 8 or end == at:
                raise ValueError(f"door: expected an output source at byte {at} of the state")
            emitted[state[at + 1 : end].decode()] = int.from_bytes(state[end : end + 8], "little")
            at = end + 8
        if at != len(state) or list(emitted) != sorted(emitted) or len(emitted) != count or 0 in emitted.values():
            raise ValueError(f"door: expected {count} output sources in order and nothing else")
        for name in emitted:
            self._stream(name)
        self._answered, self._delivered = answered, delivered
        for name, stream in self._streams.items():
            stream.emitted = emitted.get(name, 0)
