"""Hostile bytes: the dispatcher never raises, and what it answers fits into a packet."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rrgdb.rsp import faces
from rrgdb.rsp.commands import COMMANDS
from rrgdb.rsp.packets import PACKET_SIZE, Decoder, Packet, encode
from rrgdb_tests.rsp.fake import FakeDebuggee
from rrgdb_tests.rsp.program import Program
from rrgdb_tests.rsp.stub import Stub

PIECES = st.sampled_from(
    [
        b"80000000", b"0", b"-1", b"p1.1", b"ffffffffffffffff", b"1", b",", b";", b":", b"=", b"X3,220127", b"cmds:",
        b"27", b"features:read:target.xml:", b"memory:", b"c", b"s", b"r", b"t", b"g", b"?", b"multiprocess+",
        b"error-message+", b"10", b"7365656b20656e64", b"6261636b", b"\x00", b"}", b"\xff", b"start=1000", b"prev=1000",
        b"2f6574632f6d6f7464,0,0", b":0,1000",
    ]
)  # fmt: skip
ARGUMENTS = st.lists(PIECES | st.binary(max_size=4), max_size=8).map(b"".join)
PACKETS = st.binary(max_size=60) | st.tuples(
    st.sampled_from([command.name + command.separator[:1] for command in COMMANDS]), ARGUMENTS
).map(b"".join)
FOR_PROGRAMS = st.tuples(
    st.sampled_from(
        [
            command.name + command.separator[:1]
            for command in COMMANDS
            if command.face in (faces.AUXV, faces.LIBRARIES, faces.SYSCALLS, faces.FILES)
        ]
    ),
    ARGUMENTS | st.binary(max_size=60),
).map(b"".join)


def serve_all(packets: list[bytes], debuggee: type[FakeDebuggee] = FakeDebuggee) -> None:
    stub = Stub(debuggee(end=50))
    for packet in packets:
        reply = stub.handle(packet)
        assert reply is None or len(reply) <= PACKET_SIZE
        if reply is not None:
            assert Decoder().feed(encode(reply)) == [Packet(reply)]
    stub.session.drop()


@given(st.lists(PACKETS, max_size=12))
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_packets(packets: list[bytes]) -> None:
    serve_all(packets)


@given(st.lists(FOR_PROGRAMS | FOR_PROGRAMS | PACKETS, max_size=12))
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_packets_for_a_program(packets: list[bytes]) -> None:
    serve_all(packets, Program)


@pytest.mark.slow
@given(st.lists(PACKETS, max_size=40))
@settings(max_examples=20_000, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_packets_for_long(packets: list[bytes]) -> None:
    serve_all(packets)


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_huge_arguments(name: bytes) -> None:
    for filler in (b"f", b",", b";", b":", b"\xff", b"00", b"X1,27"):
        packet = name + filler * (PACKET_SIZE // len(filler) - 16)
        serve_all([packet])
        serve_all([packet], Program)
