"""What waits to be sent."""

from __future__ import annotations

import pytest

from rrgdb.rsp import outbox
from rrgdb.rsp.outbox import Outbox
from rrgdb.rsp.packets import PACKET_SIZE, Decoder, Packet, encode

REPLY = encode(b"T05")


def texts(sent: bytes) -> list[str]:
    """Console output among what was sent."""
    payloads = [event.payload for event in Decoder().feed(sent) if isinstance(event, Packet)]
    return [bytes.fromhex(payload[1:].decode()).decode() for payload in payloads if payload[:1] == b"O"]


def test_what_was_said_comes_before_the_reply_and_is_taken_once() -> None:
    box = Outbox()
    box.say("a\n")
    box.say("b\n")
    box.put(REPLY)
    assert box.take() == encode(b"O610a") + encode(b"O620a") + REPLY
    assert box.take() == b""


def test_what_was_said_waits_for_a_frame_or_to_be_gathered() -> None:
    box = Outbox()
    box.say("a")
    assert box.take() == b""
    box.gather()
    assert box.take() == encode(b"O61")


@pytest.mark.parametrize("text", ["x" * PACKET_SIZE, "\N{SNOWMAN}" * PACKET_SIZE, "\ud800" * PACKET_SIZE])
def test_long_output_is_cut_into_packets(text: str) -> None:
    box = Outbox()
    box.say(text)
    box.gather()
    parts = texts(box.take())
    assert len(parts) == 8
    assert "".join(parts) == text.replace("\ud800", "?")


def test_output_that_nobody_takes_is_dropped_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "CONSOLE_LIMIT", 100)
    box = Outbox()
    for _ in range(100):
        box.say("0123456789")
    box.put(REPLY)
    sent = box.take()
    assert sent.endswith(REPLY)
    assert 100 < len(sent) < 200
    assert [record.getMessage() for record in caplog.records] == [
        "console output dropped: the debugger does not read it"
    ]
    box.say("again")
    box.gather()
    assert texts(box.take()) == ["again"]


def test_replies_are_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "CONSOLE_LIMIT", 0)
    box = Outbox()
    for _ in range(10):
        box.put(REPLY)
    assert box.take() == 10 * REPLY
