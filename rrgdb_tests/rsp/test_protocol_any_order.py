"""The rules of a connection under any bytes and any order of results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrgdb.rsp import protocol
from rrgdb.rsp.dispatcher import Call
from rrgdb.rsp.packets import ACK, NACK, Decoder, Event, Packet, Rejected, Signal, encode
from rrgdb.rsp.protocol import MEMORY_SECONDS, Action, Farewell, Order, Send, Serve
from rrgdb_tests.rsp.talk import DAMAGED, DISPATCHER, INT, UNREADABLE, C, D, G, S, Talk, start

FEW = 3
"""packets that may wait here"""
FRAMES = st.none() | st.sampled_from([encode(b""), encode(b"OK"), encode(b"T05")])
SOUND = st.sampled_from([C, S, G, D, INT, INT + C, b"-", DAMAGED, UNREADABLE])
UNSOUND = st.sampled_from([b"+", b"noise", b"$g", b"#67", b"$"]) | st.binary(max_size=3)
SAID = st.lists(SOUND | SOUND | UNSOUND, min_size=1, max_size=5).map(b"".join)


class Connection:
    """A protocol, and the same rules written down as what must have been sent, and be so, after all that happened."""

    def __init__(self) -> None:
        self.protocol = start()
        self.decoder = Decoder()
        self.now = 0.0
        self.steps: Iterator[list[Action]] = iter(())
        self.events: list[Event] = []
        """those that the steps that are left are for"""
        self.turns: list[Event] = []
        self.results: list[tuple[bytes | None, bool, bool]] = []
        """frame, no_ack, last"""
        self.heard = True
        self.lost = False
        self.until = -1
        """the last turn that is to be interrupted"""
        self.remembered = -100.0
        self.sent = b""
        self.calls: list[Call] = []
        self.farewells: list[str] = []
        self.interrupting = False
        self.closed = False

    # what should be

    def over(self) -> int:
        """Turns that are done with."""
        packets = 0
        for number, turn in enumerate(self.turns):
            packets += isinstance(turn, Packet)
            if packets > len(self.results):
                return number
        return len(self.turns)

    def final(self) -> bool:
        return bool(self.results) and self.results[-1][2]

    def serving(self) -> bool:
        return self.over() < len(self.turns) and not self.final() and not self.lost

    def expected(self) -> bytes:
        """All that the turns that were reached have been answered."""
        sent = last = b""
        no_ack = False
        results = iter(self.results)
        for turn in self.turns[: self.over() + 1]:
            if not no_ack and isinstance(turn, Packet | Rejected):
                sent += ACK
            frame = None
            if isinstance(turn, Packet):
                frame, no_ack, final = next(results, (None, no_ack, True))
            elif isinstance(turn, Rejected) or (turn is Signal.BAD_CHECKSUM and no_ack):
                final = False
                frame = encode(b"E16")
            else:
                final = False
                sent += b"" if no_ack else NACK if turn is Signal.BAD_CHECKSUM else last
            sent += frame or b""
            last = frame or last
            if final:
                break
        return sent

    def happens(self, event: Event) -> None:
        if not self.heard or self.final() or self.lost or event in (Signal.ACK, Signal.JUNK):
            return
        if event is Signal.INTERRUPT:
            if self.serving():
                self.until = len(self.turns) - 1
            else:
                self.remembered = self.now
        elif self.serving() and len(self.turns) - self.over() - 1 >= FEW:
            self.heard = False
            self.until = len(self.turns) - 1
        else:
            self.turns.append(event)
            if isinstance(event, Packet) and DISPATCHER.look_up(event.payload).resumes:
                if self.now - self.remembered < MEMORY_SECONDS:
                    self.until = len(self.turns) - 1
                self.remembered = -100.0

    # what is

    def do(self, actions: list[Action]) -> None:
        assert not (self.closed and actions)
        for number, action in enumerate(actions):
            if isinstance(action, Send):
                assert action.data
                self.sent += action.data
            elif isinstance(action, Serve):
                assert number == len(actions) - 1
                assert len(self.calls) == len(self.results)
                turn = [n for n, turn in enumerate(self.turns) if isinstance(turn, Packet)][len(self.calls)]
                assert self.interrupting == (turn <= self.until)
                self.calls.append(action.call)
            elif isinstance(action, Farewell):
                self.farewells.append(action.reason)
            elif action is Order.INTERRUPT:
                assert not self.interrupting
                self.interrupting = True
            elif action is Order.RELENT:
                assert self.interrupting
                self.interrupting = False
            else:
                assert number == len(actions) - 1
                self.closed = True

    def hear(self, said: bytes, pause: float) -> None:
        self.go_on(len(self.events))
        self.now += pause
        self.events = self.decoder.feed(said)
        self.steps = self.protocol.received(said, self.now)

    def go_on(self, many: int) -> None:
        """Do what so many of the events that were heard are for."""
        for _ in range(min(many, len(self.events))):
            self.happens(self.events.pop(0))
            self.do(next(self.steps))
        if not self.events:
            assert list(self.steps) == []

    def result(self, frame: bytes | None, no_ack: bool) -> None:
        if len(self.calls) == len(self.results) or self.lost:
            return
        no_ack = no_ack or (bool(self.results) and self.results[-1][1])
        last = self.calls[-1].payload == b"D"
        self.results.append((frame, no_ack, last))
        self.do(self.protocol.served(frame, no_ack=no_ack, last=last))

    def end(self) -> None:
        if self.heard and not self.closed:
            self.until = len(self.turns) - 1
            self.heard = False
        self.do(self.protocol.ended())

    def lose(self) -> None:
        self.lost = True
        self.do(self.protocol.lost())

    def check(self) -> None:
        expected = self.expected()
        assert expected.startswith(self.sent) if self.lost else self.sent == expected
        came = [turn.payload for turn in self.turns if isinstance(turn, Packet)]
        assert [call.payload for call in self.calls] == came[: len(self.calls)]
        assert 0 <= len(self.calls) - len(self.results) <= 1
        if self.serving():
            assert len(self.turns) - self.over() - 1 <= FEW
        assert self.interrupting == (self.serving() and self.over() <= self.until)
        assert self.closed == (self.lost or self.final() or (not self.heard and not self.serving()))
        assert self.farewells == [] if self.heard else len(self.farewells) == 1


STEP = st.one_of(
    st.builds(lambda said, pause: lambda it: it.hear(said, pause), SAID, st.sampled_from([0.0, 0.3, 1.0])),
    st.builds(lambda many: lambda it: it.go_on(many), st.integers(1, 5)),
    st.builds(lambda frame, no_ack: lambda it: it.result(frame, no_ack), FRAMES, st.sampled_from([False, False, True])),
)
ENDS = st.sampled_from([lambda it: None, Connection.end, Connection.lose])


@given(st.lists(STEP, min_size=10, max_size=40), ENDS, st.lists(STEP, max_size=10))
@settings(max_examples=300, deadline=None)
def test_any_bytes_and_any_order_of_results(
    steps: list[Callable[[Connection], None]],
    end: Callable[[Connection], None],
    more: list[Callable[[Connection], None]],
) -> None:
    connection = Connection()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "QUEUE_LIMIT", FEW)
        for step in (*steps, end, *more):
            step(connection)
            connection.check()


def at_once(talk: Talk, data: bytes) -> list[Action]:
    """Hear data, and serve brief packets between two events."""
    done: list[Action] = []
    for actions in talk.protocol.received(data, 0.0):
        todo = actions
        while todo:
            done += todo
            last = todo[-1]
            todo = talk.reply(b"OK") if isinstance(last, Serve) and last.call.brief else []
    return done


@given(SAID, st.lists(st.integers(0, 60), max_size=6))
def test_how_the_stream_is_cut_does_not_matter(said: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(said)) for cut in cuts), len(said)]
    whole, pieces = Talk(), Talk()
    done = [action for start, end in pairwise(edges) for action in at_once(pieces, said[start:end])]
    assert done == at_once(whole, said)
