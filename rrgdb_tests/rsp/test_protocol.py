"""The rules of a connection, without sockets: examples of each."""

from __future__ import annotations

import pytest

from rrgdb.rsp.packets import ACK, NACK, Packet, Signal, encode
from rrgdb.rsp.protocol import MEMORY_SECONDS, NEXT, QUEUE_LIMIT, Action, Farewell, Input, Order, Send, State
from rrgdb_tests.rsp.talk import DAMAGED, INT, QC, UNREADABLE, C, D, G, S, Talk, serve, start

E16 = Send(encode(b"E16"))
INTERRUPT, RELENT, CLOSE = Order.INTERRUPT, Order.RELENT, Order.CLOSE


# 1. one packet at a time


def test_packets_are_served_one_at_a_time_in_order() -> None:
    talk = Talk()
    assert talk.hear(C + G + QC) == [serve(b"c")]
    assert talk.reply(b"T05") == [Send(encode(b"T05")), serve(b"g")]
    assert talk.hear(S) == []
    assert talk.reply(b"00") == [Send(encode(b"00")), serve(b"qC")]
    assert talk.reply(None) == [serve(b"s")]
    assert talk.reply(b"T05") == [Send(encode(b"T05"))]
    assert talk.protocol.state is State.RESTING


def test_what_the_greeting_brought_is_served_first() -> None:
    talk = start([Packet(b"c"), Signal.INTERRUPT, Signal.ACK])
    assert list(talk.begin(0.0)) == [[Send(ACK), serve(b"c")], [INTERRUPT], []]


@pytest.mark.parametrize("one_more", [G, DAMAGED, b"-", UNREADABLE])
def test_too_many_that_wait_are_as_good_as_the_end(one_more: bytes) -> None:
    talk = Talk(no_ack=False)
    assert talk.hear(C + G * QUEUE_LIMIT) == [Send(ACK), serve(b"c")]
    assert talk.hear(b"+noise") == []
    farewell = Farewell(f"more than {QUEUE_LIMIT} packets wait: connection closed")
    assert talk.hear(one_more + S) == [farewell, INTERRUPT]
    assert talk.hear(S + INT) == talk.protocol.ended() == []
    for _ in range(QUEUE_LIMIT):
        assert talk.reply(None) == [Send(ACK), serve(b"g")]
    assert talk.reply(None) == [RELENT, CLOSE]


def test_a_result_of_nothing_is_a_bug() -> None:
    with pytest.raises(KeyError):
        Talk().reply(b"OK")


# 2. turns and acknowledgements


@pytest.mark.parametrize(
    ("said", "with_acks", "without"),
    [
        (G, [Send(ACK), serve(b"g")], [serve(b"g")]),
        (UNREADABLE, [Send(ACK), E16], [E16]),
        (DAMAGED, [Send(NACK)], [E16]),
        (b"-", [], []),
        (b"+", [], []),
        (b"\r\nnoise", [], []),
        (b"%Stop:T05#ff", [], []),
    ],
)
def test_what_each_gets(said: bytes, with_acks: list[Action], without: list[Action]) -> None:
    assert Talk(no_ack=False).hear(said) == with_acks
    talk = Talk()
    assert talk.hear(said) == without
    if said != G:
        assert talk.protocol.state is State.RESTING


def test_acknowledgements_end_with_the_packet_that_ends_them() -> None:
    talk = Talk(no_ack=False)
    assert talk.hear(encode(b"QStartNoAckMode") + QC + DAMAGED) == [Send(ACK), serve(b"QStartNoAckMode")]
    talk.no_ack = True
    assert talk.reply(b"OK") == [Send(encode(b"OK")), serve(b"qC")]
    assert talk.reply(b"QC1") == [Send(encode(b"QC1")), E16]


def test_the_last_frame_is_sent_again_in_its_turn() -> None:
    talk = Talk(no_ack=False)
    assert talk.hear(b"-") == []
    talk.hear(QC)
    talk.reply(b"QC1")
    assert talk.hear(b"--") == [Send(encode(b"QC1"))] * 2
    assert talk.hear(C + b"-" + UNREADABLE + b"-") == [Send(ACK), serve(b"c")]
    stop = Send(encode(b"T05"))
    assert talk.reply(b"T05") == [stop, stop, Send(ACK), E16, E16]
    talk.hear(encode(b"R00"))
    assert talk.reply(None) == []
    assert talk.hear(b"-") == [E16]


# 3. interrupts


def test_an_interrupt_is_for_all_that_came_before_it() -> None:
    talk = Talk()
    assert talk.hear(C + S + INT + INT + G) == [serve(b"c"), INTERRUPT]
    assert talk.reply(b"T02") == [Send(encode(b"T02")), serve(b"s")]
    assert talk.reply(b"T02") == [RELENT, Send(encode(b"T02")), serve(b"g")]
    assert talk.hear(INT) == [INTERRUPT]
    assert talk.reply(b"00") == [RELENT, Send(encode(b"00"))]


def test_an_interrupt_that_goes_on_may_come_to_be_for_more() -> None:
    talk = Talk()
    assert talk.hear(C + INT + S + INT + C) == [serve(b"c"), INTERRUPT]
    assert talk.reply(None) == [serve(b"s")]
    assert talk.reply(None) == [RELENT, serve(b"c")]


# 4. an interrupt before a resume


@pytest.mark.parametrize("resume", [b"c", b"s", b"C02", b"vCont;c", b"vCont;s:p1.1", b"bc", b"bs"])
@pytest.mark.parametrize(("after", "interrupts"), [(0.0, True), (0.99, True), (MEMORY_SECONDS, False), (60.0, False)])
def test_an_interrupt_at_rest_is_for_a_resume_that_follows_at_once(
    resume: bytes, after: float, interrupts: bool
) -> None:
    talk = Talk()
    assert talk.hear(INT, 100.0) == []
    assert talk.hear(encode(resume), 100.0 + after) == [INTERRUPT] * interrupts + [serve(resume)]
    assert talk.reply(None) == [RELENT] * interrupts
    assert talk.hear(encode(resume), 100.0 + after) == [serve(resume)]


def test_other_packets_leave_an_interrupt_for_the_resume() -> None:
    talk = Talk()
    assert talk.hear(INT + G) == [serve(b"g")]
    assert talk.reply(None) == []
    assert talk.hear(encode(b"vCont?") + C) == [serve(b"vCont?"), INTERRUPT]
    assert talk.reply(None) == [serve(b"c")]
    assert talk.reply(None) == [RELENT]


def test_an_interrupt_behind_a_packet_that_was_served_at_once_is_for_the_resume_behind_it() -> None:
    talk = Talk()
    steps = talk.protocol.received(G + INT + C, 0.0)
    assert next(steps) == [serve(b"g")]
    assert talk.reply(None) == []
    assert list(steps) == [[], [INTERRUPT, serve(b"c")]]


# 5. the end of the stream


def test_the_end_at_rest_closes() -> None:
    talk = Talk()
    assert talk.protocol.ended() == [Farewell(""), CLOSE]
    assert talk.hear(G) == talk.protocol.ended() == talk.protocol.lost() == []


def test_what_came_before_the_end_is_served_and_interrupted() -> None:
    talk = Talk()
    assert talk.hear(C + INT + G + D) == [serve(b"c"), INTERRUPT]
    assert talk.protocol.ended() == [Farewell("")]
    assert talk.reply(b"T02") == [Send(encode(b"T02")), serve(b"g")]
    assert talk.reply(b"00") == [Send(encode(b"00")), serve(b"D")]
    assert talk.reply(b"OK", last=True) == [RELENT, Send(encode(b"OK")), CLOSE]


# 6. the last word


def test_nothing_is_served_or_sent_after_the_last_word() -> None:
    talk = Talk(no_ack=False)
    assert talk.hear(D + C + INT + b"-") == [Send(ACK), serve(b"D"), INTERRUPT]
    assert talk.reply(b"OK", last=True) == [Send(encode(b"OK")), RELENT, CLOSE]
    assert talk.hear(b"-" + G + INT + DAMAGED) == talk.protocol.ended() == talk.protocol.lost() == []


def test_a_peer_that_cannot_be_told_anything_is_left() -> None:
    talk = Talk()
    assert talk.hear(C + S + INT) == [serve(b"c"), INTERRUPT]
    assert talk.protocol.lost() == [RELENT, CLOSE]
    assert talk.reply(b"T02") == []


def test_the_table_leads_from_every_state_to_the_end() -> None:
    assert set(NEXT) == set(State)
    assert all(to[Input.LOST] is State.CLOSED for to in NEXT.values())
    assert set(NEXT[State.CLOSED].values()) == {State.CLOSED}
    reached = {State.RESTING}
    while more := {to for state in reached for to in NEXT[state].values()} - reached:
        reached |= more
    assert reached == set(State)
